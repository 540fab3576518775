"""Features of images under the study's judge, through torch-fidelity's extractor interface: one pass serves every metric."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY, register_feature_extractor
from torch_fidelity.utils import create_feature_extractor, get_featuresdict_from_dataset

from harness import artifacts
from harness.config import Study
from harness.train.judge import load_judge

BATCH = 256


class Images(torch.utils.data.Dataset):
    """(N, H, W, 3) uint8 as the uint8 (3, H, W) tensors that torch-fidelity wants."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


class JudgeExtractor(FeatureExtractorBase):
    """torch-fidelity extractor around a study's judge: `features` (N, width) for FID, KID and PRC, `logits` (N, classes) for IS."""

    def __init__(self, name: str, features_list: list[str], study: Study, weights: Path, **_options: object) -> None:
        super().__init__(name, features_list)
        self.judge = load_judge(study, weights)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return ("features", "logits")

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return "logits" if metric == "isc" else "features"

    @staticmethod
    def can_be_compiled() -> bool:
        return False

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features = dict(zip(self.get_provided_features_list(), self.judge(images.float().div(127.5).sub(1)), strict=True))
        return tuple(features[name] for name in self.features_list)


class Extractor:
    """images (N, H, W, 3) uint8 -> {"features", "logits"}; `sha256` is that of the weights."""

    def __init__(self, study: Study, weights: Path) -> None:
        self.sha256 = artifacts.checked(weights)
        name = f"judge-{self.sha256}"  # torch-fidelity caches and registers by name, so the weights are part of it
        if name not in FEATURE_EXTRACTORS_REGISTRY:
            register_feature_extractor(name, JudgeExtractor)
        self.extractor = create_feature_extractor(name, ["features", "logits"], cuda=False, verbose=False, study=study, weights=weights)

    def __call__(self, images: np.ndarray) -> dict[str, Tensor]:
        return get_featuresdict_from_dataset(Images(images), self.extractor, BATCH, cuda=False, save_cpu_ram=True, verbose=False)
