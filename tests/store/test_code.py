"""What code a number depends on: what runs, not how it is written; all that is imported, less what can change no number."""

import ast
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from harness.store import code
from harness.study import typed as config
from harness.study.method import METHODS
from harness.workflow.stages import STAGES

STAGE = {name: STAGES[name].module for name in ("data", "judge", "clip", "latents", "decoder", "denoiser", "samples", "scores", "outliers")}
STAGE |= {name: STAGES[name].module for name in ("table", "figures")}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of the project's code, which code.py looks at."""
    for name in ("harness", "baselines"):
        shutil.copytree(config.ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for root in ("CODE", "PROJECT"):
        monkeypatch.setattr(code, root, tmp_path)
    code.read_anew()
    yield tmp_path
    code.read_anew()


def hashes(project):
    """stage -> hash of its code; of training with a method's file."""
    code.read_anew()
    return {stage: code.code_hash(module) for stage, module in STAGE.items()} | {
        "method": code.code_hash(STAGE["denoiser"], project / "baselines" / "dsr.py")
    }


def rerun(project, change):
    before = hashes(project)
    change()
    after = hashes(project)
    return {stage for stage in before if before[stage] != after[stage]}


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text, (path, old)
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


TRAINED = {"denoiser", "method"}


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("evaluation/kid.py", {"scores"}),
        ("evaluation/clip_score.py", {"scores"}),
        ("evaluation/clip/trained.py", {"clip", "scores"}),
        ("evaluation/judge/classifier.py", {"judge", "scores"}),
        ("report/table.py", {"table"}),
        ("denoiser/flow.py", {*TRAINED, "samples", "scores", "outliers"}),
        ("denoiser/loss.py", TRAINED),
        ("encoder/register_search.py", {"latents"}),
        ("encoder/planting.py", {"latents", "decoder", *TRAINED, "samples", "scores"}),
        ("results/scores.py", {"scores", "outliers", "table", "figures"}),
        ("cli/main.py", set()),
        ("store/locks.py", set()),
        ("machine/progress.py", set()),
    ],
)
def test_a_changed_line_reruns_what_imports_it_and_no_more(project, file, stages):
    path = project / "harness" / file
    assert rerun(project, lambda: path.write_text(path.read_text(encoding="utf-8") + "\nCHANGED = 1\n", encoding="utf-8")) == stages


def test_a_changed_number_in_a_method_reruns_its_training(project):
    path = project / "baselines" / "dsr.py"
    assert rerun(project, lambda: edit(path, "diffusion_registers=True", "diffusion_registers=False")) == {"method"}


def test_comments_docstrings_blank_lines_and_formatting_are_no_code(project):
    """In every module and method file: prose taken away, and all of it set anew by Python itself."""

    def set_anew():
        for path in [*project.rglob("harness/**/*.py"), *project.glob("baselines/*.py")]:
            tree = ast.parse(path.read_bytes())
            for node in ast.walk(tree):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) and len(node.body) > 1:
                    node.body = node.body[1:]
            path.write_text("# größer\n\n\n" + ast.unparse(tree).replace("\n", "\n\n"), encoding="utf-8")

    assert rerun(project, set_anew) == set()


SOURCE = """
import numpy as np
def f(x: int, y=1_000) -> int:
    if x:
        return 'a' + "b" + f"{x!r:>3} {y}"
    return y
"""


@pytest.mark.parametrize(
    "same",
    [
        SOURCE.replace("1_000", "1000"),
        SOURCE.replace("'a'", '"a"'),
        SOURCE.replace('"b"', 'u"b"'),
        SOURCE.replace("    if x", '    """What it does."""\n    if x'),
        SOURCE.replace("    if x", "    # why\n\n    if x"),
        SOURCE.replace("        return 'a'", "        'prose'\n        return 'a'"),
        SOURCE.replace("(x: int, y=1_000)", "(\n    x: int,\n    y=1_000,\n)"),
        '"""A module."""\n' + SOURCE,
        SOURCE.replace("\n", "\r\n"),
        "\ufeff" + SOURCE,
    ],
)
def test_the_same_runs(same):
    assert code._read(same.encode()).runs == code._read(SOURCE.encode()).runs


