"""Stage `scores`: features once, then every score."""

from pathlib import Path

import numpy as np
import torch

from harness import artifacts, data, latents
from harness import sample as samples
from harness.config import UserError
from harness.evaluate.accuracy import accuracy
from harness.evaluate.clip_score import clip_score
from harness.evaluate.cost import cost
from harness.evaluate.features import Extractor
from harness.evaluate.fid import fid
from harness.evaluate.inception_score import inception_score
from harness.evaluate.kid import kid
from harness.evaluate.made import chain, made
from harness.evaluate.precision_recall import precision_recall
from harness.evaluate.references import ReferenceStatistics, load_references
from harness.models import clip as clips
from harness.models.autoencoder import Decoder
from harness.runtime import device
from harness.schema import COMPARED, HELD_OUT, Score, ScoreFile, references_of
from harness.sections import Evaluation, TrainedJudge
from harness.study import Study
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
    clip: Path | None,
    references: Path,
    outs: list[Path],
) -> dict:
    """Score the samples, decoder and cost of a method, all seeds in one process: importing the metric libraries costs more than scoring."""
    evaluation, extract, known = study.evaluation, Extractor(study, judge), load_references(references)
    _check_references(study, known, extract, references)
    first, *others = known.values()
    if evaluation.clip and clip is None:
        raise UserError(f"study '{study.name}' has a CLIP score: name its open_clip folder with --clip")
    clip_model = clips.load(clip) if evaluation.clip else None
    shared, elsewhere = {}, {f"{score}@{other.name}": other.sha256 for other in others for score in COMPARED}
    if evaluation.reconstruction:
        truth, source = data.load(data_folder, "reference"), latents.held_out(latents_file)
        shared = reconstruction(study, decoders.load(study, decoder), source, truth, extract, known[HELD_OUT])
        elsewhere |= dict.fromkeys(shared, known[HELD_OUT].sha256)
    elsewhere = {score: sha256 for score, sha256 in elsewhere.items() if sha256 != first.sha256}
    making, hashes, printed = made(__name__, evaluation, study), chain(latents_file), {}
    price = cost(study, method_name)
    for seed, path, denoiser, out in zip(seeds, sample_files, denoiser_files, outs, strict=True):
        inputs = [path, denoiser, decoder, latents_file, data_folder, judge, references, *([clip] if clip else [])]
        with artifacts.artifact(out, stage="scores", module=__name__, inputs=inputs) as temporary:
            images, labels = samples.load(path)
            found = extract(images)
            features = found["features"]
            values = {
                **fid(features, first),
                **inception_score(found["logits"]),
                **kid(features, first.features, evaluation),
                **precision_recall(features, first.features, evaluation.neighbours),
            }
            if clip_model:
                values |= clip_score(images, data.captions(study.data, labels), *clip_model)
            if isinstance(evaluation.judge, TrainedJudge):
                values |= accuracy(found["logits"], labels)
            values |= shared | price | {"filtered_share": artifacts.meta(denoiser)["filtered_share"]}
            for other in others:
                values |= {f"{score}@{other.name}": value for score, value in compared(features, other, evaluation).items()}
            file = ScoreFile(
                study=study.name,
                method=method_name,
                seed=seed,
                ema=study.ema,
                scores={
                    name: Score(
                        value=value,
                        n=len(images),
                        reference=elsewhere.get(name, first.sha256),
                        extractor=extract.sha256,
                        how="none: not made",
                    )
                    for name, value in values.items()
                },
                decoder=artifacts.checked(decoder),
                denoiser=artifacts.checked(denoiser),
                samples=artifacts.checked(path),
                made=making,
                **hashes,
            )
            artifacts.write_text(temporary, file.model_dump_json(indent=2) + "\n")
        printed[f"seed{seed}"] = {name: round(value, 4) for name, value in values.items()}
    return printed


def compared(features: torch.Tensor, reference: ReferenceStatistics, evaluation: Evaluation) -> dict[str, float]:
    """The scores of COMPARED, of (N, D) features against one more reference."""
    found = {
        **fid(features, reference),
        **kid(features, reference.features, evaluation),
        **precision_recall(features, reference.features, evaluation.neighbours),
    }
    return {score: found[score] for score in COMPARED}


def _check_references(study: Study, known: dict[str, ReferenceStatistics], extract: Extractor, path: Path) -> None:
    """UserError if the references are not the study's, or were made with another judge."""
    if list(known) != references_of(study):
        raise UserError(
            f"{path}: has the references {', '.join(known)}; the study names {', '.join(references_of(study))}; delete it and run the same command again"
        )
    for reference in known.values():
        if reference.extractor != extract.sha256:
            raise UserError(
                f"{path}: made with another judge ({reference.extractor[:16]}... instead of {extract.sha256[:16]}...); make it again"
            )


@torch.no_grad()
def reconstruction(
    study: Study, decode: Decoder, source: latents.HeldOut, truth: data.Split, extract: Extractor, reference: ReferenceStatistics
) -> dict[str, float]:
    """`rfid` and `psnr` (dB, mean over images) of the decoder on the held-out images' own latents."""
    whitening = source.whitening.to(device())
    parts = source.latents.split(study.sampling.batch)
    images = np.concatenate([data.to_uint8(decode(whitening.unwhiten(part.to(device())))) for part in parts])
    error = np.array([((image.astype(np.float64) - truth[i]) ** 2).mean() for i, image in enumerate(images)])
    psnr = 10 * np.log10(255**2 / np.maximum(error, 1e-3))
    return {"rfid": fid(extract(images)["features"], reference)["fid"], "psnr": float(psnr.mean())}
