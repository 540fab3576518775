"""Our search for register neurons against the published one, which goes through the images one at a time.

Speed: pytest tests/encoder/test_benchmarks_search.py --benchmark-enable --benchmark-group-by=param:task
At SigLIP2-B's width both are bound by the same matrix products on a CPU, so batching gains nothing there; at the embedded study's it gains
most.
"""

import numpy as np
import pytest
import torch

from harness.encoder import tower as tower_model
from harness.encoder.register_search import score_neurons
from harness.encoder.test_time_registers import mlp_output_layer
from harness.study.sections.encoder import Search

DIGITS = {"width": 32, "depth": 6, "heads": 2, "mlp": 64, "patch": 8, "image_size": 32}
SIGLIP2_B = {"width": 768, "depth": 4, "heads": 12, "mlp": 3072, "patch": 16, "image_size": 256}  # with 4 of its 12 layers


def published_search(encoder, images, threshold):
    """What `shared/algorithms.py` and `shared/hook_manager.py` of the test-time-registers code do: (layer, neuron) from best to worst.

    For each image: hooks that log every layer's attention maps, outputs and activations are set anew, the tower runs with eager attention
    and a softmax in float32, the logs go to numpy, the mean token stands in for a CLS token, and every layer's neurons are scored.
    """
    encoder.tower.set_attn_implementation("eager")
    neurons = mlp_output_layer(encoder.layers[0]).in_features
    scores, counted, handles = torch.zeros(len(images), encoder.depth, neurons), 0, []
    logs = {"attention": [], "outputs": [], "activations": []}

    def with_mean_token(log):
        log = torch.from_numpy(np.concatenate(log, axis=0))
        return torch.cat([log.mean(dim=1, keepdim=True), log], dim=1)

    for image in images:
        for handle in handles:
            handle.remove()
        for log in logs.values():
            log.clear()
        handles = []
        for layer in encoder.layers:
            handles += [
                layer.self_attn.register_forward_hook(lambda _m, _i, out: logs["attention"].append(out[1].detach().cpu().numpy())),
                layer.register_forward_hook(lambda _m, _i, out: logs["outputs"].append(out.detach().cpu().numpy())),
                layer.mlp.activation_fn.register_forward_hook(lambda _m, _i, out: logs["activations"].append(out.detach().cpu().numpy())),
            ]
        with torch.no_grad():
            encoder.tower(pixel_values=image[None], output_hidden_states=True, interpolate_pos_encoding=True)
        activations, outputs = with_mean_token(logs["activations"]), with_mean_token(logs["outputs"])
        outliers = torch.where(outputs[-1].norm(dim=1) > threshold)[0]
        if len(outliers):
            for layer in range(encoder.depth):
                scores[counted, layer] = activations[layer][outliers].abs().mean(dim=0)
            counted += 1
    for handle in handles:
        handle.remove()
    encoder.tower.set_attn_implementation("sdpa")
    order = scores[:counted].mean(dim=0).flatten().sort(descending=True, stable=True).indices
    return [(int(i) // neurons, int(i) % neurons) for i in order]


def a_search(shape, images):
    """Encoder, images, and search settings whose threshold one token in twenty exceeds."""
    torch.manual_seed(0)
    encoder = tower_model.build_tower("siglip", **shape).eval().requires_grad_(False)
    for layer in encoder.layers:
        layer.mlp.fc1.bias.normal_(std=0.5)  # else a random tower's neurons all score alike
    pixels = torch.randn(images, 3, shape["image_size"], shape["image_size"])
    threshold = encoder.encode(pixels[:8])[1][:, -1].quantile(0.95).item()
    settings = Search(
        images=images, batch=256, layer=-1, highest_layer=5, top_k=50, sparsity_filter=False, max_rounds=1, threshold=threshold
    )
    return encoder, pixels, settings


def test_ranking_is_the_published_one():
    encoder, pixels, settings = a_search(DIGITS, 40)
    ours = score_neurons(encoder, pixels, settings, factor=1.0).neurons
    assert len(ours) == 50
    assert [neuron[:2] for neuron in ours] == published_search(encoder, pixels, settings.threshold)[:50]


@pytest.fixture(params=[(DIGITS, 512), (SIGLIP2_B, 16)], ids=["digits", "siglip2_b"])
def task(measured, request):
    return a_search(*request.param)


@pytest.mark.benchmark(group="register search")
def test_benchmark_published_search(measured, task):
    encoder, pixels, settings = task
    measured.pedantic(published_search, (encoder, pixels, settings.threshold), rounds=3, warmup_rounds=1)


@pytest.mark.benchmark(group="register search")
def test_benchmark_our_search(measured, task):
    encoder, pixels, settings = task
    measured.pedantic(score_neurons, (encoder, pixels, settings, 1.0), rounds=3, warmup_rounds=1)