@pytest.mark.parametrize(
    "other",
    [
        SOURCE.replace("1_000", "1_001"),
        SOURCE.replace("'a'", "'A'"),
        SOURCE.replace("return y", "return"),
        SOURCE.replace(">3", ">4"),
        SOURCE.replace("x: int", "x: float"),
        SOURCE.replace("1_000", "1_000.0"),
        SOURCE.replace("if x", "if not x"),
        SOURCE.replace('"b"', 'b"b"'),
    ],
)
def test_something_else_runs(other):
    assert code._read(other.encode()).runs != code._read(SOURCE.encode()).runs


def test_a_method_brings_what_it_imports(project):
    method = project / "baselines" / "mine.py"
    (project / "baselines" / "_shared.py").write_text("COUNT = 3\n", encoding="utf-8")
    method.write_text(
        "from harness import Method\nfrom baselines._shared import COUNT\nfrom harness.evaluation import kid\n", encoding="utf-8"
    )
    known, mine = code.sources(STAGE["denoiser"]), code.sources(STAGE["denoiser"], method)
    assert {"baselines/mine.py", "baselines/_shared.py", "harness/evaluation/kid.py"} <= set(mine) - set(known)
    assert mine["baselines/_shared.py"] == code._read(b"COUNT = 3").runs


def test_relative_imports_and_packages_are_followed(project):
    package = project / "harness" / "toy"
    package.mkdir()
    (package / "__init__.py").write_text("from .a import x\n", encoding="utf-8")
    (package / "a.py").write_text("def x():\n    from . import b\n", encoding="utf-8")
    (package / "b.py").write_text("from ..study import places\n", encoding="utf-8")
    assert {f"harness/toy/{name}.py" for name in ("__init__", "a", "b")} | {"harness/study/places.py"} <= set(code.sources("harness.toy.a"))


def test_changed_names_files_that_changed_or_are_gone(project):
    recorded = code.sources(STAGE["denoiser"], project / "baselines" / "dsr.py")
    assert code.changed(recorded) == []
    code.read_anew()
    edit(project / "baselines" / "dsr.py", "True", "False")
    (project / "harness" / "denoiser" / "sit.py").unlink()
    (project / "harness" / "denoiser" / "jit.py").write_text("def (", encoding="utf-8")
    (project / "harness" / "denoiser" / "flow.py").write_bytes(
        b"# prose\n" + (config.ROOT / "harness" / "denoiser" / "flow.py").read_bytes()
    )
    assert code.changed(recorded) == ["baselines/dsr.py", "harness/denoiser/jit.py", "harness/denoiser/sit.py"]


def test_each_module_is_read_once_however_many_stages_and_artifacts_it_is_of(project, monkeypatch):
    read, read_bytes = Counter(), Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: (read.update([path]), read_bytes(path))[1])
    recorded = [code.sources(stage.module) for stage in STAGES.values()]
    files = {project / file for hashes in recorded for file in hashes}
    assert read == Counter(files)
    assert [code.changed(hashes) for hashes in recorded] == [[]] * len(recorded)  # as `dsr trace` asks
    assert read == Counter([*files, *files])


def test_every_module_that_is_left_out_is_there_with_a_reason():
    for name, reason in code.CHANGES_NO_NUMBER.items():
        assert reason
        assert not {"numpy", "torch"} & {n for _, n, _ in code._read(code.module_file(name).read_bytes()).imported}


def test_hashes_are_the_same_under_any_locale():
    script = "from harness.store import code; print(code.code_hash('harness.evaluation.scores'), code.code_hash('harness.report.table'))"
    environments = ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"LC_ALL": "C.UTF-8"})
    printed = {
        subprocess.run(
            [sys.executable, "-c", script], cwd=config.ROOT, env=os.environ | more, capture_output=True, text=True, check=True
        ).stdout
        for more in environments
    }
    assert len(printed) == 1


def test_method_files_are_below_the_repository():
    assert METHODS.is_relative_to(code.PROJECT)
