"""GenEval on drawn shapes: a checker reads the objects of an image, and an image passes where they are exactly its prompt's.

Kinds of prompts and the mean over them are GenEval's (Ghosh et al. 2023, arXiv 2310.11513). Its detector is replaced by connected
components: colour by the nearest of the palette, shape by the nearest outline. Stricter than GenEval: a further object is always a fault.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import torch

from harness.data.shapes import COLOURS, KINDS, OUTLINES, PROMPTS, Thing, covered, fulfils
from harness.evaluation.bootstrap import by_resampling, means, share
from harness.evaluation.outcome import Measured

COVERED = 0.45  # of a pixel by an object, from which on it belongs to it
SMALLEST = 0.02  # of the image: pixels that a component must exceed, else it is a speck and no object
UNLIKE = 0.3  # what a component and the nearest outline do not share, as a share of its area, above which it has no shape
EVERYWHERE = np.ones((3, 3), bool)  # diagonal neighbours are connected


@cache
def palette() -> tuple[np.ndarray, np.ndarray]:
    """What is left of each colour without its grey: directions (colours, 3), and lengths (colours,)."""
    colours = np.array(list(COLOURS.values()), float)
    colours -= colours.mean(1, keepdims=True)
    lengths = np.linalg.norm(colours, axis=1)
    return colours / lengths[:, None], lengths


@cache
def moments() -> dict[str, tuple[float, float]]:
    """Of each shape in a box from -1 to 1: its area, and the height of its centre of mass (y downwards; x is 0)."""
    fine = (np.arange(512) + 0.5) / 256 - 1
    masks = {shape: inside(fine[None, :], fine[:, None]) for shape, inside in OUTLINES.items()}
    return {shape: (4 * mask.mean(), float((mask.mean(1) * fine).sum() / mask.mean(1).sum())) for shape, mask in masks.items()}


def read(image: np.ndarray) -> list[Thing]:
    """The objects of an image (H, W, 3) uint8; `shape` None where it is like none of the outlines."""
    from scipy import ndimage  # a quarter of a second, which only studies of prompts need

    directions, lengths = palette()
    chroma = image - image.mean(2, dtype=float, keepdims=True)  # mixed with grey, a colour keeps its direction
    along = chroma @ directions.T
    nearest = along.argmax(2)
    cover = np.take_along_axis(along / lengths, nearest[..., None], 2)[..., 0]
    things = []
    for colour, name in enumerate(COLOURS):
        of_colour = np.where(nearest == colour, cover, 0.0)
        parts, count = ndimage.label(of_colour > COVERED, EVERYWHERE)
        for part in range(1, count + 1):
            mine = parts == part
            if mine.sum() > SMALLEST * cover.size:
                edge = ndimage.binary_dilation(mine, EVERYWHERE) & (parts == 0)  # covered in part
                things.append(_thing(np.where(mine | edge, of_colour, 0.0) / np.quantile(of_colour[mine], 0.9), name))
    return things


def _thing(cover: np.ndarray, colour: str) -> Thing:
    """One component from (H, W), how much of each pixel it covers: each shape is drawn with its area and centre of mass, and compared."""
    cover = np.clip(cover, 0, 1)
    area = cover.sum()
    x, y = ((cover.sum(axis) * (np.arange(cover.shape[1 - axis]) + 0.5)).sum() / area for axis in (0, 1))
    candidates = []
    for shape, (whole, middle) in moments().items():
        radius = (area / whole) ** 0.5
        thing = Thing(shape, colour, float(x), float(y - middle * radius), float(radius))
        candidates.append((abs(covered(thing, cover.shape[0]) - cover).sum() / area, thing))
    unlike, thing = min(candidates, key=lambda pair: pair[0])
    return thing if unlike < UNLIKE else replace(thing, shape=None)


def passes(image: np.ndarray, label: int) -> bool:
    """Whether the image (H, W, 3) uint8 shows what the prompt asks for."""
    return fulfils(read(image), PROMPTS[label])


def geneval(images: np.ndarray, labels: np.ndarray, resampled: int) -> dict[str, Measured]:
    """(N, H, W, 3) uint8 and prompts (N,) -> shares of images that pass: `geneval_KIND`, `geneval_seen` and `geneval_unseen` (prompts that
    training saw, and did not), and `geneval`, the mean over the kinds. ValueError where one of them has no image.
    """
    right = torch.tensor([passes(image, label) for image, label in zip(images, labels, strict=True)], dtype=torch.float64)
    prompts = [PROMPTS[label] for label in labels]
    groups = {kind: right[[p.kind == kind for p in prompts]] for kind in KINDS}
    groups |= {name: right[[p.seen == seen for p in prompts]] for name, seen in (("seen", True), ("unseen", False))}
    if lacking := [name for name, part in groups.items() if not len(part)]:
        raise ValueError(f"no image was drawn for prompts of the groups {', '.join(lacking)}")
    resampled_means = torch.tensor([means(f"geneval_{kind}", groups[kind], resampled) for kind in KINDS]).mean(0).tolist()
    mean = sum(groups[kind].mean().item() for kind in KINDS) / len(KINDS)
    scores = {"geneval": by_resampling(mean, resampled_means, "samples of each kind", least=0.0, most=1.0)}
    return scores | {f"geneval_{name}": share(part.mean().item(), len(part)) for name, part in groups.items()}


def checker_accuracy(images: Sequence[np.ndarray], scenes: list[list[Thing]]) -> Measured:
    """Share of N images (H, W, 3) uint8 for which the checker's answer to every prompt is the one that is true of the scene."""
    right = [answers(read(images[i])) == answers(scene) for i, scene in enumerate(scenes)]
    return share(float(np.mean(right)), len(right))


def answers(scene: list[Thing]) -> list[int]:
    """The prompts that a scene fulfils."""
    return [label for label, prompt in enumerate(PROMPTS) if fulfils(scene, prompt)]
