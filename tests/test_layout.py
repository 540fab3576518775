"""The house: floors and forbidden imports (pyproject.toml), and that the floors without torch really come without it."""

import subprocess
import sys

import pytest

from harness.study.typed import ROOT


def test_imports_run_downhill():
    done = subprocess.run([sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint()", "--no-cache"],
                          cwd=ROOT, capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "package", ["harness", "harness.workflow.targets", "harness.cli.stages", "harness.report.table", "harness.report.page"]
)
def test_what_computes_nothing_comes_without_torch(package):
    code = f"import sys, {package}; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
