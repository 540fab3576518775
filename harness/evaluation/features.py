"""Features of images under the study's judge, through torch-fidelity's extractor interface: one pass serves every metric."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.utils import get_featuresdict_from_dataset

from harness.evaluation.judge.registry import judge_of
from harness.machine.device import allow_tf32, device
from harness.store import artifacts
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


class Seen:
    """Images (H, W, 3) uint8 by number, which remember what was read of them."""

    def __init__(self, images: Sequence[np.ndarray] | np.ndarray) -> None:
        self.images = images
        self.hashes: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> np.ndarray:
        image = np.asarray(self.images[index])
        self.hashes[index] = hashlib.sha256(f"{image.shape} {image.dtype} ".encode() + image.tobytes()).hexdigest()
        return image

    @property
    def sha256(self) -> str:
        """Of the pixels that were read, in the order of their numbers."""
        return hashlib.sha256("".join(f"{index} {self.hashes[index]}\n" for index in sorted(self.hashes)).encode()).hexdigest()


class FeaturePass:
    """Images -> {"features": (N, D), "logits": (N, classes)}, float32 on the CPU; `sha256` is that of the network's weights.

    Images are an array (N, H, W, 3) uint8, or a sequence of (H, W, 3) uint8, which is read in order. `layers`: what `network` calls
    features, and logits: those that the Inception Score uses.
    """

    def __init__(self, network: FeatureExtractorBase, layers: dict[str, str], sha256: str) -> None:
        self.sha256, self.layers, self.cuda = sha256, layers, device().type == "cuda"
        self.extractor = network.requires_grad_(False).eval().to(device())

    def __call__(self, images: Sequence[np.ndarray] | np.ndarray) -> dict[str, Tensor]:
        allow_tf32(False)  # convolutions on a GPU use it by default
        outputs = get_featuresdict_from_dataset(Images(images), self.extractor, BATCH, cuda=self.cuda, save_cpu_ram=True, verbose=False)
        return {name: outputs[layer] for name, layer in self.layers.items()}


class Extractor(FeaturePass):
    """That of the judge of a study."""

    def __init__(self, study: Study, weights: Path) -> None:
        sha256, judge = artifacts.checked(weights), judge_of(study)
        super().__init__(judge.extractor(weights), judge.layers, sha256)
