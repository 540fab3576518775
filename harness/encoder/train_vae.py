"""Stage `encoder` of a study with a VAE of its own: train a small AutoencoderKL and measure the scale of its latents."""

import shutil
from pathlib import Path

import torch
import torch.nn.functional as F

from harness.data.stage import load_data
from harness.encoder import vae
from harness.machine.device import device
from harness.machine.streams import seed_initialisation, stream
from harness.store import artifacts
from harness.study.study import Study
from harness.training.loop import fit
from harness.training.order import batch_indices

SEED = 0  # the encoder is part of the study; the run's seed does not reach it


def train(study: Study, *, data: Path, state: Path, out: Path) -> dict:
    """Write the folder `out` as `save_pretrained` does; its `scaling_factor` is 1 / standard deviation of the training latents, as for
    Stable Diffusion's (arXiv 2112.10752, D.1). Returns what is printed.
    """
    config, split = study.encoder, load_data(data, "train")
    pixels = split.pixels().to(device())
    with artifacts.trained_artifact(out, state=state, stage="encoder", module=__name__, config=config, inputs=[data]) as (
        folder,
        checkpoints,
    ):
        seed_initialisation(SEED)
        model = vae.build(config).to(device())

        def draw(images: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
            """Latents drawn from the posterior, and its KL divergence from the standard normal as a mean over their values."""
            posterior = model.encode(images).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator, device=generator.device)
            latents = posterior.mean + posterior.std * noise
            return latents, 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()

        def loss(step: int, generator: torch.Generator) -> torch.Tensor:
            images = pixels[batch_indices(SEED, step, len(split), config.training.batch)]
            latents, divergence = draw(images, generator)
            return F.l1_loss(model.decode(latents).sample, images) + config.kl * divergence

        fit(model, loss, config.training, images=len(split), name="VAE", seed=SEED, state=checkpoints)
        with torch.no_grad():
            parts = enumerate(pixels.split(256))
            latents = torch.cat([draw(images, stream(SEED, "scale", index, device()))[0] for index, images in parts])
        scale = 1 / latents.double().std().item()
        model.register_to_config(scaling_factor=scale)
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder)
    return {"scale": scale}
