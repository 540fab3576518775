"""`dsr parity`: does this code compute what the authors' released code does? Compared are recorded inputs, weights and outputs.

A file is a `.safetensors` with random weights (`state.*`), inputs and outputs of the released code, and in its metadata a `config` (JSON)
with the shapes. Its architecture is known from the config. The relative error of a quantity is |ours - theirs| / |theirs|, L2 norms over
all of its values.
"""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from harness.denoiser.ditdh import DiTDH
from harness.denoiser.flow import at_time, flow_loss, shift_time, velocity
from harness.denoiser.lightningdit import LightningDiT
from harness.denoiser.samplers import euler, ode_times
from harness.machine.device import device
from harness.store.tensors import load_weights
from harness.study.typed import UserError, explain

LIMIT = 1e-5  # float32 of another order of summation stays below; the released code in float64 is within 1.4e-6 of itself
T_MIN = 0.05  # of the released velocity of a data prediction (transport.py:99)
INPUTS = re.compile(r"state\..*|in\..*|loss\.(u|x1|x0_noise)|ode\.noise")  # everything else is an output

Tensors = dict[str, Tensor]


class Quantity(BaseModel):
    """A recorded output and how far ours is from it."""

    model_config = ConfigDict(frozen=True)
    name: str
    error: float  # relative; NaN where ours is not a number

    @property
    def ok(self) -> bool:
        return self.error < LIMIT


def parity(path: Path) -> list[Quantity]:
    """The error of every output in the file, in the file's order.

    Raises UserError for a file that is not of this format, an architecture or an option that is not implemented here, weights that do
    not fit it, and an output that this code does not compute.
    """
    path = Path(path)
    config, tensors = _read(path)
    try:
        with torch.no_grad():
            ours = _computed(path, config, tensors)
    except ValidationError as error:
        raise UserError(f"{path}: its config: {explain(error, BaseModel)}") from None
    except UserError as error:
        raise UserError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    except (RuntimeError, IndexError, ZeroDivisionError) as error:
        raise UserError(f"{path}: its inputs do not fit its config: {str(error).splitlines()[0]}") from None
    outputs = [name for name in tensors if not INPUTS.fullmatch(name)]
    unknown = [name for name in outputs if name not in ours]
    if unknown or not outputs:
        raise UserError(f"{path}: not computed here: {', '.join(unknown)}" if unknown else f"{path}: holds no outputs to compare with")
    for name in outputs:
        if ours[name].shape != tensors[name].shape:
            raise UserError(f"{path}: '{name}' is {tuple(tensors[name].shape)} in the file, {tuple(ours[name].shape)} here")
    return [Quantity(name=name, error=relative_error(ours[name], tensors[name])) for name in sorted(outputs, key=_in_order)]


def report(paths: Sequence[Path]) -> tuple[str, bool]:
    """What `dsr parity` prints: a line for every quantity of every file; and whether all of them stay below the limit."""
    lines, good = [], True
    for path in paths:
        found = parity(path)
        width = max(len(quantity.name) for quantity in found)
        failed = [quantity for quantity in found if not quantity.ok]
        good = good and not failed
        verdict = f"{len(failed)} of {len(found)} quantities at or above" if failed else f"all {len(found)} quantities below"
        lines.append(f"{path}: {verdict} {LIMIT:g}")
        lines += [f"  {quantity.name:<{width}}  {quantity.error:.1e}{'' if quantity.ok else '  FAILS'}" for quantity in found]
    return "\n".join(lines), good


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """|ours - theirs| / |theirs|, in float64; where theirs is all zero, 0 for equal tensors and infinity for others."""
    distance, size = (ours.double() - theirs.double()).norm().item(), theirs.double().norm().item()
    return distance / size if size else math.inf if distance else 0.0


def _in_order(name: str) -> list[tuple[bool, int, str]]:
    """block.10 comes after block.9."""
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in name.split(".")]


