"""What every extractor of image features provides: torch-fidelity's interface around a published network, frozen, in float32."""

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from harness.evaluation.extractors.resize import prepare
from harness.evaluation.extractors.weights import Source, Wanted
from harness.machine.device import allow_tf32, autocast, device

FEATURES = "features"  # (N, width): what distances are of


class ImageExtractor(FeatureExtractorBase):
    """Images (N, 3, H, W) uint8 -> what `provided` names, each (N, D) float32, by one pass through the network.

    `info` says what it is, `source` where its weights come from; it is on the device of the run.
    """

    provided: ClassVar[tuple[str, ...]] = (FEATURES,)

    def __init__(self, wanted: Wanted, source: Source, network: nn.Module) -> None:
        super().__init__(wanted.name, list(self.provided))
        self.info, self.precision, self.source = wanted.info, wanted.precision, source
        self.network = network
        self.requires_grad_(False).eval().to(device())

    @classmethod
    def get_provided_features_list(cls) -> tuple[str, ...]:
        return cls.provided

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return FEATURES

    @staticmethod
    def can_be_compiled() -> bool:
        return False

    def prepare(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) uint8 -> the network's input, (N, 3, side, side) float32."""
        return prepare(images, self.info)

    @abstractmethod
    def embed(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """The network's input -> what `provided` names."""

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images (N, 3, H, W) uint8 -> what `provided` names, each (N, D) float32."""
        with autocast(self.precision):
            return tuple(values.float() for values in self.embed(self.prepare(images)))

    @torch.no_grad()
    def extract(self, images: Tensor) -> dict[str, Tensor]:
        """A batch (N, 3, H, W) uint8 -> what `provided` names by its name, (N, D) float32, on the CPU."""
        allow_tf32(False)  # convolutions on a GPU use it by default
        return {name: values.cpu() for name, values in zip(self.provided, self(images.to(device())), strict=True)}
