"""In what range networks read and write images, as studies, plans and records say it."""

from typing import Literal, NamedTuple

from harness.study.typed import Strict

Channels = tuple[float, float, float]
Range = Literal["signed", "unit", "normalised"]
EightBit = Literal["rounded", "truncated"]  # how a pixel becomes one of 256 levels; truncated as released (sample_ddp.py:280)


class ImageStatistics(NamedTuple):
    """What an encoder reads is (pixels in [0, 1] - mean) / std, by channel."""

    mean: Channels
    std: Channels


HALF = ImageStatistics((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # pixels in [-1, 1]
IMAGENET = ImageStatistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ImageStatistics((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))  # OpenAI's
UNIT = ImageStatistics((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


class Pixels(Strict):
    """What a decoder's output is: output * std + mean, by channel, is pixels in [0, 1]."""

    range: Range
    mean: Channels
    std: Channels

    @classmethod
    def of(cls, range_: Range, encoder: ImageStatistics) -> "Pixels":
        """`normalised`: as what the encoder reads, so that its statistics count."""
        statistics = {"signed": HALF, "unit": UNIT, "normalised": encoder}[range_]
        return cls(range=range_, mean=statistics.mean, std=statistics.std)

    @property
    def text(self) -> str:
        """In plans and traces."""
        if self.range == "normalised":
            return f"pixels are its output x {_listed(self.std)} + {_listed(self.mean)}, the encoder's image statistics"
        return f"its output is pixels in {'[-1, 1]' if self.range == 'signed' else '[0, 1]'}"


SIGNED = Pixels.of("signed", HALF)  # of decoders that are trained here


def _listed(values: Channels) -> str:
    return f"({', '.join(f'{value:g}' for value in values)})"
