"""The DDT of diffusion-bench, conditioned by labels or by text."""

from typing import Literal

import torch
from torch import Tensor

from harness.denoiser.diffusionbench import DiffusionBenchDDT
from harness.denoiser.flow import at_time, flow_loss, shift_time
from harness.denoiser.recipe import Recipe
from harness.denoiser.text import GivenStates
from harness.parity.base import Arguments, Described, Format, blocks_of
from harness.parity.files import GoldenFile, Tensors
from harness.study.sections.sampling import Guidance, Sampling


class DDTArguments(Arguments):
    """Arguments of the constructor; pairs are of its encoder and of its head."""

    input_size: int
    in_channels: int
    patch_size: tuple[int, int]
    hidden_size: tuple[int, int]
    depth: tuple[int, int]
    num_heads: tuple[int, int]
    num_classes: int
    mlp_ratio: float = 4.0
    condition_type: Literal["label", "text"] = "label"
    context_dim: int | None = None


class ConditionArguments(Arguments):
    """Tokens in context."""

    num_t_tokens: int
    num_c_tokens: int


class DDTConfig(Described):
    """A DDT, its loss, and how it is sampled from."""

    model: Literal["diffusion-bench/DiTwDDTHead"]
    kwargs: DDTArguments
    cond_arch: ConditionArguments
    prediction: Literal["velocity"]
    t_eps: float
    time_dist_shift: float
    ode_steps: int
    cfg_scale: float
    cfg_interval: tuple[float, float]
    null_label: int | None = None  # of text: none


def build(config: DDTConfig) -> DiffusionBenchDDT:
    """Ours of the same sizes, with random weights."""
    given, (patch, patch_of_head) = config.kwargs, config.kwargs.patch_size
    if patch != patch_of_head:
        raise ValueError(f"patches of {patch} and {patch_of_head}; here encoder and head have the same")
    return DiffusionBenchDDT(
        input_size=given.input_size,
        in_channels=given.in_channels,
        hidden_size=given.hidden_size[0],
        depth=given.depth[0],
        num_heads=given.num_heads[0],
        num_classes=given.num_classes,
        head_width=given.hidden_size[1],
        head_depth=given.depth[1],
        head_heads=given.num_heads[1],
        condition=given.condition_type,
        time_tokens=config.cond_arch.num_t_tokens,
        condition_tokens=config.cond_arch.num_c_tokens,
        context_width=given.context_dim if given.condition_type == "text" else None,
        patch_size=patch,
        mlp_ratio=given.mlp_ratio,
    )


def conditions(file: GoldenFile, config: DDTConfig, model: DiffusionBenchDDT) -> tuple[Tensor, Tensor, int]:
    """Labels (B,) of the unguided and of the guided, and the null label; of texts their numbers, by which the model finds their states."""
    if config.kwargs.condition_type == "label":
        plain, guided = file.take("in.y", "in.y_guided")
        return plain, guided, config.null_label if config.null_label is not None else config.kwargs.num_classes
    states, real, null_states, null_real = file.take("in.context", "in.attn_mask", "in.null_context", "in.null_attn_mask")
    model.y_embedder = GivenStates(torch.cat([states, null_states]), torch.cat([real, null_real]).bool())
    numbers = torch.arange(len(states), device=states.device)
    return numbers, numbers, len(states)


def outputs(file: GoldenFile, config: DDTConfig) -> Tensors:
    """Of `in.x` (B, C, H, W), `in.t` (B,) and labels or texts: `out` (B, C, H, W), guided ones beside it, `block.i` (B, N, D).

    Of the loss the shifted times (B,), x_t and the prediction, its value per element (B, C, H, W), per sample (B,) and mean (); of the ODE
    its times (steps + 1,) and samples (B, C, H, W).
    """
    model = file.load(build(config))
    x, t = file.take("in.x", "in.t")
    y, labels, null = conditions(file, config, model)
    steps = {"count": 1, "batch": 1, "grid_points": config.ode_steps + 1, "last_time": 0.0}

    def recipe(scale: float, interval: tuple[float, float] = (0.0, 1.0)) -> Recipe:
        sampling = Sampling(**steps, guidance=Guidance(scale=scale, interval=interval))
        return Recipe(sampling, null, config.prediction, config.time_dist_shift, config.t_eps)

    def guided(interval: tuple[float, float]) -> Tensor:
        """Sample by sample, since each has a time of its own."""
        rows = (slice(row, row + 1) for row in range(len(x)))
        return torch.cat([recipe(config.cfg_scale, interval).guided(model, labels[row])(x[row], t[row]) for row in rows])

    computed = blocks_of(model, lambda: model(x, t, y))
    for name in [name for name in computed if name.startswith("block.")]:  # there the patches come first
        patches = model.side**2
        computed[name] = torch.cat([computed[name][:, -patches:], computed[name][:, :-patches]], dim=1)
    computed |= {"out.cond": model(x, t, labels), "out.uncond": model(x, t, torch.full_like(labels, null))}
    computed |= {"out.cfg": guided((0.0, 1.0)), "out.cfg_interval": guided(config.cfg_interval)}

    if file.has("loss."):
        u, clean, noise = file.take("loss.u", "loss.x1", "loss.x0_noise")
        shifted = shift_time(u, config.time_dist_shift)
        x_t = at_time(clean, noise, shifted)
        prediction = model(x_t, shifted, y)
        per_element = flow_loss(clean, noise, shifted, prediction, config.prediction, config.t_eps, clamp_target=True)
        computed |= {
            "loss.t_shifted": shifted,
            "loss.xt": x_t,
            "loss.pred": prediction,
            "loss.per_element": per_element,
            "loss.per_sample": per_element.flatten(1).mean(1),
            "loss.mean": per_element.mean(),
        }

    if file.has("ode."):
        (start,) = file.take("ode.noise")
        plain = recipe(1.0)
        computed |= {"ode.grid": plain.times(), "ode.sample": plain.sample(model, y, start)}
        computed["ode.cfg_sample"] = recipe(config.cfg_scale, config.cfg_interval).sample(model, labels, start)
    return computed


FORMAT = Format(DDTConfig, outputs)
