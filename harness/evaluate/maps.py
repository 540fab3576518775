"""Stages `maps` and `encoder_maps`: every token for a few held-out images: norm, first principal component, and attention received.

Of a denoiser, noise, noise levels and images are those of stage `outliers`. As in the released visualize_hook.py, tokens are taken after each block,
and once more from the output; unlike there, registers are kept too, apart from the patches.
"""

import math
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from harness import artifacts, data, latents
from harness.evaluate.made import check_run
from harness.evaluate.outliers import noise_of
from harness.evaluate.scored import stop_of
from harness.models.denoisers.layers import Attention
from harness.models.flow import at_time
from harness.runtime import device
from harness.study import Study
from harness.train import denoiser as denoisers

IMAGES = 32  # evenly spaced among those of stage `outliers`


@dataclass(frozen=True)
class Seen:
    """What one forward pass shows of B images. Where a block has more tokens N than there are patches P, the patches are the last P."""

    entering: list[Tensor]  # norms (B, N) of the tokens that enter each block
    tokens: list[Tensor]  # (B, N, C) after each block, then (B, P, C * patch ** 2), the output cut into patches
    attention: list[Tensor]  # (B, N) that each token receives in each block: mean over heads and queries, so that it sums to 1


@torch.no_grad()
def watch(model: nn.Module, x: Tensor, t: Tensor, labels: Tensor) -> Seen:
    """x (B, C, H, W), t (B,), labels (B,). Attention is NaN where a method put another kind of attention into a block."""
    seen, received = Seen([], [], []), {}
    with ExitStack() as hooks:
        for index, block in enumerate(model.blocks):
            hooks.enter_context(block.register_forward_pre_hook(lambda _block, inputs: seen.entering.append(inputs[0].norm(dim=-1).cpu())))
            hooks.enter_context(block.register_forward_hook(lambda _block, _inputs, out: seen.tokens.append(out.cpu())))
            attention = getattr(block, "attn", None)
            if isinstance(attention, Attention):

                def keep(module: Attention, inputs: tuple, index: int = index) -> None:
                    received[index] = module.weights(*inputs).mean(dim=(1, 2)).cpu()

                hooks.enter_context(attention.register_forward_pre_hook(keep))
        output = model(x, t, labels)
    seen.attention.extend(received.get(index, torch.full_like(norms, torch.nan)) for index, norms in enumerate(seen.entering))
    seen.tokens.append(cut(output, model.grid).cpu())
    return seen


def cut(maps: Tensor, grid: int) -> Tensor:
    """(B, C, H, W) -> (B, grid * grid, C * patch ** 2): patch by patch, as the denoiser's tokens."""
    side = maps.shape[-1] // grid
    return nn.functional.unfold(maps, side, stride=side).transpose(1, 2)


def first_component(tokens: Tensor, size: Tensor) -> tuple[Tensor, float]:
    """(..., C) tokens of several images -> their coordinates (...) along the first principal component, and its share of the variance.

    A component's sign is arbitrary: here the coordinates correlate with `size` (...), not against it. NaN where a token is not finite.
    """
    if not tokens.isfinite().all():
        return torch.full(tokens.shape[:-1], torch.nan), math.nan
    flat, size = tokens.flatten(0, -2).double(), size.flatten().double()
    centred = flat - flat.mean(dim=0)
    variances, directions = torch.linalg.eigh(centred.T @ centred)
    found = centred @ directions[:, -1]
    if (found * (size - size.mean())).sum() < 0:
        found = -found
    return found.unflatten(0, tokens.shape[:-1]), (variances[-1] / variances.sum()).item()


def at_level(model: nn.Module, clean: Tensor, noise: Tensor, labels: Tensor, t: float, size: int) -> dict[str, np.ndarray]:
    """Maps of B images at noise level t, `size` images at once. L blocks, P patches, R registers, K other tokens in context.

    norms, components (L + 1, B, P), explained (L + 1,): after each block, and of the output. entering, attention (L, B, P): norms of what
    enters a block, and attention received there. Components are positive where the clean latent's norm is high. register_norms, register_attention (L, B, R), context_norms, context_attention
    (L, B, K): NaN before these tokens join.
    """
    passes = []
    for parts in zip(clean.split(size), noise.split(size), labels.split(size), strict=True):
        its_latents, its_noise, its_labels = (part.to(device()) for part in parts)
        times = torch.full((len(its_labels),), t, device=device())
        passes.append(watch(model, at_time(its_latents, its_noise, times), times, its_labels))
    entering, tokens, attention = (
        [torch.cat(parts) for parts in zip(*(getattr(seen, field) for seen in passes), strict=True)]
        for field in ("entering", "tokens", "attention")
    )
    patches, registers = model.grid**2, model.registers
    joined = [registers if index >= model.register_start else 0 for index in range(len(entering))]  # registers come first
    context = max(norms.shape[1] - patches - first for norms, first in zip(entering, joined, strict=True))
    maps = {
        "norms": [found[:, -patches:].norm(dim=-1) for found in tokens],
        "entering": [norms[:, -patches:] for norms in entering],
        "attention": [received[:, -patches:] for received in attention],
    }
    for name, values in (("norms", [found.norm(dim=-1) for found in tokens[:-1]]), ("attention", attention)):
        pairs = list(zip(values, joined, strict=True))
        maps[f"register_{name}"] = [_filled(value[:, :first], registers) for value, first in pairs]
        maps[f"context_{name}"] = [_filled(value[:, first:-patches], context) for value, first in pairs]
    size = cut(clean, model.grid).norm(dim=-1)  # the same at every block and noise level, so that signs do not flip from map to map
    components = [first_component(found[:, -patches:], size) for found in tokens]
    maps["components"] = [found for found, _ in components]
    return {name: torch.stack(parts).float().numpy() for name, parts in maps.items()} | {
        "explained": np.array([share for _, share in components], dtype=np.float32)
    }


