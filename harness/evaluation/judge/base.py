"""What every kind of judge provides."""

from abc import ABC, abstractmethod
from pathlib import Path

from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from harness.study.study import Study
from harness.training.network import Network


class JudgeKind(ABC):
    """The judge of a study, as its section `evaluation.judge` says."""

    def __init__(self, study: Study) -> None:
        self.study, self.section = study, study.evaluation.judge

    @abstractmethod
    def make(self, *, data: Path | None, records: list[Path], state: Path, out: Path) -> dict:
        """Write the weights, which `extractor` reads; returns what is printed.

        `data`: the data set, only where the section has a training; `records`: those of the section's assets.
        """

    @property
    @abstractmethod
    def layers(self) -> dict[str, str]:
        """What the extractor calls `features` (N, feature_width) and `logits` (N, classes), those that the Inception Score uses."""

    @abstractmethod
    def extractor(self, weights: Path) -> FeatureExtractorBase:
        """torch-fidelity's extractor of the values of `layers`, from images (N, 3, H, W) uint8."""

    @abstractmethod
    def network(self) -> Network:
        """One image through the judge."""
