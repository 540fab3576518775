"""Stage `outliers`: L2 norms of patch tokens at every layer of the encoder, and every block and noise level of the denoiser.

An outlier is a patch token whose norm exceeds `factor` times the median over all patch tokens of that layer (and noise level).
Registers are not patch tokens and are left out. As in the released code, the norm is
that of the residual stream: in the encoder before the final norm (TTR/shared/algorithms.py), in the denoiser after each block.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import torch
from pyarrow import parquet
from torch import Tensor

from harness.denoiser.build import load_denoiser
from harness.denoiser.flow import at_time
from harness.encoder.latents import load_held_out, load_train_norms
from harness.evaluation.bootstrap import Measured, by_resampling, means, without
from harness.evaluation.made import chain, check_run, made
from harness.evaluation.scored import About, attempt, stop_of
from harness.machine.device import device
from harness.machine.streams import stream
from harness.results.outliers import median_norm, outlier_norm, share_above
from harness.results.schema import NONE, Score, ScoreFile
from harness.results.scores import BY_BLOCK, BY_THRESHOLD, scores_of, thresholds_of
from harness.store import artifacts
from harness.store.files import write_text
from harness.study.method import load_method
from harness.study.study import Study
from harness.study.typed import UserError

QUANTILES = (0.01, 0.25, 0.75, 0.99, 0.999)
RESAMPLES = 200  # of the images
NUMBERS = ("median", "max", "share", "max_over_median", *(f"q{q:g}" for q in QUANTILES))
LINES = pa.schema(
    [("part", pa.string()), ("layer", pa.int64()), ("t", pa.float64()), ("tokens", pa.int64()), *((name, pa.float64()) for name in NUMBERS)]
)


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
class Layer:
    """A line of the parquet file; `shares` (images,): of outliers among the tokens of each image."""

    line: dict
    shares: Tensor


def layer_of(part: str, layer: int, t: float | None, norms: Tensor, factor: float) -> Layer:
    """From the norms (images, P) of a layer or block."""
    line = {"part": part, "layer": layer, "t": t, **norm_statistics(norms, factor)}
    return Layer(line, (norms.double() > factor * line["median"]).double().mean(dim=1))


def noise_of(study: Study, seed: int, images: Iterable[int]) -> Tensor:
    """Noise (images, C, H, W) of held-out images by their place in the reference split; of each from (seed, place) alone."""
    noise = [torch.randn(study.latent_shape, generator=stream(seed, "outliers", image)) for image in images]
    return torch.stack(noise) * study.denoiser.noise_scale


@torch.no_grad()
def denoiser_norms(model: torch.nn.Module, clean: Tensor, noise: Tensor, labels: Tensor, t: float) -> list[Tensor]:
    """Norms (B, P) of the patch tokens after each block, and of the final layer, at noise level t; registers are the first rows and are cut off."""
    patches, outputs = model.side**2, []
    handles = [
        module.register_forward_hook(lambda _m, _a, out: outputs.append(out[:, -patches:].norm(dim=-1).cpu()))
        for module in (*model.blocks, model.final_layer)
    ]
    times = torch.full((len(clean),), t, device=clean.device)
    model(at_time(clean, noise, times), times, labels)
    for handle in handles:
        handle.remove()
    return outputs


def _in_batches(model: torch.nn.Module, clean: Tensor, noise: Tensor, labels: Tensor, t: float, size: int) -> Iterator[list[Tensor]]:
    for parts in zip(clean.split(size), noise.split(size), labels.split(size), strict=True):
        yield denoiser_norms(model, *(part.to(device()) for part in parts), t)


def measure_outliers(study: Study, *, method: str, seeds: list[int], denoisers: list[Path], latents: Path, out: list[Path]) -> dict:
    """Statistics of every seed of a method: JSON for the table; parquet (same name) with a line per layer (-1: embeddings), and per block and noise level.

    Of a denoiser that diverged there are no lines, and its scores say so.
    """
    config, source = study.outlier_statistics, load_held_out(latents)
    encoder = []
    if source.layer_norms is not None:
        norms_of = enumerate(source.layer_norms[: config.images].unbind(dim=1), start=-1)
        encoder = [layer_of("encoder", layer, None, norms, config.factor) for layer, norms in norms_of]
    clean, labels = source.latents[: config.images], source.labels[: config.images]
    making, hashes, printed = made(__name__, config, study), chain(latents), {}
    masked = filtered(study, method, latents)
    for seed, path, target in zip(seeds, denoisers, out, strict=True):
        check_run(path, method, seed)
        record = {"stage": "outliers", "module": __name__, "inputs": [path, latents]}
        with artifacts.artifact(target, **record) as summary, artifacts.artifact(Path(target).with_suffix(".parquet"), **record) as lines:
            stop, weights, blocks = stop_of(path), artifacts.checked(path), []
            if stop is None:
                model = load_denoiser(study, method, path)
                noise = noise_of(study, seed, range(len(clean)))
                blocks = [
                    layer_of("denoiser", block, t, torch.cat(norms), config.factor)
                    for t in config.times
                    for block, norms in enumerate(zip(*_in_batches(model, clean, noise, labels, t, config.batch), strict=True))
                ]
            last = len(blocks) // len(config.times) - 1
            output, blocks = ([layer for layer in blocks if (layer.line["layer"] == last) == final] for final in (True, False))
            output = [replace(layer, line=layer.line | {"part": "output"}) for layer in output]
            parquet.write_table(pa.Table.from_pylist([layer.line for layer in encoder + blocks + output], schema=LINES), lines)
            names = {part: [name for name in scores_of(study) if name.startswith(f"{part}_")] for part in ("encoder", "denoiser")}
            about = {
                part: About(len(clean), hashes["latents"], eye) for part, eye in (("encoder", hashes["encoder"]), ("denoiser", weights))
            }
            scores = attempt(names["encoder"], about["encoder"], lambda: worst(encoder))
            scores |= masked
            scores |= attempt(
                names["denoiser"],
                about["denoiser"],
                lambda blocks=blocks, output=output: worst(blocks) | contrasts(blocks) | by_place(blocks + output),
                stop,
            )
            file = ScoreFile(
                study=study.name,
                method=method,
                seed=seed,
                ema=study.ema,
                step=study.steps,
                guidance=study.sampling.guidance.text,
                scores={name: scores[name] for name in scores_of(study) if name in scores},
                decoder=NONE,
                denoiser=weights,
                samples=NONE,
                made=making,
                details={name: place for name, place in places(encoder + blocks).items() if scores[name].value is not None},
                **hashes,
            )
            write_text(summary, file.model_dump_json(indent=2) + "\n")
        printed[f"seed{seed}"] = {name: score.status if score.value is None else score.value for name, score in file.scores.items()}
    return printed


def filtered(study: Study, method: str, latents: Path) -> dict[str, Score]:
    """Shares of training tokens that the method's loss mask would leave out at several thresholds of its norm; 0 where it has no mask."""
    if not study.encoder.has_tokens:
        return {}
    mask, found = load_method(method).loss_mask, dict.fromkeys(thresholds_of(study), 0.0)
    norms = load_train_norms(latents, mask.norm if mask else "pre_ln").double()
    for place in found if mask else ():
        number = float(place.removeprefix("norm"))
        limit = number if place.startswith("norm") else outlier_norm(norms, number).item()
        found[place] = share_above(norms, limit)
    named = {f"{BY_THRESHOLD}@{place}": without(share, "exact") for place, share in found.items()}
    return attempt(list(named), About(len(norms), NONE, NONE), lambda: named)


