"""The formats of golden files. A new one: a module here with a FORMAT, named in FORMATS by the `model` of its files' config, or below."""

from harness.parity import (
    cmmd,
    ddt_mcg,
    diffusionbench,
    dsr,
    extractors,
    fdr6,
    jit,
    lightningdit_hustvl,
    memorisation,
    mind,
    prdc,
    rae,
    rae_decoder,
    repa_sit,
    sfid,
    siglip,
    sit,
)
from harness.parity.base import Format
from harness.parity.files import GoldenFile
from harness.study.typed import UserError, did_you_mean

FORMATS: dict[str, Format] = {
    "LightningDiT": dsr.FORMAT,
    "DiTwDDTHead": dsr.FORMAT,
    "SiT": sit.FORMAT,
    "JiT": jit.FORMAT,
    "MCG-NJU/DDT": ddt_mcg.FORMAT,
    "diffusion-bench/DiTwDDTHead": diffusionbench.FORMAT,
    "RAE/DINOv2": rae.FORMAT,
    "LightningDiT/hustvl": lightningdit_hustvl.FORMAT,
    "REPA/SiT": repa_sit.FORMAT,
}
UNNAMED: dict[str, Format] = {  # by a field of their config, or a tensor, that only they have
    "vision_config": siglip.FORMAT,
    "decoder_hidden_size": rae_decoder.FORMAT,
    "directions_first3": mind.FORMAT,
    "create_kwargs": extractors.FDR6_FORMAT,
    "models": extractors.FDR6_PIXELS_FORMAT,
    "img_40x52.edm2_torch.grid": extractors.DINOV2_FORMAT,
    "X_unit": cmmd.FORMAT,
    "small.branch_times4_uint8": sfid.FORMAT,
    "fake_ties": prdc.FORMAT,
    "vendi.X": memorisation.FORMAT,
    "e2e.gen": fdr6.FORMAT,
}


def format_of(file: GoldenFile) -> Format:
    """UserError for a file whose config names none that is known."""
    model = file.config.get("model")
    if model is None:
        for name, unnamed in UNNAMED.items():
            if name in file.config or name in file.tensors:
                return unnamed
        raise UserError(f"{file.path}: its config names no model; known: {', '.join(FORMATS)}; or has one of {', '.join(UNNAMED)}")
    if not isinstance(model, str) or model not in FORMATS:
        raise UserError(
            f"{file.path}: its config: model: unknown '{model}'{did_you_mean(str(model), FORMATS)}; known: {', '.join(FORMATS)}"
        )
    return FORMATS[model]
