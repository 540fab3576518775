"""What every kind of CLIP model provides."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

from harness.study.study import Study
from harness.training.network import Network

Tokenizer = Callable[[list[str]], Tensor]  # N captions -> (N, context) ids
Preprocess = Callable[[np.ndarray], Tensor]  # (N, H, W, 3) uint8 -> (N, 3, S, S)


class LoadedClip(NamedTuple):
    """An open_clip model on the device of the run, its tokenizer, and what turns images into its input."""

    model: nn.Module
    tokenizer: Tokenizer
    preprocess: Preprocess


class ClipKind(ABC):
    """The CLIP model of a study, as its section `evaluation.clip` says."""

    def __init__(self, study: Study) -> None:
        self.study, self.section = study, study.evaluation.clip

    @abstractmethod
    def make(self, *, data: Path | None, records: list[Path], state: Path, out: Path) -> dict:
        """Write the folder, which `load` reads; returns what is printed.

        `data`: the data set, only where the section has a training; `records`: those of the section's assets.
        """

    @abstractmethod
    def load(self, folder: Path) -> LoadedClip:
        """What `make` wrote."""

    def network(self) -> Network | None:
        """One image through the image tower; None where only the model's file says how large it is."""
        return None
