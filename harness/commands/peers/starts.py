"""Rows on starts: Snakemake on this project beside Snakemake that reads nothing."""

import subprocess
import sys

from harness.commands.peers.measure import Line, Pair, Values, alternate
from harness.study.typed import UserError

BARE = ("--version",)
DRY = ("-n", "--cores", "1", "--quiet", "all", "--config", "study=smoke")
NO_OP = ("--cores", "1", "reports/table1.md", "--config", "study=smoke")


def _run(arguments: tuple[str, ...]) -> Values:
    done = subprocess.run([sys.executable, "-m", "snakemake", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"snakemake {' '.join(arguments)} failed; run it to see why: {done.stderr.strip().splitlines()[-1:]}")
    return [1.0]


def dry_run(rounds: int) -> list[Line]:
    """`snakemake -n` of smoke, in the folder of the project."""
    pair = Pair("`snakemake -n` of `smoke`", "`snakemake --version`", "no slower than today", lambda: _run(DRY), lambda: _run(BARE))
    return [alternate(pair, min(rounds, 3))]


def no_op(rounds: int) -> list[Line]:
    """`snakemake` with nothing to do: the first call, which is not timed, makes what is missing (a minute)."""
    pair = Pair(
        "`snakemake` of `smoke`, nothing to do", "`snakemake --version`", "no slower than today", lambda: _run(NO_OP), lambda: _run(BARE)
    )
    return [alternate(pair, min(rounds, 3))]