# -------------------------------------------------------------------------------------------------------------- over layers


def _worst(layers: list[Layer]) -> dict[str, Layer]:
    """By score: the layer of the largest share, and that of the largest max / median, of each part."""
    found = {}
    for part in dict.fromkeys(layer.line["part"] for layer in layers):
        for score, column in ((f"{part}_outlier_share", "share"), (f"{part}_max_over_median", "max_over_median")):
            found[score] = max((layer for layer in layers if layer.line["part"] == part), key=lambda layer: layer.line[column])
    return found


def places(layers: list[Layer]) -> dict[str, dict]:
    """By score, where the worst is: layer or block, and noise level."""
    return {score: {"layer": layer.line["layer"], "t": layer.line["t"]} for score, layer in _worst(layers).items()}


def worst(layers: list[Layer]) -> dict[str, Measured]:
    """The largest share and max / median of each part. UserError where a norm is not finite."""
    for layer in layers:
        if not math.isfinite(layer.line["max"]):  # a NaN among them is the maximum
            at = "" if layer.line["t"] is None else f" at noise level {layer.line['t']:g}"
            raise UserError(f"norms of the {layer.line['part']}'s tokens are not finite in layer {layer.line['layer']}{at}")
    found = {}
    for score, layer in _worst(layers).items():
        if score.endswith("share"):
            resampled = means("outlier_share", layer.shares, RESAMPLES)
            found[score] = by_resampling(layer.line["share"], resampled, "images, the layer and its median held", least=0.0, most=1.0)
        else:
            found[score] = without(layer.line["max_over_median"], "a maximum")
    return found


def by_place(layers: list[Layer]) -> dict[str, Measured]:
    """Share of outliers after each block and in the output, mean over noise levels."""
    shares: dict[str, list[Tensor]] = {}
    for layer in layers:
        place = "output" if layer.line["part"] == "output" else f"block{layer.line['layer']}"
        shares.setdefault(f"{BY_BLOCK}@{place}", []).append(layer.shares)
    found = {}
    for score, of_times in shares.items():
        mean = torch.stack(of_times).mean(dim=0)
        resampled = means("outlier_share", mean, RESAMPLES)
        found[score] = by_resampling(mean.mean().item(), resampled, "images, the layer and its medians held", least=0.0, most=1.0)
    return found


def contrasts(layers: list[Layer]) -> dict[str, Measured]:
    """Where in the denoiser, and at what noise, tokens are largest: differences of log(max / median), `layers` being its blocks and noise levels."""
    lines = [layer.line for layer in layers]
    last, times = max(line["layer"] for line in lines), [line["t"] for line in lines]

    def largest(chosen: Callable[[dict], bool]) -> float:
        return math.log(max((line["max_over_median"] for line in lines if chosen(line)), default=1.0))

    inside, ends = largest(lambda line: 0 < line["layer"] < last), largest(lambda line: line["layer"] in (0, last))
    clean, noisy = largest(lambda line: line["t"] == min(times)), largest(lambda line: line["t"] == max(times))
    values = {"denoiser_middle_blocks": inside - ends, "denoiser_noise_fall": clean - noisy}
    return {score: without(value, "a difference of maxima") for score, value in values.items()}