def _filled(values: Tensor, width: int) -> Tensor:
    """(B, n) -> (B, width): as it is, or NaN where there are no such tokens yet."""
    return values if values.shape[1] == width else values.new_full((len(values), width), torch.nan)


def rows_of(study: Study, held_out: int) -> np.ndarray:
    """Which of the held-out images have maps: IMAGES of those of stage `outliers`, evenly spaced."""
    count = min(study.outlier_statistics.images, held_out)
    return np.linspace(0, count, min(IMAGES, count), endpoint=False).astype(int)


def make(study: Study, *, method_name: str, seed: int, denoiser: Path, latents_file: Path, out: Path) -> dict:
    """npz: the arrays of `at_level` with the noise levels `times` (T,) as first axis, `rows` (B,) of the held-out images, `labels` (B,).

    Of a denoiser that diverged, or whose norms are not finite, only the last three are there; the record has `status` and `reason`.
    """
    config, source = study.outlier_statistics, latents.held_out(latents_file)
    check_run(denoiser, method_name, seed)
    rows = rows_of(study, len(source.latents))
    clean, labels, noise = source.latents[rows], source.labels[rows], noise_of(study, seed, rows.tolist())
    arrays = {"times": np.array(config.times, dtype=np.float64), "rows": rows, "labels": labels.numpy()}
    stop = stop_of(denoiser)
    found = {"status": stop.status, "reason": stop.reason} if stop else {"status": "ok"}
    made = {"stage": "maps", "module": __name__, "config": config, "inputs": [denoiser, latents_file], "method": method_name, "seed": seed}
    with artifacts.artifact(out, found=found, **made) as path:
        if stop is None:
            model = denoisers.load(study, method_name, denoiser)
            levels = [at_level(model, clean, noise, labels, t, config.batch) for t in config.times]
            maps = {name: np.stack([level[name] for level in levels]) for name in levels[0]}
            if np.isfinite(maps["norms"]).all():
                arrays |= maps
            else:
                found |= {"status": "failed", "reason": "norms of the denoiser's tokens are not finite"}
        with open(path, "wb") as npz:  # a file object: numpy would add .npz to the temporary name
            np.savez(npz, **arrays)
    return {"images": len(rows), "status": found.get("reason", "ok")}


def make_encoder(study: Study, *, data_folder: Path, backbone: Path, registers: Path | None, latents_file: Path, out: Path) -> dict:
    """Stage `encoder_maps`, for an encoder variant; npz with `rows` (B,) as in `make`, norms, components (depth + 2, B, P), explained (depth + 2,).

    Patch tokens of the embeddings, after each layer, and of the output, which is what the final norm gives.
    """
    split, source = data.load(data_folder, "reference"), latents.held_out(latents_file)
    rows = rows_of(study, len(split))
    inputs = [path for path in (data_folder, backbone, registers, latents_file) if path is not None]
    with artifacts.artifact(out, stage="encoder_maps", module=__name__, inputs=inputs) as path, torch.no_grad():
        model = latents.load_vision_encoder(study, backbone, registers)
        states = list(model.states(split.pixels(rows.tolist()).to(device())))
        tokens = [model.of_patches(state).cpu() for state in (*states, model.final_norm(states[-1]))]
        size = source.latents[rows].flatten(2).norm(dim=1)
        components = [first_component(found, size) for found in tokens]
        arrays = {
            "rows": rows,
            "norms": torch.stack([found.norm(dim=-1) for found in tokens]).numpy(),
            "components": torch.stack([found for found, _ in components]).float().numpy(),
            "explained": np.array([share for _, share in components], dtype=np.float32),
        }
        with open(path, "wb") as npz:
            np.savez(npz, **arrays)
    return {"images": len(rows), "layers": len(states) - 1}
