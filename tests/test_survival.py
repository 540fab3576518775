"""What must neither cost finished work nor let a wrong number through: kills at each step, disks, clocks, spoiled files of every kind."""

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from harness.decoder.decode import make_decoder
from harness.denoiser.sample import draw_samples
from harness.denoiser.train import train_denoisers
from harness.encoder.encode import make_latents
from harness.evaluation import scores
from harness.evaluation.judge.stage import make_judge
from harness.evaluation.outliers import measure_outliers
from harness.report import rows
from harness.report.figures import render_figures
from harness.store import artifacts, assets
from harness.store.files import write_json
from harness.store.provenance import provenance
from harness.store.tensors import load_checkpoint, save_checkpoint, save_tensors
from harness.study import typed as config
from harness.study.typed import UserError


def make(path, text="a result"):
    with artifacts.artifact(path, stage="test", module="harness.data.stage") as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def make_folder(path, text="a result"):
    with artifacts.artifact(path, stage="test", module="harness.data.stage") as temporary:
        (temporary / "inner").mkdir(parents=True)
        (temporary / "inner" / "file").write_text(text, encoding="utf-8")
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# ------------------------------------------------------------------------------------------------------------------- kills


def killed_at(step, work):
    """Run `work` in a process that is killed at its `step`th change of the disk; whether that was before its end."""
    provenance()  # known before the fork: the child runs no other program
    child = os.fork()
    if child == 0:
        left = [step]

        def dying(call):
            def counted(*arguments, **options):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*arguments, **options)

            return counted

        for module, name in [(os, "replace"), (os, "fsync"), (os, "open"), (shutil, "rmtree"), (Path, "unlink"), (Path, "write_text")]:
            setattr(module, name, dying(getattr(module, name)))
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL)
    return status == signal.SIGKILL


@pytest.mark.parametrize("how", [make, make_folder])
@pytest.mark.parametrize("again", ["the same", "another"])
def test_a_kill_at_any_step_leaves_the_old_the_new_or_a_refusal(tmp_path, how, again):
    path = tmp_path / "x"
    hashes = {artifacts.sha256(how(path, text)): text for text in ("another", "the same")}
    step, seen = 0, set()
    while killed_at(step, lambda: how(path, again)):
        try:
            seen.add(hashes[artifacts.checked(path)])
        except UserError:
            seen.add("refused")
        how(path, "the same")
        assert hashes[artifacts.checked(path)] == "the same"
        assert names(tmp_path) == ["x", "x.meta.json"]
        step += 1
    assert step > 5
    assert seen >= {"the same", again}


def test_a_kill_at_any_step_of_a_checkpoint_leaves_one_of_the_last_two(tmp_path):
    def save(step):
        save_checkpoint(tmp_path, {"a": torch.full((3,), float(step))}, step=step)

    save(0)
    save(1)
    step, wanted = 0, {1}
    while killed_at(step, lambda: save(2)):
        tensors, facts = load_checkpoint(tmp_path)
        assert facts["step"] in (0, 1, 2)
        assert (tensors["a"] == facts["step"]).all()
        wanted.add(facts["step"])
        save(1)
        step += 1
    assert wanted >= {1, 2}
    save(3)
    assert names(tmp_path) == ["checkpoint.before.safetensors", "checkpoint.safetensors"]


# ------------------------------------------------------------------------------------------------------------------- disks


