"""The data source `shapes`: prompts from a small grammar, scenes that fulfil them, and their images.

Prompts are of the six kinds of GenEval (Ghosh et al. 2023, arXiv 2310.11513). A prompt's number is its label. Those that name a combination
of LEFT_OUT are never drawn for training: their words are seen, the combination is not. Scene i of a split depends on (split, i) alone.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations, product
from typing import Any

import numpy as np

from harness.data.stored import StoredSource
from harness.study.sections.data import Shapes
from harness.study.typed import UserError

COLOURS = {"red": (220, 45, 40), "green": (40, 170, 60), "blue": (50, 90, 220), "yellow": (235, 200, 40)}
OUTLINES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {  # in a box from -1 to 1, y downwards
    "circle": lambda x, y: x**2 + y**2 <= 1,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) <= 1,
    "triangle": lambda x, y: (abs(y) <= 1) & (2 * abs(x) <= y + 1),
    "cross": lambda x, y: (np.maximum(abs(x), abs(y)) <= 1) & (np.minimum(abs(x), abs(y)) <= 1 / 3),
}
PLURALS = {"circle": "circles", "square": "squares", "triangle": "triangles", "cross": "crosses"}
NUMBERS = {2: "two", 3: "three", 4: "four"}
RELATIONS = ("left of", "right of", "above", "below")
KINDS = ("single", "two", "counting", "colours", "position", "attribution")
SPLITS = ("train", "reference")

LEFT_OUT_COLOURS = {("red", "triangle"), ("blue", "circle")}  # in no training image at all
LEFT_OUT_PAIRS = {frozenset(("square", "cross"))}  # side by side in no training image
LEFT_OUT_NUMBERS = {(3, "circle"), (4, "triangle")}  # such counts are of one shape

CELLS = 2  # a side: each object lies in a cell of its own
RADIUS = (0.33, 0.38)  # of a cell; half the side of an object's box
SHIFT = 0.05  # of a cell: how far an object's centre is from its cell's, at most
BRIGHTNESS = (0.85, 1.0)  # factor on an object's colour
GREY = 32  # of the background: were it to vary, it would be most of what the encoder's background tokens say
FINER = 4  # sub-pixels a side
TOUCHING = 0.1  # GenEval's POSITION_THRESHOLD: share of the boxes' sides that an offset must exceed
DIRECTION = 0.5  # GenEval's least share of an offset that lies along an axis
MARGIN = 0.04  # how far scenes keep from that


@dataclass(frozen=True)
class Thing:
    """An object: shape and colour by name, centre and half its box's side in pixels (y downwards). `shape` or `colour` None: any."""

    shape: str | None
    colour: str | None
    x: float = 0.0
    y: float = 0.0
    radius: float = 0.0

    @property
    def outline(self) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        if self.shape is None:
            raise ValueError("a thing of any shape cannot be drawn")
        return OUTLINES[self.shape]

    @property
    def rgb(self) -> tuple[int, int, int]:
        if self.colour is None:
            raise ValueError("a thing of any colour cannot be drawn")
        return COLOURS[self.colour]


@dataclass(frozen=True)
class Prompt:
    """What an image must show: exactly `things`, no more, and the first in `relation` to the second."""

    kind: str
    text: str
    things: tuple[Thing, ...]
    relation: str | None = None

    @property
    def seen(self) -> bool:
        """Whether training images are drawn for it: it names none of the combinations that are left out."""
        shapes = [thing.shape for thing in self.things]
        coloured = {(thing.colour, thing.shape) for thing in self.things}
        left_out = coloured & LEFT_OUT_COLOURS or frozenset(shapes) in LEFT_OUT_PAIRS or (len(shapes), shapes[0]) in LEFT_OUT_NUMBERS
        return not left_out


