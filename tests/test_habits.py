"""What keeps this project easy to join: the same tests everywhere, checks before a commit, workflows and issue forms that parse."""

import subprocess
import sys

from hypothesis import settings

from harness.study.typed import ROOT


def pytest_of(*arguments):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


def test_examples_are_drawn_anew_only_where_that_is_asked_for():
    same, random = settings.get_profile("same"), settings.get_profile("random")
    assert (same.derandomize, same.database) == (True, None)
    assert (random.derandomize, random.print_blob) == (False, True)
    assert random.max_examples == 10 * same.max_examples


def test_benchmarks_are_collected():
    done = pytest_of("--benchmark-enable", "--benchmark-only", "--collect-only", "tests/encoder/test_benchmarks_search.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_benchmark_our_search" in done.stdout
