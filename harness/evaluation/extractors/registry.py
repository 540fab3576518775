"""What the kinds of extractors stand for.

A new extractor: a line in harness/study/sections/extractors.py; where its kind is new, a module here with a `load`, named below.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.evaluation.extractors import clip_vision, dinov2, inception, open_clip_tower, timm_networks
from harness.evaluation.extractors.base import ImageExtractor
from harness.evaluation.extractors.weights import Wanted
from harness.study.sections.extractors import extractor_info

KINDS: dict[str, Callable[[Wanted], ImageExtractor]] = {
    "inception": inception.load,
    "timm": timm_networks.load,
    "dinov2": dinov2.load,
    "clip_vision": clip_vision.load,
    "open_clip": open_clip_tower.load,
}


def load_extractor(
    name: str,
    path: Path,
    *,
    sha256: str | None = None,
    container: str | None = None,
    shape: Mapping[str, Any] | None = None,
    precision: str = "fp32",
) -> ImageExtractor:
    """The extractor `name` with the weights at `path`, a file or a folder of the hub, on the device of the run.

    `sha256`: of the file, or its first digits, where it is known; `container`: of several in the file, the one that is meant; `shape`:
    arguments of the network's constructor in place of the published sizes; `precision`: `fp32` or `bf16`.
    UserError for an unknown name, a file that is not there or another one, and weights of another network (the first misfit is named).
    """
    info = extractor_info(name)
    return KINDS[info.kind](Wanted(name, info, Path(path), sha256, container, shape or {}, precision))
