"""Stage `decoder`, and what decoders are used for: images of latents."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harness.data.images import NotFiniteError, to_uint8
from harness.decoder.registry import decoder_of
from harness.encoder.base import Decoder
from harness.encoder.whitening import Whitening
from harness.machine.device import device
from harness.study.sections.pixels import EightBit
from harness.study.study import Study


def make_decoder(
    study: Study,
    *,
    encoder: str,
    data: Path,
    latents: Path,
    backbone: Path | None = None,
    registers: Path | None = None,
    records: list[Path] = (),
    state: Path,
    out: Path,
) -> dict:
    """Write the decoder of the encoder variant `encoder`."""
    files = {"data": data, "latents": latents, "backbone": backbone, "registers": registers, "records": records}
    return decoder_of(study).make(encoder=encoder, **files, state=state, out=out)


@torch.no_grad()
def images_of(decode: Decoder, whitening: Whitening, latents: Tensor, size: int, eight_bit: EightBit) -> np.ndarray:
    """Whitened latents (N, C, H, W) -> (N, H, W, 3) uint8, `size` images at once. NotFiniteError where an image is not finite."""
    whitening, images, lost = whitening.to(device()), [], 0
    for part in latents.split(size):
        try:
            images.append(to_uint8(decode(whitening.unwhiten(part.to(device()))), eight_bit))
        except NotFiniteError as error:
            lost += error.lost
    if lost:
        raise NotFiniteError(lost, len(latents), "images out of the decoder")
    return np.concatenate(images)
