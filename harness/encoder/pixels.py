"""Encoder `pixels`: none, the denoiser works on pixels."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from harness.encoder.base import Decoder, Encoder, EncoderKind, Noise
from harness.store import artifacts
from harness.store.files import emptied, write_json


class Pixels(EncoderKind):
    def make(self, *, backbone: str, data: Path, records: Sequence[Path], state: Path, out: Path) -> dict:
        with artifacts.artifact(out, stage="encoder", module=__name__, config=self.study.encoder) as folder:
            write_json(emptied(folder) / "encoder.json", {"kind": "pixels"})
        return {"encoder": "pixels"}

    def load(self, backbone: Path, registers: Path | None) -> Encoder:
        return _unchanged

    def decoder(self, backbone: Path) -> Decoder:
        artifacts.checked(backbone)
        return lambda raw: raw


def _unchanged(pixels: Tensor, _noise: Noise) -> tuple[Tensor, None]:
    return pixels, None
