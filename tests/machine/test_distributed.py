"""Two processes under torchrun against one: the same samples, the same training up to rounding, and an error that ends both."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from harness.denoiser.train import train_denoisers
from harness.machine import device as runtime
from harness.machine import processes
from harness.store import artifacts
from harness.store.tensors import load_tensors
from harness.study.typed import UserError


def torchrun(study, results, out, *arguments):
    (out / "study.json").write_text(study.model_dump_json(), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = Path(__file__).with_name("two_processes.py")
    return subprocess.run(
        [*command, script, results, out, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def test_two_processes_train_alike_and_draw_the_same_samples(study, runs, tmp_path):
    snapped = study.model_copy(update={"denoiser": study.denoiser.model_copy(update={"snapshots": [4.0]})})
    ended = torchrun(snapped, runs.root, tmp_path)
    assert ended.returncode == 0, ended.stderr
    alone = runs.runs["masked"][0]
    for name in ("samples.npz", "samples-ema0.9.npz", "samples-ema0.995.npz"):
        assert (tmp_path / name).read_bytes() == (alone / name).read_bytes()
        assert artifacts.meta(tmp_path / name)["processes"] == 2
        assert artifacts.meta(tmp_path / name)["shards"] == artifacts.meta(alone / name)["shards"]
    one, two = (artifacts.meta(folder / "denoiser.safetensors") for folder in (alone, tmp_path))
    assert (one["processes"], two["processes"]) == (1, 2)
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-4)
    assert two["losses"] != one["losses"]  # each has seen half of the batch
    one, two = (load_tensors(folder / "denoiser.safetensors")[0] for folder in (alone, tmp_path))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=2e-2, atol=2e-3)
    earlier = tmp_path / "step4" / "denoiser.safetensors"
    assert (artifacts.meta(earlier)["processes"], artifacts.meta(earlier)["step"]) == (2, 4)
    assert not torch.equal(*(load_tensors(path)[0]["x_embedder.proj.weight"] for path in (earlier, tmp_path / earlier.name)))
    assert json.loads((tmp_path / "printed-1.json").read_text(encoding="utf-8")) == [{}, {}]
    assert json.loads((tmp_path / "printed-0.json").read_text(encoding="utf-8"))[0]["seed0"]["status"] == "ok"
    assert not list((tmp_path / "state").iterdir())


@pytest.mark.slow
def test_two_processes_train_tables_alike(study, runs, tmp_path):
    """Position tables and Fourier frequencies, where they are trained as released."""
    released = study.model_copy(update={"denoiser": study.denoiser.model_copy(update={"frozen": "released"})})
    ended = torchrun(released, runs.root, tmp_path)
    assert ended.returncode == 0, ended.stderr
    options = {"method": "masked", "seeds": [0], "latents": runs.encoders["plain"].latents, "state": tmp_path / "alone-state"}
    train_denoisers(released, **options, out=[tmp_path / "alone.safetensors"])
    files = (tmp_path / "denoiser.safetensors", tmp_path / "alone.safetensors", runs.runs["masked"][0] / "denoiser.safetensors")
    two, one, frozen = (load_tensors(path)[0] for path in files)
    for name in ("pos_embed", "t_embedder.W"):
        assert (one[name] - frozen[name]).norm() > 20 * (two[name] - one[name]).norm() > 0


def test_an_error_in_one_process_ends_both(study, runs, tmp_path):
    ended = torchrun(study, runs.root, tmp_path, "1")
    assert ended.returncode != 0
    assert "error: process 1 failed on purpose" in ended.stderr
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_stage_for_one_process_refuses_torchrun(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="this stage runs in one process, WORLD_SIZE is 2"):
        runtime.set_up(1)


def test_a_start_without_the_others_is_one_line(monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="process 1 of 2 lost the others") as caught:
        runtime.set_up(1, shared=True)
    assert "\n" not in str(caught.value)


@contextmanager
def refusing():
    raise UserError("not this one")
    yield


@pytest.fixture
def told(monkeypatch):
    """What the first process tells the others: the last value given."""
    values = []

    def from_first(value):
        values.append(value)
        return values[0]

    monkeypatch.setattr(processes, "from_first", from_first)
    return values


def test_an_artifact_is_entered_by_the_first_process_and_its_refusal_reaches_all(monkeypatch, told):
    for rank in (0, 1):
        monkeypatch.setattr(processes, "_place", [rank, 2])
        with pytest.raises(UserError, match="not this one"), processes.entered_by_first(refusing()):
            pytest.fail("the block ran")
    assert isinstance(told[0], UserError)


def test_the_first_process_alone_leaves_the_context(monkeypatch, told):
    left = []

    @contextmanager
    def opened():
        yield "folder"
        left.append(processes.rank())

    for rank in (0, 1):
        monkeypatch.setattr(processes, "_place", [rank, 2])
        with processes.entered_by_first(opened()) as folder:
            assert folder == "folder"
    assert left == [0]


def test_large_and_small_tensors_travel_in_buckets(monkeypatch):
    sent = []

    def all_reduce(flat):
        sent.append(len(flat))
        flat.mul_(3)

    monkeypatch.setattr(processes, "_place", [0, 3])
    monkeypatch.setattr(processes, "BUCKET", 10)
    monkeypatch.setattr(processes.distributed, "all_reduce", all_reduce)
    tensors = [torch.full(shape, float(i)) for i, shape in enumerate([(2, 3), (4,), (), (20,), (3, 3)])]
    processes.add_up(tensors)
    assert sent == [10, 1, 20, 9]
    assert [tensor.unique().tolist() for tensor in tensors] == [[0.0], [3.0], [6.0], [9.0], [12.0]]
