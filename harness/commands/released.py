"""What this code computes of a file of the released code's: the model that the file describes, with the file's weights, on its inputs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor, nn

from harness.denoiser.ditdh import DiTDH
from harness.denoiser.flow import at_time, flow_loss, shift_time, velocity
from harness.denoiser.lightningdit import LightningDiT
from harness.denoiser.samplers import euler, ode_times
from harness.machine.device import device
from harness.store.tensors import load_weights
from harness.study.typed import UserError

T_MIN = 0.05  # of the released velocity of a data prediction (transport.py:99)

Tensors = dict[str, Tensor]


def computed(path: Path, config: dict[str, Any], tensors: Tensors) -> Tensors:
    """Every output that this code computes from the file's inputs, by its name in the file; shapes are told by the functions of MODELS."""
    for field, (described, outputs) in MODELS.items():
        if field in config:
            return outputs(path, described(**config), tensors)
    raise UserError(f"{path}: its config names neither a denoiser (model), an encoder (vision_config) nor a decoder (decoder_hidden_size)")


def _loaded(model: nn.Module, tensors: Tensors, path: Path) -> nn.Module:
    weights = {name.removeprefix("state."): value for name, value in tensors.items() if name.startswith("state.")}
    load_weights(model, weights, path)
    return model.eval().to(device())


def _inputs(path: Path, tensors: Tensors, *names: str) -> list[Tensor]:
    """UserError names the first that is missing."""
    for name in names:
        if name not in tensors:
            raise UserError(f"{path}: has no '{name}', which its outputs are computed from")
    return [tensors[name] for name in names]


class Described(BaseModel):
    """What a file says of itself. Literal fields are options of the released code of which only the one value is implemented."""

    model_config = ConfigDict(extra="ignore", frozen=True)


# --------------------------------------------------------------------------------------------------------------- denoiser


class DenoiserArguments(Described):
    """Arguments of the released constructors; DiT^DH takes pairs, of its encoder and of its head."""

    model_config = ConfigDict(extra="forbid")

    input_size: int
    patch_size: int | tuple[int, int] = 1
    in_channels: int
    hidden_size: int | tuple[int, int]
    depth: int | tuple[int, int]
    num_heads: int | tuple[int, int]
    mlp_ratio: float = 4.0
    class_dropout_prob: float = 0.1
    num_classes: int = 1000
    use_qknorm: Literal[False] = False
    use_swiglu: Literal[True] = True
    use_rope: Literal[True] = True
    use_rmsnorm: Literal[True] = True
    wo_shift: Literal[False] = False
    use_pos_embed: Literal[True] = True
    register_conditioning: bool = True
    register_len: int = 0
    register_start: int = 0

    @model_validator(mode="before")
    @classmethod
    def _options_that_are_off(cls, values: dict[str, Any]) -> dict[str, Any]:
        """An option that is not known here changes nothing where it is switched off."""
        return {name: value for name, value in values.items() if value or name in cls.model_fields}


class DenoiserConfig(Described):
    """A denoiser of the released code, and the times of its sampler."""

    model: Literal["LightningDiT", "DiTwDDTHead"]
    kwargs: DenoiserArguments
    time_dist_shift: float
    ode_grid_points: int = 12
    ode_steps_taken: int = 11  # one less than the points; for readers


