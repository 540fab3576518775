"""REPA's SiT (sihyun-yu/REPA `models/sit.py`, `samplers.py`). Its time and velocity are those of this code."""

from typing import Any, Literal

import torch.nn.functional as F
from pydantic import ConfigDict
from torch import Tensor

from harness.denoiser.recipe import Recipe
from harness.denoiser.repa import REPA
from harness.machine.device import device
from harness.parity.base import Described, Format, blocks_of
from harness.parity.files import GoldenFile, Tensors
from harness.store.tensors import load_weights
from harness.study.sections.sampling import Guidance, Sampling


class SiTArguments(Described):
    """Arguments of the constructor."""

    model_config = ConfigDict(extra="forbid")

    path_type: Literal["linear"]
    input_size: int
    patch_size: int
    in_channels: int
    hidden_size: int
    decoder_hidden_size: int  # of the final layer, whose width is that of the blocks
    encoder_depth: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0
    class_dropout_prob: float = 0.1
    num_classes: int
    use_cfg: bool
    z_dims: list[int]  # a projector each
    projector_dim: int
    qk_norm: Literal[False]
    fused_attn: bool = True

    def sizes(self) -> dict[str, Any]:
        """Keywords of our constructor."""
        names = ("input_size", "patch_size", "in_channels", "hidden_size", "depth", "num_heads", "mlp_ratio", "num_classes")
        return {name: getattr(self, name) for name in names}


class REPAConfig(Described):
    """A model and its sampler."""

    kwargs: SiTArguments
    prediction: Literal["velocity (noise - data)"]
    time: Literal["t=1 noise, t=0 data; not multiplied"]
    ode_steps: int
    cfg_scale: float
    cfg_interval: tuple[float, float]


def outputs(file: GoldenFile, config: REPAConfig) -> Tensors:
    """Of `in.x` (B, C, H, W), `in.t` and `in.y` (B,): `out` (B, C, H, W), `block.i` and `out.z.j` (B, N, D); samples (B, C, H, W)."""
    given = config.kwargs
    weights, _ = REPA.from_published(file.weights())
    model = load_weights(REPA(**given.sizes()), weights, file.path).eval().to(device())
    x, t, y, labels, start = file.take("in.x", "in.t", "in.y", "in.y_guided", "ode.noise")
    computed = blocks_of(model, lambda: model(x, t, y))
    aligned = computed[f"block.{given.encoder_depth - 1}"]
    computed |= {f"out.z.{index}": _projected(aligned, file.weights(f"projectors.{index}.")) for index in range(len(given.z_dims))}
    plain = Sampling(count=1, batch=1, grid_points=config.ode_steps + 1, last_time=0.0, state="fp64")
    guidance = Guidance(scale=config.cfg_scale, interval=config.cfg_interval)
    held = guidance.model_copy(update={"held": True})
    ways = {
        "ode.sample": plain,
        "ode.cfg_sample": plain.model_copy(update={"guidance": guidance}),
        "ode.cfg_heun": plain.model_copy(update={"guidance": held, "sampler": "heun"}),
    }
    recipes = {name: Recipe(sampling, given.num_classes, "velocity") for name, sampling in ways.items()}
    return computed | {name: recipe.sample(model, labels, start) for name, recipe in recipes.items()}


def _projected(tokens: Tensor, weights: Tensors) -> Tensor:
    """(B, N, C) -> (B, N, D) through REPA's projector, three linear maps with SiLU between them."""
    for layer in (0, 2, 4):
        tokens = F.linear(F.silu(tokens) if layer else tokens, weights[f"{layer}.weight"], weights[f"{layer}.bias"])
    return tokens


FORMAT = Format(REPAConfig, outputs)
