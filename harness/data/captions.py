"""The caption of each label."""

from collections.abc import Sequence

from harness.data import shapes
from harness.study.sections.data import Data, Digits, Shapes

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def captions(data: Data, labels: Sequence[int]) -> list[str]:
    """What the CLIP score compares an image of a label with."""
    if isinstance(data, Digits):
        return [f"a handwritten {WORDS[label]}" for label in labels]
    if isinstance(data, Shapes):
        return [shapes.PROMPTS[label].text for label in labels]
    from harness.machine.device import ensure_torchvision

    ensure_torchvision()  # open_clip imports it
    from open_clip import IMAGENET_CLASSNAMES

    return [f"a photo of a {IMAGENET_CLASSNAMES[label]}" for label in labels]
