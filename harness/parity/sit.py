"""SiT (willisma/SiT `models.py`, `transport/`): its time runs from noise to data, its velocity is data - noise."""

from typing import Literal

import torch
from pydantic import ConfigDict
from torch import Tensor

from harness.denoiser.flow import at_time, flow_loss
from harness.denoiser.recipe import Recipe
from harness.denoiser.registry import ARCHITECTURES
from harness.parity.base import ANOTHER_LIBRARY, Described, Format, blocks_of
from harness.parity.files import GoldenFile, Tensors
from harness.study.sections.sampling import Guidance, Sampling

CFG_TIME = 0.4  # of `out.cfg`, in the release's time
T_MIN = 0.05  # of data predictions; a velocity is not divided


class SiTArguments(Described):
    """Arguments of the constructor."""

    model_config = ConfigDict(extra="forbid")

    input_size: int
    patch_size: int
    in_channels: int
    hidden_size: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0
    class_dropout_prob: float = 0.1
    num_classes: int
    learn_sigma: bool = True  # for readers: the shape of the last layer says it


class SiTConfig(Described):
    """A model and its sampler."""

    kwargs: SiTArguments
    prediction: Literal["velocity (data - noise)"]
    time: Literal["t=0 noise, t=1 data; not multiplied"]
    ode_grid_points: int
    cfg_scale: float
    cfg_channels: int
    timestep_shift: Literal[None] = None
    cfg_interval_start: Literal[None] = None


def outputs(file: GoldenFile, config: SiTConfig) -> Tensors:
    """As the release calls them, in its time and with its sign: of `in.x` (B, C, H, W), `in.t` and `in.y` (B,) `out` and `block.i`; of
    labels `in.y_guided` (B,) `out.cfg` (2 B, C, H, W), whose second half has the unguided channels of the null label; loss and samples.
    """
    given = config.kwargs
    last = file.weights().get("final_layer.linear.weight")
    sizes = given.model_dump(exclude={"class_dropout_prob", "learn_sigma"})
    learned = last is not None and len(last) == 2 * given.in_channels * given.patch_size**2
    model = file.load(ARCHITECTURES["sit"](**sizes, learn_sigma=learned))
    x, t, y, labels = file.take("in.x", "in.t", "in.y", "in.y_guided")

    def theirs(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return -model(x, 1 - t, y)

    guidance = Guidance(scale=config.cfg_scale, channels=config.cfg_channels)
    section = Sampling(count=1, batch=1, grid_points=config.ode_grid_points, last_time=0.0)
    plain = Recipe(section, given.num_classes, "velocity")
    guided = Recipe(section.model_copy(update={"guidance": guidance}), given.num_classes, "velocity")
    computed = blocks_of(model, lambda: theirs(x, t, y))
    one_time = torch.full_like(t, CFG_TIME)
    first_half = -guided.guided(model, labels)(x, 1 - one_time)
    free = theirs(x, one_time, torch.full_like(labels, given.num_classes))
    second_half = torch.cat([first_half[:, : config.cfg_channels], free[:, config.cfg_channels :]], dim=1)
    computed["out.cfg"] = torch.cat([first_half, second_half])

    time, clean, noise = file.take("loss.t", "loss.x1", "loss.x0_noise")
    x_t = at_time(clean, noise, 1 - time)
    prediction = model(x_t, 1 - time, y)
    per_sample = flow_loss(clean, noise, 1 - time, prediction, "velocity", T_MIN).flatten(1).mean(1)
    computed |= {"loss.xt": x_t, "loss.pred": -prediction, "loss.per_sample": per_sample, "loss.mean": per_sample.mean()}

    (start,) = file.take("ode.noise")
    computed["ode.grid"] = 1 - plain.times().to(start)
    computed["ode.sample"] = plain.sample(model, labels, start)
    computed["ode.cfg_sample"] = guided.sample(model, labels, start)
    return computed


FORMAT = Format(SiTConfig, outputs, inputs=("loss.t",), left_out={"ode.dopri5_sample": ANOTHER_LIBRARY})
