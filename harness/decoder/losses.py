"""Losses of RAE's decoder: L1, and LPIPS and an adversarial one where the study names their networks."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.decoder.vit import ViTDecoder
from harness.encoder.latents import Batches
from harness.machine.device import autocast, device
from harness.store import assets
from harness.study.study import Study
from harness.training.loop import Opponent


class Losses:
    """The decoder's loss and, with an adversarial part, the discriminator's."""

    def __init__(self, study: Study, model: ViTDecoder, batches: Batches, records: Sequence[Path]) -> None:
        self.config, self.model, self.batches = study.decoder, model, batches
        self.perceptual = self.discriminator = self.opponent = None
        self.taken: dict[str, dict] = {}  # asset -> what was taken of its file
        adversarial, training = self.config.adversarial, self.config.training
        if self.config.perceptual:
            from harness.decoder.perceptual import Perceptual

            widths, named = self.config.perceptual.widths, (self.config.perceptual.vgg.container, self.config.perceptual.heads.container)
            files = [assets.locate(assets.record_of(records, f"decoder.perceptual.{part}")) for part in ("vgg", "heads")]
            self.perceptual = Perceptual.from_files(*files, widths=widths, named=named).to(device())
            self.taken |= {f"decoder.perceptual.{part}": facts for part, facts in self.perceptual.taken.items()}
        if adversarial:
            from harness.decoder.discriminator import Discriminator, shape_of

            file = assets.locate(assets.record_of(records, "decoder.adversarial.weights"))
            self.discriminator = Discriminator.from_file(file, adversarial.weights.container, **shape_of(adversarial)).to(device())
            self.taken["decoder.adversarial.weights"] = self.discriminator.taken
            self.fools_from = training.steps_of(adversarial.generator_from, len(batches))
            start, own = training.steps_of(adversarial.discriminator_from, len(batches)), adversarial.discriminator_schedule == "own"
            self.opponent = Opponent(self.discriminator, self.against, start=start, own_schedule=own)

    def _rows(self, count: int) -> Iterator[slice]:
        size = self.config.training.micro_batch or count
        return (slice(first, min(first + size, count)) for first in range(0, count, size))

    def _decode(self, latents: Tensor) -> Tensor:
        with autocast(self.config.training.precision):
            return self.model.decode(self.batches.whitening.unwhiten(latents)).float()

    def decoder(self, step: int, generator: torch.Generator) -> Iterator[Tensor]:
        """Of the decoder at a step: a scalar for each micro-batch; they add up to the mean over the batch."""
        batch = self.batches(step)
        self.seen = batch
        clean, count = batch.latents, len(batch.latents)
        sigma = self.config.noise * torch.rand(count, 1, 1, 1, generator=generator, device=generator.device)
        noise = sigma * torch.randn(clean.shape, generator=generator, device=generator.device)
        noisy = clean + (noise if self.config.noise_on == "whitened" else noise / self.batches.whitening.std)
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
        """Of the discriminator: a scalar for each micro-batch.

        It sees what the updated decoder makes of clean latents, rounded as a stored image would be.
        """
        from harness.decoder.discriminator import diff_augment, discretise, hinge_loss

        self.discriminator.train()
        count = len(self.seen.latents)
        for rows in self._rows(count):
            with torch.no_grad():
                fake = discretise(self._decode(self.seen.latents[rows]))
            real = discretise(self.seen.pixels[rows])
            logits = [self.discriminator(diff_augment(images, generator)) for images in (real, fake)]
            yield hinge_loss(*logits) * ((rows.stop - rows.start) / count)