def _grammar() -> Iterator[Prompt]:
    def a(shape: str, colour: str | None = None) -> str:
        return f"a {colour} {shape}" if colour else f"a {shape}"

    def things(*pairs: tuple[str, str | None]) -> tuple[Thing, ...]:
        return tuple(Thing(shape, colour) for shape, colour in pairs)

    for shape in OUTLINES:
        yield Prompt("single", a(shape), things((shape, None)))
    for one, other in permutations(OUTLINES, 2):
        yield Prompt("two", f"{a(one)} and {a(other)}", things((one, None), (other, None)))
    for shape, (count, word) in product(OUTLINES, NUMBERS.items()):
        yield Prompt("counting", f"{word} {PLURALS[shape]}", things(*[(shape, None)] * count))
    for shape, colour in product(OUTLINES, COLOURS):
        yield Prompt("colours", a(shape, colour), things((shape, colour)))
    for (one, other), relation in product(permutations(OUTLINES, 2), RELATIONS):
        yield Prompt("position", f"{a(one)} {relation} {a(other)}", things((one, None), (other, None)), relation)
    for (one, other), (first, second) in product(combinations(OUTLINES, 2), permutations(COLOURS, 2)):
        yield Prompt("attribution", f"{a(one, first)} and {a(other, second)}", things((one, first), (other, second)))


PROMPTS = sorted(_grammar(), key=lambda prompt: not prompt.seen)  # stable: seen ones first; a label is a place in this list


# ------------------------------------------------------------------------------------------------------------ what is true


def relations(one: Thing, other: Thing, direction: float = DIRECTION) -> set[str]:
    """Of the first to the second, by GenEval's rule (evaluate_images.py, relative_position): up to two, or none."""
    offset = np.array([one.x - other.x, one.y - other.y])
    beyond = np.maximum(abs(offset) - TOUCHING * 2 * (one.radius + other.radius), 0) * np.sign(offset)
    if not beyond.any():
        return set()
    x, y = beyond / np.linalg.norm(offset)
    shares = {"left of": -x, "right of": x, "above": -y, "below": y}
    return {relation for relation, along in shares.items() if along > direction}


def fulfils(scene: list[Thing], prompt: Prompt) -> bool:
    """Whether a scene has exactly the prompt's things. Stricter than GenEval, which lets other objects be there unless it counts."""
    if len(scene) != len(prompt.things):
        return False
    for order in permutations(scene) if len({t.shape for t in prompt.things}) > 1 else [tuple(scene)]:
        same = all(
            there.shape == wanted.shape and wanted.colour in (None, there.colour)
            for there, wanted in zip(order, prompt.things, strict=True)
        )
        if same and (prompt.relation is None or prompt.relation in relations(order[0], order[1])):
            return True
    return False


# --------------------------------------------------------------------------------------------------------- scenes and images


def scene_of(prompt: Prompt, generator: np.random.Generator, image_size: int) -> list[Thing]:
    """A scene that fulfils the prompt. Objects lie apart, and no pair so that a hair's breadth would change its relation."""
    cell = image_size / CELLS
    things = []
    for wanted in prompt.things:
        allowed = [colour for colour in COLOURS if (colour, wanted.shape) not in LEFT_OUT_COLOURS]
        things.append((wanted.shape, wanted.colour or allowed[generator.integers(len(allowed))]))
    while True:
        places = generator.permutation(CELLS**2)[: len(things)]
        scene = []
        for (shape, colour), place in zip(things, places, strict=True):
            radius, across, down = generator.uniform((RADIUS[0], -SHIFT, -SHIFT), (RADIUS[1], SHIFT, SHIFT))
            row, column = divmod(int(place), CELLS)
            scene.append(Thing(shape, colour, *(float(v * cell) for v in (column + 0.5 + across, row + 0.5 + down, radius))))
        near, far = ([relations(*pair, DIRECTION + side) for pair in combinations(scene, 2)] for side in (-MARGIN, MARGIN))
        if near == far and fulfils(scene, prompt):
            return scene


