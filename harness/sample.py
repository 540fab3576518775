"""Stage `samples`: integrate the ODE from seeded noise with the EMA weights and decode. Sample i depends on (seed, i) alone."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness import artifacts, data, latents
from harness.config import Sampling, Study
from harness.models.flow import euler, euler_grid
from harness.runtime import Progress, stream
from harness.train import decoder as decoders
from harness.train import denoiser as denoisers


def noise_of(seed: int, indices: range, shape: tuple[int, ...]) -> Tensor:
    """(len(indices), *shape) standard normal."""
    return torch.stack([torch.randn(shape, generator=stream(seed, "sample", i)) for i in indices])


def labels_of(indices: range, classes: int) -> Tensor:
    """Classes in turn, so that every class has the same count."""
    return torch.tensor([i % classes for i in indices])


def guided(model: torch.nn.Module, labels: Tensor, sampling: Sampling) -> Callable[[Tensor, Tensor], Tensor]:
    """denoise(x, t) for `euler`: the conditional x-prediction, pushed away from the unconditional one where guidance > 1."""
    if sampling.guidance == 1:
        return lambda x, t: model(x, t, labels)
    null = torch.full_like(labels, denoisers.CLASSES)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        given, free = model(torch.cat([x, x]), torch.cat([t, t]), torch.cat([labels, null])).chunk(2)
        return free + sampling.guidance * (given - free)

    return denoise


def draw(study: Study, *, method_name: str, seed: int, denoiser: Path, decoder: Path, latents_file: Path, out: Path) -> dict:
    """Write `images` (N, H, W, 3) uint8 and `labels` (N,) as npz."""
    config = study.sampling
    source = latents.load(latents_file, "reference")
    with artifacts.artifact(
        out,
        stage="samples",
        module=__name__,
        config=config,
        inputs=[denoiser, decoder, latents_file],
        method=method_name,
        seed=seed,
    ) as path:
        model, decode = denoisers.load(study, method_name, denoiser), decoders.load(study, decoder)
        grid = euler_grid(config.grid_points, study.denoiser.time_shift)
        progress = Progress(f"samples {method_name}/seed{seed}", config.count, "images")
        images, labels = [], labels_of(range(config.count), denoisers.CLASSES)
        for first in range(0, config.count, config.batch):
            batch = range(first, min(first + config.batch, config.count))
            noise = noise_of(seed, batch, source.latents.shape[1:])
            final = euler(guided(model, labels[first : batch.stop], config), noise, grid, study.denoiser.t_min)
            with torch.no_grad():
                images.append(data.to_uint8(decode(source.to_tokens(final))))
            progress.update(batch.stop)
        with open(path, "wb") as file:  # a file object: numpy would add .npz to the temporary name
            np.savez(file, images=np.concatenate(images), labels=labels.numpy())
    return {"images": config.count, "nfe": config.grid_points - 1}


def load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(images, labels) of a samples file."""
    artifacts.checked(path)
    with np.load(path, allow_pickle=False) as file:
        return file["images"], file["labels"]
