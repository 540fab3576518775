"""LightningDiT and DiT^DH of the DSR release, without and with diffusion registers."""

from dataclasses import replace
from typing import Literal

from torch import nn

from harness.denoiser.ditdh import DiTDH
from harness.denoiser.flow import at_time, flow_loss, shift_time
from harness.denoiser.lightningdit import LightningDiT
from harness.denoiser.recipe import Recipe
from harness.parity.base import Arguments, Described, Format, blocks_of
from harness.parity.files import GoldenFile, Tensors
from harness.study.sections.sampling import Sampling

T_MIN = 0.05  # of the released velocity of a data prediction (transport.py:99)


class DenoiserArguments(Arguments):
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


def outputs(file: GoldenFile, config: DenoiserConfig) -> Tensors:
    """Of `in.x` (B, C, H, W), `in.t` and `in.y` (B,): `out` (B, C, H, W), `block.i` (B, N, D).

    Of the loss the shifted time (B,), the prediction, its value per element (B, C, H, W), per sample (B,) and mean (); of the ODE its
    states.
    """
    model = file.load(released_denoiser(config))
    x, t, y = file.take("in.x", "in.t", "in.y")
    computed = blocks_of(model, lambda: model(x, t, y))

    if file.has("loss."):
        u, clean, noise = file.take("loss.u", "loss.x1", "loss.x0_noise")
        shifted = shift_time(u, config.time_dist_shift)
        prediction = model(at_time(clean, noise, shifted), shifted, y)
        per_element = flow_loss(clean, noise, shifted, prediction, "data", T_MIN)
        computed |= {
            "loss.t_shifted": shifted,
            "loss.pred": prediction,
            "loss.per_element": per_element,
            "loss.per_sample": per_element.flatten(1).mean(1),
            "loss.mean": per_element.mean(),
        }

    if file.has("ode."):
        (start,) = file.take("ode.noise")
        recipe = Recipe(
            Sampling(count=1, batch=1, grid_points=config.ode_grid_points), config.kwargs.num_classes, "data", config.time_dist_shift, T_MIN
        )
        times, middle = recipe.times(), config.ode_grid_points // 2
        computed["ode.mid"] = recipe.sample(model, y, start, times=times[: middle + 1])
        computed["ode.sample"] = recipe.sample(model, y, computed["ode.mid"], times=times[middle:])
        computed["ode.velocity_sample"] = replace(recipe, prediction="velocity").sample(model, y, start)
    return computed


FORMAT = Format(DenoiserConfig, outputs)
