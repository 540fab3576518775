"""Stage `decoder`: train the ViT decoder of an encoder variant on noisy latents (the L1 part of RAE's stage 1)."""

from pathlib import Path

import torch
import torch.nn.functional as F

from harness import artifacts, data, latents
from harness.config import Study
from harness.models.decoder import ViTDecoder
from harness.runtime import seed_initialisation
from harness.train.loop import batch_indices, fit

SEED = 0  # one decoder per encoder variant, shared by the seeds


def build(study: Study) -> ViTDecoder:
    c = study.decoder
    return ViTDecoder(
        channels=study.encoder.width, grid=study.grid, patch=study.encoder.patch, width=c.width, depth=c.depth, heads=c.heads, mlp=c.mlp
    )


def train(study: Study, *, key: str, data_folder: Path, latents_file: Path, state: Path, out: Path) -> None:
    """The sigma of the noise on the whitened latents is uniform in [0, decoder.noise], one per sample (RAE's noise_tau)."""
    config = study.decoder
    inputs = [data_folder, latents_file]
    with artifacts.trained_artifact(out, state=state, stage="decoder", module=__name__, config=config, inputs=inputs) as (
        path,
        checkpoints,
    ):
        pixels, source = data.load(data_folder, "train").pixels(), latents.load(latents_file, "train")
        seed_initialisation(SEED)
        model = build(study)

        def loss(step: int, generator: torch.Generator) -> torch.Tensor:
            rows = batch_indices(SEED, step, len(pixels), config.training.batch)
            clean = source.latents[rows]
            sigma = config.noise * torch.rand(len(rows), 1, 1, 1, generator=generator)
            noisy = clean + sigma * torch.randn(clean.shape, generator=generator)
            return F.l1_loss(model(source.to_tokens(noisy)), pixels[rows])

        artifacts.save_tensors(path, fit(model, loss, config.training, name=f"decoder {key}", seed=SEED, state=checkpoints))


def load(study: Study, path: Path) -> ViTDecoder:
    tensors, _ = artifacts.load_tensors(path)
    return artifacts.load_weights(build(study), tensors, path).eval().requires_grad_(False)
