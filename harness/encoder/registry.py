"""What the kinds of encoder in a study stand for.

A new kind: a subclass of EncoderKind (with tokens: of TokenEncoder), registered here, and its section in
harness/study/sections/encoder.py.
"""

from pathlib import Path

from harness.encoder.base import Encoder, EncoderKind
from harness.encoder.pixels import Pixels
from harness.encoder.pretrained import PretrainedTower
from harness.encoder.published_vae import PublishedVae
from harness.encoder.trained import TrainedTower
from harness.encoder.trained_vae import OwnVae
from harness.study.study import Study

ENCODERS: dict[str, type[EncoderKind]] = {
    "trained": TrainedTower,
    "pretrained": PretrainedTower,
    "vae": PublishedVae,
    "trained_vae": OwnVae,
    "pixels": Pixels,
}


def encoder_of(study: Study) -> EncoderKind:
    """What the study's encoder is made, loaded and planned by."""
    return ENCODERS[study.encoder.kind](study)


def load_encoder(study: Study, backbone: Path, registers: Path | None) -> Encoder:
    """The encoder of a variant, frozen, on the device."""
    return encoder_of(study).load(backbone, registers)
