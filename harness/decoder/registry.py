"""What the kinds of decoder in a study stand for.

A new kind: a subclass of DecoderKind, registered here, and its section in harness/study/sections/decoder.py.
"""

from pathlib import Path

from harness.decoder.base import DecoderKind
from harness.decoder.own import OwnDecoding
from harness.decoder.rae import RaeDecoder
from harness.encoder.base import Decoder
from harness.study.study import Study

DECODERS: dict[str, type[DecoderKind]] = {"vit": RaeDecoder, "encoder": OwnDecoding}


def decoder_of(study: Study) -> DecoderKind:
    """What the study's decoder is made, loaded and planned by."""
    return DECODERS[study.decoder.kind](study)


def load_decoder(study: Study, path: Path) -> Decoder:
    """Raw latents (N, C, H, W) -> pixels, on the device. `path`: the decoder's weights; the encoder's folder where that decodes itself."""
    return decoder_of(study).load(path)
