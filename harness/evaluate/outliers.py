"""Stages `outliers` and `encoder_outliers`: L2 norms of patch tokens at every layer of the encoder, and every block and noise level of the denoiser.

An outlier is a patch token whose norm exceeds `factor` times the median over all patch tokens of that layer (and noise level).
Registers are not patch tokens and are left out. Definitions: paper dossier §4.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from harness import artifacts, latents
from harness.config import Study, digest
from harness.models.flow import at_time
from harness.runtime import stream
from harness.schema import ScoreFile
from harness.train import denoiser as denoisers

MAPS = 8  # images whose norm maps are kept for figures
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
    handles = [block.register_forward_hook(lambda _m, _a, out: outputs.append(out[:, -patches:].norm(dim=-1))) for block in model.blocks]
    times = torch.full((len(clean),), t)
    model(at_time(clean, noise, times), times, labels)
    for handle in handles:
        handle.remove()
    return outputs


def measure_runs(study: Study, *, method_name: str, seeds: list[int], denoiser_files: list[Path], latents_file: Path, outs: list[Path]) -> dict:
    """Denoiser statistics of every seed of a method: JSON for the table, parquet (same name) with a line per block and noise level."""
    config = study.outlier_statistics
    source = latents.load(latents_file, "reference")
    clean, labels = source.latents[: config.images], source.labels[: config.images]
    printed = {}
    for seed, path, out in zip(seeds, denoiser_files, outs, strict=True):
        model = denoisers.load(study, method_name, path)
        noise = torch.stack([torch.randn(clean.shape[1:], generator=stream(seed, "outliers", i)) for i in range(len(clean))])
        table = pd.DataFrame(
            {"block": block, "t": t, **norm_statistics(norms, config.factor)}
            for t in config.times
            for block, norms in enumerate(denoiser_norms(model, clean, noise, labels, t))
        )
        printed[f"seed{seed}"] = _write(study, table, prefix="denoiser", out=out, subject=path, source=latents_file, method=method_name, seed=seed)
    return printed


@torch.no_grad()
def measure_encoder(study: Study, *, key: str, backbone: Path, registers: Path | None, data_folder: Path, out: Path) -> dict:
    """Encoder statistics on reference images; the parquet has a line per layer, 0 being the embeddings. Keeps maps for figures."""
    from harness import data
    from harness.encode import load_encoder

    config = study.outlier_statistics
    encoder = load_encoder(backbone, registers)
    split = data.load(data_folder, "reference")
    norms = [state.norm(dim=-1) for state in encoder.hidden_states(split.pixels()[: config.images])]
    table = pd.DataFrame({"layer": layer, **norm_statistics(value, config.factor)} for layer, value in enumerate(norms))
    maps = np.stack([value[:MAPS].unflatten(1, (encoder.grid, encoder.grid)).numpy() for value in norms])
    with artifacts.artifact(Path(out).with_suffix(".npz"), stage="encoder_outliers", module=__name__, inputs=[backbone, data_folder]) as path, open(path, "wb") as file:
        np.savez(file, norms=maps, images=split.images[:MAPS])
    return _write(study, table, prefix="encoder", out=out, subject=registers or backbone, source=data_folder, encoder=key)


def _write(study: Study, table: pd.DataFrame, *, prefix: str, out: Path, subject: Path, source: Path, method: str | None = None,
           encoder: str | None = None, seed: int | None = None) -> dict:  # fmt: skip
    """Parquet with every line, then the JSON with the worst one."""
    provenance, code = artifacts.provenance(), artifacts.code_hash(__name__)
    worst, widest = table.loc[table["share"].idxmax()], table.loc[table["max_over_median"].idxmax()]
    values = {f"{prefix}_outlier_share": float(worst["share"]), f"{prefix}_max_over_median": float(widest["max_over_median"])}
    with artifacts.artifact(Path(out).with_suffix(".parquet"), stage=f"{prefix}_outliers", module=__name__, inputs=[subject, source]) as path:
        table.to_parquet(path)
    where = [column for column in ("layer", "block", "t") if column in table]
    file = ScoreFile(
        study=study.name,
        method=method,
        encoder=encoder,
        seed=seed,
        values=values,
        n=study.outlier_statistics.images,
        reference=artifacts.checked(source),
        extractor=artifacts.checked(subject),
        subject=artifacts.checked(subject),
        config=digest(study.outlier_statistics),
        code=code,
        commit=provenance["commit"],
        precision=provenance["precision"],
        details={"worst_share": {c: float(worst[c]) for c in where}, "worst_max_over_median": {c: float(widest[c]) for c in where}},
    )
    with artifacts.artifact(out, stage=f"{prefix}_outliers", module=__name__, inputs=[subject, source]) as path:
        artifacts.write_text(path, file.model_dump_json(indent=2) + "\n")
    return values