@contextmanager
def largest_file(size):
    """A disk that takes no file above `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write_tensors(path):
    save_tensors(path, {"a": torch.zeros(30_000)})


def write_arrays(path):
    with open(path, "wb") as file:
        np.savez(file, images=np.zeros(100_000, dtype=np.uint8))


def write_lines(path):
    path.write_text("line\n" * 20_000, encoding="utf-8")


@pytest.mark.parametrize("write", [write_tensors, write_arrays, write_lines])
def test_a_full_disk_is_one_line_and_costs_nothing_that_is_finished(tmp_path, write):
    make(tmp_path / "x")
    wanted = r"^\S*/x: not made: .*; make room or give access, then run the same command again$"
    with (
        largest_file(50_000),
        pytest.raises(UserError, match=wanted),
        artifacts.artifact(tmp_path / "x", stage="test", module="harness.data.stage") as out,
    ):
        write(out)
    assert artifacts.checked(tmp_path / "x")
    assert (tmp_path / "x").read_text(encoding="utf-8") == "a result"
    assert names(tmp_path) == ["x", "x.meta.json"]


def test_a_full_disk_keeps_the_checkpoint(tmp_path):
    save_checkpoint(tmp_path, {"a": torch.zeros(10)}, step=1)
    with largest_file(50_000), pytest.raises(OSError, match="File too large"):
        save_checkpoint(tmp_path, {"a": torch.zeros(30_000)}, step=2)
    assert load_checkpoint(tmp_path)[1] == {"step": 1}
    assert names(tmp_path) == ["checkpoint.before.safetensors"]


def test_a_full_disk_ends_a_stage_with_one_line(tmp_path):
    """The whole command, in a process of its own."""
    command = [sys.executable, "-m", "harness", "data", "--study", "digits", "--out", str(tmp_path / "data")]
    run = subprocess.run(
        command,
        cwd=config.ROOT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1].startswith(f"error: {tmp_path / 'data'}: not made: ")
    assert "Traceback" not in run.stderr
    assert names(tmp_path) == []


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fills_up_late_keeps_the_old_artifact(tmp_path, monkeypatch, call):
    """Some file systems say so only when a file is synced, or named."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    make(tmp_path / "x")
    with monkeypatch.context() as patch, pytest.raises(UserError, match=r"x: not made: .*No space left on device"):
        patch.setattr(os, call, full)
        make(tmp_path / "x", "another")
    assert artifacts.checked(tmp_path / "x")
    assert (tmp_path / "x").read_text(encoding="utf-8") == "a result"
    assert names(tmp_path) == ["x", "x.meta.json"]


@pytest.fixture
def read_only(tmp_path_factory):
    """A folder with an artifact that this process may read and not write."""
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as folder:
        path = make(Path(folder) / "results" / "x")
        provenance()
        os.chmod(folder, 0o755)
        os.chmod(path.parent, 0o555)
        if root:
            os.seteuid(65534)
        yield path
        if root:
            os.seteuid(0)
        os.chmod(path.parent, 0o755)


def test_a_read_only_folder_is_one_line_and_its_artifacts_can_be_read(read_only):
    with pytest.raises(UserError, match=r"/x: not made: .*Permission denied.*; make room or give access"):
        make(read_only, "another")
    with pytest.raises(UserError, match=r"/new: not made: .*Permission denied"):
        make(read_only.with_name("new"))
    assert artifacts.checked(read_only)
    assert names(read_only.parent) == ["x", "x.meta.json"]


# ------------------------------------------------------------------------------------------------------------------ clocks


def test_times_of_files_decide_nothing(study, built, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(built.data, folder)
    shutil.copy(artifacts.sidecar(built.data), artifacts.sidecar(folder))
    for number, path in enumerate([folder, artifacts.sidecar(folder), *folder.rglob("*")]):
        then = time.time() + (-1) ** number * 10 * 365 * 86400
        os.utime(path, (then, then))
    make_judge(study, data=folder, records=[*built.records.values()], state=tmp_path / "state", out=tmp_path / "judge")
    assert artifacts.sha256(tmp_path / "judge") == artifacts.sha256(built.judge)


def test_a_clock_that_jumps_changes_no_result(study, built, tmp_path, monkeypatch):
    """Back and forth by days between any two looks at it."""
    now, jumps = time.time(), iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: now + 86400 * (-1) ** next(jumps) * (next(jumps) % 7))
    make_judge(study, data=built.data, records=[*built.records.values()], state=tmp_path / "state", out=tmp_path / "judge")
    assert artifacts.sha256(tmp_path / "judge") == artifacts.sha256(built.judge)
    assert 0 <= artifacts.meta(tmp_path / "judge")["seconds"] < 3600


# ----------------------------------------------------------------------------------------------------------- spoiled files


