"""Sections `evaluation` and `outlier_statistics`.

A new judge or CLIP model: its section here, registered in JUDGES or CLIPS, and its network, registered in
harness/evaluation/judge/registry.py or harness/evaluation/clip/registry.py.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from harness.study.sections.asset import Asset, Weights
from harness.study.sections.training import Training
from harness.study.typed import Count, OneOf, Positive, Share, Strict


class JudgeSection(Strict):
    """The network whose features FID, IS, KID, precision and recall use: what every kind says."""

    classifies: ClassVar[bool] = False  # its logits are of the study's labels, so that samples have an accuracy
    comparable: ClassVar[bool] = True  # its scores can be set beside other papers'

    kind: str

    @property
    def feature_width(self) -> int:
        raise NotImplementedError

    @property
    def name(self) -> str:
        """In a few words: what must be the same for scores to be compared."""
        return self.kind

    @property
    def note(self) -> str:
        """Below tables."""
        return f"{self.kind}, {self.feature_width} features"

    @property
    def text(self) -> str:
        """Architecture, in plans."""
        return self.kind

    @property
    def trained_with(self) -> Training | None:
        """How the study trains it, on its images; None for weights that are published, or for none."""
        return None


class TrainedJudge(JudgeSection):
    """A small classifier trained in the DAG, in Inception's place."""

    classifies, comparable = True, False

    kind: Literal["trained"]
    width: Count  # of the features
    training: Training

    @property
    def feature_width(self) -> int:
        return self.width

    @property
    def note(self) -> str:
        return f"a classifier trained in this DAG, {self.width} standardised features"

    @property
    def text(self) -> str:
        return "classifier"

    @property
    def trained_with(self) -> Training:
        return self.training


class Inception(JudgeSection):
    """torch-fidelity's port of the TensorFlow Inception of FID."""

    kind: Literal["inception"]
    weights: Weights
    features: Literal[64, 192, 768, 2048] = 2048  # the layer that FID, KID, precision and recall use, by its width

    @property
    def feature_width(self) -> int:
        return self.features

    @property
    def name(self) -> str:
        return self.kind if self.features == 2048 else f"{self.kind}, layer {self.features}"

    @property
    def note(self) -> str:
        return f"Inception of torch-fidelity, layer {self.features}"

    @property
    def text(self) -> str:
        return "Inception-v3, published"


JUDGES: dict[str, type[JudgeSection]] = {"trained": TrainedJudge, "inception": Inception}


class ClipSection(Strict):
    """The model of the CLIP score: what every kind says."""

    kind: str

    @property
    def text(self) -> str:
        """Architecture, in plans."""
        return f"CLIP {self.kind}"

    @property
    def trained_with(self) -> Training | None:
        """How the study trains it, on its images; None for weights that are published, or for none."""
        return None


class TrainedClip(ClipSection):
    """A small open_clip model trained in the DAG."""

    kind: Literal["trained"]
    width: Count
    depth: Count
    heads: Count
    training: Training

    @property
    def text(self) -> str:
        return "CLIP"

    @property
    def trained_with(self) -> Training:
        return self.training


LOCAL = "local-dir"  # model of a folder with its own configuration


class OpenClip(ClipSection):
    """A published open_clip model."""

    kind: Literal["open_clip"]
    model: str  # open_clip's name, or LOCAL
    weights: Weights

    @property
    def text(self) -> str:
        return "CLIP of an architecture that is in its file" if self.model == LOCAL else f"CLIP {self.model}, published"


CLIPS: dict[str, type[ClipSection]] = {"trained": TrainedClip, "open_clip": OpenClip}


class Reference(Strict):
    """An ADM reference batch: mu and sigma for FID, images (arr_0) for precision, recall and KID."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    file: Asset


class Evaluation(Strict):
    judge: Annotated[JudgeSection, OneOf(JUDGES)]
    clip: Annotated[ClipSection, OneOf(CLIPS)] | None
    references: list[Reference] = Field(default=[])  # the first is the one of plain `fid`; none: the held-out images
    reconstruction: bool = True  # rFID and PSNR of the decoder on the held-out images
    kid_subset: Count
    kid_subsets: Count
    neighbours: Count  # k of precision and recall
    resamples: Annotated[int, Field(ge=20)] = 200  # of the samples, for the intervals within a run


class Outliers(Strict):
    """An outlier is a patch token whose L2 norm exceeds `factor` times the median norm of its layer."""

    factor: Annotated[float, Field(gt=1)]
    images: Count
    batch: Count = 256
    times: Annotated[list[Share], Field(min_length=1)]
    multiples: list[Positive] = Field(default=[1.5, 2.0, 3.0, 5.0, 10.0])  # of the median: what share a loss mask would leave out there
    norms: list[Positive] = Field(default=[])  # and at these norms
