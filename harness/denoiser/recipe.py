"""How a model is sampled from: times, guidance, what its output stands for, integration. Batches are (B, C, H, W)."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness.denoiser.flow import velocity
from harness.denoiser.guidance import Model, autoguidance, bounds, classifier_free
from harness.denoiser.registry import SAMPLERS
from harness.denoiser.samplers import Field, NoiseAt
from harness.machine.device import autocast
from harness.study.sections.sampling import Sampling
from harness.study.study import Study

DTYPES = {"fp32": torch.float32, "fp64": torch.float64}


@dataclass(frozen=True)
class Recipe:
    """What sampling reads of a study; fields as there. `null_label` is that of no class."""

    sampling: Sampling
    null_label: int
    prediction: str
    time_shift: float = 1.0  # of sampling
    t_min: float = 0.05
    noise_scale: float = 1.0

    def times(self) -> Tensor:
        """(sampling.grid_points,) falling times of the sampler, on the CPU."""
        section = self.sampling
        end = None if section.last_time is None else 1 - section.last_time
        given = {"end": end, "last_step": section.last_step, "dtype": None if section.state == "fp32" else DTYPES[section.state]}
        options = {name: value for name, value in given.items() if value is not None}
        return SAMPLERS[section.sampler].times(section.grid_points, self.time_shift, self.prediction, **options)

    def guided(self, model: Model, labels: Tensor, weak: Model | None = None) -> Field:
        """(x, t) -> the model's output for labels (B,) under guidance, away from `weak` where there is one."""
        section = self.sampling.guidance
        how = {"scale": section.scale, "interval": section.interval, "closed": section.closed, "channels": section.channels}
        return autoguidance(model, weak, labels, **how) if weak is not None else classifier_free(model, labels, self.null_label, **how)

    def velocity(self, output: Field) -> Field:
        """(x, t) -> velocity that a model's output stands for, in the precision of sampling; in x's where that is wider."""

        def velocity_at(x: Tensor, t: Tensor) -> Tensor:
            with autocast(self.sampling.precision):
                predicted = output(x.float(), t.float())
            return velocity(x, predicted.to(x.dtype), t, self.prediction, self.t_min)

        return velocity_at

    def sample(
        self,
        model: Model,
        labels: Tensor,
        noise: Tensor,
        *,
        weak: Model | None = None,
        noise_at: NoiseAt | None = None,
        times: Tensor | None = None,
    ) -> Tensor:
        """(B, C, H, W) float32 at the last of `times`, by default the recipe's, from standard normal noise (B, C, H, W) at the first.

        `noise_at`: an SDE's, of the same standard deviation.
        """
        start = (noise * self.noise_scale).to(DTYPES[self.sampling.state])
        at = noise_at and (lambda step: noise_at(step) * self.noise_scale)
        times = self.times() if times is None else times
        held = {"second_at": lambda now: self._held(now).field(model, labels, weak)} if self.sampling.guidance.held else {}
        return SAMPLERS[self.sampling.sampler].integrate(self.field(model, labels, weak), start, times, at, **held).float()

    def field(self, model: Model, labels: Tensor, weak: Model | None) -> Field:
        """(x, t) -> velocity under guidance, for labels (B,)."""
        return self.velocity(self.guided(model, labels, weak))

    def _held(self, time: Tensor) -> "Recipe":
        """Guided at every time as at this one, ()."""
        section = self.sampling.guidance
        low, high = bounds(section.interval, section.closed)
        always = {"interval": (0.0, 1.0), "closed": "both", "scale": section.scale if low <= time.item() <= high else 1.0}
        guidance = section.model_copy(update=always)
        return replace(self, sampling=self.sampling.model_copy(update={"guidance": guidance}))


def recipe_of(study: Study) -> Recipe:
    """The study's own."""
    denoiser = study.denoiser
    return Recipe(
        sampling=study.sampling,
        null_label=study.classes,
        prediction=denoiser.prediction,
        time_shift=study.sampling_shift,
        t_min=denoiser.t_min,
        noise_scale=denoiser.noise_scale,
    )
