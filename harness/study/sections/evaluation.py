"""Sections `evaluation` and `outlier_statistics`."""

from typing import Annotated, Literal

from pydantic import Field

from harness.study.sections.asset import Asset
from harness.study.sections.training import Training
from harness.study.typed import Count, Positive, Share, Strict


class TrainedJudge(Strict):
    """A small classifier trained in the DAG, in Inception's place."""

    kind: Literal["trained"]
    width: Count  # of the features
    training: Training


class Inception(Strict):
    """torch-fidelity's port of the TensorFlow Inception of FID."""

    kind: Literal["inception"]
    weights: Asset
    features: Literal[64, 192, 768, 2048] = 2048  # the layer that FID, KID, precision and recall use


class TrainedClip(Strict):
    """A small open_clip model trained in the DAG."""

    kind: Literal["trained"]
    width: Count
    depth: Count
    heads: Count
    training: Training


class OpenClip(Strict):
    """A published open_clip model."""

    kind: Literal["open_clip"]
    model: str  # open_clip's name, or `local-dir` where the asset is a folder with its own configuration
    weights: Asset


class Reference(Strict):
    """An ADM reference batch: mu and sigma for FID, images (arr_0) for precision, recall and KID."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    file: Asset


class Evaluation(Strict):
    judge: Annotated[TrainedJudge | Inception, Field(discriminator="kind")]
    clip: Annotated[TrainedClip | OpenClip, Field(discriminator="kind")] | None
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
