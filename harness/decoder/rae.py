"""Decoder `vit`, RAE's: published weights, or its stage 1 on noisy latents.

The loss is L1, plus LPIPS and an adversarial loss where the study names their networks (released train_stage1.py:470-492). Where the
released stage 1 does otherwise by default (crop, what the noise is on, the average, the discriminator's schedule), a field says which.
"""

from collections.abc import Sequence
from pathlib import Path

from harness.data.stage import load_data
from harness.decoder.base import DecoderKind, LossNetwork
from harness.decoder.losses import Losses
from harness.decoder.pixels import signed
from harness.decoder.vit import ViTDecoder
from harness.encoder.base import Decoder
from harness.encoder.latents import Batches
from harness.encoder.registry import load_encoder
from harness.machine.device import device
from harness.machine.streams import seed_initialisation
from harness.store import artifacts, assets, foreign
from harness.store.tensors import load_tensors, load_weights, save_tensors
from harness.study.method import EncoderRegisters
from harness.study.sections.pixels import SIGNED, Pixels
from harness.study.typed import UserError
from harness.training.loop import fit
from harness.training.network import Network

LOSSES = ("decoder.perceptual", "decoder.adversarial")  # fields of the networks of the losses
SEED = 0  # one decoder per encoder variant, shared by the seeds


class RaeDecoder(DecoderKind):
    def make(
        self,
        *,
        encoder: str,
        data: Path,
        latents: Path,
        backbone: Path | None,
        registers: Path | None,
        records: Sequence[Path],
        state: Path,
        out: Path,
    ) -> dict:
        """Test-time registers do not change which published decoder is taken."""
        own = EncoderRegisters.from_key(encoder).backbone
        if self.study.decoder.published(own):
            return self._import(own, assets.record_of(records, f"decoder.released.{own}"), out)
        files = {"data": data, "latents": latents, "encoder_files": (backbone, registers), "records": records}
        return self._train(encoder=encoder, **files, state=state, out=out)

    def _import(self, backbone: str, record: Path, out: Path) -> dict:
        source, facts = assets.locate(record), {"config": self.study.decoder, "inputs": [record]}
        tensors, taken = foreign.read_container(source, self.study.decoder.released[backbone].container)
        model, pixels = load_weights(self.build(), tensors, source), self.study.decoded_pixels(backbone)
        with artifacts.artifact(out, stage="decoder", module=__name__, pixels=pixels.model_dump(), **facts, **taken) as path:
            save_tensors(path, model.state_dict(), pixels=pixels.model_dump())  # there, too: another range makes another SHA-256
        return {"decoder": "published", "file": str(source), "pixels": pixels.text, **taken}

    def _train(
        self,
        *,
        encoder: str,
        data: Path,
        latents: Path,
        encoder_files: tuple[Path | None, Path | None],
        records: Sequence[Path],
        state: Path,
        out: Path,
    ) -> dict:
        """The sigma of the noise on the latents is uniform in [0, decoder.noise], one per sample (RAE's noise_tau)."""
        study, section = self.study, self.study.decoder
        networks = [assets.record_of(records, name) for name in study.assets if name.startswith(LOSSES)]
        encoders = [] if study.latents.cache else [path for path in encoder_files if path]
        facts, outcome = {"config": section, "inputs": [data, latents, *encoders, *networks], "pixels": SIGNED.model_dump()}, {}
        with artifacts.trained_artifact(out, state=state, stage="decoder", module=__name__, outcome=outcome, **facts) as (
            path,
            checkpoints,
        ):
            encode = None if study.latents.cache else load_encoder(study, *encoder_files)
            split = load_data(data, "train")
            batches = Batches(latents, seed=SEED, batch=section.training.batch, split=split, encoder=encode, crops=section.crops)
            seed_initialisation(SEED)
            model = self.build().to(device())
            losses = Losses(study, model, batches, records)
            [weights] = fit(
                model,
                losses.decoder,
                section.training,
                images=len(batches),
                name=f"decoder {encoder}",
                seed=SEED,
                state=checkpoints,
                ema=[section.ema] if section.ema else [],
                ema_warm_up=section.ema_warm_up,
                opponent=losses.opponent,
            )
            save_tensors(path, weights)
            outcome |= {"weights": losses.taken} if losses.taken else {}
        return {
            "decoder": "trained",
            **outcome,
            "losses": ["l1", *(["lpips"] if section.perceptual else []), *(["adversarial"] if section.adversarial else [])],
        }

    def load(self, path: Path) -> Decoder:
        """UserError for weights of another shape, and for a record that does not say what the output is."""
        tensors, _ = load_tensors(path)
        model = load_weights(self.build(), tensors, path).eval().requires_grad_(False).to(device())
        pixels = artifacts.meta(path).get("pixels")
        if pixels is None:
            raise UserError(f"{path}: its record does not say what range its output has; delete it and run the same command again")
        stated = Pixels.model_validate(pixels)
        return lambda raw: signed(model.decode(raw), stated)

    def build(self) -> ViTDecoder:
        c = self.study.decoder
        shape = {"patch": c.patch, "width": c.width, "depth": c.depth, "heads": c.heads, "mlp": c.mlp}
        return ViTDecoder(channels=self.study.channels, side=self.study.latent_side, **shape)

    def network(self) -> Network:
        return Network(self.build, (1, self.study.latent_side**2, self.study.channels))

    def losses(self) -> list[LossNetwork]:
        section, size = self.study.decoder, self.study.data.image_size
        losses = []
        if section.perceptual:
            from harness.decoder.perceptual import Perceptual

            widths = section.perceptual.widths
            network = Network(lambda: Perceptual(widths), (1, 3, size, size), lambda model, x: model(x, x))
            losses.append(LossNetwork(network, 1.5))  # the truth needs no gradient, the reconstruction only that to its pixels
        if section.adversarial:
            from harness.decoder.discriminator import Discriminator, shape_of

            epochs, adversarial = section.training.in_epochs(self.study.data.train_images), section.adversarial
            fooled, against = (max(0.0, 1 - start / epochs) for start in (adversarial.generator_from, adversarial.discriminator_from))
            # forward, and the gradient to the image twice, since its weight in the loss is adaptive; a true and a reconstructed image
            network = Network(lambda: Discriminator(**shape_of(adversarial)), (1, 3, size, size))
            losses.append(LossNetwork(network, 3 * fooled + 2 * against, decoder_passes=against, trained=True))
        return losses
