"""Published weights of a method, and what neither their names nor their shapes tell.

A further convention: its line in CONVENTIONS here.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from harness.study.method import load_method, method_names
from harness.study.sections.asset import Weights
from harness.study.sections.pixels import Range
from harness.study.typed import Count, Decay, Positive, Strict, UserError, name_in, nearest


@dataclass(frozen=True)
class Convention:
    """What published weights mean. SiT's and REPA's have the same names and shapes, and so have the authors' and RAE's.

    `architectures`: those here that turn the weights' own time and sign into ours; `time`: theirs, in words; `encoders`: kinds that make
    what they were trained on; `statistics`: whether these latents are whitened by a published file; `range`: of the decoder's pixels.
    """

    architectures: tuple[str, ...]
    prediction: Literal["data", "velocity"]
    time: str
    encoders: tuple[str, ...]
    statistics: bool
    range: Range | None = None
    noise_scale: float = 1.0

    def check(self, study: Any, backbone: str, variant: str) -> None:
        """ValueError where a Study reads the weights, or makes their latents, in another way than this; which field it is."""
        if study.denoiser.architecture not in self.architectures:
            raise ValueError(f"its weights are of architecture {' or '.join(self.architectures)}, not {study.denoiser.architecture}")
        if study.denoiser.prediction != self.prediction:
            raise ValueError(f"its weights predict the {self.prediction}: denoiser.prediction is {study.denoiser.prediction}")
        if study.denoiser.noise_scale != self.noise_scale:
            raise ValueError(f"its noise has scale {self.noise_scale:g}: denoiser.noise_scale is {study.denoiser.noise_scale:g}")
        if study.encoder.kind not in self.encoders:
            raise ValueError(f"its latents are of encoder {' or '.join(self.encoders)}, not {study.encoder.kind}")
        if self.statistics != (variant in study.latents.statistics):
            what = "are whitened by a published file, which the study lacks" if self.statistics else "are not whitened by a file"
            raise ValueError(f"its latents {what}: latents.statistics.{variant}")
        if not self.statistics and study.latents.whitening != "none":
            raise ValueError(f"its latents are not whitened: latents.whitening is {study.latents.whitening}")
        if self.range and study.decoder.published(backbone) and (range_ := study.decoded_pixels(backbone).range) != self.range:
            raise ValueError(f"its decoder's pixels are {self.range}: decoder.released.{backbone}.range is {range_}")


DATA_TO_NOISE, NOISE_TO_DATA = "0 is data, 1 noise", "0 is noise, 1 data"

# by the projects that publish weights; sources: their own code, whose outputs `dsr parity` compares
CONVENTIONS = {
    # a-little-hoof/DSR: RAE's classes, with `prediction: data` in every configuration
    "dsr": Convention(("lightningdit", "ditdh"), "data", DATA_TO_NOISE, ("pretrained",), True, "normalised"),
    # bytetriper/RAE: the same names and shapes, with `prediction: velocity` in its configurations
    "rae": Convention(("lightningdit", "ditdh"), "velocity", DATA_TO_NOISE, ("pretrained",), True, "normalised"),
    # End2End-Diffusion/diffusion-bench; its RAE decodes to [0, 1]
    "diffusionbench": Convention(("diffusionbench_ddt",), "velocity", DATA_TO_NOISE, ("pretrained",), True, "unit"),
    "sit": Convention(("sit",), "velocity", NOISE_TO_DATA, ("vae",), False),  # willisma/SiT: velocity data - noise
    "repa": Convention(("repa",), "velocity", DATA_TO_NOISE, ("vae",), False),  # sihyun-yu/REPA: velocity noise - data
    "lightningdit": Convention(("lightningdit_hustvl",), "velocity", NOISE_TO_DATA, ("vae",), True),  # hustvl/LightningDiT
    "ddt": Convention(("ddt",), "velocity", NOISE_TO_DATA, ("vae",), False),  # MCG-NJU/DDT: velocity data - noise
    "jit": Convention(("jit",), "data", NOISE_TO_DATA, ("pixels",), False),  # LTH14/JiT at 256 pixels
    "jit512": Convention(("jit",), "data", NOISE_TO_DATA, ("pixels",), False, noise_scale=2.0),
}


class TrainedOn(Strict):
    """The images that a model was trained on."""

    train_images: Count
    classes: Count
    image_size: Count


class PrintedScore(Strict):
    """A score of published weights as it is printed somewhere, with what it depends on. None: the source does not give it."""

    value: float
    digits: Annotated[int, Field(ge=0, le=8)] = 2
    source: Annotated[str, Field(min_length=1)]
    data: TrainedOn | None = None
    judge: Literal["inception"] | None = None
    reference: str | None = None
    samples: Count | None = None
    labels: Literal["equal", "random"] | None = None
    nfe: Count | None = None
    guidance: str | None = None  # `none`, or kind, scale and interval in the words of a table's note
    ema: Decay | None = None
    epochs: Positive | None = None
    unclear: list[str] = Field(default=[])  # what else is not given
    note: str | None = None


class Released(Weights):
    """A method's published weights, taken in place of a training, with what their publisher says of them. None: not known."""

    convention: Annotated[str, name_in(CONVENTIONS)]
    average: Decay | None = None  # decay of the average that they are
    epochs: Positive | None = None
    printed: dict[str, PrintedScore] = Field(default={})  # by score


def check_released(study: Any) -> None:
    """ValueError where a Study's published weights are of no method of it, or of another convention, or meet what only trainings have."""
    section = study.denoiser
    for method, weights in section.released.items():
        where = f"denoiser.released.{method}"
        try:
            encoder = load_method(nearest(method, method_names() if study.methods is None else study.methods, "method")).encoder
        except UserError as error:
            raise ValueError(f"{where}: {error}") from None
        try:
            CONVENTIONS[weights.convention].check(study, encoder.backbone, encoder.key)
        except ValueError as error:
            raise ValueError(f"{where}: convention {weights.convention}: {error}") from None
        if section.given_states:
            raise ValueError(f"{where}: its denoiser reads a text encoder's states; take its weights with dsr import --states")
    of_trainings = {
        "denoiser.snapshots": section.snapshots,
        "sampling.averages": study.sampling.averages,
        "sampling.guidance_search": study.sampling.guidance_search,
    }
    for field, value in of_trainings.items():
        if section.released and value:
            raise ValueError(f"{field} is of trainings, and published weights have none: leave it out beside denoiser.released")
