"""FDr6 (arXiv 2604.28190; Jiawei-Yang/FD-Loss `_compute_fdr6`): the mean over six networks of the Frechet distance to ImageNet's training
images, each divided by that of ImageNet's validation images, so that these score 1.

It is defined for 50,000 samples against statistics of ImageNet's training images, and refused for others: the plain distances stand then.
"""

from collections.abc import Mapping, Sequence

from harness.evaluation.bootstrap import by_resampling
from harness.evaluation.outcome import Measured, Outcome, Stop
from harness.study.typed import UserError, nearest

SAMPLES = 50_000
# of ImageNet's 50,000 validation images, as FD-Loss@2f22479 has them, by the extractors that they are for
VALIDATION = {"inception": 1.68, "convnext_fdr6": 56.87, "dinov2_fdr6": 14.19, "mae_fdr6": 0.04, "siglip_fdr6": 0.60, "clip_fdr6": 5.60}
ONE_DIGIT = "; the validation images' 0.04 is published with one digit: this ratio is known to 12 %"


def refusal(n: int, imagenet: bool) -> str:
    """Why there is no FDr6 of n samples; empty where there is. `imagenet`: whether the statistics are those of its training images."""
    if not imagenet:
        return "FDr6 is defined against statistics of ImageNet's training images alone; here the plain Frechet distances stand"
    return "" if n == SAMPLES else f"FDr6 is defined for {SAMPLES:,} samples, there are {n:,}; here the plain Frechet distances stand"


def ratios(distances: Mapping[str, float]) -> dict[str, float]:
    """Frechet distances by extractor -> each divided by the validation images'. UserError for an extractor that FDr6 does not have."""
    return {name: distance / VALIDATION[nearest(name, VALIDATION, "extractor of FDr6")] for name, distance in distances.items()}


def mean_ratio(distances: Mapping[str, float]) -> float | None:
    """The arithmetic mean of the six ratios; None where one is missing."""
    of = ratios(distances)
    return sum(of.values()) / len(VALIDATION) if of.keys() == VALIDATION.keys() else None


def fdr6(distances: Mapping[str, float], resampled: Mapping[str, Sequence[float]], n: int, imagenet: bool) -> dict[str, Outcome]:
    """`fdr6`, and `fdr_EXTRACTOR` of each distance, of n samples; UserError where it is not defined (`refusal`).

    `resampled`: by extractor the distances of the same resamples in the same order (Frechet.resampled_distances): what the networks
    share is in the mean's standard error so. A network that is missing leaves its ratio out, and `fdr6` without a value.
    """
    if why := refusal(n, imagenet):
        raise UserError(why)
    of = {name: by_resampling(value, [one / VALIDATION[name] for one in resampled[name]]) for name, value in ratios(distances).items()}
    outcomes: dict[str, Outcome] = {f"fdr_{name}": outcome for name, outcome in of.items()}
    if "mae_fdr6" in of:
        plain = of["mae_fdr6"]
        outcomes["fdr_mae_fdr6"] = Measured(plain.value, plain.low, plain.high, plain.how + ONE_DIGIT)
    value = mean_ratio(distances)
    if value is None:
        missing = ", ".join(name for name in VALIDATION if name not in distances)
        return outcomes | {"fdr6": Stop("skipped", f"FDr6 is the mean over six networks; missing: {missing}")}
    together = [mean_ratio(dict(zip(VALIDATION, one, strict=True))) for one in zip(*(resampled[name] for name in VALIDATION), strict=True)]
    return outcomes | {"fdr6": by_resampling(value, together)}
