"""Both sides of every row of `dsr benchmark --peers` give the same values, at tiny sizes; the page; what is refused."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from harness.commands.peers import distances, images, step
from harness.commands.peers.command import ROWS, measure, render
from harness.commands.peers.measure import Line, Pair, alternate
from harness.machine.memory import peak_memory
from harness.study.typed import UserError


@pytest.mark.parametrize(
    ("row", "size", "count"),
    [
        (distances.distance, (200, 32), 2),
        (distances.resample, (200, 32), 2),
        (step.step, 2, 1),
        (step.seeds, 2, 2),
        (images.digits, 60, 2),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_both_sides_of_a_row_give_the_same(row, size, count):
    lines = row(2, size)  # a UserError where they do not
    assert len(lines) == count
    assert all(len(line.ours) == len(line.theirs) == 2 and line.ratio > 0 for line in lines)


def test_another_block_is_not_the_same_work(monkeypatch):
    monkeypatch.setattr(step, "_turned", lambda x, cos, sin: x)  # no rotary embedding
    with pytest.raises(UserError, match="not the same work"):
        step.step(1, 2)


@pytest.mark.parametrize("theirs", [[1.0, 2.1], [1.0], [1.0, float("nan")]])
def test_other_values_are_refused(theirs):
    with pytest.raises(UserError, match="not the same work"):
        alternate(Pair("a", "b", "", lambda: [1.0, 2.0], lambda: theirs), 1)


def test_sides_take_turns():
    calls = []
    alternate(Pair("a", "b", "", lambda: calls.append("ours") or [1.0], lambda: calls.append("peer") or [1.0]), 2)
    assert calls == ["ours", "peer"] * 3  # the first of each has no clock


def test_memory_is_of_a_process_of_its_own():
    held = np.ones(2**29, dtype=np.uint8)  # half a GiB here is none there: on Linux a process begins with the peak of its parent
    child = [sys.executable, "-c", "from harness.machine.memory import peak_memory; print(peak_memory())"]
    alone = float(subprocess.run(child, check=True, stdout=subprocess.PIPE, text=True).stdout)
    assert 5 < alone < peak_memory() - held.size / 2**21


def test_memory_is_what_such_a_process_prints(monkeypatch):
    commands = []

    def run(command, **_):
        commands.append(command[1:])
        return subprocess.CompletedProcess(command, 0, stdout="123.5\n")

    monkeypatch.setattr(images.subprocess, "run", run)
    lines = images.memory(1, (60, 70))
    assert commands == [["-m", "harness.commands.peers.images", n, str(torch.get_num_threads())] for n in ("60", "70")]
    assert [(line.ours, line.ratio) for line in lines] == [([123.5], None)] * 2


@pytest.mark.slow
def test_memory_of_all_scores():
    (line,) = images.memory(1, (60,))
    assert 100 < line.ours[0] < 2000


def test_the_page():
    lines = [Line("work", "peer", "2", "s", [0.001, 0.002, 0.004], [0.003, 0.005, 0.006]), Line("memory", "", "flat", "MiB", [1234.5], [])]
    page = render(lines, {"date": "2026-01-02", "threads a side": "1"})
    assert page.startswith("# Beside peers\n\nWritten by `dsr benchmark --peers`: date 2026-01-02; threads a side 1.\n")
    assert page.splitlines()[-2:] == [
        "| work | peer | 1 / 2 / 4 ms | 3 / 5 / 6 ms | 2.50 | 2 | 3 |",
        "| memory | – | 1234 / 1234 / 1234 MiB | – | – | flat | 1 |",
    ]


def test_an_unknown_row_is_named():
    with pytest.raises(UserError, match=r"unknown row 'digit', did you mean 'digits'"):
        measure(["digit"], 1)
    assert {"inception", "digits", "distance", "resample", "step", "seeds", "memory", "no-op", "dry-run"} <= set(ROWS)
