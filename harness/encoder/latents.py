"""Whitened latents: the statistics that whiten, the file that caches, and the batches that training reads.

The file holds the training latents (`cache: true`) or only their statistics; then every step encodes its images.
"""

import copy
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from harness.data.images import Split
from harness.encoder.base import Encoder, Noise
from harness.encoder.whitening import Whitening
from harness.machine import processes
from harness.machine.device import device
from harness.machine.streams import stream
from harness.results.outlier_rule import outlier_norm
from harness.store import artifacts
from harness.store.tensors import load_tensors
from harness.study.method import NORMS, LossMask
from harness.training.order import batch_indices, crop_places

AHEAD = 2  # steps whose images are decoded before they are needed
AT_ONCE = 64  # images that pass the encoder together: a VAE's first layers are 2 GiB of activations then


@dataclass(frozen=True)
class HeldOut:
    """The reference split: whitened latents (N, C, H, W), labels (N,), and norms (N, depth + 1, P).

    The norms are those of the encoder's residual stream; None: it has no tokens.
    """

    latents: Tensor
    labels: Tensor
    layer_norms: Tensor | None
    whitening: Whitening


def load_held_out(path: Path) -> HeldOut:
    """Of a latents file; UserError if it is not the file that was recorded."""
    tensors, _ = load_tensors(path)
    whitening = Whitening(tensors["mean"], tensors["std"])
    return HeldOut(tensors["reference.latents"], tensors["reference.labels"], tensors.get("reference.norms"), whitening)


def classes_of(path: Path) -> list[str] | None:
    """The classes of the data set that a latents file is of, in the order of labels; None where it names none."""
    return artifacts.meta(path).get("classes")


def load_train_norms(path: Path, name: str) -> Tensor:
    """(N, P) of NORMS, of the training images that the statistics were taken over."""
    artifacts.checked(path)
    with safe_open(path, "pt") as file:
        return file.get_tensor(f"train.norm.{name}")


def token_norms(norms: Tensor, raw: Tensor, whitened: Tensor) -> dict[str, Tensor]:
    """(B, P) token norms by name: residual stream before the final norm, after it, and of the whitened latent (released rae.py:163-189)."""
    return {"pre_ln": norms[:, -1], "post_ln": raw.flatten(2).norm(dim=1), "whitened": whitened.flatten(2).norm(dim=1)}


@dataclass(frozen=True)
class Batch:
    """Whitened latents (B, C, H, W), labels (B,), token norms (B, P) by name, pixels (B, 3, H, W) where they were asked for."""

    latents: Tensor
    labels: Tensor
    norms: dict[str, Tensor]
    pixels: Tensor | None


class Batches:
    """This process's share of each training batch, a function of (seed, step) and the share.

    Cached latents, or images encoded as they come. `norms` are those of the images that the statistics were taken over; a loss mask's
    threshold comes from them. `crops`: of images that are encoded as they come, random squares, never mirrored. UserError from the first
    batch if the processes do not divide it.
    """

    def __init__(
        self, path: Path, *, seed: int, batch: int, split: Split | None = None, encoder: Encoder | None = None, crops: bool = False
    ) -> None:
        tensors, facts = load_tensors(path)
        self.whitening = Whitening(tensors["mean"], tensors["std"]).to(device())
        self.norms = {name: tensors[f"train.norm.{name}"] for name in NORMS if f"train.norm.{name}" in tensors}
        self.cached, self.labels = tensors.get("train.latents"), tensors["train.labels"]
        self.seed, self.size, self.split, self.encoder, self.flip = seed, batch, split, encoder, facts["flip"] and not crops
        self.crops = crops
        self.coming: dict[int, Future] = {}
        self.worker = ThreadPoolExecutor(1)  # hands a step's images to the decoding threads

    def of_seed(self, seed: int) -> "Batches":
        """Those of another seed; what was read of the file is shared."""
        other = copy.copy(self)
        other.seed, other.coming, other.worker = seed, {}, ThreadPoolExecutor(1)
        return other

    def __len__(self) -> int:
        return len(self.labels)

    def threshold(self, mask: LossMask, factor: float) -> float:
        """Norm above which a token is left out of the loss: the mask's threshold, or as many medians; where it has none, `factor` medians.

        Of an absolute one the float32 below it, since what reaches it is left out.
        """
        if mask.absolute:
            return np.nextafter(np.float32(mask.threshold), np.float32(0)).item()
        return outlier_norm(self.norms[mask.norm], mask.threshold or factor)

    def __call__(self, step: int) -> Batch:
        """The batch of a step, on the device; (B, ...) is this process's share of it."""
        rows = self._rows(step)
        labels = self.labels[rows].to(device())
        if self.cached is not None:
            latents = self.cached[rows].to(device())
            norms = {name: norms[rows].to(device()) for name, norms in self.norms.items()}
            return Batch(latents, labels, norms, self.split.pixels(rows.tolist()).to(device()) if self.split else None)
        pixels, noise = self._decoded(step), self._noise(step)
        parts = []
        for first in range(0, len(pixels), AT_ONCE):
            part = slice(first, first + AT_ONCE)
            parts.append(self.encoder(pixels[part], lambda shape, part=part: noise(shape)[part]))
        raw = torch.cat([latents for latents, _ in parts])
        latents = self.whitening.whiten(raw)
        norms = {} if parts[0][1] is None else token_norms(torch.cat([norms for _, norms in parts]), raw, latents)
        return Batch(latents, labels, norms, pixels)

    def _rows(self, step: int) -> Tensor:
        whole = batch_indices(self.seed, step, len(self), self.size)
        return whole[processes.own_part(len(whole))]

    def _noise(self, step: int) -> Noise:
        """Of this process's images; drawn for the whole batch, in parts of AT_ONCE."""
        whole, generator = min(self.size, len(self)), stream(self.seed, "posterior", step)

        @cache
        def draw(shape: tuple[int, ...]) -> Tensor:
            counts = [min(AT_ONCE, whole - first) for first in range(0, whole, AT_ONCE)]
            return torch.cat([torch.randn((count, *shape), generator=generator) for count in counts])[processes.own_part(whole)]

        return draw

    def _read(self, step: int) -> Tensor:
        """(B, 3, H, W) of a step, decoded and cropped."""
        rows = self._rows(step).tolist()
        if not self.crops:
            return self.split.pixels(rows)
        places = crop_places(self.seed, step, len(self), self.size)
        return self.split.random_crops(rows, places[processes.own_part(len(places))].tolist())

    def _decoded(self, step: int) -> Tensor:
        """(B, 3, H, W) of a step, mirrored where (seed, step) says so; the next steps' are decoded meanwhile."""
        for near in range(step, step + 1 + AHEAD):
            if near not in self.coming:
                self.coming[near] = self.worker.submit(self._read, near)
        pixels = self.coming.pop(step).result()
        if self.flip:
            whole = min(self.size, len(self))
            mirrored = (torch.rand(whole, generator=stream(self.seed, "flip", step)) < 0.5)[processes.own_part(whole)]
            pixels = torch.where(mirrored[:, None, None, None], pixels.flip(-1), pixels)
        return pixels.to(device(), non_blocking=True)
