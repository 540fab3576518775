"""Families of vision towers in transformers, and what differs between them; the rest of harness.encoder asks here.

A new one: its line in FAMILIES, and in that of harness/study/sections/encoder.py, which says what a study may name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import Dinov2Model, Dinov2WithRegistersModel, PreTrainedConfig, PreTrainedModel, SiglipVisionModel

from harness.study.typed import UserError


@dataclass(frozen=True)
class Family:
    """The tokens of a tower: CLS where it has one, registers where it is trained with them, patches."""

    model: type[PreTrainedModel]
    mlp: Callable[[int, int], dict[str, int]]  # (width, hidden units of the MLP) -> what its configuration says of the latter
    final_norm: str  # name of the norm after the last layer
    cls_tokens: int
    layers: tuple[str, ...] = ("encoder.layers", "encoder.layer")  # names of their list, which depends on the version of transformers
    trained_with_registers: bool = False
    any_size: bool = False  # interpolates its table of positions to images of other sizes
    settings: Mapping[str, Any] = field(default_factory=dict)  # of its configuration, whatever a file says
    left_out: tuple[str, ...] = ()  # beginnings of the names of weights in a file that a patch token never meets


def _ratio(width: int, mlp: int) -> dict[str, int]:
    if mlp % width:
        raise UserError(f"DINOv2's MLP is a whole multiple of its width; {mlp} is none of {width}")
    return {"mlp_ratio": mlp // width}


DINOV2 = {"mlp": _ratio, "final_norm": "layernorm", "cls_tokens": 1, "any_size": True}

FAMILIES = {  # under the names of transformers' architectures
    "siglip": Family(  # SigLIP, and SigLIP2 of fixed resolution
        model=SiglipVisionModel,
        mlp=lambda _width, mlp: {"intermediate_size": mlp},
        final_norm="post_layernorm",
        cls_tokens=0,
        settings={"vision_use_head": False},
        left_out=("text_model.", "logit_", "head."),  # of a whole SiglipModel
    ),
    "dinov2": Family(model=Dinov2Model, **DINOV2),
    "dinov2_with_registers": Family(model=Dinov2WithRegistersModel, trained_with_registers=True, **DINOV2),
}


def family_name(config: PreTrainedConfig) -> str | None:
    """Of the tower with this configuration; None where it is of none of these families."""
    return next((name for name, family in FAMILIES.items() if family.model.config_class.model_type == config.model_type), None)
