"""What a plan is made of: jobs, methods and files, with the sums over them."""

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict

from harness.store.asset_states import Examined
from harness.study.study import Study

Precision = Literal["bf16", "tf32", "fp32"]

# Training DiT-XL on an H100: 0.27 of the peak of TF32, 0.25 with registers, 0.33 in bf16 with micro-batches of 128. Sampling in bf16: 0.41.
UTILISATION = 0.25
PEAKS: dict[Precision, float] = {"bf16": 989, "tf32": 494, "fp32": 67}  # TFLOP/s of an H100 SXM, dense, by NVIDIA's data sheet


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class JobPlan(Frozen):
    """One job: a stage of the DAG for a seed of a method, an encoder variant, or the whole study."""

    name: str
    subject: str = ""  # method or encoder variant
    what: str
    parameters: int = 0
    forward: float = 0  # FLOPs of the network for one image
    images: int = 0  # that pass it, an image once for each evaluation
    flops: float = 0  # of the job, backward passes and other networks included
    precision: Precision = "fp32"
    hours: float | None = None  # on one GPU; None where the study asks for none
    disk: dict[str, int] = {}  # bytes that stay, by kind
    temporary: int = 0  # bytes of its checkpoint while it runs
    memory: int = 0  # bytes that a training step holds: weights, gradients, moments, averages, what the backward needs of a micro-batch


class MethodPlan(Frozen):
    """What one seed of a method runs on its own, and its denoiser: parameters, and FLOPs of one forward pass."""

    name: str
    title: str
    encoder: str  # variant
    parameters: int  # trainable ones
    all_parameters: int  # fixed tables included
    forward: int
    stages: list[JobPlan]

    @property
    def weights(self) -> JobPlan:
        """Its training, or the taking of published weights."""
        return next(stage for stage in self.stages if stage.name in ("denoiser", "released"))

    def runs(self, seeds: int) -> int:
        """How often it runs, where trained methods have so many seeds: published weights have one run."""
        return 1 if self.weights.name == "released" else seeds

    def stage(self, name: str) -> JobPlan:
        return next(stage for stage in self.stages if stage.name == name)


class Plan(Frozen):
    """`peak_tflops`: of every stage; None: that of an H100 in the stage's precision. `utilisation`: share of it that is reached.
    `checked`: whether large files were hashed too.
    """

    study: Study
    seeds: int
    utilisation: float
    peak_tflops: float | None
    checked: bool
    shared: list[JobPlan]
    methods: list[MethodPlan]
    assets: list[Examined]

    @property
    def stages(self) -> list[tuple[JobPlan, int]]:
        """Every job, and how often it runs."""
        return [(stage, 1) for stage in self.shared] + [
            (stage, method.runs(self.seeds)) for method in self.methods for stage in method.stages
        ]

    @property
    def flops(self) -> float:
        return sum(stage.flops * times for stage, times in self.stages)

    @property
    def hours(self) -> float | None:
        return total_hours(self.stages)

    @property
    def disk(self) -> dict[str, int]:
        """Bytes that stay, by kind."""
        sizes: dict[str, int] = {}
        for stage, times in self.stages:
            for kind, size in stage.disk.items():
                sizes[kind] = sizes.get(kind, 0) + size * times
        return sizes


def total_hours(stages: Iterable[tuple[JobPlan, int]]) -> float | None:
    """GPU-hours of (stage, how often); None where the study asks for no GPU."""
    hours = [stage.hours * times for stage, times in stages if stage.hours is not None]
    return sum(hours) if hours else None
