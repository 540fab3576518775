"""Features of images under the study's judge, through torch-fidelity's extractor interface: one pass serves every metric."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY, register_feature_extractor
from torch_fidelity.utils import create_feature_extractor, get_featuresdict_from_dataset

from harness.evaluation.inception import InceptionExtractor
from harness.evaluation.judge import load_judge
from harness.machine.device import allow_tf32, device
from harness.store import artifacts
from harness.store.tensors import load_tensors
from harness.study.sections.evaluation import Inception
from harness.study.study import Study

BATCH = 256


class Images(torch.utils.data.Dataset):
    """Images (H, W, 3) uint8 by number, as the uint8 (3, H, W) tensors that torch-fidelity wants."""

    def __init__(self, images: Sequence[np.ndarray] | np.ndarray) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(np.array(self.images[index])).permute(2, 0, 1)


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
    """Images -> {"features": (N, D), "logits": (N, classes)}, float32 on the CPU; `sha256` is that of the weights.

    Images are an array (N, H, W, 3) uint8, or a sequence of (H, W, 3) uint8. The logits are those that the Inception Score uses: for
    Inception without the bias, as in TensorFlow.
    """

    def __init__(self, study: Study, weights: Path) -> None:
        self.sha256 = artifacts.checked(weights)
        judge = study.evaluation.judge
        kind, self.layers = JudgeExtractor, {"features": "features", "logits": "logits"}
        options = {"study": study, "weights": weights}
        if isinstance(judge, Inception):
            kind, self.layers = InceptionExtractor, {"features": str(judge.features), "logits": "logits_unbiased"}
            options = {"tensors": load_tensors(weights, check=False)[0], "weights": weights}
        name = f"judge-{self.sha256}"  # torch-fidelity caches and registers by name, so the weights are part of it
        if name not in FEATURE_EXTRACTORS_REGISTRY:
            register_feature_extractor(name, kind)
        self.cuda = device().type == "cuda"
        self.extractor = create_feature_extractor(name, list(self.layers.values()), cuda=self.cuda, verbose=False, **options)

    def __call__(self, images: Sequence[np.ndarray] | np.ndarray) -> dict[str, Tensor]:
        allow_tf32(False)  # convolutions on a GPU use it by default
        found = get_featuresdict_from_dataset(Images(images), self.extractor, BATCH, cuda=self.cuda, save_cpu_ram=True, verbose=False)
        return {name: found[layer] for name, layer in self.layers.items()}
