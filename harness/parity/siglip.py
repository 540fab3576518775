"""SigLIP2 vision towers with test-time registers, as released with DSR."""

from typing import Literal

from torch import nn

from harness.machine.device import device
from harness.parity.base import Described, Format
from harness.parity.files import GoldenFile, Tensors


class VisionShape(Described):
    """Sizes of a SigLIP2 vision tower."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    image_size: int
    patch_size: int
    num_channels: Literal[3] = 3
    hidden_act: Literal["gelu_pytorch_tanh"] = "gelu_pytorch_tanh"


class EncoderConfig(Described):
    """A SigLIP2 encoder with test-time registers."""

    vision_config: VisionShape
    layer_norm_eps: Literal[1e-06]
    register_neurons: dict[int, list[int]]
    num_registers: int
    normal_values: Literal["zero"]
    scale: Literal[1.0]
    post_layernorm: Literal["without affine"]
    register_token_init: Literal["zeros, appended after the patch tokens"]
    activation: Literal["gelu_pytorch_tanh"]


def outputs(file: GoldenFile, config: EncoderConfig) -> Tensors:
    """Hidden states (embeddings, then after each layer) and the final norm's output: `plain.*`, and with test-time registers `ttr.*`."""
    from harness.encoder.test_time_registers import TestTimeRegisters
    from harness.encoder.tower import build_tower  # imports transformers, which takes seconds

    shape = config.vision_config
    encoder = build_tower(
        "siglip",
        width=shape.hidden_size,
        depth=shape.num_hidden_layers,
        heads=shape.num_attention_heads,
        mlp=shape.intermediate_size,
        patch=shape.patch_size,
        image_size=shape.image_size,
    ).eval()
    file.load(encoder.tower)
    encoder.to(device())
    nn.init.ones_(encoder.final_norm.weight)  # the file holds the weights before the affine part is taken out
    nn.init.zeros_(encoder.final_norm.bias)
    (pixels,) = file.take("in.pixel_values")
    plain = encoder.all_hidden_states(pixels)
    computed = {f"plain.hidden.{layer}": state for layer, state in enumerate(plain)}
    computed["plain.last_hidden_state"] = encoder.final_norm(plain[-1])
    registers = TestTimeRegisters(encoder, config.register_neurons, count=config.num_registers, variant="released")
    states = encoder.all_hidden_states(pixels)
    registers.remove()
    computed |= {f"ttr.hidden.{layer}": state for layer, state in enumerate(states)}
    computed["ttr.pre_layernorm_with_registers"] = states[-1]
    computed["ttr.last_hidden_state_with_registers"] = encoder.final_norm(states[-1])
    return computed


FORMAT = Format(EncoderConfig, outputs)
