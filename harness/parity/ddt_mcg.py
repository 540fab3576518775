"""DDT of MCG-NJU, sampled as there. Its time runs from noise to data, and its velocity is data - noise."""

from typing import Literal

from harness.denoiser.ddt import DDT
from harness.denoiser.recipe import Recipe
from harness.parity.base import Arguments, Described, Format, blocks_of
from harness.parity.files import GoldenFile, Tensors
from harness.study.sections.sampling import Guidance, Sampling


class DDTArguments(Arguments):
    """Arguments of the constructor; the grid is the input's."""

    in_channels: int
    num_groups: int
    hidden_size: int
    num_blocks: int
    num_encoder_blocks: int
    patch_size: int
    num_classes: int


class DDTConfig(Described):
    """A DDT, where its weights are, and how it is sampled from."""

    model: Literal["MCG-NJU/DDT"]
    kwargs: DDTArguments
    prefix: str = ""
    null_label: int
    ode_steps: int
    cfg_scale: float
    cfg_interval: tuple[float, float]  # in its time, without its ends
    last_step: float  # of guided sampling; unguided, steps are even


def outputs(file: GoldenFile, config: DDTConfig) -> Tensors:
    """Of `in.x` (B, C, H, W), `in.t` and `in.y` (B,): `out` (B, C, H, W), `block.i` and `out.condition` (B, N, D).

    Of `ode.noise` (B, C, H, W) and the labels `in.y_guided` (B,) the samples, unguided, guided, and guided with shifted times, each with
    its times (steps + 1,).
    """
    given = config.kwargs
    x, t, y = file.take("in.x", "in.t", "in.y")
    model = file.load(
        DDT(
            input_size=x.shape[-1],
            in_channels=given.in_channels,
            hidden_size=given.hidden_size,
            depth=given.num_encoder_blocks,
            num_heads=given.num_groups,
            num_classes=given.num_classes,
            head_depth=given.num_blocks - given.num_encoder_blocks,
            patch_size=given.patch_size,
        ),
        config.prefix,
    )
    computed = blocks_of(model, lambda: -model(x, 1 - t, y)) | {"out.condition": model.condition(x, 1 - t, y)}
    if file.has("ode."):
        noise, labels = file.take("ode.noise", "in.y_guided")
        low, high = config.cfg_interval
        guidance = Guidance(scale=config.cfg_scale, interval=(1 - high, 1 - low), closed="neither")
        even, steps = 1 / config.ode_steps, {"count": 1, "batch": 1, "grid_points": config.ode_steps + 1}
        for name, last, guided, shift in (
            ("ode.sample", even, Guidance(), 1.0),
            ("ode.cfg_sample", config.last_step, guidance, 1.0),
            ("ode.cfg_shift2_sample", config.last_step, guidance, 2.0),
        ):
            recipe = Recipe(Sampling(**steps, last_step=last, guidance=guided), config.null_label, "velocity", shift)
            computed |= {name: recipe.sample(model, labels, noise), f"{name}.grid": 1 - recipe.times()}
    return computed


FORMAT = Format(DDTConfig, outputs)
