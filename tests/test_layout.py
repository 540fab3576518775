"""The house: floors and forbidden imports (pyproject.toml), and that the floors without torch really come without it."""

import ast
import subprocess
import sys

import pytest

from harness.study.typed import ROOT


def test_imports_run_downhill():
    done = subprocess.run([sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint()", "--no-cache"],
                          cwd=ROOT, capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_types_fit():
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "package", ["harness", "harness.workflow.targets", "harness.cli.main", "harness.report.table", "harness.report.page"]
)
def test_what_computes_nothing_comes_without_torch(package):
    code = f"import sys, {package}; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


SOURCES = sorted((ROOT / "harness").rglob("*.py"))


def test_no_file_has_two_subjects():
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {name: lines for name, lines in lengths.items() if lines > 300} == {}


def test_public_functions_on_arrays_say_their_shapes():
    silent = []
    for path in SOURCES:
        for function in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(function, ast.FunctionDef) and not function.name.startswith("_"):
                types = [ast.unparse(node) for node in (function.args, function.returns) if node]
                if any(word in text for text in types for word in ("Tensor", "ndarray")) and not ast.get_docstring(function):
                    silent.append(f"{path.name}: {function.name}")
    assert silent == []
