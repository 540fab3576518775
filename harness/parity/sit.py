"""SiT (willisma/SiT `models.py`, `transport/`): its time runs from noise to data, its velocity is data - noise."""

from typing import Literal

import torch
from pydantic import ConfigDict
from torch import Tensor, nn

from harness.denoiser.flow import at_time, cosine_loss, flow_loss
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


class FromNoise(Described):
    """A sampler of a model whose time runs from noise to data, and whose velocity is data - noise."""

    prediction: Literal["velocity (data - noise)"]
    time: Literal["t=0 noise, t=1 data; not multiplied"]
    ode_grid_points: int
    cfg_scale: float
    cfg_channels: int
    timestep_shift: float | None  # of its time; 0 and None: none
    cfg_interval_start: float | None  # in its time


class SiTConfig(FromNoise):
    """A model and its sampler."""

    kwargs: SiTArguments
    timestep_shift: Literal[None] = None
    cfg_interval_start: Literal[None] = None


def outputs(file: GoldenFile, config: SiTConfig) -> Tensors:
    """Those of `outputs_from_noise`."""
    given = config.kwargs
    last = file.weights().get("final_layer.linear.weight")
    sizes = given.model_dump(exclude={"class_dropout_prob", "learn_sigma"})
    learned = last is not None and len(last) == 2 * given.in_channels * given.patch_size**2
    return outputs_from_noise(file, config, file.load(ARCHITECTURES["sit"](**sizes, learn_sigma=learned)), given.num_classes)


def outputs_from_noise(file: GoldenFile, config: FromNoise, model: nn.Module, null_label: int) -> Tensors:
    """As the release calls them, in its time and with its sign: of `in.x` (B, C, H, W), `in.t` and `in.y` (B,) `out` and `block.i`; of
    labels `in.y_guided` (B,) `out.cfg*` (2 B, C, H, W), whose second half has the unguided channels of the null label; loss and samples.
    """
    x, t, y, labels = file.take("in.x", "in.t", "in.y", "in.y_guided")

    def theirs(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return -model(x, 1 - t, y)

    start = config.cfg_interval_start or 0.0
    guidance = Guidance(scale=config.cfg_scale, channels=config.cfg_channels, interval=(0.0, 1 - start))
    section = Sampling(count=1, batch=1, grid_points=config.ode_grid_points, last_time=0.0)
    shift = 1 / (config.timestep_shift or 1)  # a shift of its time is the inverse one of ours
    plain = Recipe(section, null_label, "velocity", shift)
    guided = Recipe(section.model_copy(update={"guidance": guidance}), null_label, "velocity", shift)
    computed = blocks_of(model, lambda: theirs(x, t, y))
    for name, time in {"out.cfg": CFG_TIME, "out.cfg_below_start": start / 2}.items():
        one_time = torch.full_like(t, time)
        first_half = -guided.guided(model, labels)(x, 1 - one_time)
        free = theirs(x, one_time, torch.full_like(labels, null_label))
        second_half = torch.cat([first_half[:, : config.cfg_channels], free[:, config.cfg_channels :]], dim=1)
        computed[name] = torch.cat([first_half, second_half])

    time, clean, noise = file.take("loss.t", "loss.x1", "loss.x0_noise")
    x_t = at_time(clean, noise, 1 - time)
    prediction = model(x_t, 1 - time, y)
    of = (clean, noise, 1 - time, prediction, "velocity", T_MIN)
    per_sample = flow_loss(*of).flatten(1).mean(1)
    computed |= {"loss.xt": x_t, "loss.pred": -prediction, "loss.per_sample": per_sample, "loss.mean": per_sample.mean()}
    computed["loss.cos_per_sample"] = cosine_loss(*of).flatten(1).mean(1)

    (state,) = file.take("ode.noise")
    computed["ode.grid"] = 1 - plain.times().to(state)
    computed["ode.sample"] = plain.sample(model, labels, state)
    computed["ode.cfg_sample"] = guided.sample(model, labels, state)
    return computed


FORMAT = Format(SiTConfig, outputs, inputs=("loss.t",), left_out={"ode.dopri5_sample": ANOTHER_LIBRARY})