def released_denoiser(config: DenoiserConfig) -> nn.Module:
    """Ours of the same architecture and sizes, with random weights."""
    given = config.kwargs
    count = given.register_len if given.register_conditioning else 0
    common = {
        "input_size": given.input_size,
        "in_channels": given.in_channels,
        "num_classes": given.num_classes,
        "mlp_ratio": given.mlp_ratio,
        "registers": count,
        "register_start": given.register_start if count else 0,
    }
    first = {field: _pair(getattr(given, field))[0] for field in ("hidden_size", "depth", "num_heads", "patch_size")}
    if config.model == "LightningDiT":
        return LightningDiT(**common, **first)
    width, depth, heads = (_pair(value)[1] for value in (given.hidden_size, given.depth, given.num_heads))
    return DiTDH(**common, **first, head_width=width, head_depth=depth, head_heads=heads)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def denoiser_outputs(path: Path, config: DenoiserConfig, tensors: Tensors) -> Tensors:
    """Of `in.x` (B, C, H, W), `in.t` and `in.y` (B,): `out` (B, C, H, W), `block.i` (B, N, D).

    Of the loss the shifted time (B,), the prediction, its value per element (B, C, H, W), per sample (B,) and mean (); of the ODE its
    states.
    """
    model = _loaded(released_denoiser(config), tensors, path)
    x, t, y = _inputs(path, tensors, "in.x", "in.t", "in.y")
    blocks: list[Tensor] = []
    handles = [block.register_forward_hook(lambda _module, _inputs, output: blocks.append(output)) for block in model.blocks]
    outputs = {"out": model(x, t, y)}
    for handle in handles:
        handle.remove()
    outputs |= {f"block.{index}": output for index, output in enumerate(blocks)}

    if any(name.startswith("loss.") for name in tensors):
        u, clean, noise = _inputs(path, tensors, "loss.u", "loss.x1", "loss.x0_noise")
        shifted = shift_time(u, config.time_dist_shift)
        prediction = model(at_time(clean, noise, shifted), shifted, y)
        per_element = flow_loss(clean, noise, shifted, prediction, "data", T_MIN)
        outputs |= {
            "loss.t_shifted": shifted,
            "loss.pred": prediction,
            "loss.per_element": per_element,
            "loss.per_sample": per_element.flatten(1).mean(1),
            "loss.mean": per_element.mean(),
        }

    if any(name.startswith("ode.") for name in tensors):
        (start,) = _inputs(path, tensors, "ode.noise")
        points = config.ode_grid_points
        middle = points // 2

        def of_data(state: Tensor, time: Tensor) -> Tensor:
            return velocity(state, model(state, time, y), time, "data", T_MIN)

        times = ode_times(points, config.time_dist_shift, "data")
        outputs["ode.mid"] = euler(of_data, start, times[: middle + 1])
        outputs["ode.sample"] = euler(of_data, outputs["ode.mid"], times[middle:])
        times = ode_times(points, config.time_dist_shift, "velocity")
        outputs["ode.velocity_sample"] = euler(lambda state, time: model(state, time, y), start, times)
    return outputs


# ---------------------------------------------------------------------------------------------------------------- encoder


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


def encoder_outputs(path: Path, config: EncoderConfig, tensors: Tensors) -> Tensors:
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
    _loaded(encoder.tower, tensors, path)
    encoder.to(device())
    nn.init.ones_(encoder.final_norm.weight)  # the file holds the weights before the affine part is taken out
    nn.init.zeros_(encoder.final_norm.bias)
    (pixels,) = _inputs(path, tensors, "in.pixel_values")
    plain = encoder.all_hidden_states(pixels)
    outputs = {f"plain.hidden.{layer}": state for layer, state in enumerate(plain)}
    outputs["plain.last_hidden_state"] = encoder.final_norm(plain[-1])
    registers = TestTimeRegisters(encoder, config.register_neurons, count=config.num_registers, variant="released")
    states = encoder.all_hidden_states(pixels)
    registers.remove()
    outputs |= {f"ttr.hidden.{layer}": state for layer, state in enumerate(states)}
    outputs["ttr.pre_layernorm_with_registers"] = states[-1]
    outputs["ttr.last_hidden_state_with_registers"] = encoder.final_norm(states[-1])
    return outputs


# ---------------------------------------------------------------------------------------------------------------- decoder


class DecoderConfig(Described):
    """RAE's ViT decoder."""

    encoder_hidden_size: int
    decoder_hidden_size: int
    decoder_num_hidden_layers: int
    decoder_num_attention_heads: int
    decoder_intermediate_size: int
    patch_size: int
    grid: int
    layer_norm_eps: float = 1e-12
    hidden_act: Literal["gelu"] = "gelu"


def decoder_outputs(path: Path, config: DecoderConfig, tensors: Tensors) -> Tensors:
    """Of tokens `in.tokens` (B, N, C): `out.logits` (B, N, patch * patch * 3) and `out.image` (B, 3, H, W)."""
    from harness.decoder.vit import ViTDecoder

    model = ViTDecoder(
        channels=config.encoder_hidden_size,
        side=config.grid,
        patch=config.patch_size,
        width=config.decoder_hidden_size,
        depth=config.decoder_num_hidden_layers,
        heads=config.decoder_num_attention_heads,
        mlp=config.decoder_intermediate_size,
        eps=config.layer_norm_eps,
    )
    _loaded(model, tensors, path)
    (tokens,) = _inputs(path, tensors, "in.tokens")
    return {"out.logits": model.logits(tokens), "out.image": model(tokens)}


# field of a config that tells what it describes -> how it is read, and what computes the outputs
MODELS: dict[str, tuple[type[Described], Callable[[Path, Any, Tensors], Tensors]]] = {
    "model": (DenoiserConfig, denoiser_outputs),
    "vision_config": (EncoderConfig, encoder_outputs),
    "decoder_hidden_size": (DecoderConfig, decoder_outputs),
}
