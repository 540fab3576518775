"""What tells the runs of a method apart: the seed of a training, or `published` for weights that were trained elsewhere.

Such weights have one run. It shares first weights, order and noise of a training with no other run, so that nothing is paired with it.
"""

from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

PUBLISHED, WORD = -1, "published"  # in the place of a seed, and what files and readers see of it

Seed = Annotated[
    int,
    BeforeValidator(lambda value: PUBLISHED if value == WORD else value),
    PlainSerializer(lambda seed: seed_text(seed) if seed == PUBLISHED else seed, when_used="json"),
]


def seed_text(seed: int | None) -> str:
    """As readers see it: `0`, or `published`; `None` of samples from outside that were told none."""
    return WORD if seed == PUBLISHED else str(seed)


def seed(text: str) -> int:
    """Of its text; ValueError for what is no whole number from 0 on and not `published`."""
    if text == WORD:
        return PUBLISHED
    if int(text) < 0:
        raise ValueError(text)  # -1 is how PUBLISHED is kept, and no seed
    return int(text)


def run_name(seed: int | None) -> str:
    """The folder of a run below that of its method: `seed0`, or `published`."""
    return WORD if seed == PUBLISHED else f"seed{seed}"


def recorded(seed: int) -> int | str:
    """As records say it: the number, or `published`."""
    return WORD if seed == PUBLISHED else seed


def noise_seed(seed: int) -> int:
    """What a run's noise and labels are drawn with: its seed; 0 of published weights."""
    return 0 if seed == PUBLISHED else seed
