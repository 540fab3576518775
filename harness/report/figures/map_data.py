"""The token maps of a run (harness.evaluation.maps), and which methods and blocks of them figures show."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.report.figures.context import Context
from harness.results.outlier_rule import median_norm, outlier_norm
from harness.store import artifacts
from harness.study.method import load_method
from harness.study.study import Study

PAPER_BLOCKS = {28: (3, 13, 21, 25, 26, 27)}  # of the paper's figures, by depth
EVENLY, ALL = 4, 7  # blocks shown of a deep denoiser: so many evenly spaced, and the paper's; up to so many are all shown
LEVEL = 0.5  # noise level where a figure shows one; the nearest that there is


@dataclass(frozen=True)
class Maps:
    """Arrays of one run's maps.npz, or `why` there are none. An encoder has one noise level, none."""

    arrays: dict[str, np.ndarray]
    why: str
    factor: float

    @property
    def median(self) -> np.ndarray:
        """(T, L + 1): of the norms after each block, and of the output, over all images' patches."""
        return median_norm(self.arrays["norms"], axis=(2, 3))[:, :, 0, 0]

    @cached_property
    def relative(self) -> np.ndarray:
        """(T, L + 1, B, P): norms over that median."""
        return self.arrays["norms"] / self.median[:, :, None, None]

    @cached_property
    def outliers(self) -> np.ndarray:
        """(T, L + 1, B, P): which tokens are outliers."""
        return self.arrays["norms"] > outlier_norm(self.arrays["norms"], self.factor, axis=(2, 3))

    @property
    def level(self) -> int:
        """Place of the noise level nearest to LEVEL."""
        return int(np.abs(self.arrays["times"] - LEVEL).argmin())

    @property
    def counts(self) -> np.ndarray:
        """(B,): outliers of each image, over all blocks and noise levels."""
        return self.outliers[:, :-1].sum(axis=(0, 1, 3))


def maps_of(context: Context, method: str) -> Maps:
    """Of the method's run with the first seed."""
    path = context.run(method, context.seeds[0]) / "maps.npz"
    artifacts.checked(path)
    record = artifacts.meta(path)
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    why = "" if record["status"] == "ok" else f"{record['status']}: {record['reason']}"
    return Maps(arrays, why, context.study.outlier_statistics.factor)


def block_names(study: Study, blocks: int) -> list[str]:
    """Of each block, and of the output; the blocks of a DDT head, which follow the others, are counted anew."""
    return [*study.denoiser.blocks[:blocks], "output"]


def blocks_shown(study: Study, blocks: int) -> list[int]:
    """All blocks, or some of a deep denoiser: evenly spaced ones, the paper's, and those of the head; then the output."""
    depth = study.denoiser.depth
    if blocks <= ALL:
        return list(range(blocks + 1))
    paper = PAPER_BLOCKS.get(depth, ())
    evenly = np.linspace(0, depth - 1, EVENLY if paper else ALL).round().astype(int).tolist()
    return sorted({*evenly, *paper, *range(depth, blocks + 1)})


def four(methods: list[str]) -> list[str]:
    """The baseline, encoder registers, diffusion registers, both: as many of them as there are, others left out."""
    kinds: dict[tuple[bool, bool], list[str]] = {}
    for name in methods:
        method = load_method(name)
        if not method.loss_mask:
            kinds.setdefault((method.encoder.changes, bool(method.diffusion_registers)), []).append(name)
    both = kinds.get((True, True), [])
    key = load_method(both[0]).encoder.key if both else None
    alone = kinds.get((True, False), [])
    same = [name for name in alone if load_method(name).encoder.key == key] or alone
    return [names[0] for names in (kinds.get((False, False)), same, kinds.get((False, True)), both) if names]
