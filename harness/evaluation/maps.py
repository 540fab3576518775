"""Stages `maps` and `encoder_maps`: every token for a few held-out images: norm, first principal component, and attention received.

Of a denoiser, noise, noise levels and images are those of stage `outliers`. As in the released visualize_hook.py, tokens are taken after
each block, and once more from the output, which is decoded too; unlike there, registers are kept, apart from the patches.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from harness.data.images import NotFiniteError, brightness
from harness.data.stage import load_data
from harness.decoder.decode import images_of
from harness.decoder.registry import load_decoder
from harness.denoiser.build import load_denoiser
from harness.denoiser.flow import at_time, clean_of
from harness.encoder.base import Decoder
from harness.encoder.latents import load_held_out
from harness.encoder.token_encoder import load_vision_encoder
from harness.encoder.whitening import Whitening
from harness.evaluation.outcome import stop_of
from harness.evaluation.outliers import noise_of
from harness.evaluation.runs import check_run
from harness.machine.device import device
from harness.results.outlier_rule import outlier_norm
from harness.store import artifacts
from harness.store.files import save_npz
from harness.study.seeds import recorded
from harness.study.study import Study

if TYPE_CHECKING:
    from harness.encoder.tower import VisionEncoder

IMAGES = 32  # evenly spaced among those of stage `outliers`


@dataclass(frozen=True)
class ForwardPass:
    """What one forward pass shows of B images. Where a block has more tokens N than there are patches P, the patches are the last P."""

    entering: list[Tensor]  # norms (B, N) of the tokens that enter each block
    tokens: list[Tensor]  # (B, N, C) after each block, then (B, P, C * patch ** 2), the output cut into patches
    attention: list[Tensor]  # (B, N) that each token receives in each block
    output: Tensor  # (B, C, H, W)


@torch.no_grad()
def watch(model: nn.Module, x: Tensor, t: Tensor, labels: Tensor) -> ForwardPass:
    """x (B, C, H, W), t (B,), labels (B,). Attention is NaN where a method's block has an attention without `heads_of`."""
    entering, tokens, by_block = [], [], {}
    with ExitStack() as hooks:
        for index, block in enumerate(model.blocks):
            hooks.enter_context(block.register_forward_pre_hook(lambda _block, inputs: entering.append(inputs[0].norm(dim=-1).cpu())))
            hooks.enter_context(block.register_forward_hook(lambda _block, _inputs, out: tokens.append(out.cpu())))
            attention = getattr(block, "attn", None)
            if heads_of := getattr(attention, "heads_of", None):

                def keep(_module: nn.Module, inputs: tuple, options: dict, index: int = index, heads_of: Callable = heads_of) -> None:
                    query, key, _ = heads_of(*inputs)
                    by_block[index] = received(query, key, **options).cpu()

                hooks.enter_context(attention.register_forward_pre_hook(keep, with_kwargs=True))
        output = model(x, t, labels)
    attention = [by_block.get(index, torch.full_like(norms, torch.nan)) for index, norms in enumerate(entering)]
    return ForwardPass(entering, [*tokens, cut(output, model.side).cpu()], attention, output.cpu())


