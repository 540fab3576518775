"""What each stage of a study costs: FLOPs, GPU-hours and disk, from what its networks cost.

A training step counts 3 forward passes of an image: one forward, two for the backward. A multiply-add is 2 FLOPs.
"""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from harness.encoder.encode import NORM_IMAGES, encoded_images
from harness.evaluation.cost import Price
from harness.plan.model import PEAKS, JobPlan, MethodPlan, Precision
from harness.plan.networks import NOTHING, Networks
from harness.results.references import HELD_OUT, references_of
from harness.study.method import EncoderRegisters, load_method
from harness.study.sections.evaluation import ClipSection, JudgeSection
from harness.study.sections.training import Training
from harness.study.study import Study
from harness.study.typed import UserError

TRAINED = 3  # forward passes that a forward and a backward cost
FLOAT = 4  # bytes
ADM_IMAGES = 10_000  # in arr_0 of an ADM reference batch


class Stages:
    """The stages of a study, priced."""

    def __init__(self, study: Study, utilisation: float, peak_tflops: float | None) -> None:
        self.study, self.utilisation, self.peak_tflops = study, utilisation, peak_tflops
        self.networks = Networks(study)

    def _stage(self, name: str, flops: float = 0, precision: Precision = "fp32", **facts: Any) -> JobPlan:
        rate = (self.peak_tflops or PEAKS[precision]) * 1e12 * self.utilisation
        hours = flops / rate / 3600 if self.study.job.gpus else None
        return JobPlan(name=name, flops=flops, precision=precision, hours=hours, **facts)

    # ---------------------------------------------------------------------------------------------------- shared stages

    def shared(self, variants: list[str]) -> list[JobPlan]:
        """What is computed once, whatever the number of methods and seeds."""
        stages = [self._data()] if self.study.data.copied else []
        backbones = dict.fromkeys(EncoderRegisters.from_key(variant).backbone for variant in variants)
        stages += [self._backbone(name) for name in backbones if self.networks.encoder(name) != NOTHING]
        for variant in variants:
            if EncoderRegisters.from_key(variant).searched:
                stages.append(self._registers(variant))
            stages.append(self._latents(variant))
            if not self.study.decoder.of_encoder:
                stages.append(self._decoder(variant))
        stages.append(self._looking("judge", self.study.evaluation.judge, self.networks.judge))
        if self.study.evaluation.clip is not None:
            stages.append(self._looking("clip", self.study.evaluation.clip, self.networks.clip))
        return [*stages, self._references()]

    def _data(self) -> JobPlan:
        images = self.study.data.train_images + self.study.data.reference
        return self._stage("data", what="images", images=images, disk={"images": images * 3 * self.study.data.image_size**2})

    def _images(self, training: Training) -> int:
        return training.length(self.study.data.train_images) * training.batch

    def _trained(self, name: str, price: Price, training: Training, **facts: Any) -> JobPlan:
        """A network trained on images alone."""
        images = self._images(training)
        return self._stage(
            name,
            flops=TRAINED * price.flops * images,
            precision=training.arithmetic,
            parameters=price.parameters,
            forward=price.flops,
            images=images,
            temporary=3 * FLOAT * price.parameters,
            **facts,
        )

    def _backbone(self, name: str) -> JobPlan:
        section, price = self.study.encoder, self.networks.encoder(name)
        facts: dict[str, Any] = {"subject": name, "disk": {"encoders": FLOAT * price.stored}}
        if section.trained_with:
            if section.decodes_itself:  # both of its halves are trained
                price = replace(price, flops=price.flops + self.networks.decoder.flops)
            return self._trained("encoder", price, section.trained_with, what=section.text, **facts)
        return self._stage("encoder", what=f"{section.text}, published", parameters=price.all_parameters, forward=price.flops, **facts)

    def _registers(self, variant: str) -> JobPlan:
        section, rounds = self.study.search, EncoderRegisters.from_key(variant).rounds
        if section is None:
            raise UserError(f"study '{self.study.name}' has no section search, which encoder {variant} needs")
        if variant in section.released_neurons:
            return self._stage("registers", subject=variant, what="published list of neurons")
        price, rounds = self.networks.encoder("plain"), section.max_rounds if rounds == "until_clean" else rounds
        images = 2 * rounds * min(section.images, self.study.data.train_images)
        what = f"search, {rounds} round{'s' * (rounds > 1)} of 2 passes"
        return self._stage("registers", flops=price.flops * images, subject=variant, what=what, forward=price.flops, images=images)

    def _latents(self, variant: str) -> JobPlan:
        """Statistics over training images, the held-out images' latents; cached, the training images' too."""
        study, section, price = self.study, self.study.latents, self.networks.encoder(variant)
        statistics = encoded_images(study, variant, study.data.train_images)
        places = study.encoder.norm_places  # each with the norms of an image's tokens
        tokens = study.latent_side**2 if places else 0
        values = {"channel": study.channels, "position": math.prod(study.latent_shape), "none": 1}[section.whitening]
        kept, latent = statistics if section.cache else min(statistics, NORM_IMAGES), FLOAT * math.prod(study.latent_shape)
        disk = {
            "whitening statistics": FLOAT * (2 * values + 3 * kept * tokens),
            "latents of held-out images": study.data.reference * (latent + FLOAT * places * tokens),
        }
        if section.cache:
            disk["latents of training images"] = statistics * latent
        images = statistics + study.data.reference
        what = "latents" if section.cache else "statistics"
        if variant in section.statistics:
            what = f"{'latents' if section.cache else 'norms of tokens'}, statistics supplied"
        return self._stage(
            "latents",
            flops=price.flops * images,
            subject=variant,
            what=what,
            parameters=price.all_parameters,
            forward=price.flops,
            images=images,
            disk=disk,
        )

    def _decoder(self, variant: str) -> JobPlan:
        section, price, training = self.study.decoder, self.networks.decoder, self.study.decoder.trained_with
        facts: dict[str, Any] = {"subject": variant, "disk": {"decoders": FLOAT * price.stored}, "forward": price.flops}
        backbone = EncoderRegisters.from_key(variant).backbone
        if section.published(backbone):
            what = f"{section.text}, published; {self.study.decoded_pixels(backbone).text}"
            return self._stage("decoder", what=what, parameters=price.parameters, **facts)
        if training is None:
            return self._stage("decoder", what=section.text, parameters=price.parameters, **facts)
        images = self._images(training)
        per_image: float = TRAINED * price.flops
        if not self.study.latents.cache:
            per_image += self.networks.encoder(variant).flops
        for loss, of_loss in self.networks.losses:
            per_image += loss.passes * of_loss.flops + loss.decoder_passes * price.flops
        opponents = sum(of_loss.parameters for loss, of_loss in self.networks.losses if loss.trained)
        return self._stage(
            "decoder",
            flops=per_image * images,
            precision=training.arithmetic,
            what=f"{section.text}, trained",
            parameters=price.parameters,
            images=images,
            temporary=FLOAT * ((3 + section.averages) * price.parameters + 3 * opponents),
            **facts,
        )

    def _looking(self, name: str, section: JudgeSection | ClipSection, price: Price) -> JobPlan:
        """A network that looks at samples."""
        facts: dict[str, Any] = {"what": section.text, "disk": {"judge and CLIP": FLOAT * price.stored}}
        if section.trained_with:
            return self._trained(name, price, section.trained_with, **facts)
        return self._stage(name, parameters=price.parameters, forward=price.flops, **facts)

    def _references(self) -> JobPlan:
        names, width, judge = references_of(self.study), self.study.features, self.networks.judge.flops
        images = sum(self.study.data.reference if name == HELD_OUT else ADM_IMAGES for name in names)
        disk = {"features of references": images * FLOAT * width + len(names) * 8 * (width + width**2)}
        what = ", ".join(name.replace("_", "-") for name in names)
        return self._stage("references", flops=judge * images, what=what, forward=judge, images=images, disk=disk)

    # --------------------------------------------------------------------------------------------------- a method's own

    def method(self, name: str) -> MethodPlan:
        method, price = load_method(name), self.networks.denoiser(name)
        weights = self._released(name, price) if name in self.study.denoiser.released else self._train(name, price)
        return MethodPlan(
            name=name,
            title=method.title,
            encoder=method.encoder.key,
            parameters=price.parameters,
            all_parameters=price.all_parameters,
            forward=price.flops,
            stages=[weights, self._sample(name, price), self._score(name), self._outliers(name, price)],
        )

    def _released(self, name: str, price: Price) -> JobPlan:
        """Published weights, copied by their names here; one step of them is looked at."""
        what = f"{self.study.denoiser.text}, published"
        disk = {"denoisers": FLOAT * price.stored}
        return self._stage("released", subject=name, what=what, parameters=price.parameters, forward=price.flops, disk=disk)

    def _train(self, name: str, price: Price) -> JobPlan:
        section, training = self.study.denoiser, self.study.denoiser.training
        images, encoder = self._images(training), self.networks.encoder(load_method(name).encoder.key)
        per_image = TRAINED * price.flops + (0 if self.study.latents.cache else encoder.flops)
        return self._stage(
            "denoiser",
            flops=per_image * images,
            precision=training.arithmetic,
            subject=name,
            what=section.text,
            parameters=price.parameters,
            forward=price.flops,
            images=images,
            disk={"denoisers": FLOAT * price.stored * (len(section.ema) + len(section.snapshots))},
            temporary=FLOAT * price.parameters * (3 + len(section.ema)),
            memory=FLOAT * price.parameters * (4 + len(section.ema))
            + self.networks.kept_for_backward(name) * (training.micro_batch or training.batch),
        )

    def _sample(self, name: str, price: Price) -> JobPlan:
        section = self.study.sampling
        plain, guided = evaluations(self.study)
        second = self.networks.weak.flops if guided and section.guidance.weak else price.flops
        per_image = (plain + guided) * price.flops + guided * second + self.networks.decoder.flops
        count = section.count * len(self.study.sampled)
        return self._stage(
            "samples",
            flops=count * per_image,
            precision=section.precision,
            subject=name,
            what=f"{section.sampler}, NFE {plain + guided}{f', {guided} of them guided' if guided else ''}",
            parameters=price.parameters,
            forward=price.flops,
            images=count * (plain + 2 * guided),
            disk={"samples": count * (3 * self.study.data.image_size**2 + 8)},
        )

    def _score(self, name: str) -> JobPlan:
        count, averages = self.study.sampling.count, len(self.study.sampling.averages)
        held_out = self.study.data.reference if self.study.evaluation.reconstruction else 0
        judge, decoder = self.networks.judge.flops, self.networks.decoder.flops
        clip = self.networks.clip.flops if self.study.evaluation.clip else 0
        flops = count * (judge * (1 + averages) + clip) + held_out * (judge + decoder)
        flops += (
            (1 + averages) * self.study.evaluation.resamples * 2 * count * self.study.features**2
        )  # covariances, for the interval of FID
        return self._stage(
            "scores", flops=flops, subject=name, what="judge, CLIP, reconstruction", images=count * (1 + averages) + held_out
        )

    def _outliers(self, name: str, price: Price) -> JobPlan:
        section = self.study.outlier_statistics
        images = len(self.study.outlier_rows) * len(section.times)
        what = f"token norms at {len(section.times)} noise levels"
        return self._stage("outliers", flops=price.flops * images, subject=name, what=what, forward=price.flops, images=images)


def evaluations(study: Study) -> tuple[int, int]:
    """Evaluations of the velocity for one sample: without guidance, and within its interval, where two networks are called."""
    from harness.denoiser.recipe import recipe_of

    evaluated: list[None] = []
    second: list[None] = []
    start = torch.zeros(1, 1, 1, 1)

    def model(x: Tensor, _t: Tensor, _labels: Tensor) -> Tensor:
        evaluated.append(None)
        second.extend([None] * (len(x) - 1))  # unconditional rows
        return x

    def weak(x: Tensor, _t: Tensor, _labels: Tensor) -> Tensor:
        second.append(None)
        return x

    labels, other = torch.zeros(1, dtype=torch.long), weak if study.sampling.guidance.weak else None
    recipe_of(study).sample(model, labels, start, weak=other, noise_at=lambda _step: start)
    return len(evaluated) - len(second), len(second)
