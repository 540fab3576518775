"""Whether a study has what a method asks for."""

from harness.study.method import load_method
from harness.study.study import Study
from harness.study.typed import UserError


def check_fits(study: Study, method: str) -> None:
    """UserError where a method asks for what the study's encoder does not have."""
    wanted = load_method(method)
    registers = wanted.registers(study.denoiser.registers)
    if registers and registers.start >= study.denoiser.depth:
        raise UserError(
            f"method '{method}': diffusion registers start at block {registers.start}, study '{study.name}' has {study.denoiser.depth}"
        )
    if wanted.encoder.backbone not in study.encoder.backbones:
        raise UserError(f"method '{method}' needs an encoder with trained registers; study '{study.name}' has none")
    if not study.encoder.has_tokens and (wanted.encoder.changes or wanted.loss_mask):
        raise UserError(
            f"method '{method}' works on the tokens of a ViT encoder; the encoder of study '{study.name}' is {study.encoder.kind}"
        )
    lists = study.search.released_neurons if study.search else {}
    if lists and wanted.encoder.searched and wanted.encoder.key not in lists:
        raise UserError(
            f"method '{method}': study '{study.name}' takes published register neurons, and names no list for {wanted.encoder.key}"
        )