@pytest.fixture(scope="module")
def results(study, runs, tmp_path_factory):
    """A copy of the runs' results, to be spoiled: stages by name, each with what it is called with."""
    root = tmp_path_factory.mktemp("spoiled") / "results"
    shutil.copytree(runs.root, root)
    folder, encoder = root / "runs" / "dsr" / "seed0", root / "encoders" / "ttr_until_clean"
    given = {"data": root / "data", "backbone": root / "backbones" / "plain", "registers": encoder / "registers.json"}
    latents, weights = encoder / "latents.safetensors", encoder / "decoder.safetensors"
    run = {"method": "dsr", "latents": latents}
    first = {"seeds": [0], "state": root / "state", "records": [root / "assets" / "weights.json"]}
    every = {"seeds": [0], "denoisers": [folder / "denoiser.safetensors"]}
    scored = {"decoder": weights, "judge": root / "judge.safetensors", "clip": root / "clip", "references": root / "references.safetensors"}
    made = root / "made"
    shown = {"methods": ["dsr"], "seeds": [0], "results": root, "out": root / "drawn"}
    asset = root / "weights.pt"
    asset.write_bytes(b"weights")
    with artifacts.artifact(root / "assets" / "weights.json", stage="asset", module="harness.store.assets", path=str(asset)) as record:
        write_json(record, {"name": "weights", "sha256": artifacts.sha256(asset), "bytes": 7})
    return SimpleNamespace(
        root=root,
        judge=lambda: make_judge(study, data=root / "data", records=[root / "assets" / "weights.json"], state=root / "state", out=made),
        latents=lambda: make_latents(study, encoder="ttr_until_clean", **given, out=made),
        decoder=lambda: make_decoder(
            study,
            encoder="plain",
            data=root / "data",
            latents=latents,
            records=[root / "assets" / "weights.json"],
            state=root / "state",
            out=made,
        ),
        denoiser=lambda: train_denoisers(study, method="dsr", seeds=[0], latents=latents, state=root / "state", out=[made]),
        samples=lambda: draw_samples(study, **run, **first, denoisers=[folder / "denoiser.safetensors"], decoder=weights, out=[made]),
        scores=lambda: scores.score_runs(study, **run, **every, **scored, data=root / "data", samples=[folder / "samples.npz"], out=[made]),
        outliers=lambda: measure_outliers(study, **run, **every, out=[made]),
        rows=lambda: rows.collect(study, ["dsr"], [0], root),
        samples_figure=lambda: render_figures(study, **shown, figures=["samples"]),
        norms_figure=lambda: render_figures(study, **shown, figures=["encoder_norms"]),
        outliers_figure=lambda: render_figures(study, **shown, figures=["denoiser_outliers"]),
        asset=lambda: assets.locate(root / "assets" / "weights.json"),
    )


READERS = [
    ("data", "judge latents decoder scores"),
    ("backbones/plain", "latents"),
    ("encoders/ttr_until_clean/registers.json", "latents"),
    ("encoders/ttr_until_clean/latents.safetensors", "decoder denoiser samples scores outliers norms_figure"),
    ("encoders/ttr_until_clean/decoder.safetensors", "samples scores"),
    ("runs/dsr/seed0/denoiser.safetensors", "samples scores outliers"),
    ("runs/dsr/seed0/samples.npz", "scores samples_figure"),
    ("runs/dsr/seed0/scores.json", "rows"),
    ("runs/dsr/seed0/outliers.json", "rows"),
    ("runs/dsr/seed0/outliers.parquet", "outliers_figure"),
    ("judge.safetensors", "scores"),
    ("clip", "scores"),
    ("references.safetensors", "scores"),
    ("assets/weights.json", "asset"),
]


def flip(content):
    return content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 16]) + content[len(content) // 2 + 1 :]


def cut(content):
    return content[: len(content) // 2]


@pytest.mark.parametrize(("what", "spoil"), [("file", flip), ("file", cut), ("record", flip)])
@pytest.mark.parametrize(("name", "stages"), READERS)
def test_a_spoiled_artifact_is_refused_by_each_stage_that_reads_it(results, name, stages, what, spoil):
    """In one line that names it; nothing is written, and what is finished stays."""
    artifact = results.root / name
    files = [artifacts.sidecar(artifact)] if what == "record" else [artifact] if artifact.is_file() else contents(artifact)
    before = contents(results.root)
    for stage in stages.split():
        file = files[len(stage) % len(files)]  # of a folder: not always the same
        sound = file.read_bytes()
        file.write_bytes(spoil(sound))
        try:
            with pytest.raises(UserError) as error:
                getattr(results, stage)()
        finally:
            file.write_bytes(sound)
            plt.close("all")
        assert str(artifact) in str(error.value)
        assert "\n" not in str(error.value)
    assert contents(results.root) == before


def contents(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())
