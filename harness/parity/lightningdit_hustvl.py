"""LightningDiT as first published (hustvl/LightningDiT `models/lightningdit.py`, `transport/`): SiT's convention, on 32 channels."""

from typing import Literal

from pydantic import ConfigDict

from harness.denoiser.registry import ARCHITECTURES
from harness.parity.base import Described, Format
from harness.parity.files import GoldenFile, Tensors
from harness.parity.sit import FORMAT as SIT
from harness.parity.sit import FromNoise, outputs_from_noise


class LightningDiTArguments(Described):
    """Arguments of the constructor."""

    model_config = ConfigDict(extra="forbid")

    input_size: int
    patch_size: int
    in_channels: int
    hidden_size: int
    depth: int
    num_heads: int
    num_classes: int
    mlp_ratio: float = 4.0
    class_dropout_prob: float = 0.1
    learn_sigma: Literal[False]
    use_qknorm: Literal[False]
    use_swiglu: Literal[True]
    use_rope: Literal[True]
    use_rmsnorm: Literal[True]
    wo_shift: Literal[False]


class LightningDiTConfig(FromNoise):
    """A model and its sampler."""

    kwargs: LightningDiTArguments


def outputs(file: GoldenFile, config: LightningDiTConfig) -> Tensors:
    """Those of `outputs_from_noise`; the loss of its training is the mean square and the cosine together."""
    given = config.kwargs
    sizes = {name: value for name, value in given.model_dump().items() if not isinstance(value, bool) and name != "class_dropout_prob"}
    return outputs_from_noise(file, config, file.load(ARCHITECTURES["lightningdit_hustvl"](**sizes)), given.num_classes)


FORMAT = Format(LightningDiTConfig, outputs, inputs=SIT.inputs, left_out=SIT.left_out)
