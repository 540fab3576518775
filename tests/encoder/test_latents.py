import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.data.images import InMemory
from harness.encoder import latents
from harness.encoder.latents import load_held_out
from harness.encoder.whitening import EPSILON, LatentMoments, load_whitening
from harness.machine import processes
from harness.machine.streams import stream
from harness.study.method import LossMask
from harness.study.typed import UserError

sizes = st.lists(st.integers(1, 9), min_size=1, max_size=6)


@pytest.mark.parametrize("whitening", ["channel", "position"])
@given(sizes=sizes, offset=st.floats(-1e4, 1e4))
def test_streamed_moments_are_exact_however_they_are_split(whitening, sizes, offset):
    values = torch.randn(sum(sizes), 3, 2, 2, generator=stream(0, "test")) + offset
    moments = LatentMoments(whitening)
    for batch in values.split(sizes):
        moments.add(batch)
    axes = (0, 2, 3) if whitening == "channel" else (0,)
    result = moments.result()
    exact = values.double()
    assert torch.allclose(result.mean, exact.mean(axes, keepdim=True)[0].float())
    assert torch.allclose(result.std, (exact.var(axes, correction=0, keepdim=True)[0] + EPSILON).sqrt().float(), rtol=1e-5)


@pytest.fixture
def batches(built):
    return latents.Batches(built.encoders["plain"].latents, seed=0, batch=32)


def test_cached_latents_are_white_and_invertible(batches):
    assert batches.cached.mean((0, 2, 3)).abs().max() < 1e-4
    assert batches.cached.var((0, 2, 3)).sub(1).abs().max() < 1e-2
    raw = batches.whitening.unwhiten(batches.cached)
    assert raw.flatten(2).norm(dim=1).sub(batches.norms["post_ln"]).abs().max() < 1e-3


def test_trap6_post_ln_norm_is_constant_so_that_mask_is_inert(batches):  # the released default filters 0 %
    limit = batches.threshold(LossMask(norm="post_ln"), 3.0)
    assert not (batches.norms["post_ln"] > limit).any()


def test_pre_ln_mask_filters_the_outliers(batches):
    limit = batches.threshold(LossMask(norm="pre_ln"), 3.0)
    norms = batches.norms["pre_ln"]
    assert limit == 3 * norms.median()
    assert 0 < (norms > limit).float().mean() < 0.2


def test_batches_depend_on_seed_and_step_alone(batches, built):
    later = latents.Batches(built.encoders["plain"].latents, seed=0, batch=32)
    for step in (5, 0, 40):
        assert torch.equal(batches(step).latents, later(step).latents)
    assert not torch.equal(batches(0).latents, latents.Batches(built.encoders["plain"].latents, seed=1, batch=32)(0).latents)


@pytest.mark.parametrize("key", ["plain", "ttr_1", "ttr_until_clean", "trained_registers"])
def test_trap9_every_encoder_variant_is_whitened_by_the_same_exact_estimator(built, key):
    """Released statistics of the baseline are a moving average, those of test-time registers exact."""
    batches = latents.Batches(built.encoders[key].latents, seed=0, batch=32)
    raw = batches.whitening.unwhiten(batches.cached).double()
    assert torch.allclose(batches.whitening.mean.double(), raw.mean((0, 2, 3), keepdim=True)[0], atol=1e-5)
    assert torch.allclose(batches.whitening.std.double(), (raw.var((0, 2, 3), correction=0, keepdim=True)[0] + EPSILON).sqrt(), rtol=1e-4)


def test_the_statistics_alone_are_read_and_the_whole_file_is_checked(built, tmp_path, monkeypatch):
    path = built.encoders["plain"].latents
    whole = load_held_out(path).whitening
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    sidecar = path.with_name(f"{path.name}.meta.json")
    copy.with_name(sidecar.name).write_text(sidecar.read_text(encoding="utf-8"), encoding="utf-8")
    alone = load_whitening(copy)
    assert torch.equal(alone.mean, whole.mean)
    assert torch.equal(alone.std, whole.std)
    content = bytearray(copy.read_bytes())
    content[-1] ^= 1  # of a latent
    copy.write_bytes(content)
    with pytest.raises(UserError, match="corrupted or truncated"):
        load_whitening(copy)


def batches_as_they_come(path, batch):
    """Images encoded at each step, with noise as a VAE has it; mirrored half of the time."""
    split = InMemory(np.random.default_rng(0).integers(0, 255, (1800, 4, 4, 3), dtype=np.uint8), np.zeros(1800))

    def encoder(pixels, noise):
        return pixels.mean(1, keepdim=True).expand(-1, 32, -1, -1) + noise((32, 4, 4)), None

    batches = latents.Batches(path, seed=0, batch=batch, split=split, encoder=encoder)
    batches.cached, batches.flip = None, True
    return batches


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("count", [2, 3, 6])
def test_the_shares_of_the_processes_are_the_batch(built, monkeypatch, cached, count):
    path, batch = built.encoders["plain"].latents, 2 * latents.AT_ONCE + 4

    def shares(processes_):
        batches = []
        for rank in range(processes_):
            monkeypatch.setattr(processes, "_place", [rank, processes_])
            source = latents.Batches(path, seed=0, batch=batch) if cached else batches_as_they_come(path, batch)
            batches.append([source(step) for step in (0, 5)])
        return batches

    [whole], split = shares(1), shares(count)
    for step in range(2):
        assert torch.equal(whole[step].latents, torch.cat([share[step].latents for share in split]))
        assert torch.equal(whole[step].labels, torch.cat([share[step].labels for share in split]))
        for name, norms in whole[step].norms.items():
            assert torch.equal(norms, torch.cat([share[step].norms[name] for share in split]))
    assert cached == bool(whole[0].norms)


def test_processes_that_do_not_divide_the_batch_are_refused(built, monkeypatch):
    monkeypatch.setattr(processes, "_place", [0, 3])
    batches = latents.Batches(built.encoders["plain"].latents, seed=0, batch=32)
    with pytest.raises(UserError, match="3 processes do not divide a batch of 32 images"):
        batches(0)
