"""Stage `outliers`: L2 norms of patch tokens at every layer of the encoder, and every block and noise level of the denoiser.

An outlier is a patch token whose norm exceeds `factor` times the median over all patch tokens of that layer (and noise level).
Registers are not patch tokens and are left out. As in the released code, the norm is
that of the residual stream: in the encoder before the final norm (TTR/shared/algorithms.py), in the denoiser after each block.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import torch
from pyarrow import parquet
from torch import Tensor

from harness import artifacts, latents
from harness.evaluate.made import chain, made
from harness.models.flow import at_time
from harness.runtime import device, stream
from harness.schema import NONE, Score, ScoreFile, scores_of
from harness.study import Study
from harness.train import denoiser as denoisers

QUANTILES = (0.01, 0.25, 0.75, 0.99, 0.999)


def norm_statistics(norms: Tensor, factor: float) -> dict[str, float]:
    """(...) token norms of one layer -> counts, share of outliers, max / median and quantiles."""
    flat = norms.flatten().double()
    median, largest = flat.median().item(), flat.max().item()
    quantiles = {f"q{q:g}": flat.quantile(q).item() for q in QUANTILES}
    return {
        "tokens": flat.numel(),
        "median": median,
        "max": largest,
        "share": (flat > factor * median).double().mean().item(),
        "max_over_median": largest / median if median else float("inf"),
        **quantiles,
    }


@torch.no_grad()
def denoiser_norms(model: torch.nn.Module, clean: Tensor, noise: Tensor, labels: Tensor, t: float) -> list[Tensor]:
    """Norms (B, P) of the patch tokens after each block, at noise level t; registers are the first rows and are cut off."""
    patches, outputs = model.grid**2, []
    handles = [
        block.register_forward_hook(lambda _m, _a, out: outputs.append(out[:, -patches:].norm(dim=-1).cpu())) for block in model.blocks
    ]
    times = torch.full((len(clean),), t, device=clean.device)
    model(at_time(clean, noise, times), times, labels)
    for handle in handles:
        handle.remove()
    return outputs


def _in_batches(model: torch.nn.Module, clean: Tensor, noise: Tensor, labels: Tensor, t: float, size: int) -> Iterator[list[Tensor]]:
    for parts in zip(clean.split(size), noise.split(size), labels.split(size), strict=True):
        yield denoiser_norms(model, *(part.to(device()) for part in parts), t)


def measure_runs(
    study: Study, *, method_name: str, seeds: list[int], denoiser_files: list[Path], latents_file: Path, outs: list[Path]
) -> dict:
    """Statistics of every seed of a method: JSON for the table; parquet (same name) with a line per layer (-1: embeddings), and per block and noise level."""
    config = study.outlier_statistics
    source = latents.held_out(latents_file)
    encoder = []
    if source.layer_norms is not None:
        encoder = [
            {"part": "encoder", "layer": layer, "t": None, **norm_statistics(norms, config.factor)}
            for layer, norms in enumerate(source.layer_norms[: config.images].unbind(dim=1), start=-1)
        ]
    clean, labels = source.latents[: config.images], source.labels[: config.images]
    making, hashes, printed = made(__name__, config, study), chain(latents_file), {}
    for seed, path, out in zip(seeds, denoiser_files, outs, strict=True):
        record = {"stage": "outliers", "module": __name__, "inputs": [path, latents_file]}
        with artifacts.artifact(out, **record) as summary, artifacts.artifact(Path(out).with_suffix(".parquet"), **record) as lines:
            model = denoisers.load(study, method_name, path)
            noise = torch.stack([torch.randn(clean.shape[1:], generator=stream(seed, "outliers", i)) for i in range(len(clean))])
            noise = noise * study.denoiser.noise_scale
            denoiser = [
                {"part": "denoiser", "layer": block, "t": t, **norm_statistics(torch.cat(norms), config.factor)}
                for t in config.times
                for block, norms in enumerate(zip(*_in_batches(model, clean, noise, labels, t, config.batch), strict=True))
            ]
            parquet.write_table(pa.Table.from_pylist(encoder + denoiser), lines)
            values, details = worst(encoder + denoiser)
            values = {name: value for name, value in (values | contrasts(denoiser)).items() if name in scores_of(study)}
            about = {"n": len(clean), "reference": hashes["latents"], "how": "none: a property of the worst layer"}
            file = ScoreFile(
                study=study.name,
                method=method_name,
                seed=seed,
                ema=study.ema,
                scores={name: Score(value=value, extractor=artifacts.checked(path), **about) for name, value in values.items()},
                decoder=NONE,
                denoiser=artifacts.checked(path),
                samples=NONE,
                made=making,
                details=details,
                **hashes,
            )
            artifacts.write_text(summary, file.model_dump_json(indent=2) + "\n")
        printed[f"seed{seed}"] = values
    return printed


def worst(lines: list[dict]) -> tuple[dict[str, float], dict[str, dict]]:
    """The largest share and max / median of each part, and where they are (layer or block, noise level)."""
    values, details = {}, {}
    for part in dict.fromkeys(line["part"] for line in lines):
        for score, column in ((f"{part}_outlier_share", "share"), (f"{part}_max_over_median", "max_over_median")):
            line = max((line for line in lines if line["part"] == part), key=lambda line: line[column])
            values[score], details[score] = line[column], {"layer": line["layer"], "t": line["t"]}
    return values, details


def contrasts(lines: list[dict]) -> dict[str, float]:
    """Where in the denoiser, and at what noise, tokens are largest: differences of log(max / median), `lines` being of its blocks and noise levels."""
    last, times = max(line["layer"] for line in lines), [line["t"] for line in lines]

    def largest(chosen: Callable[[dict], bool]) -> float:
        return math.log(max((line["max_over_median"] for line in lines if chosen(line)), default=1.0))

    inside, ends = largest(lambda line: 0 < line["layer"] < last), largest(lambda line: line["layer"] in (0, last))
    clean, noisy = largest(lambda line: line["t"] == min(times)), largest(lambda line: line["t"] == max(times))
    return {"denoiser_middle_blocks": inside - ends, "denoiser_noise_fall": clean - noisy}
