"""Scores by seed as a matrix, each on the scale that fits it, for one test of all of them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np

from harness.report.gate.joint import EQUAL, Lines
from harness.report.gate.lines import EVERY, Key, ScoreBySeed
from harness.report.statistics import Estimate, estimate
from harness.results.scores import score_info
from harness.results.views import View


@dataclass(frozen=True)
class Matrix:
    """`stored` (S, L) and `fresh` (F, L) values of the `keys`, NaN where a seed has none; the last keys are means over all methods."""

    keys: list[Key]
    stored_seeds: list[int]
    fresh_seeds: list[int]
    stored: np.ndarray
    fresh: np.ndarray
    images: np.ndarray  # (L,) that a value is of; 0 of tokens

    @classmethod
    def of(cls, stored: Mapping[Key, ScoreBySeed], fresh: Mapping[Key, ScoreBySeed]) -> Self:
        """Of scores by key; both sides have the same keys."""
        keys = list(stored)
        seeds = [sorted({seed for key in keys for seed in side[key].values}) for side in (stored, fresh)]
        values = [
            np.array([[side[key].values.get(seed, np.nan) for key in keys] for seed in of])
            for side, of in zip((stored, fresh), seeds, strict=True)
        ]
        images = np.array([fresh[key].n if score_info(key[0]).of == "samples" else 0 for key in keys], float)
        return cls(keys, seeds[0], seeds[1], values[0], values[1], images).with_means()

    def with_means(self) -> Self:
        """With a line for each score that several methods have, of the seeds that all of them have."""
        of: dict[tuple[str, View], list[int]] = {}
        for place, (score, view, _) in enumerate(self.keys):
            of.setdefault((score, view), []).append(place)
        means = {}
        for name, places in of.items():
            columns = [side[:, places].mean(1) for side in (self.stored, self.fresh)]
            if len(places) > 1 and min((~np.isnan(column)).sum() for column in columns) >= 2:
                means[name] = columns
        if not means:
            return self
        sides = [
            np.column_stack([side, *(columns[place] for columns in means.values())]) for place, side in enumerate((self.stored, self.fresh))
        ]
        keys = [*self.keys, *((score, view, EVERY) for score, view in means)]
        return replace(self, keys=keys, stored=sides[0], fresh=sides[1], images=np.append(self.images, np.zeros(len(means))))

    @cached_property
    def shared_seeds(self) -> list[int]:
        return sorted(set(self.stored_seeds) & set(self.fresh_seeds))

    @property
    def paired(self) -> bool:
        """Whether there are pairs enough to compare."""
        return len(self.shared_seeds) >= 2

    def sides(self) -> list[tuple[Estimate, Estimate]]:
        """(stored, fresh) estimate of every line."""
        columns = [[side[~np.isnan(side[:, place]), place] for place in range(len(self.keys))] for side in (self.stored, self.fresh)]
        return [(estimate(before), estimate(after)) for before, after in zip(*columns, strict=True)]

    def lines(self, *, both_scales: bool) -> list[Lines]:
        """Stored seeds, then fresh ones, on the scales of their scores; with `both_scales` plainly too, for what spreads by ratios."""
        shares = np.array([score_info(score).spread == "share" for score, _, _ in self.keys])
        with np.errstate(divide="ignore"):  # variance of the arc sine of a share's root, if its images are drawn apart
            least = np.where(shares & self._tied & (self.images > 0), 1 / (4 * self.images), 0.0)
        scales = (False, True)[: 1 + both_scales]
        return [Lines(np.vstack(self._on_scale(plain=plain)), self._groups, self._over_all, self._tied, least) for plain in scales]

    def pairs(self) -> tuple[list[Lines], np.ndarray]:
        """Fresh minus stored of the seeds on both sides, on both scales; and which lines these are: those with two pairs."""
        rows = [[seeds.index(seed) for seed in self.shared_seeds] for seeds in (self.stored_seeds, self.fresh_seeds)]
        largest = np.nanmax(np.abs(np.vstack([self.stored, self.fresh])), axis=0)
        differences = []
        for plain in (False, True):
            before, after = (side[row] for side, row in zip(self._on_scale(plain=plain), rows, strict=True))
            rounding = EQUAL * (largest if plain else np.maximum(1.0, np.nanmax(np.abs(before), axis=0)))
            differences.append(np.where(np.abs(after - before) <= rounding, 0.0, after - before))
        kept = np.flatnonzero((~np.isnan(differences[0])).sum(0) >= 2)
        none = np.zeros(len(kept))
        return [Lines(values[:, kept], self._groups[kept], self._over_all[kept], self._tied[kept], none) for values in differences], kept

    @cached_property
    def _groups(self) -> np.ndarray:
        """(L,) numbers of the score and view."""
        numbers: dict[tuple[str, View], int] = {}
        return np.array([numbers.setdefault(key[:2], len(numbers)) for key in self.keys])

    @cached_property
    def _over_all(self) -> np.ndarray:
        return np.array([method == EVERY for _, _, method in self.keys])

    @cached_property
    def _tied(self) -> np.ndarray:
        """(L,) whether values of the line's score, of any method, are equal within a side."""
        tied = np.zeros(len(self.keys), bool)
        for group in np.unique(self._groups):
            of = self._groups == group
            for side in (self.stored, self.fresh):
                values = side[:, of & ~self._over_all]
                values = values[~np.isnan(values)]
                ordered = np.sort(values)
                tied[of] |= bool((np.diff(ordered) <= EQUAL * np.abs(ordered).max(initial=0.0)).any())
        return tied

    @cached_property
    def scales(self) -> list[str]:
        """Of every line, `log`, `share` or `plain`: as the registry says, but plain where a value is outside of that scale."""
        together, scales = np.vstack([self.stored, self.fresh]), ["plain"] * len(self.keys)
        for group in np.unique(self._groups):
            of = np.flatnonzero(self._groups == group)
            values = together[:, of]
            kind = score_info(self.keys[of[0]][0]).spread
            fits = {"plain": True, "log": np.nanmin(values) > 0, "share": np.nanmin(values) >= 0 and np.nanmax(values) <= 1}[kind]
            for place in of:
                scales[place] = kind if fits else "plain"
        return scales

    def _on_scale(self, *, plain: bool) -> list[np.ndarray]:
        """(stored, fresh) on their scales: logarithms, arc sines of roots of shares, or plain; means over methods are of these values.

        `plain`: instead of logarithms.
        """
        sides, scales = [self.stored.copy(), self.fresh.copy()], np.array(self.scales)
        for side in sides:
            if not plain:
                side[:, scales == "log"] = np.log(side[:, scales == "log"])
            side[:, scales == "share"] = np.arcsin(np.sqrt(side[:, scales == "share"]))
            for place in np.flatnonzero(self._over_all):
                side[:, place] = side[:, (self._groups == self._groups[place]) & ~self._over_all].mean(1)
        return sides
