"""JiT (LTH14/JiT `model_jit.py`, `denoiser.py`): its time runs from noise to data, its network predicts the image."""

from typing import Literal

import torch
from pydantic import ConfigDict

from harness.denoiser.flow import at_time, flow_loss
from harness.denoiser.recipe import Recipe
from harness.denoiser.registry import ARCHITECTURES
from harness.parity.base import Described, Format, blocks_of
from harness.parity.files import GoldenFile, Tensors
from harness.study.sections.sampling import Guidance, Sampling


class JiTArguments(Described):
    """Arguments of the constructor."""

    model_config = ConfigDict(extra="forbid")

    input_size: int
    in_channels: int
    num_classes: int
    patch_size: int
    hidden_size: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0
    bottleneck_dim: int
    in_context_len: int
    in_context_start: int


class JiTConfig(Described):
    """A model and its samplers."""

    kwargs: JiTArguments
    prefix: Literal["net."]
    prediction: Literal["x"]
    time: Literal["t=0 noise, t=1 data; not multiplied"]
    t_eps: float
    noise_scale: float
    ode_steps: int
    cfg_scale: float
    cfg_interval: tuple[float, float]


def outputs(file: GoldenFile, config: JiTConfig) -> Tensors:
    """As the release calls them, in its time: of `in.x` (B, C, H, W), `in.t` and `in.y` (B,) `out` and `block.i`, of labels `in.y_guided`
    (B,) `out.cfg_velocity` (B, C, H, W), data - noise; the loss, and samples of both samplers."""
    given = config.kwargs
    sizes = given.model_dump(exclude={"bottleneck_dim"})
    model = file.load(ARCHITECTURES["jit"](**sizes, bottleneck=given.bottleneck_dim), config.prefix)
    x, t, y, labels = file.take("in.x", "in.t", "in.y", "in.y_guided")
    computed = blocks_of(model, lambda: model(x, 1 - t, y))

    first, last = config.cfg_interval  # in the release t > first or first = 0, and t < last
    interval = {"interval": (1 - last, 1 - first), "closed": "neither" if first else "high"}
    recipes = {
        name: Recipe(
            Sampling(count=1, batch=1, sampler=name, grid_points=config.ode_steps + 1),
            given.num_classes,
            "data",
            t_min=config.t_eps,
            noise_scale=config.noise_scale,
        )
        for name in ("euler", "heun")
    }
    guidance = Guidance(scale=config.cfg_scale, **interval)
    guided = {
        name: Recipe(**vars(recipe) | {"sampling": recipe.sampling.model_copy(update={"guidance": guidance})})
        for name, recipe in recipes.items()
    }
    velocities = [  # one at a time, since whether t lies in the interval is asked for a batch
        guided["euler"].velocity(guided["euler"].guided(model, labels[i : i + 1]))(x[i : i + 1], 1 - t[i : i + 1]) for i in range(len(x))
    ]
    computed["out.cfg_velocity"] = -torch.cat(velocities)

    time, clean, noise = file.take("loss.t", "loss.x1", "loss.x0_noise")
    noise = noise * config.noise_scale
    x_t = at_time(clean, noise, 1 - time)
    prediction = model(x_t, 1 - time, y)
    loss = flow_loss(clean, noise, 1 - time, prediction, "data", config.t_eps, clamp_target=True)
    computed |= {"loss.xt": x_t, "loss.pred": prediction, "loss.mean": loss.mean()}

    (start,) = file.take("ode.noise")
    computed |= {f"ode.{name}": recipe.sample(model, labels, start) for name, recipe in recipes.items()}
    computed |= {f"ode.cfg_{name}": recipe.sample(model, labels, start) for name, recipe in guided.items()}
    return computed


FORMAT = Format(JiTConfig, outputs, inputs=("loss.t",))
