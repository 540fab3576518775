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
    states: Path | None = None,
) -> dict:
    """Check `checkpoint` strictly against the study's denoiser (with the method's registers) or decoder, and write `out`.

    The record beside `out` names the file, its sha256 and the container that was taken: `container`, or the study's for its released
    decoder, or by the rule; the order of a denoiser's classes, where the file `classes` states it, a name a line; and what a decoder's
    output is, by the study. `states`: of a denoiser that reads a text encoder's states of the study's prompts, a file with `states`
    (prompts + 1, L, width) and `real` (prompts + 1, L), the null prompt's last; they become part of its weights. UserError for a file that
    holds more than weights, or other weights, or whose prediction the study takes for another.
    """
    check_fits(study, method)
    if part == "decoder" and study.decoder.of_encoder:
        raise UserError(f"study '{study.name}' has no decoder of its own: its encoder decodes")
    if part == "decoder" and classes:
        raise UserError("--classes is of a denoiser: a decoder knows no labels")
    if part == "denoiser":
        try:
            study.denoiser.check_prediction(study.denoiser.prediction)
        except ValueError as error:
            raise UserError(f"{checkpoint}: {error} (study '{study.name}')") from None
    tensors, taken = _read(checkpoint, study, method, part, container)
    given, told_of_states = _states(study, states, part)
    tensors |= given
    sha256 = artifacts.sha256(checkpoint)
    with torch.device("meta"):  # names and shapes are all that is compared
        model = _model(study, method, part)
    check_weights(model, tensors, checkpoint)
    facts = {"checkpoint": checkpoint.name, "checkpoint_sha256": sha256, "study": study.name, "part": part, "method": method}
    facts |= taken | told_of_states
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
    return {"written": str(out), **taken, **told_of_states, **order, **told, "parameters": parameters, "sha256": sha256}


def _stated(study: Study, classes: Path | None) -> list[str] | None:
    """The order of classes that a file states; UserError where it has another number of them than the study."""
    stated = read_stated(classes) if classes else None
    if stated is not None and len(stated) != study.classes:
        raise UserError(f"{classes}: {len(stated)} classes, study '{study.name}' has {study.classes}")
    return stated


def _states(study: Study, path: Path | None, part: str) -> tuple[dict[str, Tensor], dict[str, object]]:
    """A text encoder's states of the study's prompts by their names in a denoiser, and what to print and to record of the file."""
    sizes = study.denoiser.given_states if part == "denoiser" else None
    if sizes is None:
        if path:
            raise UserError(f"--states is of a denoiser that is given them: study '{study.name}' has none (denoiser.states: given)")
        return {}, {}
    if path is None:
        raise UserError(f"study '{study.name}': its denoiser reads a text encoder's states of the prompts; give them with --states")
    length, width = sizes
    wanted = {"states": (study.classes + 1, length, width), "real": (study.classes + 1, length)}
    found = {name: value for name, value in foreign.read_entries(path, wanted).items() if value is not None}
    for name, size in wanted.items():
        have = tuple(found[name].shape) if name in found else "nothing"
        if have != size:
            raise UserError(f"{path}: '{name}' is {have}, study '{study.name}' needs {size}: its prompts in order, then the null prompt")
    if not found["states"].is_floating_point() or not ((found["real"] == 0) | (found["real"] == 1)).all():
        raise UserError(f"{path}: 'states' must be floating-point, and 'real' 1 where a state is of a token, 0 where it fills up")
    facts = {"states": path.name, "states_sha256": artifacts.sha256(path)}
    return {"y_embedder.states": found["states"], "y_embedder.real": found["real"].bool()}, facts


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
