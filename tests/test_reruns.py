"""What a change of the code makes Snakemake run again, on a finished run of `smoke`: what it reaches and no more, with the files named."""

import ast
import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from checkouts import COMMAND, checkout, finish

pytestmark = pytest.mark.slow

REPORTS = {"table1", "claims", "own_figures", "page", "configured"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A copy of the project with nothing to do. DSR_SMOKE_REFERENCE: a folder with such a run of the same code, and Snakemake's memory."""
    tree = checkout(tmp_path_factory.mktemp("reruns") / "tree")
    if given := os.environ.get("DSR_SMOKE_REFERENCE"):
        shutil.copytree(given, tree, dirs_exist_ok=True)
    else:
        finish(tree)
    assert planned(tree)[0] == {}
    return tree


@pytest.fixture
def code(finished):
    """Its code, put back afterwards."""
    kept = {path: path.read_bytes() for path in modules(finished)}
    yield finished
    for path, content in kept.items():
        path.write_bytes(content)


def modules(tree: Path) -> list[Path]:
    return [*tree.glob("harness/**/*.py"), *tree.glob("baselines/*.py")]


def planned(tree: Path) -> tuple[Counter, str]:
    """(rule -> jobs that would run, what Snakemake says) of a dry run."""
    done = subprocess.run([*COMMAND, "-n"], cwd=tree, capture_output=True, text=True, check=False)
    text = done.stdout + done.stderr
    assert done.returncode == 0, text[-3000:]
    if "Nothing to be done" in text:
        return Counter(), text
    stats = text[text.index("Job stats:") :].split("\n\n")[0]
    return Counter({name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", stats, re.MULTILINE) if name != "total"}), text


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text, (path, old)
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_prose_in_every_module_and_method_reruns_nothing(code):
    for path in modules(code):
        body = ast.parse(path.read_bytes()).body
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines(keepends=True)
        functions = [node for node in body if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is None]
        for node in reversed(functions):
            lines.insert(node.body[0].lineno - 1, f'{" " * node.body[0].col_offset}"""What it does."""\n\n')
        path.write_text("# prose\n\n" + "".join(lines) + "\n\n# more of it\n", encoding="utf-8")
        ast.parse(path.read_bytes())
    assert planned(code)[0] == {}


def test_locks_and_progress_rerun_nothing(code):
    for name in ("store/locks.py", "machine/progress.py"):
        path = code / "harness" / name
        path.write_text(path.read_text(encoding="utf-8") + "\nCHANGED = 1\n", encoding="utf-8")
    assert planned(code)[0] == {}


def test_a_number_in_a_metric_reruns_scores_and_reports(code):
    path = code / "harness" / "evaluation" / "precision_recall.py"
    path.write_text(path.read_text(encoding="utf-8") + "\nCHANGED = 1\n", encoding="utf-8")
    jobs, text = planned(code)
    assert set(jobs) == {"scores", *REPORTS}
    assert "harness/evaluation/precision_recall.py" in text


def test_a_number_in_the_denoiser_reruns_its_training(code):
    path = code / "harness" / "denoiser" / "loss.py"
    path.write_text(path.read_text(encoding="utf-8") + "\nCHANGED = 1\n", encoding="utf-8")
    jobs, text = planned(code)
    assert set(jobs) == {"denoiser", "samples", "scores", "outliers", *REPORTS}
    assert "harness/denoiser/loss.py" in text


def test_a_number_in_a_method_reruns_its_runs(code):
    edit(code / "baselines" / "dsr.py", "diffusion_registers=True", "diffusion_registers=False")
    jobs, text = planned(code)
    assert set(jobs) == {"denoiser", "samples", "scores", "outliers", *REPORTS}
    assert jobs["denoiser"] == jobs["scores"] == 1
    assert "baselines/dsr.py" in text
