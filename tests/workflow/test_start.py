"""What Snakemake's process hands on to its jobs."""

import os
import subprocess
import sys

import pytest

from harness.workflow import start


@pytest.mark.parametrize(
    ("already", "then"),
    [
        (None, "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.check=1", "glibc.malloc.check=1:glibc.malloc.hugetlb=1"),
        ("glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=0"),  # the user's own word
    ],
)
def test_jobs_ask_for_huge_pages(monkeypatch, already, then):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    if already:
        monkeypatch.setenv("GLIBC_TUNABLES", already)
    start.ask_for_huge_pages()
    assert os.environ["GLIBC_TUNABLES"] == then
    start.ask_for_huge_pages()  # a Snakemake inside a Snakemake
    assert os.environ["GLIBC_TUNABLES"] == then
    seen = subprocess.run(
        [sys.executable, "-c", "import os; print(os.environ['GLIBC_TUNABLES'])"], capture_output=True, check=True, text=True
    )
    assert (seen.stdout.strip(), seen.stderr) == (then, "")  # glibc says on stderr what it does not know
