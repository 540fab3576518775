import json

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import METHODS
from sklearn.decomposition import PCA

from harness.data.images import brightness, to_uint8
from harness.data.stage import load_data
from harness.decoder.registry import load_decoder
from harness.denoiser.flow import at_time
from harness.denoiser.registry import ARCHITECTURES
from harness.denoiser.text import WordStates
from harness.encoder import tower as tower_model
from harness.encoder.latents import load_held_out
from harness.encoder.test_time_registers import TestTimeRegisters
from harness.evaluation import maps
from harness.evaluation.maps import make_maps
from harness.machine.streams import stream
from harness.store import artifacts

SIZES = {"input_size": 8, "in_channels": 3, "patch_size": 2, "hidden_size": 32, "depth": 3, "num_heads": 2, "num_classes": 10}
EXTRA = {
    "lightningdit": {},
    "ditdh": {"head_width": 48, "head_depth": 2, "head_heads": 3},
    "sit": {},
    "jit": {"bottleneck": 6, "in_context_len": 3, "in_context_start": 2},
    "repa": {},
    "lightningdit_hustvl": {},
    "ddt": {"head_depth": 2},
    "diffusionbench_ddt": {"head_width": 48, "head_depth": 2, "head_heads": 3, "time_tokens": 2, "condition_tokens": 1},
}
BATCH, LEVEL = 6, 0.4
OF_TEXT = "diffusionbench_ddt of text"
every_architecture = pytest.mark.parametrize("name", [*ARCHITECTURES, OF_TEXT])
IN_CONTEXT = {"jit": 3, "diffusionbench_ddt": 3, OF_TEXT: 6}


