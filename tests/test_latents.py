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


def test_cached_latents_are_white_and_invertible(built):
    source = latents.load(built.encoders["plain"].latents, "train")
    assert source.latents.mean((0, 2, 3)).abs().max() < 1e-4
    assert source.latents.var((0, 2, 3)).sub(1).abs().max() < 1e-2
    tokens = source.to_tokens(source.latents)
    assert tokens.norm(dim=-1).sub(source.norms["post_ln"]).abs().max() < 1e-3


def test_post_ln_norm_is_constant_so_that_mask_is_inert(built):  # the released default filters 0 %
    source = latents.load(built.encoders["plain"].latents, "train")
    assert source.loss_weights(LossMask(norm="post_ln"), 3.0).min() == 1


def test_pre_ln_mask_filters_the_outliers(built):
    source = latents.load(built.encoders["plain"].latents, "train")
    weights = source.loss_weights(LossMask(norm="pre_ln"), 3.0)
    norms = source.layer_norms[:, -1]
    assert weights.shape == (len(norms), 1, 4, 4)
    assert torch.equal(weights.flatten(1) == 0, norms > 3 * norms.median())
    assert 0 < 1 - weights.mean() < 0.2