@torch.no_grad()
def watch_encoder(model: "VisionEncoder", pixels: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """pixels (B, 3, H, W) -> hidden states (B, all tokens, C), embeddings first; attention (B, all tokens) received in each layer."""
    from harness.encoder.tower import submodule  # imports transformers, which takes seconds

    queries, keys, heads = [], [], model.tower.config.num_attention_heads
    with ExitStack() as hooks:
        for kept, name in ((queries, "q_proj"), (keys, "k_proj")):
            for layer in model.layers:

                def keep(_module: nn.Module, _inputs: tuple, out: Tensor, kept: list[Tensor] = kept) -> None:
                    kept.append(out.unflatten(-1, (heads, -1)).transpose(1, 2))

                hooks.enter_context(submodule(layer, name).register_forward_hook(keep))
        states = list(model.states(pixels))
    return states, [received(query, key) for query, key in zip(queries, keys, strict=True)]


def received(query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
    """(B, heads, N, D) each -> (B, N): attention that a token receives, mean over heads and queries, sum 1.

    `mask` (B, 1, 1, N) bool: the keys that are seen. The fused kernel does not tell.
    """
    alike = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
    return (alike if mask is None else alike.masked_fill(~mask, -torch.inf)).softmax(dim=-1).mean(dim=(1, 2))


def cut(maps: Tensor, grid: int) -> Tensor:
    """(B, C, H, W) -> (B, grid * grid, C * patch ** 2): patch by patch, as the denoiser's tokens."""
    side = maps.shape[-1] // grid
    return nn.functional.unfold(maps, side, stride=side).transpose(1, 2)


def first_components(tokens: Tensor, bright: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """(B, P, C) patch tokens -> coordinates (B, P) along the first principal component of their own image, its share (B,) of variance.

    A component's sign is arbitrary. Here it is positive at the image's largest token, where that is an outlier (norm above `factor` times
    the median of all B images); elsewhere the coordinates correlate with `bright` (B, P), not against it. So the sign is one and the same
    for every layer, noise level and method. NaN where a token is not finite.
    """
    if not tokens.isfinite().all():
        return torch.full(tokens.shape[:2], torch.nan), torch.full(tokens.shape[:1], torch.nan)
    centred = tokens.double() - tokens.double().mean(dim=1, keepdim=True)
    variances, directions = torch.linalg.eigh(centred @ centred.transpose(1, 2))  # of P x P: there are fewer patches than channels
    variances = variances.clamp(min=0)
    coordinates = directions[..., -1] * variances[:, -1:].sqrt()
    norms = tokens.norm(dim=-1)
    largest, place = norms.max(dim=1, keepdim=True)
    along = (coordinates * (bright - bright.mean(dim=1, keepdim=True))).sum(dim=1, keepdim=True)
    against = torch.where(largest > outlier_norm(norms, factor), coordinates.gather(1, place), along) < 0
    share = variances[:, -1] / variances.sum(dim=1).clamp(min=torch.finfo(torch.float64).tiny)
    return torch.where(against, -coordinates, coordinates), share


def at_level(
    model: nn.Module, clean: Tensor, noise: Tensor, labels: Tensor, bright: Tensor, t: float, *, size: int, factor: float
) -> tuple[dict[str, np.ndarray], Tensor]:
    """Maps of B images at noise level t, `size` images at once, and the output (B, C, H, W). L blocks, P patches, R registers, K other
    tokens in context.

    norms, components (L + 1, B, P), explained (L + 1, B): after each block, and of the output; signs of components by `bright` (B, P) and
    `factor`. entering, attention (L, B, P): norms of what enters a block, and attention received there. register_norms, register_attention
    (L, B, R), context_norms, context_attention (L, B, K): NaN before these tokens join.
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
    patches, registers = model.side**2, model.registers
    joined = [registers if index >= model.register_start else 0 for index in range(len(entering))]  # registers come first
    context = max(norms.shape[1] - patches - first for norms, first in zip(entering, joined, strict=True))
    maps = {
        "norms": [layer[:, -patches:].norm(dim=-1) for layer in tokens],
        "entering": [norms[:, -patches:] for norms in entering],
        "attention": [received[:, -patches:] for received in attention],
    }
    for name, values in (("norms", [layer.norm(dim=-1) for layer in tokens[:-1]]), ("attention", attention)):
        pairs = list(zip(values, joined, strict=True))
        maps[f"register_{name}"] = [_filled(value[:, :first], registers) for value, first in pairs]
        maps[f"context_{name}"] = [_filled(value[:, first:-patches], context) for value, first in pairs]
    maps |= _components([layer[:, -patches:] for layer in tokens], bright, factor)
    return _arrays(maps), torch.cat([seen.output for seen in passes])


def _components(tokens: list[Tensor], bright: Tensor, factor: float) -> dict[str, list[Tensor]]:
    """`components` (B, P) and `explained` (B,) of patch tokens (B, P, C) after each block or layer."""
    components, shares = zip(*(first_components(layer, bright, factor) for layer in tokens), strict=True)
    return {"components": list(components), "explained": list(shares)}


def _arrays(maps: dict[str, list[Tensor]]) -> dict[str, np.ndarray]:
    return {name: torch.stack(parts).float().numpy() for name, parts in maps.items()}


def _filled(values: Tensor, width: int) -> Tensor:
    """(B, n) -> (B, width): as it is, or NaN where there are no such tokens yet."""
    return values if values.shape[1] == width else values.new_full((len(values), width), torch.nan)


def rows_of(study: Study) -> np.ndarray:
    """(B,) numbers of the held-out images that have maps: IMAGES of those of stage `outliers`, evenly spaced."""
    rows = np.array(study.outlier_rows)
    return rows[np.linspace(0, len(rows), min(IMAGES, len(rows)), endpoint=False).astype(int)]


def make_maps(study: Study, *, method: str, seed: int, denoiser: Path, decoder: Path, latents: Path, data: Path, out: Path) -> dict:
    """Stage `maps`, for a run; npz with the arrays of `at_level`, the noise levels `times` (T,) their first axis, and images.

    `rows` (B,) of the held-out images, `labels` (B,), and `decoded` (T, B, H, W, 3) uint8, the images that the denoiser predicts.
    `decoder`: its weights, or the folder of an encoder that decodes itself.

    Of a denoiser that diverged, or whose norms or decoded images are not finite, only `times`, `rows` and `labels` are there; the record
    has `status` and `reason`.
    """
    config, source = study.outlier_statistics, load_held_out(latents)
    check_run(denoiser, method, seed)
    rows = rows_of(study)
    clean, labels, noise = source.latents[rows], source.labels[rows], noise_of(study, seed, rows.tolist())
    arrays = {"times": np.array(config.times, dtype=np.float64), "rows": rows, "labels": labels.numpy()}
    stop = stop_of(denoiser)
    outcome = {"status": stop.status, "reason": stop.reason} if stop else {"status": "ok"}
    inputs = [denoiser, decoder, latents, data]
    record = {"stage": "maps", "module": __name__, "config": config, "inputs": inputs, "method": method, "seed": recorded(seed)}
    with artifacts.artifact(out, outcome=outcome, **record) as path:
        if stop is None:
            model = load_denoiser(study, method, denoiser)
            bright = brightness(load_data(data, "reference").pixels(rows.tolist()), model.side)
            settings = {"size": config.batch, "factor": config.factor}
            levels, outputs = zip(*(at_level(model, clean, noise, labels, bright, t, **settings) for t in config.times), strict=True)
            maps = {name: np.stack([level[name] for level in levels]) for name in levels[0]}
            if np.isfinite(maps["norms"]).all():
                decode = load_decoder(study, decoder)
                pairs = zip(config.times, outputs, strict=True)
                try:
                    images = [decoded(study, decode, source.whitening, clean, noise, t, output) for t, output in pairs]
                    arrays |= maps | {"decoded": np.stack(images)}
                except NotFiniteError as error:
                    outcome |= {"status": "failed", "reason": str(error)}
            else:
                outcome |= {"status": "failed", "reason": "norms of the denoiser's tokens are not finite"}
        save_npz(path, arrays)
    return {"images": len(rows), "status": outcome.get("reason", "ok")}


def decoded(study: Study, decode: Decoder, whitening: Whitening, clean: Tensor, noise: Tensor, t: float, output: Tensor) -> np.ndarray:
    """(B, H, W, 3) uint8: the images that a denoiser's output (B, C, H, W) at noise level t stands for."""
    config, times = study.denoiser, torch.full((len(clean),), t)
    predicted = clean_of(at_time(clean, noise, times), output, times, config.prediction, config.t_min)
    return images_of(decode, whitening, predicted, study.outlier_statistics.batch, study.sampling.eight_bit)


def make_encoder_maps(study: Study, *, data: Path, backbone: Path, registers: Path | None = None, out: Path) -> dict:
    """Stage `encoder_maps`, for an encoder variant; npz with `rows` (B,) as in `make_maps`.

    Norms, components (depth + 2, B, P) and explained (depth + 2, B) are of patch tokens of the embeddings, after each layer, and of the
    output, which is what the final norm gives. As of a denoiser's blocks: entering, attention (depth, B, P), register_norms,
    register_attention (depth, B, R), context_norms, context_attention (depth, B, K); registers are those that the encoder was trained with,
    and test-time ones; the other token is CLS.
    """
    split = load_data(data, "reference")
    rows = rows_of(study)
    inputs = [path for path in (data, backbone, registers) if path is not None]
    with artifacts.artifact(out, stage="encoder_maps", module=__name__, inputs=inputs) as path, torch.no_grad():
        model = load_vision_encoder(study, backbone, registers)
        pixels = split.pixels(rows.tolist())
        states, attention = watch_encoder(model, pixels.to(device()))
        tokens = [model.of_patches(state).cpu() for state in (*states, model.final_norm(states[-1]))]
        maps = {
            "norms": [layer.norm(dim=-1) for layer in tokens],
            "attention": [model.of_patches(received).cpu() for received in attention],
        }
        maps["entering"] = maps["norms"][:-2]
        for name, values in (("norms", [state.norm(dim=-1) for state in states[1:]]), ("attention", attention)):
            for kind, of_kind in (("register", model.of_registers), ("context", model.of_context)):
                maps[f"{kind}_{name}"] = [of_kind(value).cpu() for value in values]
        maps |= _components(tokens, brightness(pixels, model.side), study.outlier_statistics.factor)
        save_npz(path, _arrays(maps) | {"rows": rows})
    return {"images": len(rows), "layers": len(states) - 1}
