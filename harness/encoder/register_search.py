"""Search for register neurons: the MLP neurons that are most active where outlier tokens are (released `shared/algorithms.py`).

Batches of images, and no more of the encoder than is needed: with a given norm threshold one pass, with a multiple of the median two, the
second of which stops at the last layer whose neurons are considered.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harness.encoder.test_time_registers import Neurons, TestTimeRegisters, mlp_output_layer
from harness.encoder.tower import VisionEncoder
from harness.results.outlier_rule import outlier_norm
from harness.study.method import EncoderRegisters
from harness.study.sections.encoder import Search
from harness.study.typed import UserError

QUIET = 0.5  # |activation| below which the sparsity filter counts a token as quiet
ImageBatches = Tensor | Callable[[], Iterable[Tensor]]  # (N, 3, H, W), or what starts a pass over batches of them


@dataclass(frozen=True)
class Round:
    """One round of search.

    `neurons` are the best, sorted by score; `scores` (layers, neurons) are of all; `threshold` is a norm; shares are of patch tokens.
    """

    threshold: float
    outlier_share: float
    neurons: list[tuple[int, int, float]]  # (layer, neuron, score)
    scores: list[list[float]]


@contextmanager
def _recorded(encoder: VisionEncoder, layers: range) -> Iterator[dict[int, Tensor]]:
    """Yields {layer: its neurons' activations at the patches (B, P, neurons)}, of the latest batch."""
    activations: dict[int, Tensor] = {}

    def recorder(index: int) -> Callable:
        def record(_module: nn.Module, inputs: tuple[Tensor]) -> None:
            activations[index] = encoder.of_patches(inputs[0])

        return record

    handles = [mlp_output_layer(encoder.layers[index]).register_forward_pre_hook(recorder(index)) for index in layers]
    try:
        yield activations
    finally:
        for handle in handles:
            handle.remove()


class _Scores:
    """Sums over images, in double precision, from which the scores follow."""

    def __init__(self, layers: range, neurons: int, device: torch.device, quiet: bool) -> None:
        self.layers = layers
        self.total = torch.zeros(len(layers), neurons, dtype=torch.float64, device=device)
        self.quiet = torch.zeros_like(self.total) if quiet else None
        self.images = self.tokens = 0

    def add(self, activations: dict[int, Tensor], outliers: Tensor) -> None:
        """`outliers` (B, P): the mask of outlier tokens."""
        weight = outliers / outliers.sum(dim=1, keepdim=True).clamp(min=1)  # a mean over the image's outliers
        weight = weight[outliers].double()
        self.images += int(outliers.any(dim=1).sum())
        self.tokens += outliers.numel()
        for index in self.layers:
            if len(weight):
                self.total[index] += weight @ activations[index][outliers].abs().double()
            if self.quiet is not None:
                self.quiet[index] += (activations[index].abs() < QUIET).sum(dim=(0, 1))

    def of_neurons(self) -> Tensor:
        """(layers, neurons); 0 for those that the sparsity filter leaves out, and all 0 without any outlier."""
        scores = self.total / max(1, self.images)
        if self.quiet is not None:
            scores[self.quiet / self.tokens < 0.5] = 0.0
        return scores

    def best(self, top_k: int) -> list[tuple[int, int, float]]:
        """(layer, neuron, score) of the `top_k` highest scores, as far as they are above 0."""
        scores = self.of_neurons()
        best = scores.flatten().topk(min(top_k, scores.numel()))
        neurons = scores.shape[1]
        return [
            (i // neurons, i % neurons, score) for score, i in zip(best.values.tolist(), best.indices.tolist(), strict=True) if score > 0
        ]


@torch.no_grad()
def score_neurons(encoder: VisionEncoder, images: ImageBatches, search: Search, factor: float) -> Round:
    """One round: mean over images of the mean |activation| at the image's outlier tokens, for every neuron up to `highest_layer`.

    An outlier is a patch token whose norm after `search.layer` exceeds `search.threshold` (released: 30 or 150), or, without one,
    `factor` times the median of all patch tokens there. `images` is a tensor, or a function that starts a pass over batches: it is called
    once with a threshold and twice without, and must give the same images each time.
    """
    device = next(encoder.parameters()).device
    batches = images if callable(images) else lambda: images.split(search.batch)
    if not -encoder.depth <= search.layer < encoder.depth:
        raise UserError(f"search.layer {search.layer}: the encoder has {encoder.depth} layers")
    judged = range(encoder.depth)[search.layer] + 1  # layers up to the one whose output is thresholded
    layers = range(min(search.highest_layer + 1, encoder.depth))
    scores = _Scores(layers, mlp_output_layer(encoder.layers[0]).in_features, device, search.sparsity_filter)

    def norms_of(batch: Tensor, depth: int) -> Tensor:
        for number, state in enumerate(encoder.states(batch.to(device), depth)):
            if number == judged:
                norms = encoder.of_patches(state).norm(dim=-1)
        return norms

    if search.threshold is None:
        norms = [norms_of(batch, judged) for batch in batches()]
        threshold = outlier_norm(torch.cat(norms).double(), factor).item()
        some = (torch.cat(norms) > threshold).any()
        with _recorded(encoder, layers) as activations:
            for batch, measured in zip(batches(), norms, strict=True) if some else ():
                outliers = measured > threshold
                if scores.quiet is not None or outliers.any():
                    for _ in encoder.states(batch.to(device), len(layers)):
                        pass
                    scores.add(activations, outliers)
    else:
        norms, threshold = [], search.threshold
        with _recorded(encoder, layers) as activations:
            for batch in batches():
                norms.append(norms_of(batch, max(judged, len(layers))))
                scores.add(activations, norms[-1] > threshold)
    share = (torch.cat(norms) > threshold).float().mean().item()
    return Round(threshold, share, scores.best(search.top_k), scores.of_neurons().tolist())


def search_rounds(
    encoder: VisionEncoder, images: ImageBatches, registers: EncoderRegisters, search: Search, factor: float
) -> tuple[list[Round], Neurons, float]:
    """Rounds of search, each on the encoder that the earlier rounds have stabilised; arguments as for `score_neurons`.

    Returns the rounds, the neurons of all of them, and the outlier share that is left on `images`.
    `until_clean` stops when no outlier is left, at `search.max_rounds`, or when a round finds nothing new.
    """
    limit = search.max_rounds if registers.rounds == "until_clean" else registers.rounds
    rounds: list[Round] = []
    neurons: Neurons = {}
    share = 0.0
    for number in range(limit + 1):
        stabilised = TestTimeRegisters(encoder, neurons, variant=search.variant) if neurons else None
        result = score_neurons(encoder, images, search, factor)
        if stabilised:
            stabilised.remove()
        share = result.outlier_share
        new = [(layer, neuron) for layer, neuron, _ in result.neurons if neuron not in neurons.get(layer, [])]
        if number == limit or not new:
            break
        rounds.append(result)
        for layer, neuron in new:
            neurons.setdefault(layer, []).append(neuron)
    return rounds, neurons, share
