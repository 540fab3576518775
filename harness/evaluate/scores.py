"""Stage `scores`: features once, then every score."""

from pathlib import Path

import numpy as np
import torch

from harness import artifacts, data, latents
from harness import sample as samples
from harness.config import Study
from harness.evaluate.accuracy import accuracy
from harness.evaluate.clip_score import clip_score
from harness.evaluate.cost import cost
from harness.evaluate.features import Extractor
from harness.evaluate.fid import fid
from harness.evaluate.inception_score import inception_score
from harness.evaluate.kid import kid
from harness.evaluate.precision_recall import precision_recall
from harness.models import clip as clips
from harness.schema import ScoreFile
from harness.train import decoder as decoders


def score_runs(
    study: Study,
    *,
    method_name: str,
    seeds: list[int],
    sample_files: list[Path],
    denoiser_files: list[Path],
    decoder: Path,
    latents_file: Path,
    data_folder: Path,
    judge: Path,
    clip: Path,
    outs: list[Path],
) -> dict:
    """Score the samples, decoder and cost of a method, all seeds in one process: importing the metric libraries costs more than scoring."""
    truth = data.load(data_folder, "reference").images
    extract, (clip_model, tokenizer) = Extractor(study, judge), clips.load(clip)
    reference = extract(truth)["features"]
    reconstructed = reconstruction(decoders.load(study, decoder), latents.load(latents_file, "reference"), truth, extract, reference)
    measured, printed = artifacts.measured_by(__name__, study.evaluation), {}
    price = cost(study, method_name)
    for seed, path, denoiser, out in zip(seeds, sample_files, denoiser_files, outs, strict=True):
        with artifacts.artifact(
            out, stage="scores", module=__name__, inputs=[path, denoiser, decoder, latents_file, data_folder, judge, clip]
        ) as temporary:
            images, labels = samples.load(path)
            found = extract(images)
            values = {
                **fid(found["features"], reference),
                **inception_score(found["logits"]),
                **kid(found["features"], reference, study.evaluation),
                **precision_recall(found["features"], reference, study.evaluation.neighbours),
                **clip_score(images, [data.caption(label) for label in labels], clip_model, tokenizer),
                **accuracy(found["logits"], labels),
                **reconstructed,
                **price,
                "filtered_share": artifacts.meta(denoiser)["filtered_share"],
            }
            file = ScoreFile(
                study=study.name,
                method=method_name,
                seed=seed,
                values=values,
                n=len(images),
                reference=artifacts.checked(data_folder),
                extractor=extract.sha256,
                subject=artifacts.checked(path),
                **measured,
            )
            artifacts.write_text(temporary, file.model_dump_json(indent=2) + "\n")
        printed[f"seed{seed}"] = {name: round(value, 4) for name, value in values.items()}
    return printed


@torch.no_grad()
def reconstruction(
    decoder: torch.nn.Module, source: latents.Latents, truth: np.ndarray, extract: Extractor, reference: torch.Tensor
) -> dict[str, float]:
    """`rfid` and `psnr` (dB, mean over images) of the decoder on the reference images' own latents."""
    images = data.to_uint8(decoder(source.to_tokens(source.latents)))
    error = ((images.astype(np.float64) - truth) ** 2).mean(axis=(1, 2, 3))
    psnr = 10 * np.log10(255**2 / np.maximum(error, 1e-3))
    return {"rfid": fid(extract(images)["features"], reference)["fid"], "psnr": float(psnr.mean())}