def model_of(name, registers=5):
    """A tiny denoiser whose blocks do something: at first, adaLN closes them."""
    torch.manual_seed(0)
    text = {"condition": "text", "context_width": 12, "condition_tokens": 4} if name == OF_TEXT else {}
    name = name.removesuffix(" of text")
    model = ARCHITECTURES[name](**SIZES | EXTRA.get(name, {}) | text, registers=registers, register_start=1).eval()
    if text:
        model.y_embedder = WordStates(torch.tensor([[1, 2 + i % 3 if i % 2 else 0] for i in range(11)]), 12, 4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.requires_grad_(False)


def inputs():
    clean, noise = (torch.randn(BATCH, 3, 8, 8, generator=stream(0, what)) for what in ("clean", "noise"))
    return clean, noise, torch.arange(BATCH)


def maps_of(model, size=BATCH):
    bright = torch.rand(BATCH, 16, generator=stream(0, "bright"))
    return maps.at_level(model, *inputs(), bright, LEVEL, size=size, factor=3.0)[0]


@every_architecture
def test_norms_are_those_of_a_direct_computation(name):
    model, (clean, noise, labels) = model_of(name), inputs()
    seen = []
    for block in model.blocks:
        block.register_forward_hook(lambda _block, inputs, out: seen.append((inputs[0], out)))
    times = torch.full((BATCH,), LEVEL)
    output = model(at_time(clean, noise, times), times, labels)
    arrays = maps_of(model_of(name))
    for index, (entering, out) in enumerate(seen):
        np.testing.assert_allclose(arrays["entering"][index], entering[:, -16:].norm(dim=-1), rtol=1e-5)
        np.testing.assert_allclose(arrays["norms"][index], out[:, -16:].norm(dim=-1), rtol=1e-5)
        registers, context = arrays["register_norms"][index], arrays["context_norms"][index]
        if index:  # registers come first, then an architecture's own tokens
            np.testing.assert_allclose(registers, out[:, :5].norm(dim=-1), rtol=1e-5)
        else:
            assert np.isnan(registers).all()
        first = 5 if index else 0
        if out.shape[1] > 16 + first:
            np.testing.assert_allclose(context, out[:, first:-16].norm(dim=-1), rtol=1e-5)
        else:
            assert np.isnan(context).all()
    assert arrays["context_norms"].shape[-1] == IN_CONTEXT.get(name, 0)
    cut = output.reshape(BATCH, 3, 4, 2, 4, 2).permute(0, 2, 4, 1, 3, 5).reshape(BATCH, 16, 12)
    np.testing.assert_allclose(arrays["norms"][-1], cut.norm(dim=-1), rtol=1e-5)


@every_architecture
def test_attention_is_what_the_block_computes_with_and_sums_to_one(name, monkeypatch):
    seen, fused = [], torch.nn.functional.scaled_dot_product_attention

    def spy(query, key, value, attn_mask=None):
        one_hot = torch.eye(key.shape[2]).expand(*key.shape[:2], -1, -1)  # of such values: the weights themselves
        seen.append(fused(query, key, one_hot, attn_mask=attn_mask).mean(dim=(1, 2)))
        return fused(query, key, value, attn_mask=attn_mask)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    arrays = maps_of(model_of(name))
    others = np.concatenate([arrays["register_attention"], arrays["context_attention"]], axis=-1)
    whole = np.concatenate([others, arrays["attention"]], axis=-1)
    np.testing.assert_allclose(np.nansum(whole, axis=-1), 1, rtol=1e-5)
    assert len(seen) == len(whole)
    for received, expected in zip(whole, seen, strict=True):
        np.testing.assert_allclose(received[~np.isnan(received)].reshape(BATCH, -1), expected, atol=1e-6)


@pytest.mark.parametrize("channels", [12, 40])  # fewer and more than patches
def test_the_first_components_are_those_of_scikit_learn_with_a_fixed_sign(channels):
    tokens = torch.randn(4, 25, channels, generator=stream(0, "test")) * torch.linspace(0.5, 3, channels) + 1
    bright = tokens[..., -1]
    components, shares = maps.first_components(tokens, bright, 10.0)
    for image in range(4):
        flat = tokens[image].double().numpy()
        theirs = PCA(1, svd_solver="full").fit(flat)
        np.testing.assert_allclose(components[image].abs(), np.abs(theirs.transform(flat))[:, 0], rtol=1e-6, atol=1e-9)
        assert shares[image] == pytest.approx(theirs.explained_variance_ratio_[0])
        assert np.corrcoef(components[image], bright[image])[0, 1] > 0
    again, _ = maps.first_components(-tokens, bright, 10.0)
    torch.testing.assert_close(again, components)
    whole = maps.first_components(tokens.index_fill(1, torch.tensor([3]), torch.inf), bright, 10.0)
    assert all(values.isnan().all() for values in whole)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_component_is_positive_at_the_largest_outlier_whatever_is_bright(sign):
    tokens = torch.randn(4, 25, 12, generator=stream(0, "test"))
    tokens[2, 7] *= 30
    bright = torch.zeros(4, 25)
    bright[:, 7] = sign
    components, _ = maps.first_components(tokens, bright, 3.0)
    assert components[2, 7] == components[2].abs().max() > 0
    clean, _ = maps.first_components(tokens[:2], bright[:2], 3.0)
    assert ((clean[:, 7] - clean.mean(dim=1)) * sign > 0).all()


def test_brightness_is_the_mean_of_a_patch():
    pixels = torch.rand(2, 3, 8, 12, generator=stream(0, "test"))
    expected = pixels.mean(1).unflatten(1, (4, 2)).unflatten(3, (4, 3)).mean(dim=(2, 4))
    torch.testing.assert_close(brightness(pixels, 4), expected.flatten(1))


@every_architecture
def test_maps_do_not_depend_on_the_batch_size(name):
    whole, parts = (maps_of(model_of(name), size) for size in (BATCH, 4))
    assert whole.keys() == parts.keys()
    for array in whole:
        near = 1e-5 if array == "components" else 1e-6  # two variances that are nearly the same turn rounding into a little more
        np.testing.assert_allclose(parts[array], whole[array], rtol=near, atol=near * np.nanmax(np.abs(whole[array]), initial=0))


def test_another_attention_has_no_map():
    class Uniform(torch.nn.Module):
        def forward(self, x, _rotate=None):
            return x.mean(dim=1, keepdim=True).expand_as(x)

    model = model_of("lightningdit", registers=0)
    model.blocks[1].attn = Uniform()
    arrays = maps_of(model)
    assert [np.isnan(block).all() for block in arrays["attention"]] == [False, True, False]
    assert np.isfinite(arrays["norms"]).all()


def make(study, runs, method, out, weights=None):
    encoder = runs.encoders["plain" if method != "dsr" else "ttr_until_clean"]
    weights = weights or runs.runs[method][0] / "denoiser.safetensors"
    files = {"denoiser": weights, "decoder": encoder.decoder, "latents": encoder.latents, "data": runs.data, "out": out}
    printed = make_maps(study, method=method, seed=0, **files)
    with np.load(out, allow_pickle=False) as file:
        return printed, dict(file)


def test_a_file_has_the_norms_of_stage_outliers(study, runs, tmp_path):
    printed, arrays = make(study, runs, METHODS[-1], tmp_path / "maps.npz")
    levels, blocks, images = len(study.outlier_statistics.times), study.denoiser.depth, study.outlier_statistics.images
    assert printed == {"images": images, "status": "ok"}
    assert arrays["norms"].shape == (levels, blocks + 1, images, 16)
    assert arrays["register_norms"].shape == (levels, blocks, images, study.denoiser.registers.count)
    assert arrays["decoded"].shape == (levels, images, 16, 16, 3)
    assert arrays["rows"].tolist() == list(range(images))  # all of them: there are fewer than maps are made of
    lines = pd.read_parquet(runs.runs[METHODS[-1]][0] / "outliers.parquet").query("part == 'denoiser'")
    largest = lines.pivot(index="t", columns="layer", values="max").to_numpy()
    np.testing.assert_allclose(arrays["norms"][:, :-1].max(axis=(2, 3)), largest, rtol=1e-5)
    record = artifacts.meta(tmp_path / "maps.npz")
    assert (record["status"], record["method"], record["seed"]) == ("ok", METHODS[-1], 0)


@pytest.mark.parametrize("key", ["plain", "ttr_until_clean", "trained_registers"])
def test_an_encoders_maps_are_of_its_patch_tokens(study, built, key):
    encoder = built.encoders[key]
    with np.load(encoder.latents.with_name("maps.npz"), allow_pickle=False) as file:
        arrays = dict(file)
    source = load_held_out(encoder.latents)
    depth, rows = study.encoder.depth, arrays["rows"]
    assert arrays["norms"].shape == arrays["components"].shape == (depth + 2, len(rows), 16)
    np.testing.assert_allclose(arrays["norms"][:-1].transpose(1, 0, 2), source.layer_norms[rows], rtol=1e-5)
    raw = source.whitening.unwhiten(source.latents[rows])
    np.testing.assert_allclose(arrays["norms"][-1], raw.flatten(2).norm(dim=1), rtol=1e-5)
    bright = brightness(load_data(built.data, "reference").pixels(rows.tolist()), 4)
    output, shares = maps.first_components(raw.flatten(2).transpose(1, 2), bright, study.outlier_statistics.factor)
    np.testing.assert_allclose(arrays["components"][-1], output, atol=1e-3)
    np.testing.assert_allclose(arrays["explained"][-1], shares, rtol=1e-4)


def test_an_encoders_registers_are_the_tokens_that_are_no_patches(built):
    files = {key: np.load(built.encoders[key].latents.with_name("maps.npz"), allow_pickle=False) for key in ("plain", "trained_registers")}
    assert [arrays["register_attention"].shape[-1] for arrays in files.values()] == [0, 4]
    for arrays in files.values():
        whole = arrays["attention"].sum(axis=-1) + arrays["register_attention"].sum(axis=-1)
        np.testing.assert_allclose(whole, 1, rtol=1e-5)
        np.testing.assert_array_equal(arrays["entering"], arrays["norms"][:-2])
        assert arrays["context_attention"].shape[-1] == 0  # SigLIP has no CLS


@pytest.mark.parametrize("family", ["siglip", "dinov2", "dinov2_with_registers"])
def test_an_encoders_attention_is_what_its_layers_compute_with(family, monkeypatch):
    torch.manual_seed(0)
    shape = {"width": 32, "depth": 3, "heads": 2, "mlp": 64, "patch": 4, "image_size": 16}
    model = tower_model.build_tower(family, **shape, registers=4 if family == "dinov2_with_registers" else 0).eval()
    TestTimeRegisters(model, {1: [3, 7]})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    seen, fused = [], torch.nn.functional.scaled_dot_product_attention

    def spy(query, key, value, **options):
        weights = fused(query, key, torch.eye(key.shape[2]).expand(*key.shape[:2], -1, -1), **options)  # of one-hot values
        seen.append(weights.mean(dim=(1, 2)))
        return fused(query, key, value, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    states, attention = maps.watch_encoder(model, pixels)
    with torch.no_grad():
        expected = model.all_hidden_states(pixels)
    assert len(attention) == 3
    for received, computed in zip(attention, seen, strict=False):
        torch.testing.assert_close(received, computed)
        assert received.std() > 1e-3
    assert all(torch.equal(one, other) for one, other in zip(states, expected, strict=True))
    places = torch.arange(states[0].shape[1])[None]
    counts = [part(places).shape[1] for part in (model.of_context, model.of_registers, model.of_patches)]
    assert counts == {"siglip": [0, 1, 16], "dinov2": [1, 1, 16], "dinov2_with_registers": [1, 5, 16]}[family]
    assert (
        sorted(torch.cat([part(places) for part in (model.of_context, model.of_registers, model.of_patches)], dim=1)[0])
        == places[0].tolist()
    )


def test_what_a_perfect_denoiser_predicts_is_the_reconstruction(study, built):
    encoder = built.encoders["plain"]
    source, decode = load_held_out(encoder.latents), load_decoder(study, encoder.decoder)
    clean = source.latents[:3]
    noise = torch.randn(clean.shape, generator=stream(0, "noise"))
    expected = to_uint8(decode(source.whitening.unwhiten(clean)))
    images = maps.decoded(study, decode, source.whitening, clean, noise, 0.5, clean)
    assert np.abs(images.astype(int) - expected.astype(int)).max() <= 1
    moved = maps.decoded(study, decode, source.whitening, clean, noise, 0.5, noise)
    assert np.abs(moved.astype(int) - expected.astype(int)).mean() > 5


def test_of_a_denoiser_that_diverged_there_are_no_maps(study, runs, tmp_path):
    source, folder = runs.runs["baseline"][0] / "denoiser.safetensors", tmp_path / "baseline"
    folder.mkdir()
    weights = folder / "denoiser.safetensors"
    weights.write_bytes(source.read_bytes())
    record = json.loads(artifacts.sidecar(source).read_text(encoding="utf-8"))
    del record[artifacts.OWN]
    artifacts.write_record(weights, record | {"status": "diverged", "reason": "the loss was not finite"})
    out = tmp_path / "maps.npz"
    printed, arrays = make(study, runs, "baseline", out, weights)
    assert printed["status"] == "the loss was not finite"
    assert set(arrays) == {"times", "rows", "labels"}
    assert artifacts.meta(out)["status"] == "diverged"


def test_of_images_that_are_not_finite_there_are_no_maps(study, runs, tmp_path, monkeypatch):
    monkeypatch.setattr(maps, "load_decoder", lambda *_: lambda latents: torch.full((len(latents), 3, 16, 16), torch.nan))
    out = tmp_path / "maps.npz"
    printed, arrays = make(study, runs, "baseline", out)
    assert printed["status"].endswith("images out of the decoder are not finite")
    assert set(arrays) == {"times", "rows", "labels"}
    assert artifacts.meta(out)["status"] == "failed"
