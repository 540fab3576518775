"""`dsr import`: a released checkpoint as a checked safetensors file with provenance."""

from pathlib import Path

import torch
from torch import Tensor

from harness.data.classes import read_stated
from harness.store import artifacts, foreign
from harness.store.tensors import check_weights, save_tensors
from harness.study.fits import check_fits
from harness.study.method import load_method
from harness.study.study import Study
from harness.study.typed import UserError


def import_checkpoint(
    checkpoint: Path,
    study: Study,
    *,
    method: str,
    part: str,
    out: Path,
    container: str | None = None,
    classes: Path | None = None,
) -> dict:
    """Check `checkpoint` strictly against the study's denoiser (with the method's registers) or decoder, and write `out`.

    The record beside `out` names the file, its sha256 and the container that was taken: `container`, or the study's for its released
    decoder, or by the rule; the order of a denoiser's classes, where the file `classes` states it, a name a line; and what a decoder's
    output is, by the study. UserError for a file that holds more than weights, or other weights.
    """
    check_fits(study, method)
    if part == "decoder" and study.decoder.of_encoder:
        raise UserError(f"study '{study.name}' has no decoder of its own: its encoder decodes")
    if part == "decoder" and classes:
        raise UserError("--classes is of a denoiser: a decoder knows no labels")
    tensors, taken = _read(checkpoint, study, method, part, container)
    sha256 = artifacts.sha256(checkpoint)
    with torch.device("meta"):  # names and shapes are all that is compared
        model = _model(study, method, part)
    check_weights(model, tensors, checkpoint)
    facts = {"checkpoint": checkpoint.name, "checkpoint_sha256": sha256, "study": study.name, "part": part, "method": method}
    facts |= taken
    if part == "denoiser":
        facts["classes"] = _stated(study, classes)
    config = study.denoiser if part == "denoiser" else study.decoder
    pixels = study.decoded_pixels(load_method(method).encoder.backbone) if part == "decoder" else None
    output: dict[str, object] = {"pixels": pixels.model_dump()} if pixels else {}
    with artifacts.artifact(out, stage="import", module=__name__, config=config, **facts, **output) as path:
        save_tensors(path, tensors, **output)
    parameters = sum(tensor.numel() for tensor in tensors.values())
    order = {"classes": "stated" if facts["classes"] else "only their number is checked"} if part == "denoiser" else {}
    told = {"pixels": pixels.text} if pixels else {}
    return {"written": str(out), **taken, **order, **told, "parameters": parameters, "sha256": sha256}


def _stated(study: Study, classes: Path | None) -> list[str] | None:
    """The order of classes that a file states; UserError where it has another number of them than the study."""
    stated = read_stated(classes) if classes else None
    if stated is not None and len(stated) != study.classes:
        raise UserError(f"{classes}: {len(stated)} classes, study '{study.name}' has {study.classes}")
    return stated


def _read(path: Path, study: Study, method: str, part: str, container: str | None) -> tuple[dict[str, Tensor], dict[str, object]]:
    """The file's weights, and what was taken of it. Of a released decoder's file the study may name the container."""
    if part == "denoiser":
        from harness.denoiser.build import read_published

        return read_published(path, study.denoiser, container)
    released = getattr(study.decoder, "released", {}).get(load_method(method).encoder.backbone)
    return foreign.read_container(path, container or (released and released.container))


def _model(study: Study, method: str, part: str) -> torch.nn.Module:
    if part == "decoder":
        from harness.decoder.registry import decoder_of

        return decoder_of(study).build()
    from harness.denoiser.build import build_denoiser

    return build_denoiser(study, method)
