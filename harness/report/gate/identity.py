"""Equal parts give equal values: what was made of the same files, and of the same seed, must be the same number."""

from collections.abc import Hashable, Iterable, Iterator
from typing import Any

import pandas as pd

from harness.report.gate.lines import GateLine, Key
from harness.results.schema import NONE
from harness.results.scores import Of, score_info
from harness.results.views import View

TOLERANCE = 1e-6  # relative, on another device or with other libraries: FID moves in its eighth digit between kernels
PARTS: dict[Of, dict[str, str]] = {  # what a score is made of: columns of a row, in words
    "samples": {"samples": "samples", "extractor": "judge", "reference": "reference", "content": "its images"},
    "reconstruction": {
        "encoder": "encoder", "registers": "register neurons", "latents": "latents", "decoder": "decoder", "extractor": "judge",
        "reference": "reference",
    },
    "training": {"encoder": "encoder", "registers": "register neurons", "latents": "latents"},
    "encoder tokens": {"encoder": "encoder", "registers": "register neurons", "latents": "latents", "reference": "reference"},
    "denoiser tokens": {"denoiser": "denoiser", "latents": "latents", "reference": "reference"},
    "network": {},
}  # fmt: skip
PARTS["training tokens"] = PARTS["training"]
MACHINE = ("device", "versions")
Row = dict[Hashable, Any]
SAMPLED_WITH = ("denoiser", "decoder", "latents")


def unequal_values(fresh: pd.DataFrame, stored: pd.DataFrame) -> dict[Key, GateLine]:
    """By score, view and method: a line where parts are equal and values are not.

    Values must be the same bits on the same device with the same libraries, elsewhere equal to TOLERANCE; a smaller difference is noted.
    """
    before = _by_run(stored)
    lines: dict[Key, GateLine] = {}
    for key, row in _by_run(fresh).items():
        other = before.get(key)
        info = score_info(row["score"])
        parts = {} if info.counted else PARTS[info.of]
        if other is None or not parts or row["value"] == other["value"] or not _equal(row, other, parts):
            continue
        here = _equal(row, other, MACHINE)
        apart = abs(row["value"] - other["value"]) / max(abs(row["value"]), abs(other["value"]))
        names = ", ".join(name for part, name in parts.items() if row[part] != NONE)
        seed = "" if row["shared"] else f"seed {row['seed']}, "
        what = "bits" if apart <= TOLERANCE else "value"
        why = f"same {seed}{names}; other {what}: {other['value']:.10g} before, {row['value']:.10g} now"
        wrong = here or apart > TOLERANCE
        line = GateLine(row["method"], row["score"], key[1], "difference" if wrong else "note", why, row["better"])
        of: Key = (row["score"], key[1], row["method"])
        if of not in lines or (wrong and lines[of].verdict == "note"):
            lines[of] = line
    return lines


def sample_lines(fresh: pd.DataFrame, stored: pd.DataFrame) -> Iterator[GateLine]:
    """A line for each method and view whose samples are of the same seed and parts, but of other bits.

    On the same device, with the same libraries, that is a difference: sampling is a function of these.
    """
    before = _by_run(stored)
    seeds: dict[tuple[str, View], dict[int, bool]] = {}
    for key, row in _by_run(fresh).items():
        other = before.get(key)
        if other is None or row["samples"] == NONE or row["samples"] == other["samples"] or not _equal(row, other, SAMPLED_WITH):
            continue
        if not row["shared"]:
            seeds.setdefault((row["method"], key[1]), {})[row["seed"]] = _equal(row, other, MACHINE)
    for (method, view), of in seeds.items():
        why = f"same seed, {', '.join(SAMPLED_WITH)}; other bits: seed{'s' * (len(of) > 1)} {', '.join(map(str, of))}"
        yield GateLine(method, "samples", view, "difference" if any(of.values()) else "note", why)


def other_trainings(fresh: pd.DataFrame, stored: pd.DataFrame) -> Iterator[str]:
    """A remark where denoisers of the same seed, encoder and latents have other bits: the training changed, or the machine."""
    before = _by_run(stored)
    seeds: dict[str, dict[int, None]] = {}
    for key, row in _by_run(fresh).items():
        other = before.get(key)
        if other and not row["shared"] and row["denoiser"] != other["denoiser"] and _equal(row, other, ("encoder", "registers", "latents")):
            seeds.setdefault(row["method"], dict.fromkeys([row["seed"]]))[row["seed"]] = None
    if seeds:
        of = "; ".join(f"{method} (seed{'s' * (len(some) > 1)} {', '.join(map(str, some))})" for method, some in seeds.items())
        yield f"Same seed, encoder, register neurons and latents; other bits of the denoiser: {of}."


def _by_run(rows: pd.DataFrame) -> dict[tuple[str, View, str, int | None], Row]:
    """Rows with a value by score, view, method and seed; those that all seeds share without a seed."""
    return {
        (row["score"], View(row["ema"], row["step"], row["guidance"]), row["method"], None if row["shared"] else row["seed"]): row
        for row in rows[rows["status"] == "ok"].to_dict("records")
    }


def _equal(row: Row, other: Row, columns: Iterable[str]) -> bool:
    return all(row[column] == other[column] for column in columns)
