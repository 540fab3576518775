"""Test-time registers (TTR): find the MLP neurons that make outlier tokens, and move their activation into extra tokens.

Jiang et al., "Vision Transformers Don't Need Trained Registers"; DSR release, `src/stage1/encoders/siglip2_tt_reg`. Implemented as described:
per neuron, on every patch. The hooks are registered once and work on batches of any size.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harness.config import EncoderRegisters, Search, UserError
from harness.models.encoder import VisionEncoder

Neurons = dict[int, list[int]]  # layer -> hidden units of its MLP, both 0-based
QUIET = 0.5  # |activation| below which the sparsity filter counts a token as quiet


def mlp_output_layer(layer: nn.Module) -> nn.Linear:
    """The linear layer that follows the MLP activation; its input holds one channel per neuron."""
    for name, module in layer.named_modules():
        if name.endswith("mlp.fc2"):
            return module
    raise UserError(f"{type(layer).__name__} has no 'mlp.fc2': this encoder's register neurons cannot be reached")


class TestTimeRegisters:
    """Appends `count` zero tokens to an encoder and moves the listed neurons into them, until `remove()`.

    After the MLP activation of each listed layer, the registers' listed neurons take that neuron's activation of largest magnitude
    over the image's tokens, and the patches' become zero.
    """

    __test__ = False  # not a test, whatever pytest makes of the name

    def __init__(self, encoder: VisionEncoder, neurons: Neurons, count: int = 1) -> None:
        self.count = count
        self.handles = [encoder.append_tokens(lambda: next(encoder.parameters()).new_zeros(count, encoder.width))]
        for index, listed in neurons.items():
            if not 0 <= index < len(encoder.layers):
                self.remove()
                raise UserError(f"register neurons name layer {index}, the encoder has {len(encoder.layers)}: made for another encoder?")
            output = mlp_output_layer(encoder.layers[index])
            if not listed or max(listed) >= output.in_features or min(listed) < 0:
                self.remove()
                raise UserError(f"register neurons of layer {index}: {listed} is not a list from 0 to {output.in_features - 1}")
            self.handles.append(output.register_forward_pre_hook(self._mover(torch.tensor(sorted(set(listed))))))

    def _mover(self, listed: Tensor) -> Callable:
        def move(_module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
            activations = inputs[0].clone()
            units = activations[..., listed]  # (B, P + count, neurons)
            strongest = units.gather(1, units.abs().argmax(dim=1, keepdim=True))
            activations[:, : -self.count, listed] = 0
            activations[:, -self.count :, listed] = strongest
            return (activations,)

        return move

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()


@dataclass(frozen=True)
class Round:
    """One round of search. `found` is sorted by score; `threshold` is a norm; shares are of patch tokens."""

    threshold: float
    outlier_share: float
    found: list[tuple[int, int, float]]  # (layer, neuron, score)


@torch.no_grad()
def score_neurons(encoder: VisionEncoder, pixels: Tensor, search: Search, factor: float) -> Round:
    """One round: mean over images of the mean |activation| at the image's outlier tokens, for every neuron up to `highest_layer`.

    An outlier is a patch token whose norm after `search.layer` exceeds `factor` times the median of all patch tokens there.
    """
    patches = encoder.grid**2
    batches = pixels.split(search.batch)
    norms = torch.cat([encoder.hidden_states(batch)[1:][search.layer].norm(dim=-1) for batch in batches])
    threshold = factor * norms.median().item()
    outliers = norms > threshold
    share = outliers.float().mean().item()
    if not outliers.any():
        return Round(threshold, 0.0, [])

    layers = range(min(search.highest_layer + 1, len(encoder.layers)))
    activations: dict[int, Tensor] = {}

    def recorder(index: int) -> Callable:
        def record(_module: nn.Module, inputs: tuple[Tensor]) -> None:
            activations[index] = inputs[0][:, :patches].abs()

        return record

    handles = [mlp_output_layer(encoder.layers[index]).register_forward_pre_hook(recorder(index)) for index in layers]
    neurons = mlp_output_layer(encoder.layers[0]).in_features
    total, quiet = torch.zeros(2, len(layers), neurons, dtype=torch.float64)
    for batch, mask in zip(batches, outliers.split(search.batch), strict=True):
        encoder(batch)
        weight = mask / mask.sum(dim=1, keepdim=True).clamp(min=1)  # (B, P): a mean over the image's outliers
        for index in layers:
            total[index] += torch.einsum("bp,bpn->n", weight.double(), activations[index].double())
            quiet[index] += (activations[index] < QUIET).double().sum(dim=(0, 1))
    for handle in handles:
        handle.remove()

    scores = total / outliers.any(dim=1).sum()
    if search.sparsity_filter:
        scores[quiet / norms.numel() < 0.5] = 0.0
    best = scores.flatten().topk(min(search.top_k, scores.numel()))
    found = [(int(i) // neurons, int(i) % neurons, float(score)) for score, i in zip(best.values, best.indices, strict=True) if score > 0]
    return Round(threshold, share, found)


def search_registers(
    encoder: VisionEncoder, pixels: Tensor, registers: EncoderRegisters, search: Search, factor: float
) -> tuple[list[Round], Neurons, float]:
    """Rounds of search, each on the encoder that the earlier rounds have stabilised.

    Returns the rounds, the neurons of all of them, and the outlier share that is left on `pixels`.
    `until_clean` stops when no outlier is left, at `search.max_rounds`, or when a round finds nothing new.
    """
    limit = search.max_rounds if registers.rounds == "until_clean" else registers.rounds
    rounds: list[Round] = []
    neurons: Neurons = {}
    share = 0.0
    for number in range(limit + 1):
        stabilised = TestTimeRegisters(encoder, neurons) if neurons else None
        result = score_neurons(encoder, pixels, search, factor)
        if stabilised:
            stabilised.remove()
        share = result.outlier_share
        new = [(layer, neuron) for layer, neuron, _ in result.found if neuron not in neurons.get(layer, [])]
        if number == limit or not new:
            break
        rounds.append(result)
        for layer, neuron in new:
            neurons.setdefault(layer, []).append(neuron)
    return rounds, neurons, share
