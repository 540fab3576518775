"""Decoder `encoder`: none, the encoder decodes itself."""

from pathlib import Path
from typing import NoReturn

from harness.decoder.base import DecoderKind
from harness.encoder.base import Decoder
from harness.encoder.registry import encoder_of
from harness.study.typed import UserError
from harness.training.network import Network


class OwnDecoding(DecoderKind):
    def make(self, **_files: object) -> NoReturn:
        raise UserError(f"study '{self.study.name}' has no decoder of its own: its encoder decodes")

    def load(self, path: Path) -> Decoder:
        return encoder_of(self.study).decoder(path)

    def network(self) -> Network | None:
        return encoder_of(self.study).decoder_network()
