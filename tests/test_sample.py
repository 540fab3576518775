import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness import artifacts, sample
from harness.config import UserError
from harness.sections import Guidance


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(2, 12), cut=st.integers(1, 11))
def test_trap20_and_24_noise_and_labels_depend_on_seed_and_index_alone(seed, count, cut):
    cut = min(cut, count - 1)
    whole = sample.noise_of(seed, range(count), (2, 3))
    parts = torch.cat([sample.noise_of(seed, range(cut), (2, 3)), sample.noise_of(seed, range(cut, count), (2, 3))])
    assert torch.equal(whole, parts)
    assert sample.labels_of(range(cut, count), 10).tolist() == sample.labels_of(range(count), 10).tolist()[cut:]


def test_seeds_give_different_noise():
    assert not torch.equal(sample.noise_of(0, range(1), (8,)), sample.noise_of(1, range(1), (8,)))


def draw(study, runs, out, **changes):
    folder, encoder = runs.runs["baseline"][0], runs.encoders["plain"]
    changed = study.model_copy(update={"sampling": study.sampling.model_copy(update=changes)})
    sample.draw(
        changed,
        method_name="baseline",
        seed=0,
        denoiser=folder / "denoiser.safetensors",
        decoder=encoder.decoder,
        latents_file=encoder.latents,
        out=out,
    )
    return sample.load(out)


@pytest.mark.parametrize("batch", [1, 7, 60])
def test_samples_do_not_depend_on_the_batch(study, runs, tmp_path, batch):
    images, labels = sample.load(runs.runs["baseline"][0] / "samples.npz")
    again, same_labels = draw(study, runs, tmp_path / "x.npz", batch=batch)
    assert np.array_equal(labels, same_labels)
    assert np.abs(images.astype(int) - again.astype(int)).max() <= 1  # a float's last bit may tip a rounding
    assert (images != again).mean() < 1e-3


def test_sampling_twice_gives_the_same_bytes(study, runs, tmp_path):
    draw(study, runs, tmp_path / "x.npz")
    assert (tmp_path / "x.npz").read_bytes() == (runs.runs["baseline"][0] / "samples.npz").read_bytes()


def test_labels_are_equal_in_number(runs):
    _, labels = sample.load(runs.runs["baseline"][0] / "samples.npz")
    assert np.bincount(labels).tolist() == [6] * 10


def test_guidance_moves_the_samples(study, runs, tmp_path):
    images, _ = sample.load(runs.runs["baseline"][0] / "samples.npz")
    guided, _ = draw(study, runs, tmp_path / "x.npz", guidance=Guidance(scale=3.0))
    assert (images != guided).mean() > 0.01


def test_guidance_extrapolates_from_the_unconditional_prediction(study):
    calls = []

    def model(x, t, y):
        calls.append(y.tolist())
        return y.view(-1, 1, 1, 1).float().expand_as(x)

    scaled = study.model_copy(update={"sampling": study.sampling.model_copy(update={"guidance": Guidance(scale=2.0)})})
    guided = sample.guided(scaled, model, None, torch.tensor([3]))
    out = guided(torch.zeros(1, 1, 1, 1), torch.ones(1))
    assert calls == [[3, 10]]
    assert out.item() == 10 + 2 * (3 - 10)


def test_truncated_samples_are_refused(runs, tmp_path):
    source = runs.runs["baseline"][0] / "samples.npz"
    (tmp_path / "samples.npz").write_bytes(source.read_bytes()[:1000])
    (tmp_path / "samples.npz.meta.json").write_text((source.parent / "samples.npz.meta.json").read_text())
    with pytest.raises(UserError, match="corrupted or truncated"):
        sample.load(tmp_path / "samples.npz")


def test_samples_record_their_inputs(runs):
    record = artifacts.meta(runs.runs["baseline"][0] / "samples.npz")
    assert len(record["inputs"]) == 3
    assert record["seed"] == 0
