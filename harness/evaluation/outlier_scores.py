"""The scores of stage `outliers`: from the norms of tokens, by layer or block and noise level, to outcomes.

A new score: its description in harness/results/scores.py, and its function here in FUNCTIONS, under the same name.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from harness.evaluation.bootstrap import by_resampling, means
from harness.evaluation.outcome import Measured, Outcome, Stop, Subject, without
from harness.results.outlier_rule import median_norm, outlier_norm, share_above

QUANTILES = (0.01, 0.25, 0.75, 0.99, 0.999)
RESAMPLES = 200  # of the images


def norm_statistics(norms: Tensor, factor: float) -> dict[str, float]:
    """(...) token norms of one layer -> counts, share of outliers, max / median and quantiles."""
    flat = norms.flatten().double()
    median, largest = median_norm(flat).item(), flat.max().item()
    quantiles = {f"q{q:g}": flat.quantile(q).item() for q in QUANTILES}
    return {
        "tokens": flat.numel(),
        "median": median,
        "max": largest,
        "share": share_above(flat, outlier_norm(flat, factor).item()),
        "max_over_median": largest / median if median else float("inf"),
        **quantiles,
    }


@dataclass(frozen=True)
class LayerStatistics:
    """A line of the parquet file; `shares` (images,): of outliers among the tokens of each image."""

    line: dict
    shares: Tensor


def layer_of(part: str, layer: int, t: float | None, norms: Tensor, factor: float) -> LayerStatistics:
    """From the norms (images, P) of a layer or block."""
    line = {"part": part, "layer": layer, "t": t, **norm_statistics(norms, factor)}
    norms = norms.double()
    return LayerStatistics(line, (norms > outlier_norm(norms, factor)).double().mean(dim=1))


class Tokens(Subject):
    """The patch tokens of `n` images in a model: `layers`, its layers or blocks and noise levels, and `output`, those of its output.

    `model`: its name in descriptions, and the SHA-256 of its weights; `latents`: that of the latents. No scores where a norm is not finite.
    """

    def __init__(
        self,
        n: int,
        latents: str,
        model: tuple[str, str],
        layers: list[LayerStatistics],
        output: list[LayerStatistics] = (),
        stop: Stop | None = None,
    ) -> None:
        self.n, self.compared_with, self.networks = n, latents, dict([model])
        self.layers, self.output, self.stop = layers, output, stop or _not_finite(layers)
        self.block: list[LayerStatistics] = []

    def at(self, place: str) -> "Tokens":
        """After a block, or in the output, at all noise levels; empty: anywhere."""
        if not place or self.stop:
            return self
        here = Tokens(self.n, self.compared_with, *self.networks.items(), self.layers, self.output)
        here.block = self.output if place == "output" else [layer for layer in self.layers if f"block{layer.line['layer']}" == place]
        return here

    @property
    def share(self) -> Measured:
        """Of outliers: at a place, mean over noise levels; anywhere, the largest."""
        return mean_share(self.block) if self.block else largest_share(self.layers)


@dataclass(frozen=True)
class TrainingTokens(Subject):
    """Norms (images, P) of the training tokens that a method's loss mask thresholds, float64; `masks`: whether it has one."""

    norms: Tensor
    masks: bool
    place: str = ""

    @property
    def n(self) -> int:
        return len(self.norms)

    def at(self, place: str) -> "TrainingTokens":
        """At a threshold: a multiple of the median, or a norm."""
        return replace(self, place=place)

    @cached_property
    def filtered_share(self) -> float:
        """What the mask would leave out at this threshold; 0 where the method has none."""
        if not self.masks:
            return 0.0
        number = float(self.place.removeprefix("norm"))
        return share_above(self.norms, number if self.place.startswith("norm") else outlier_norm(self.norms, number).item())


def _not_finite(layers: list[LayerStatistics]) -> Stop | None:
    for layer in layers:
        if not math.isfinite(layer.line["max"]):  # a NaN among them is the maximum
            at = "" if layer.line["t"] is None else f" at noise level {layer.line['t']:g}"
            return Stop("failed", f"norms of the {layer.line['part']}'s tokens are not finite in layer {layer.line['layer']}{at}")
    return None


def worst(layers: list[LayerStatistics], column: str) -> LayerStatistics:
    """The layer, or block and noise level, with the largest `share` or `max_over_median`."""
    return max(layers, key=lambda layer: layer.line[column])


def largest_share(layers: list[LayerStatistics]) -> Measured:
    """Share of outliers at the worst layer."""
    layer = worst(layers, "share")
    resampled = means("outlier_share", layer.shares, RESAMPLES)
    return by_resampling(layer.line["share"], resampled, "images, the layer and its median held", least=0.0, most=1.0)


def mean_share(layers: list[LayerStatistics]) -> Measured:
    """Share of outliers, mean over layers: one block at all noise levels."""
    shares = torch.stack([layer.shares for layer in layers]).mean(dim=0)
    resampled = means("outlier_share", shares, RESAMPLES)
    return by_resampling(shares.mean().item(), resampled, "images, the layer and its medians held", least=0.0, most=1.0)


def max_over_median(tokens: Tokens) -> Measured:
    """The largest norm over the median norm, at the worst layer."""
    return without(worst(tokens.layers, "max_over_median").line["max_over_median"], "a maximum")


def largest(layers: list[LayerStatistics], chosen: Callable[[dict], bool]) -> float:
    """log(max / median) at the worst of the chosen blocks and noise levels."""
    return math.log(max((layer.line["max_over_median"] for layer in layers if chosen(layer.line)), default=1.0))


def middle_blocks(tokens: Tokens) -> Measured:
    """Where in the denoiser tokens are largest: between its first and last block, against these two."""
    last = max(layer.line["layer"] for layer in tokens.layers)
    inside = largest(tokens.layers, lambda line: 0 < line["layer"] < last)
    return without(inside - largest(tokens.layers, lambda line: line["layer"] in (0, last)), "a difference of maxima")


def noise_fall(tokens: Tokens) -> Measured:
    """At what noise tokens are largest: at the lowest level, against the highest."""
    times = [layer.line["t"] for layer in tokens.layers]
    clean, noisy = (largest(tokens.layers, lambda line, t=t: line["t"] == t) for t in (min(times), max(times)))
    return without(clean - noisy, "a difference of maxima")


FUNCTIONS: dict[str, Callable[[Any], Outcome]] = {
    "encoder_outlier_share": lambda tokens: tokens.share,
    "encoder_max_over_median": max_over_median,
    "denoiser_outlier_share": lambda tokens: tokens.share,
    "denoiser_max_over_median": max_over_median,
    "denoiser_middle_blocks": middle_blocks,
    "denoiser_noise_fall": noise_fall,
    "filtered_share": lambda tokens: without(tokens.filtered_share, "exact"),
}