def draw(scene: list[Thing], image_size: int, grey: int = GREY, brightness: list[float] | None = None) -> np.ndarray:
    """(image_size, image_size, 3) uint8: the things on a grey background, anti-aliased; `brightness`: a factor for each thing."""
    image = np.full((image_size, image_size, 3), float(grey))
    for thing, factor in zip(scene, brightness or [1.0] * len(scene), strict=True):
        cover = covered(thing, image_size)[..., None]
        image = image * (1 - cover) + cover * factor * np.array(thing.rgb)
    return np.round(image).astype(np.uint8)


def covered(thing: Thing, image_size: int) -> np.ndarray:
    """(image_size, image_size): how much of each pixel the thing covers."""
    centres = (np.arange(image_size * FINER) + 0.5) / FINER
    x, y = ((centres - centre) / thing.radius for centre in (thing.x, thing.y))
    return thing.outline(x[None, :], y[:, None]).reshape(image_size, FINER, image_size, FINER).mean((1, 3))


def example(label: int, split: str, index: int, image_size: int) -> tuple[np.ndarray, list[Thing]]:
    """The image (H, W, 3) uint8 that is number `index` of a split, for the prompt `label`, and its scene."""
    generator = np.random.default_rng([SPLITS.index(split), index])
    scene = scene_of(PROMPTS[label], generator, image_size)
    return draw(scene, image_size, brightness=[float(generator.uniform(*BRIGHTNESS)) for _ in scene]), scene


def labels_of(data: Shapes, split: str) -> list[int]:
    """Of every image of a split.

    Training: the kinds in turn, and the seen prompts of a kind; reference: all prompts, as samples have them.
    """
    if split == "reference":
        return [i % len(PROMPTS) for i in range(data.reference)]
    of_kind = [[label for label, prompt in enumerate(PROMPTS) if prompt.seen and prompt.kind == kind] for kind in KINDS]
    turns = (divmod(i, len(KINDS)) for i in range(data.train_images))
    return [of_kind[kind][turn % len(of_kind[kind])] for turn, kind in turns]


def split_of(data: Shapes, split: str) -> tuple[np.ndarray, list[int]]:
    """Images (N, H, W, 3) uint8 and labels of a split."""
    labels = labels_of(data, split)
    return np.stack([example(label, split, i, data.image_size)[0] for i, label in enumerate(labels)]), labels


def scenes_of(data: Shapes, split: str) -> list[list[Thing]]:
    """The scenes of a split's images: what is true of them."""
    return [example(label, split, i, data.image_size)[1] for i, label in enumerate(labels_of(data, split))]


def digest(image_size: int) -> str:
    """SHA-256 of all prompts and an image of each, so that a changed generator is noticed."""
    images = np.stack([example(label, "reference", label, image_size)[0] for label in range(len(PROMPTS))])
    return hashlib.sha256("\n".join(prompt.text for prompt in PROMPTS).encode() + images.tobytes()).hexdigest()


# ---------------------------------------------------------------------------------------------------------------- the source


class ShapesSource(StoredSource):
    data: Shapes

    def splits(self) -> dict[str, tuple[list[Any], list[int]]]:
        from PIL import Image

        data, sha256 = self.data, digest(self.data.image_size)
        if sha256 != data.sha256:
            raise UserError(
                f"shapes of {data.image_size} pixels: sha256 {sha256[:16]}... instead of {data.sha256[:16]}...; "
                "install the pinned numpy, or, where the generator or the size was changed on purpose, write the new one into data.sha256"
            )
        parts = {split: split_of(data, split) for split in SPLITS}
        return {split: ([Image.fromarray(image) for image in images], labels) for split, (images, labels) in parts.items()}

    def captions(self, labels: Sequence[int]) -> list[str]:
        return [PROMPTS[label].text for label in labels]

    def scenes(self, split: str) -> list[list[Thing]]:
        return scenes_of(self.data, split)
