"""What every kind of decoder provides: how its weights are made and loaded, and its networks, for plans."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from harness.encoder.base import Decoder
from harness.study.study import Study
from harness.training.network import Network


@dataclass(frozen=True)
class LossNetwork:
    """A network of the decoder's loss. `passes`: its forward passes for each training image, backward ones counted as well."""

    network: Network
    passes: float
    decoder_passes: float = 0.0  # of the decoder that it needs beside those of the loss
    trained: bool = False


class DecoderKind(ABC):
    """A decoder of a study: raw latents to pixels."""

    def __init__(self, study: Study) -> None:
        self.study = study

    @abstractmethod
    def make(
        self,
        *,
        encoder: str,
        data: Path,
        latents: Path,
        backbone: Path | None,
        registers: Path | None,
        records: Sequence[Path],
        state: Path,
        out: Path,
    ) -> dict:
        """Write the artifact `out`: the decoder of the encoder variant `encoder`. Returns what is printed.

        `backbone` and `registers` are given where the latents are not cached; `records` are those of the study's assets, `state` is for
        checkpoints.
        """

    @abstractmethod
    def load(self, path: Path) -> Decoder:
        """Frozen, on the device, from what `make` wrote, or from the encoder's folder where that decodes itself."""

    def build(self) -> nn.Module:
        """With fresh weights, whose names are those of a released checkpoint."""
        raise NotImplementedError(f"{type(self).__name__} has no network of its own")

    def network(self) -> Network | None:
        """One latent through the decoder; None where nothing is computed."""
        return None

    def losses(self) -> list[LossNetwork]:
        """The networks of its loss, beside itself."""
        return []
