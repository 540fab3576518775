import os
import signal
import subprocess
import sys
import time

import pytest

from harness.store import artifacts, locks
from harness.study.typed import ROOT, UserError

# Trains for as long as the file `hold` is there, and says so in a line of `log` for each time it does.
TRAIN = """
import signal, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests themselves were started in the background
from harness.store import artifacts
folder = Path(sys.argv[1])
try:
    with artifacts.trained_artifact(folder / "x", state=folder / "state", stage="test", module="harness.data.stage", config={}) as (out, _):
        with open(folder / "log", "a") as log:
            log.write("trained\\n")
        out.write_text("half of a")
        while (folder / "hold").exists():
            time.sleep(0.05)
        out.write_text("a result")
except artifacts.Finished as finished:
    print(finished)
"""


@pytest.fixture
def train(tmp_path):
    """Starts processes that make tmp_path/x; kills what is left of them."""
    started = []

    def start(wait_for):
        process = subprocess.Popen(
            [sys.executable, "-c", TRAIN, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
        started.append(process)
        while not wait_for(process) and process.poll() is None:
            time.sleep(0.05)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def trains(tmp_path):
    return lambda _: (tmp_path / "log").exists()


def waits(process):
    return process.stderr.readline()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def make(folder):
    with artifacts.trained_artifact(folder / "x", state=folder / "state", stage="test", module="harness.data.stage", config={}) as (out, _):
        out.write_text("a result", encoding="utf-8")


def test_one_that_waited_does_not_train_again(tmp_path, train):
    (tmp_path / "hold").touch()
    first = train(trains(tmp_path))
    lines = []
    second = train(lambda process: lines.append(process.stderr.readline()) or lines)
    assert lines[0].startswith(f"{tmp_path}/x: waiting for process {first.pid} on ")
    (tmp_path / "hold").unlink()
    assert first.communicate() == ("", "")
    assert second.communicate() == (f"{tmp_path}/x: made by the process that was waited for\n", "")
    assert (tmp_path / "log").read_text(encoding="utf-8") == "trained\n"
    assert artifacts.checked(tmp_path / "x")
    assert names(tmp_path) == ["log", "x", "x.meta.json"]


def test_one_that_waited_for_something_else_makes_its_own(tmp_path, monkeypatch):
    """Made by other code, say: the record differs, so the work is done."""
    make(tmp_path)
    record = artifacts.meta(tmp_path / "x")
    monkeypatch.setattr(locks, "try_lock", lambda *_: False)
    with pytest.raises(artifacts.Finished):
        make(tmp_path)
    artifacts.write_record(tmp_path / "x", record | {"code": "another"})
    make(tmp_path)
    assert artifacts.meta(tmp_path / "x")["code"] == record["code"]


def test_a_killed_owner_is_not_waited_for(tmp_path, train, capfd):
    (tmp_path / "hold").touch()
    first = train(trains(tmp_path))
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert [name.replace(str(first.pid), "PID") for name in names(tmp_path)] == [".x.PID.tmp", ".x.lock", "hold", "log"]
    make(tmp_path)
    assert capfd.readouterr().err == ""
    assert names(tmp_path) == ["hold", "log", "x", "x.meta.json"]


def test_waiting_ends_when_its_owner_is_killed_or_with_ctrl_c(tmp_path, train):
    (tmp_path / "hold").touch()
    first = train(trains(tmp_path))
    second, third = train(waits), train(waits)
    third.send_signal(signal.SIGINT)
    assert third.wait() == -signal.SIGINT
    first.kill()
    while (tmp_path / "log").read_text(encoding="utf-8") != "trained\n" * 2 and second.poll() is None:
        time.sleep(0.05)
    (tmp_path / "hold").unlink()
    assert second.wait() == 0
    assert artifacts.checked(tmp_path / "x")


def test_without_locks_on_the_file_system_work_goes_on_with_a_line(tmp_path, monkeypatch, capfd):
    def flock(*_):
        raise OSError(locks.NO_LOCKS[0], "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    (tmp_path / f".x.{os.getpid() + 1}.tmp").write_text("perhaps another process is at it", encoding="utf-8")
    make(tmp_path)
    assert capfd.readouterr().err.count("\n") == 1
    assert artifacts.checked(tmp_path / "x")
    assert f".x.{os.getpid() + 1}.tmp" in names(tmp_path)


def test_a_lock_that_cannot_be_had_names_the_artifact(tmp_path, monkeypatch):
    def flock(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    with pytest.raises(UserError, match=r"/x: not made: .*Permission denied"):
        make(tmp_path)


SNAKEFILE = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from harness.workflow import start
start.take_over_dead_lock()

rule all:
    input: "done"

rule slow:
    output: "done"
    shell: "touch started; for i in $(seq 6000); do [ -e go ] && break; sleep 0.1; done; touch {{output}}"
"""


def test_snakemake_goes_on_after_a_kill_and_is_alone_while_it_lives(tmp_path):
    (tmp_path / "Snakefile").write_text(SNAKEFILE, encoding="utf-8")
    command = [sys.executable, "-m", "snakemake", "--cores", "1"]
    quiet = {"cwd": tmp_path, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

    def start():
        (tmp_path / "started").unlink(missing_ok=True)
        process = subprocess.Popen(command, start_new_session=True, **quiet)
        while not (tmp_path / "started").exists() and process.poll() is None:
            time.sleep(0.05)
        return process

    killed = start()
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert list((tmp_path / ".snakemake/locks").iterdir())
    alive = start()
    assert alive.poll() is None
    try:
        second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert second.returncode == 1
        assert "locked" in (second.stdout + second.stderr).lower()
        assert subprocess.run([*command, "-n"], **quiet, check=False).returncode == 0
        assert list((tmp_path / ".snakemake/locks").iterdir())
        (tmp_path / "go").touch()
        assert alive.wait() == 0
    finally:
        if alive.poll() is None:
            os.killpg(alive.pid, signal.SIGKILL)
    assert (tmp_path / "done").exists()
