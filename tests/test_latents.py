import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness import latents
from harness.config import LossMask
from harness.runtime import stream

sizes = st.lists(st.integers(1, 9), min_size=1, max_size=6)


@pytest.mark.parametrize("whitening", ["channel", "position"])
@given(sizes=sizes, offset=st.floats(-1e4, 1e4))
def test_streamed_moments_are_exact_however_they_are_split(whitening, sizes, offset):
    values = torch.randn(sum(sizes), 3, 2, 2, generator=stream(0, "test")) + offset
    moments = latents.Moments(whitening)
    for batch in values.split(sizes):
        moments.add(batch)
    axes = (0, 2, 3) if whitening == "channel" else (0,)
    mean, std = moments.result()
    exact = values.double()
    assert torch.allclose(mean, exact.mean(axes, keepdim=True)[0].float())
    assert torch.allclose(std, (exact.var(axes, correction=0, keepdim=True)[0] + latents.EPSILON).sqrt().float(), rtol=1e-5)


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
    assert torch.allclose(
        batches.whitening.std.double(), (raw.var((0, 2, 3), correction=0, keepdim=True)[0] + latents.EPSILON).sqrt(), rtol=1e-4
    )
