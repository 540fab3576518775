"""What runs on a GPU, where there is one: the authors' outputs, every paper-scale study at toy size, the same bytes twice and after a stop,
distances of features as on a CPU.
"""

import shutil

import numpy as np
import pytest
import torch
from conftest import DATA
from pipeline import Pipeline
from test_paper_studies import TOYS, _small_inception, render  # noqa: F401 (a fixture)
from toy import make_assets, toy_study

from harness.denoiser.sample import load_samples
from harness.evaluation.frechet import Frechet
from harness.evaluation.reference_statistics import ReferenceStatistics
from harness.machine import device as runtime
from harness.parity.report import parity
from harness.store import artifacts
from harness.study.method import load_method
from harness.training import loop

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(autouse=True)
def _on_the_gpu(_set_up, monkeypatch):
    """Without the lock that keeps jobs apart: tests of several processes share the GPU."""
    monkeypatch.setattr(runtime, "claim_gpu", lambda: 0)
    runtime.set_up(1, gpus=1)
    assert runtime.device().type == "cuda"


@pytest.mark.parametrize("path", sorted(DATA.glob("*.safetensors")), ids=lambda path: path.stem)
def test_agrees_with_the_authors_code(path):
    assert max(quantity.error for quantity in parity(path)) < 1e-5


@pytest.mark.parametrize("name", sorted(set(TOYS.values())))
def test_study_runs_end_to_end_at_toy_size(name, tmp_path):
    study = toy_study(name)
    pipeline = Pipeline(study, tmp_path / "results", make_assets(study, tmp_path / "assets"))
    methods = [study.methods[0], study.methods[-1]]
    pipeline.prepare(sorted({load_method(method).encoder.key for method in methods}))
    for method in methods:
        pipeline.run(method, [0])
    rendered = render(study, methods, tmp_path / "results")
    assert "NVIDIA" in (rendered / "table1.md").read_text(encoding="utf-8")


def interrupt_at(monkeypatch, step):
    """A checkpoint at every look, and an end at `step`, once."""
    original = loop.stream

    def stream(seed, purpose, index=0, place="cpu"):
        if (purpose, index) == ("step", step):
            monkeypatch.setattr(loop, "stream", original)
            raise KeyboardInterrupt
        return original(seed, purpose, index, place)

    monkeypatch.setattr(loop, "SAVE_EVERY", 0)
    monkeypatch.setattr(loop, "CHECK_EVERY", 5)
    monkeypatch.setattr(loop, "stream", stream)


def test_twice_and_after_a_stop_the_bytes_are_the_same(study, built, tmp_path, monkeypatch):
    """The embedded study's training and sampling, from latents that a CPU made."""
    hashes = []
    for place in ("once", "again", "stopped"):
        pipeline = Pipeline(study, tmp_path / place)
        pipeline.encoders = built.encoders
        if place == "stopped":
            interrupt_at(monkeypatch, 8)
            with pytest.raises(KeyboardInterrupt):
                pipeline.train("dsr", 0)
        pipeline.train("dsr", 0)
        pipeline.draw("dsr", [0])
        run = pipeline.root / "runs" / "dsr" / "seed0"
        hashes.append([artifacts.sha256(run / name) for name in ("denoiser.safetensors", "samples.npz")])
        shutil.rmtree(pipeline.root)
    assert hashes[0] == hashes[1] == hashes[2]


def test_samples_hardly_depend_on_the_batch(study, built, tmp_path):
    """A GPU's matrix products add up in an order that depends on their shape, so that a float's last bits differ."""
    pipeline = Pipeline(study, tmp_path)
    pipeline.encoders = built.encoders
    pipeline.train("baseline", 0)
    images = []
    for batch in (60, 7):
        sampling = study.sampling.model_copy(update={"batch": batch, "averages": []})
        pipeline.study = study.model_copy(update={"sampling": sampling})
        pipeline.draw("baseline", [0], folder=str(batch))
        images.append(load_samples(tmp_path / "runs" / "baseline" / "seed0" / str(batch) / "samples.npz")[0].astype(int))
    assert np.abs(images[0] - images[1]).max() <= 1
    assert (images[0] != images[1]).mean() < 1e-3


def test_frechet_distances_are_those_of_a_cpu():
    generator = torch.Generator().manual_seed(0)
    real, drawn = (torch.randn(2000, 64, generator=generator) @ torch.randn(64, 64, generator=generator) for _ in range(2))
    reference = ReferenceStatistics.of_features("reference", real)
    numbers = []
    for gpus in (0, 1):
        runtime.set_up(1, gpus=gpus)
        frechet = Frechet(drawn, reference, 20)
        numbers.append([frechet.distance(frechet.sums(torch.arange(2000))), frechet.error, *frechet.line()])
    assert numbers[1] == pytest.approx(numbers[0], rel=1e-8)
