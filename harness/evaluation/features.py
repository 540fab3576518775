"""Features of images under the study's judge, through torch-fidelity's extractor interface: one pass serves every metric."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
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


class Extractor:
    """Images -> {"features": (N, D), "logits": (N, classes)}, float32 on the CPU; `sha256` is that of the judge's weights.

    Images are an array (N, H, W, 3) uint8, or a sequence of (H, W, 3) uint8. The logits are those that the Inception Score uses.
    """

    def __init__(self, study: Study, weights: Path) -> None:
        self.sha256 = artifacts.checked(weights)
        judge = judge_of(study)
        self.layers, self.cuda = judge.layers, device().type == "cuda"
        self.extractor = judge.extractor(weights).requires_grad_(False).eval().to(device())

    def __call__(self, images: Sequence[np.ndarray] | np.ndarray) -> dict[str, Tensor]:
        allow_tf32(False)  # convolutions on a GPU use it by default
        outputs = get_featuresdict_from_dataset(Images(images), self.extractor, BATCH, cuda=self.cuda, save_cpu_ram=True, verbose=False)
        return {name: outputs[layer] for name, layer in self.layers.items()}
