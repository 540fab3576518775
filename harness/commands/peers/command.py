"""`dsr benchmark --peers`: the rows by name, and the page that they make.

A new row: a function of the number of rounds that returns lines, and its name in `ROWS`.
"""

import platform
import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

import torch

from harness.commands.peers import distances, images, starts, step
from harness.commands.peers.measure import Line
from harness.machine.device import cpu_facts
from harness.machine.progress import Progress
from harness.results.markdown import markdown_table
from harness.study.typed import UserError, did_you_mean

PAGE = Path("reports/reference/benchmarks.md")
ROUNDS = 5
ROWS: dict[str, Callable[[int], list[Line]]] = {
    "inception": images.inception,
    "digits": images.digits,
    "distance": distances.distance,
    "resample": distances.resample,
    "step": step.step,
    "seeds": step.seeds,
    "memory": images.memory,
    "no-op": starts.no_op,
    "dry-run": starts.dry_run,
}
PACKAGES = ("torch", "torch_fidelity", "clean-fid", "open_clip_torch", "snakemake")


def measure(names: Sequence[str] | None, rounds: int) -> list[Line]:
    """Lines of these rows (None: of all). UserError for an unknown name, or two sides that do not compute the same."""
    for name in names or ():
        if name not in ROWS:
            raise UserError(f"unknown row '{name}'{did_you_mean(name, list(ROWS))}; rows: {', '.join(ROWS)}")
    chosen, lines = list(dict.fromkeys(names or ROWS)), []
    progress = Progress("benchmark", len(chosen), unit="rows", every=0.0)
    for done, name in enumerate(chosen, start=1):
        lines += ROWS[name](rounds)
        progress.update(done)
    return lines


def facts() -> dict[str, str]:
    """What the figures depend on."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": commit or "unknown",
        "CPU": cpu_facts().get("model name") or platform.processor() or platform.machine(),
        "threads a side": str(torch.get_num_threads()),
        **{name: version(name) for name in PACKAGES},
    }


def render(lines: Sequence[Line], about: dict[str, str]) -> str:
    """The page: every line with min, median and max of both sides."""
    headings = ["work", "peer", "ours: min / median / max", "peer's: min / median / max", "ratio", "wanted", "rounds"]
    rows = []
    for line in lines:
        ratio = "–" if line.ratio is None else f"{line.ratio:.2f}"
        sides = [_spread(line.ours, line.unit), _spread(line.theirs, line.unit)]
        rows.append([line.work, line.peer or "–", *sides, ratio, line.wanted, str(len(line.ours))])
    told = "; ".join(f"{name} {value}" for name, value in about.items())
    text = (
        "Both sides in one process, in turn (ours, peer, ours, ...), on the same inputs with the same threads, after one call of each that "
        "is not timed; their values agree, else there is no page. Ratio: median of the peer's over median of ours; above 1, ours is faster."
        " Wanted is what was aimed at. IS, KID, precision and recall are torch-fidelity's on both sides, the judge's network is one: "
        "of image scores ours save a pass of the judge, and captions that repeat."
    )
    return f"# Beside peers\n\nWritten by `dsr benchmark --peers`: {told}.\n\n{text}\n\n{markdown_table(headings, rows, 'll')}\n"


def _spread(values: Sequence[float], unit: str) -> str:
    if not values:
        return "–"
    if unit == "s" and median(values) < 1:
        values, unit = [1e3 * value for value in values], "ms"
    return (
        " / ".join(f"{value:.3g}" if value < 1000 else f"{value:.0f}" for value in (min(values), median(values), max(values))) + f" {unit}"
    )
