"""Weights at earlier steps: what they are, and that no kill costs or changes one."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import tiny_values
from faults import diverging
from hypothesis import given, settings
from hypothesis import strategies as st
from test_loop import IMAGES, TRAINING, interrupt, model_and_loss

from harness.denoiser.build import load_denoiser
from harness.denoiser.train import train_denoisers
from harness.encoder import latents
from harness.store import artifacts
from harness.store.tensors import CHECKPOINT, load_tensors
from harness.study import typed as config
from harness.study.sections.training import Schedule
from harness.study.study import parse_study
from harness.training import loop
from harness.training.snapshots import Snapshots, load_snapshot

STEPS, DECAYS = [7, 20, 33], [0.9, 0.2]  # the second step falls on a look at the losses


def run(folder, steps=STEPS, training=TRAINING, **kwargs):
    """(weights of the snapshots, of the averages at the end)."""
    model, loss = model_and_loss(**kwargs)
    snapshots = Snapshots(steps, average=1)
    kept = loop.fit(model, loss, training, images=IMAGES, name="test", seed=3, state=Path(folder), ema=DECAYS, snapshots=snapshots)
    return [load_snapshot(Path(folder), step) for step in steps], kept


def same(one, other):
    return all(torch.equal(a[key], b[key]) for a, b in zip(one, other, strict=True) for key in a)


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", 0)
    monkeypatch.setattr(loop, "SAVE_SHARE", 1e9)


def test_a_snapshot_is_the_sampled_average_of_a_training_that_ends_there(tmp_path):
    training = TRAINING.model_copy(update={"schedule": Schedule(decay="constant", warm_up=0)})
    snapshots, _ = run(tmp_path / "whole", training=training)
    for step, snapshot in zip(STEPS, snapshots, strict=True):
        _, shorter = run(tmp_path / str(step), steps=[], training=training.model_copy(update={"steps": step}))
        assert same([snapshot], [shorter[1]])
        assert not same([snapshot], [shorter[0]])


def test_keeping_snapshots_changes_no_byte_of_the_end(tmp_path):
    assert same(run(tmp_path / "with")[1], run(tmp_path / "without", steps=[])[1])


@settings(max_examples=10)
@given(stop_at=st.sets(st.integers(1, 59), max_size=3), steps=st.sets(st.integers(1, 59), max_size=3), every=st.sampled_from([1, 4, 20]))
def test_a_run_that_was_stopped_keeps_the_same_bytes(tmp_path_factory, stop_at, steps, every):
    folder, steps = tmp_path_factory.mktemp("stopped"), sorted(steps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "SAVE_EVERY", 0)
        patch.setattr(loop, "SAVE_SHARE", 1e9)
        patch.setattr(loop, "CHECK_EVERY", every)
        whole, end = run(folder / "whole", steps)
        for stop in sorted(stop_at):
            with pytest.raises(KeyboardInterrupt):
                run(folder / "parts", steps, stop_at=stop, stop=interrupt)
            there = {path.name for path in (folder / "parts").glob("step*")}
            assert there == {f"step{step}" for step in steps if step <= stop}
        again, its_end = run(folder / "parts", steps)
    assert same(whole, again)
    assert same(end, its_end)


KILLED = """
import sys
sys.path[:0] = sys.argv[1:4]
import test_loop, test_snapshots
from harness.machine import device as runtime
runtime.set_up(1)
test_loop.loop.SAVE_EVERY, test_loop.loop.SAVE_SHARE = 0, 1e9
test_snapshots.run(sys.argv[4], stop_at=27, stop=test_loop.kill)
"""


def test_a_killed_process_leaves_snapshots_that_are_not_made_again(tmp_path, often, monkeypatch):
    here = Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", KILLED, here, here.parent, here.parents[1], tmp_path / "parts"], check=False)
    assert done.returncode == -signal.SIGKILL
    left = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (tmp_path / "parts").glob("step*/*")}
    assert {path.parent.name for path in left} == {"step7", "step20"}
    whole, again = run(tmp_path / "whole"), run(tmp_path / "parts")
    assert same(whole[0], again[0])
    assert same(whole[1], again[1])
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in left} == left


@pytest.mark.parametrize("lose", [shutil.rmtree, lambda folder: (folder / CHECKPOINT).write_bytes(b"spoiled")])
@pytest.mark.parametrize("lost", [7, 33])
def test_a_checkpoint_beyond_a_snapshot_that_was_lost_is_not_taken(tmp_path, often, lost, lose):
    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", stop_at=47)
    lose(tmp_path / "parts" / f"step{lost}")
    again = run(tmp_path / "parts")
    assert same(whole[0], again[0])
    assert same(whole[1], again[1])


def test_a_training_that_diverged_has_the_snapshots_before(tmp_path, often):
    with pytest.raises(loop.Diverged):
        run(tmp_path, faults=dict.fromkeys(range(10, 25), "loss is nan"))
    assert [load_snapshot(tmp_path, step) is None for step in STEPS] == [False, False, True]


# ------------------------------------------------------------------------------------------------------------- the stage


@pytest.fixture(scope="module")
def snapped():
    return parse_study("tiny", tiny_values(denoiser={"snapshots": [3, 8]}))


def options(built, folder):
    return {
        "method": "dsr",
        "seeds": [1],
        "latents": built.encoders["ttr_until_clean"].latents,
        "state": folder / "state",
        "out": [folder / "denoiser.safetensors"],
    }


def test_the_stage_writes_them_beside_the_run_and_a_kill_changes_no_byte(snapped, built, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", 0)
    monkeypatch.setattr(loop, "SAVE_SHARE", 1e9)
    monkeypatch.setattr(loop, "CHECK_EVERY", 2)
    train_denoisers(snapped, **options(built, tmp_path / "whole"))
    original = latents.batch_indices
    for step in (5, 9):

        def stop(seed, now, *rest, step=step):
            if now == step:
                raise KeyboardInterrupt
            return original(seed, now, *rest)

        monkeypatch.setattr(latents, "batch_indices", stop)
        with pytest.raises(KeyboardInterrupt):
            train_denoisers(snapped, **options(built, tmp_path / "parts"))
    monkeypatch.setattr(latents, "batch_indices", original)
    train_denoisers(snapped, **options(built, tmp_path / "parts"))
    assert not list((tmp_path / "parts" / "state").iterdir())
    for name in ("step3/denoiser.safetensors", "step8/denoiser.safetensors", "denoiser.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
        assert load_denoiser(snapped, "dsr", tmp_path / "parts" / name)
    record = artifacts.meta(tmp_path / "parts" / "step3" / "denoiser.safetensors")
    assert (record["method"], record["seed"], record["step"], record["status"]) == ("dsr", 1, 3, "ok")


def test_a_snapshot_that_was_not_reached_says_why(snapped, built, tmp_path, monkeypatch):
    diverging(monkeypatch, 4)
    values = config.merge(tiny_values(), {"denoiser": {"snapshots": [3, 8], "training": {"skips": 2}}})
    train_denoisers(parse_study("tiny", values), **options(built, tmp_path))
    records = [artifacts.meta(tmp_path / f"step{step}" / "denoiser.safetensors") for step in (3, 8)]
    assert [record["status"] for record in records] == ["ok", "diverged"]
    assert "training.skips allows 2" in records[1]["reason"]
    assert load_tensors(tmp_path / "step8" / "denoiser.safetensors")[0] == {}
