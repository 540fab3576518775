import fcntl
import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from harness.machine import device as runtime
from harness.machine import processes
from harness.machine.progress import Progress
from harness.machine.streams import stream
from harness.study.typed import UserError


@pytest.fixture
def two_gpus(monkeypatch, tmp_path):
    """As on a machine with two GPUs; locks in a folder of the test's own."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=f"uuid-{index}"))
    monkeypatch.setattr(runtime.tempfile, "gettempdir", lambda: str(tmp_path))
    kept = len(runtime._locks)
    yield tmp_path
    for lock in runtime._locks[kept:]:
        lock.close()
    del runtime._locks[kept:]


def test_each_job_takes_a_gpu_of_its_own_until_none_is_left(two_gpus):
    assert [runtime.claim_gpu(), runtime.claim_gpu()] == [0, 1]
    with pytest.raises(UserError, match=r"all 2 GPUs .* --resources gpu=2"):
        runtime.claim_gpu()


def test_a_gpu_that_another_process_holds_is_passed_over(two_gpus):
    first = runtime.claim_gpu()
    lock = runtime._locks.pop()
    assert (first, runtime.claim_gpu()) == (0, 1)
    fcntl.flock(lock, fcntl.LOCK_UN)
    lock.close()
    assert runtime.claim_gpu() == 0


def test_a_study_without_gpus_stays_on_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    runtime.set_up(1)
    assert runtime.device() == torch.device("cpu")


def test_every_library_of_matrix_products_has_the_threads_of_the_job():
    code = """
from harness.machine.device import set_up
set_up(1)
import scipy.linalg, torch
from threadpoolctl import threadpool_info
assert torch.get_num_threads() == 1
counts = [(pool["internal_api"], pool["num_threads"]) for pool in threadpool_info() if pool["user_api"] == "blas"]
assert counts and all(count == 1 for _, count in counts), counts
"""
    with_all = {name: value for name, value in os.environ.items() if "NUM_THREADS" not in name}
    subprocess.run([sys.executable, "-c", code], check=True, env=with_all)


def test_streams_differ_by_seed_purpose_and_index():
    draws = {torch.rand(1, generator=stream(*words)).item() for words in [(0, "a"), (1, "a"), (0, "b"), (0, "a", 1)]}
    assert len(draws) == 4


def test_of_several_processes_the_first_one_speaks(monkeypatch, capsys):
    for rank in (0, 1):
        monkeypatch.setattr(processes, "_place", [rank, 2])
        Progress(f"process {rank}", 10, every=0).update(5)
    said = capsys.readouterr().err
    assert "process 0: 5/10" in said
    assert "process 1" not in said


def test_a_cpu_is_named_by_what_its_kernels_are_chosen_by(monkeypatch, tmp_path):
    machine = platform.machine()
    assert runtime.device_name().startswith(f"{machine} CPU (")
    assert torch.backends.cpu.get_cpu_capability() in runtime.device_name()
    known = "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 207\nflags\t: a: b\n\nprocessor\t: 1\nmodel\t: 9\n"
    monkeypatch.setattr("harness.machine.device.Path", lambda _: tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text(known, encoding="utf-8")
    assert runtime.device_name().startswith(f"{machine} CPU (GenuineIntel family 6 model 207, ")
    (tmp_path / "cpuinfo").unlink()  # no Linux
    assert runtime.device_name() == f"{machine} CPU ({torch.backends.cpu.get_cpu_capability()})"
