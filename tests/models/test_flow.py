import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.models import flow
from harness.runtime import stream

times = st.floats(0, 1)
shifts = st.floats(0.1, 10)


@given(times, times, shifts)
def test_shift_keeps_the_ends_and_the_order(a, b, shift):
    first, second = (flow.shift_time(torch.tensor(t, dtype=torch.float64), shift) for t in sorted((a, b)))
    assert 0 <= first <= second <= 1 + 1e-12
    ends = flow.shift_time(torch.tensor([0.0, 1.0]), shift)
    assert torch.allclose(ends, torch.tensor([0.0, 1.0]))


def test_logit_normal_quantiles():  # of the released training code, run at its shift of 6.928
    t = flow.logit_normal_time(200_000, 6.928, stream(0, "test"))
    expected = [0.403, 0.572, 0.779, 0.874, 0.932, 0.973, 0.986]
    found = t.quantile(torch.tensor([0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99]))
    assert found.tolist() == pytest.approx(expected, abs=0.01)


@given(st.integers(0, 1000), st.floats(0.05, 1))
def test_a_perfect_prediction_has_no_loss(seed, t):
    data, noise = torch.randn(2, 1, 3, 2, 2, generator=stream(seed, "test"))
    loss = flow.v_loss(data, noise, torch.tensor([t]), data, 0.05)
    assert loss.max() < 1e-6


@given(st.integers(0, 1000), st.integers(2, 9), shifts)
def test_a_perfect_denoiser_leads_back_to_the_data(seed, points, shift):
    data, noise = torch.randn(2, 2, 3, 2, 2, generator=stream(seed, "test"))
    found = flow.euler(lambda _x, _t: data, noise, flow.euler_grid(points, shift), t_min=1e-9)
    assert torch.allclose(found, data, atol=1e-4)


def test_one_step_less_than_grid_points():
    calls = []
    flow.euler(lambda x, t: calls.append(t) or x, torch.zeros(1, 1, 1, 1), flow.euler_grid(31, 2.0), 0.05)
    assert len(calls) == 30
    assert calls[0] == 1