def _read(path: Path) -> tuple[dict[str, Any], Tensors]:
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get("config")
            tensors = {key: file.get_tensor(key).to(device()) for key in file.keys()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a readable safetensors file ({error})") from None
    try:
        config = json.loads(text or "")
    except json.JSONDecodeError:
        config = None
    if not isinstance(config, dict):
        raise UserError(f"{path}: its metadata has no 'config' (JSON) with the shapes; weights alone cannot be compared")
    return config, tensors


def _computed(path: Path, config: dict[str, Any], tensors: Tensors) -> Tensors:
    """Every output that this code computes from the file's inputs, by its name in the file."""
    if "model" in config:
        return _of_denoiser(path, DenoiserConfig(**config), tensors)
    if "vision_config" in config:
        return _of_encoder(path, EncoderConfig(**config), tensors)
    if "decoder_hidden_size" in config:
        return _of_decoder(path, DecoderConfig(**config), tensors)
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


class Strict(Described):
    model_config = ConfigDict(extra="forbid")


# --------------------------------------------------------------------------------------------------------------- denoiser


class DenoiserArguments(Strict):
    """Arguments of the released constructors; DiT^DH takes pairs, of its encoder and of its head."""

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
    model: Literal["LightningDiT", "DiTwDDTHead"]
    kwargs: DenoiserArguments
    time_dist_shift: float
    ode_grid_points: int = 12
    ode_steps_taken: int = 11  # one less than the points; for readers


def _denoiser(config: DenoiserConfig) -> nn.Module:
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


def _of_denoiser(path: Path, config: DenoiserConfig, tensors: Tensors) -> Tensors:
    """`out`, `block.i`; of the loss the shifted time, the prediction, its value per element and per sample; of the ODE its states."""
    model = _loaded(_denoiser(config), tensors, path)
    x, t, y = _inputs(path, tensors, "in.x", "in.t", "in.y")
    blocks: list[Tensor] = []
    handles = [block.register_forward_hook(lambda _module, _inputs, output: blocks.append(output)) for block in model.blocks]
    found = {"out": model(x, t, y)}
    for handle in handles:
        handle.remove()
    found |= {f"block.{index}": output for index, output in enumerate(blocks)}

    if any(name.startswith("loss.") for name in tensors):
        u, clean, noise = _inputs(path, tensors, "loss.u", "loss.x1", "loss.x0_noise")
        shifted = shift_time(u, config.time_dist_shift)
        prediction = model(at_time(clean, noise, shifted), shifted, y)
        per_element = flow_loss(clean, noise, shifted, prediction, "data", T_MIN)
        found |= {
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
        found["ode.mid"] = euler(of_data, start, times[: middle + 1])
        found["ode.sample"] = euler(of_data, found["ode.mid"], times[middle:])
        times = ode_times(points, config.time_dist_shift, "velocity")
        found["ode.velocity_sample"] = euler(lambda state, time: model(state, time, y), start, times)
    return found


# ---------------------------------------------------------------------------------------------------------------- encoder


class VisionShape(Described):
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    image_size: int
    patch_size: int
    num_channels: Literal[3] = 3
    hidden_act: Literal["gelu_pytorch_tanh"] = "gelu_pytorch_tanh"


class EncoderConfig(Described):
    vision_config: VisionShape
    layer_norm_eps: Literal[1e-06]
    register_neurons: dict[int, list[int]]
    num_registers: int
    normal_values: Literal["zero"]
    scale: Literal[1.0]
    post_layernorm: Literal["without affine"]
    register_token_init: Literal["zeros, appended after the patch tokens"]
    activation: Literal["gelu_pytorch_tanh"]


def _of_encoder(path: Path, config: EncoderConfig, tensors: Tensors) -> Tensors:
    """Hidden states (the embeddings, then after each layer) and the final norm's output: `plain.*`, and with test-time registers `ttr.*`."""
    from harness.encoder.test_time_registers import TestTimeRegisters
    from harness.encoder.tower import from_shape  # imports transformers, which takes seconds

    shape = config.vision_config
    encoder = from_shape(
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
    found = {f"plain.hidden.{layer}": state for layer, state in enumerate(plain)}
    found["plain.last_hidden_state"] = encoder.final_norm(plain[-1])
    registers = TestTimeRegisters(encoder, config.register_neurons, count=config.num_registers, variant="released")
    states = encoder.all_hidden_states(pixels)
    registers.remove()
    found |= {f"ttr.hidden.{layer}": state for layer, state in enumerate(states)}
    found["ttr.pre_layernorm_with_registers"] = states[-1]
    found["ttr.last_hidden_state_with_registers"] = encoder.final_norm(states[-1])
    return found


# ---------------------------------------------------------------------------------------------------------------- decoder


class DecoderConfig(Described):
    encoder_hidden_size: int
    decoder_hidden_size: int
    decoder_num_hidden_layers: int
    decoder_num_attention_heads: int
    decoder_intermediate_size: int
    patch_size: int
    grid: int
    layer_norm_eps: float = 1e-12
    hidden_act: Literal["gelu"] = "gelu"


def _of_decoder(path: Path, config: DecoderConfig, tensors: Tensors) -> Tensors:
    from harness.decoder.vit import ViTDecoder

    model = ViTDecoder(
        channels=config.encoder_hidden_size,
        grid=config.grid,
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
