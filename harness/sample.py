"""Stage `samples`: integrate from seeded noise with the EMA weights and decode. Sample i depends on (seed, i) alone."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from harness import artifacts, assets, data, foreign, latents
from harness.models.flow import velocity
from harness.models.samplers import Field, autoguidance, classifier_free, evaluations, integrate, sde_grid, time_grid
from harness.runtime import Progress, autocast, device, stream
from harness.study import Study
from harness.train import decoder as decoders
from harness.train import denoiser as denoisers


def noise_of(seed: int, indices: range, shape: tuple[int, ...], purpose: str = "sample") -> Tensor:
    """(len(indices), *shape) standard normal."""
    return torch.stack([torch.randn(shape, generator=stream(seed, purpose, i)) for i in indices])


def labels_of(indices: range, classes: int, how: str = "equal", seed: int = 0) -> Tensor:
    """`equal`: classes in turn, so that every class has the same count; `random`: each drawn from (seed, i)."""
    if how == "equal":
        return torch.tensor([i % classes for i in indices])
    return torch.cat([torch.randint(classes, (1,), generator=stream(seed, "label", i)) for i in indices])


def grid_of(study: Study) -> Tensor:
    """The time grid of the study's sampler."""
    section = study.sampling
    if section.sampler == "euler_maruyama":
        return sde_grid(section.grid_points, study.time_shift)
    return time_grid(section.grid_points, study.time_shift, study.denoiser.prediction)


def guided(study: Study, model: nn.Module, weak: nn.Module | None, labels: Tensor) -> Field:
    """(x, t) -> the model's output under the study's guidance."""
    guidance = study.sampling.guidance
    if weak is not None:
        return autoguidance(model, weak, labels, guidance.scale, guidance.interval)
    return classifier_free(model, labels, study.classes, guidance.scale, guidance.interval)


def velocity_of(study: Study, output: Field) -> Field:
    """(x, t) -> velocity that the model's output stands for, in the study's precision of sampling."""
    config = study.denoiser

    def velocity_at(x: Tensor, t: Tensor) -> Tensor:
        with autocast(study.sampling.precision):
            found = output(x, t)
        return velocity(x, found.float(), t, config.prediction, config.t_min)

    return velocity_at


def weak_model(study: Study, asset_records: Path | None) -> nn.Module | None:
    """The weaker model of autoguidance, from the study's asset."""
    weak = study.sampling.guidance.weak
    if weak is None:
        return None
    path = assets.locate(asset_records / "sampling.guidance.weak.weights.json")
    model = artifacts.load_weights(denoisers.of_shape(study, weak), foreign.read(path), path)
    return model.eval().requires_grad_(False).to(device())


@torch.no_grad()
def draw(
    study: Study,
    *,
    method_name: str,
    seed: int,
    denoiser: Path,
    decoder: Path,
    latents_file: Path,
    asset_records: Path | None = None,
    out: Path,
) -> dict:
    """Write `images` (N, H, W, 3) uint8 and `labels` (N,) as npz. `decoder`: its weights, or the folder of an encoder that decodes itself."""
    section, scale = study.sampling, study.denoiser.noise_scale
    whitening = latents.held_out(latents_file).whitening.to(device())
    records = [asset_records / f"{name}.json" for name in study.assets if name.startswith("sampling.")]
    inputs = [denoiser, decoder, latents_file, *records]
    with artifacts.artifact(out, stage="samples", module=__name__, config=section, inputs=inputs, method=method_name, seed=seed) as path:
        model, decode = denoisers.load(study, method_name, denoiser), decoders.load(study, decoder)
        weak, grid = weak_model(study, asset_records), grid_of(study)
        progress = Progress(f"samples {method_name}/seed{seed}", section.count, "images")
        size, labels = study.data.image_size, labels_of(range(section.count), study.classes, section.labels, seed)
        images = np.empty((section.count, size, size, 3), dtype=np.uint8)
        for first in range(0, section.count, section.batch):
            batch = range(first, min(first + section.batch, section.count))
            output = guided(study, model, weak, labels[first : batch.stop].to(device()))
            final = integrate(
                section.sampler,
                velocity_of(study, output),
                noise_of(seed, batch, study.latent_shape).to(device()) * scale,
                grid,
                noise_at=lambda step, batch=batch: noise_of(seed, batch, study.latent_shape, f"step {step}").to(device()) * scale,
            )
            with autocast(section.precision):
                images[first : batch.stop] = data.to_uint8(decode(whitening.unwhiten(final)))
            progress.update(batch.stop)
        with open(path, "wb") as file:  # a file object: numpy would add .npz to the temporary name
            np.savez(file, images=images, labels=labels.numpy())
    return {"images": section.count, "nfe": evaluations(section.sampler, section.grid_points)}


def load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(images, labels) of a samples file."""
    artifacts.checked(path)
    with np.load(path, allow_pickle=False) as file:
        return file["images"], file["labels"]
