"""Stage `decoder`: the ViT decoder of an encoder variant: published weights, or RAE's stage 1 on noisy latents.

The loss is L1, plus LPIPS and an adversarial loss where the study names their networks (released train_stage1.py:470-492). Differences
from the released stage 1: images are cropped in the centre, the noise is on whitened latents, and both players share one schedule.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.data.images import to_uint8
from harness.data.stage import load_data
from harness.decoder.vit import ViTDecoder
from harness.encoder import autoencoder
from harness.encoder.latents import Batches, load_encoder
from harness.encoder.whitening import Whitening
from harness.machine.device import autocast, device
from harness.machine.streams import seed_initialisation
from harness.store import artifacts, assets, foreign
from harness.store.tensors import load_tensors, load_weights, save_tensors
from harness.study.method import EncoderRegisters
from harness.study.sections.decoder import OwnDecoder
from harness.study.sections.encoder import PixelEncoder
from harness.study.study import Study
from harness.training.loop import Opponent, fit

SEED = 0  # one decoder per encoder variant, shared by the seeds


def build_decoder(study: Study) -> ViTDecoder:
    c = study.decoder
    return ViTDecoder(channels=study.channels, grid=study.grid, patch=c.patch, width=c.width, depth=c.depth, heads=c.heads, mlp=c.mlp)


def make_decoder(
    study: Study,
    *,
    encoder: str,
    data: Path,
    latents: Path,
    backbone: Path | None = None,
    registers: Path | None = None,
    records: list[Path] = (),
    state: Path,
    out: Path,
) -> dict:
    """Write the decoder of the encoder variant `encoder`. Test-time registers do not change which published decoder is taken."""
    name = EncoderRegisters.from_key(encoder).backbone
    if name not in study.decoder.released:
        return _train(
            study,
            encoder=encoder,
            data=data,
            latents=latents,
            encoder_files=(backbone, registers),
            records=records,
            state=state,
            out=out,
        )
    record = assets.record_of(records, f"decoder.released.{name}")
    source = assets.locate(record)
    with artifacts.artifact(out, stage="decoder", module=__name__, config=study.decoder, inputs=[record]) as path:
        model = load_weights(build_decoder(study), foreign.read(source), source)
        save_tensors(path, model.state_dict())
    return {"decoder": "published", "file": str(source)}


def _train(
    study: Study,
    *,
    encoder: str,
    data: Path,
    latents: Path,
    encoder_files: tuple[Path | None, Path | None],
    records: list[Path],
    state: Path,
    out: Path,
) -> dict:
    """The sigma of the noise on the whitened latents is uniform in [0, decoder.noise], one per sample (RAE's noise_tau)."""
    config = study.decoder
    networks = [assets.record_of(records, name) for name in study.assets if name.startswith(("decoder.perceptual", "decoder.adversarial"))]
    encoders = [] if study.latents.cache else [path for path in encoder_files if path]
    inputs = [data, latents, *encoders, *networks]
    with artifacts.trained_artifact(out, state=state, stage="decoder", module=__name__, config=config, inputs=inputs) as (
        path,
        checkpoints,
    ):
        encoder = None if study.latents.cache else load_encoder(study, *encoder_files)
        split = load_data(data, "train")
        batches = Batches(latents, seed=SEED, batch=config.training.batch, split=split, encoder=encoder)
        seed_initialisation(SEED)
        model = build_decoder(study).to(device())
        losses = _Losses(study, model, batches, records)
        [weights] = fit(
            model,
            losses.decoder,
            config.training,
            images=len(batches),
            name=f"decoder {encoder}",
            seed=SEED,
            state=checkpoints,
            ema=[config.ema] if config.ema else [],
            opponent=losses.opponent,
        )
        save_tensors(path, weights)
    return {
        "decoder": "trained",
        "losses": ["l1", *(["lpips"] if config.perceptual else []), *(["adversarial"] if config.adversarial else [])],
    }


class _Losses:
    """The decoder's loss and, with an adversarial part, the discriminator's."""

    def __init__(self, study: Study, model: ViTDecoder, batches: Batches, records: list[Path]) -> None:
        self.config, self.model, self.batches = study.decoder, model, batches
        self.perceptual = self.discriminator = self.opponent = None
        adversarial, training = self.config.adversarial, self.config.training
        if self.config.perceptual:
            from harness.decoder.perceptual import Perceptual

            files = [assets.locate(assets.record_of(records, f"decoder.perceptual.{part}")) for part in ("vgg", "heads")]
            self.perceptual = Perceptual.load(*files, widths=self.config.perceptual.widths).to(device())
        if adversarial:
            from harness.decoder.discriminator import Discriminator

            file = assets.locate(assets.record_of(records, "decoder.adversarial.weights"))
            shape = {"size": adversarial.image_size, "width": adversarial.width, "depth": adversarial.depth}
            shape |= {"attention_heads": adversarial.heads, "blocks": adversarial.blocks}
            self.discriminator = Discriminator.load(file, **shape).to(device())
            self.fools_from = training.steps_of(adversarial.generator_from, len(batches))
            self.opponent = Opponent(
                self.discriminator, self.against, start=training.steps_of(adversarial.discriminator_from, len(batches))
            )

    def _rows(self, count: int) -> Iterator[slice]:
        size = self.config.training.micro_batch or count
        return (slice(first, min(first + size, count)) for first in range(0, count, size))

    def _decode(self, latents: Tensor) -> Tensor:
        with autocast(self.config.training.precision):
            return autoencoder.vit_decoder(self.model)(self.batches.whitening.unwhiten(latents)).float()

    def decoder(self, step: int, generator: torch.Generator) -> Iterator[Tensor]:
        batch = self.batches(step)
        self.seen = batch
        clean, count = batch.latents, len(batch.latents)
        sigma = self.config.noise * torch.rand(count, 1, 1, 1, generator=generator, device=generator.device)
        noisy = clean + sigma * torch.randn(clean.shape, generator=generator, device=generator.device)
        for rows in self._rows(count):
            images, truth = self._decode(noisy[rows]), batch.pixels[rows]
            loss = self.config.l1 * F.l1_loss(images, truth)
            if self.perceptual is not None:
                loss = loss + self.config.perceptual.weight * self.perceptual(images, truth).mean()
            if self.discriminator is not None and step >= self.fools_from:
                loss = loss + self._fooling(images, loss, generator)
            yield loss * ((rows.stop - rows.start) / count)

    def _fooling(self, images: Tensor, reconstruction: Tensor, generator: torch.Generator) -> Tensor:
        from harness.decoder.discriminator import adaptive_weight, diff_augment, generator_loss

        self.discriminator.eval()
        adversarial = generator_loss(self.discriminator(diff_augment(images, generator)))
        weight = adaptive_weight(reconstruction, adversarial, self.model.decoder_pred.weight, self.config.adversarial.max_weight)
        return self.config.adversarial.weight * weight * adversarial

    def against(self, _step: int, generator: torch.Generator) -> Iterator[Tensor]:
        """The discriminator sees what the updated decoder makes of clean latents, rounded as a stored image would be."""
        from harness.decoder.discriminator import diff_augment, discretise, hinge_loss

        self.discriminator.train()
        count = len(self.seen.latents)
        for rows in self._rows(count):
            with torch.no_grad():
                fake = discretise(self._decode(self.seen.latents[rows]))
            real = discretise(self.seen.pixels[rows])
            logits = [self.discriminator(diff_augment(images, generator)) for images in (real, fake)]
            yield hinge_loss(*logits) * ((rows.stop - rows.start) / count)


def load_decoder(study: Study, path: Path) -> autoencoder.Decoder:
    """Raw latents -> pixels, on the device. `path`: the decoder's weights; the encoder's folder where that decodes itself."""
    if not isinstance(study.decoder, OwnDecoder):
        tensors, _ = load_tensors(path)
        model = load_weights(build_decoder(study), tensors, path).eval().requires_grad_(False).to(device())
        return autoencoder.vit_decoder(model)
    artifacts.checked(path)
    if isinstance(study.encoder, PixelEncoder):
        return lambda raw: raw
    from harness.encoder import vae

    return vae.load(path, study.encoder).to(device()).decode


@torch.no_grad()
def images_of(decode: autoencoder.Decoder, whitening: Whitening, clean: Tensor, size: int) -> np.ndarray:
    """Whitened latents (N, C, H, W) -> (N, H, W, 3) uint8, `size` images at once."""
    whitening = whitening.to(device())
    return np.concatenate([to_uint8(decode(whitening.unwhiten(part.to(device())))) for part in clean.split(size)])
