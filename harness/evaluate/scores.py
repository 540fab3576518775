"""Stages `scores` and `reconstruction`: features once, then every score."""

from pathlib import Path

import numpy as np
import torch

from harness import artifacts, data, latents
from harness import sample as samples
from harness.config import Study, digest
from harness.evaluate.accuracy import accuracy
from harness.evaluate.clip_score import clip_score
from harness.evaluate.features import Extractor
from harness.evaluate.fid import fid
from harness.evaluate.inception_score import inception_score
from harness.evaluate.kid import kid
from harness.evaluate.precision_recall import precision_recall
from harness.models import clip as clips
from harness.schema import ScoreFile
from harness.train import decoder as decoders


def score_runs(study: Study, *, method_name: str, seeds: list[int], sample_files: list[Path], data_folder: Path, judge: Path, clip: Path, outs: list[Path]) -> dict:
    """Score the samples of all seeds of a method in one process: importing the metric libraries costs more than scoring."""
    reference_images = data.load(data_folder, "reference").images
    extract, (clip_model, tokenizer) = Extractor(study, judge), clips.load(clip)
    reference = extract(reference_images)["features"]
    printed = {}
    for seed, path, out in zip(seeds, sample_files, outs, strict=True):
        images, labels = samples.load(path)
        found = extract(images)
        values = {
            **fid(found["features"], reference),
            **inception_score(found["logits"]),
            **kid(found["features"], reference, study.evaluation),
            **precision_recall(found["features"], reference, study.evaluation.neighbours),
            **clip_score(images, [data.caption(label) for label in labels], clip_model, tokenizer),
            **accuracy(found["logits"], labels),
        }
        file = ScoreFile(
            study=study.name,
            method=method_name,
            seed=seed,
            values=values,
            n=len(images),
            extractor=extract.sha256,
            subject=artifacts.checked(path),
            **_protocol(study, data_folder),
        )
        _write(out, file, stage="scores", inputs=[path, data_folder, judge, clip])
        printed[f"seed{seed}"] = {name: round(value, 4) for name, value in values.items()}
    return printed


@torch.no_grad()
def reconstruct(study: Study, *, key: str, decoder: Path, latents_file: Path, data_folder: Path, judge: Path, out: Path) -> dict:
    """rFID and PSNR of the decoder on the reference images' own latents."""
    truth, source = data.load(data_folder, "reference").images, latents.load(latents_file, "reference")
    images = data.to_uint8(decoders.load(study, decoder)(source.to_tokens(source.latents)))
    extract = Extractor(study, judge)
    error = ((images.astype(np.float64) - truth) ** 2).mean(axis=(1, 2, 3))
    values = {
        "rfid": fid(extract(images)["features"], extract(truth)["features"])["fid"],
        "psnr": float((10 * np.log10(255**2 / np.maximum(error, 1e-3))).mean()),
    }
    file = ScoreFile(
        study=study.name,
        method=None,
        encoder=key,
        seed=None,
        values=values,
        n=len(images),
        extractor=extract.sha256,
        subject=artifacts.checked(decoder),
        **_protocol(study, data_folder),
    )
    _write(out, file, stage="reconstruction", inputs=[decoder, latents_file, data_folder, judge])
    return values


def _protocol(study: Study, data_folder: Path) -> dict:
    provenance = artifacts.provenance()
    return {
        "reference": artifacts.checked(data_folder),
        "config": digest(study.evaluation),
        "code": artifacts.code_hash(__name__),
        "commit": provenance["commit"],
        "precision": provenance["precision"],
    }


def _write(out: Path, file: ScoreFile, *, stage: str, inputs: list[Path]) -> None:
    with artifacts.artifact(out, stage=stage, module=__name__, inputs=inputs) as path:
        artifacts.write_text(path, file.model_dump_json(indent=2) + "\n")
