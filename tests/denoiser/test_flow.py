import pytest
import torch
from architectures import GOLDEN, build
from conftest import error
from hypothesis import given
from hypothesis import strategies as st

from harness.denoiser import flow
from harness.machine.streams import stream

times = st.floats(0, 1)
shifts = st.floats(0.1, 10)
predictions = st.sampled_from(["data", "velocity"])


@given(times, times, shifts)
def test_shift_keeps_the_ends_and_the_order(a, b, shift):
    first, second = (flow.shift_time(torch.tensor(t, dtype=torch.float64), shift) for t in sorted((a, b)))
    assert 0 <= first <= second <= 1 + 1e-12
    ends = flow.shift_time(torch.tensor([0.0, 1.0]), shift)
    assert torch.allclose(ends, torch.tensor([0.0, 1.0]))


def test_logit_normal_quantiles():  # of the released training code, run at its shift of 6.928
    t = flow.sample_time(200_000, "logit_normal", 6.928, stream(0, "test"))
    expected = [0.403, 0.572, 0.779, 0.874, 0.932, 0.973, 0.986]
    quantiles = t.quantile(torch.tensor([0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99]))
    assert quantiles.tolist() == pytest.approx(expected, abs=0.01)


@given(st.integers(0, 1000), shifts)
def test_logit_normal_is_a_shifted_sigmoid_of_the_stream_to_the_bit(seed, shift):
    expected = flow.shift_time(torch.randn(7, generator=stream(seed, "test")).sigmoid(), shift)
    assert torch.equal(flow.sample_time(7, "logit_normal", shift, stream(seed, "test")), expected)


def test_logit_normal_has_a_mean_and_a_spread():
    logits = flow.sample_time(100_000, "logit_normal", 1.0, stream(0, "test"), mean=0.8, std=0.5).logit()
    assert (logits.mean().item(), logits.std().item()) == pytest.approx((0.8, 0.5), abs=0.01)


@pytest.mark.parametrize("shift", [1.0, 4.0])
def test_uniform_quantiles(shift):
    levels = torch.tensor([0.01, 0.25, 0.5, 0.75, 0.99])
    quantiles = flow.sample_time(200_000, "uniform", shift, stream(0, "test")).quantile(levels)
    assert torch.allclose(quantiles, flow.shift_time(levels, shift), atol=0.01)


@given(st.integers(0, 1000), st.floats(0.05, 1), predictions)
def test_a_perfect_output_has_no_loss(seed, t, prediction):
    data, noise = torch.randn(2, 1, 3, 2, 2, generator=stream(seed, "test"))
    output = data if prediction == "data" else noise - data
    loss = flow.flow_loss(data, noise, torch.tensor([t]), output, prediction, 0.05)
    assert loss.shape == data.shape
    assert loss.max() < 1e-6


@given(st.integers(0, 1000), st.floats(0.05, 1), st.floats(0.1, 9), predictions)
def test_a_cosine_is_one_of_each_token_and_knows_no_length(seed, t, factor, prediction):
    data, noise, output = torch.randn(3, 2, 3, 2, 2, generator=stream(seed, "test"))
    at = torch.full((2,), t)
    loss = flow.cosine_loss(data, noise, at, output, prediction, 0.05)
    given_, target = flow.velocity(flow.at_time(data, noise, at), output, at, prediction, 0.05), noise - data
    cosine = (given_ * target).sum(1) / (given_.square().sum(1) * target.square().sum(1)).sqrt()
    assert loss.shape == (2, 1, 2, 2)
    torch.testing.assert_close(loss[:, 0], 1 - cosine, rtol=1e-4, atol=1e-5)
    assert flow.cosine_loss(data, noise, at, factor * target, "velocity", 0.05).abs().max() < 1e-5
    torch.testing.assert_close(flow.cosine_loss(data, noise, at, -factor * target, "velocity", 0.05), torch.full((2, 1, 2, 2), 2.0))


@given(st.integers(0, 1000), times)
def test_velocity_of_a_data_prediction_clamps_the_time(seed, t):
    x, output = torch.randn(2, 3, 2, 2, 2, generator=stream(seed, "test"))
    t = torch.full((3,), t)
    assert torch.equal(flow.velocity(x, output, t, "data", 0.05), (x - output) / t.view(-1, 1, 1, 1).clamp(min=0.05))
    assert flow.velocity(x, output, t, "velocity", 0.05) is output


@given(st.integers(0, 1000), st.floats(0.05, 1), predictions)
def test_a_perfect_output_stands_for_the_data(seed, t, prediction):
    data, noise = torch.randn(2, 1, 3, 2, 2, generator=stream(seed, "test"))
    t = torch.tensor([t])
    output = data if prediction == "data" else noise - data
    clean = flow.clean_of(flow.at_time(data, noise, t), output, t, prediction, 0.05)
    torch.testing.assert_close(clean, data, rtol=1e-4, atol=1e-5)


@given(st.integers(0, 1000), predictions)
def test_loss_does_not_depend_on_the_batch(seed, prediction):
    data, noise, output = torch.randn(3, 5, 2, 2, 2, generator=stream(seed, "test"))
    t = torch.rand(5, generator=stream(seed, "time"))
    whole = flow.flow_loss(data, noise, t, output, prediction, 0.05)
    alone = [flow.flow_loss(*(part[i : i + 1] for part in (data, noise, t, output)), prediction, 0.05) for i in range(5)]
    assert torch.equal(whole, torch.cat(alone))


@pytest.mark.parametrize("name", GOLDEN)
def test_loss_agrees_with_the_authors_code(golden, name):
    config, expected = golden(name)
    model, data, noise = build(config, expected), expected["loss.x1"], expected["loss.x0_noise"]
    t = flow.shift_time(expected["loss.u"], config["time_dist_shift"])
    assert error(t, expected["loss.t_shifted"]) < 1e-5
    with torch.no_grad():
        output = model(flow.at_time(data, noise, t), t, expected["in.y"])
    assert error(output, expected["loss.pred"]) < 1e-5
    loss = flow.flow_loss(data, noise, t, output, "data", 0.05)
    assert error(loss, expected["loss.per_element"]) < 1e-5
    assert error(loss.mean((1, 2, 3)), expected["loss.per_sample"]) < 1e-5


@given(st.integers(0, 1000), times, predictions)
def test_the_target_is_clamped_where_that_is_said(
    seed, t, prediction
):  # LTH14/JiT `denoiser.py`: both velocities divide by max(1 - t, 0.05)
    data, noise, output = torch.randn(3, 1, 3, 2, 2, generator=stream(seed, "test"))
    at = torch.tensor([t])
    x_t = flow.at_time(data, noise, at)
    velocity = (x_t - output) / max(t, 0.05) if prediction == "data" else output
    expected = (velocity - (x_t - data) / max(t, 0.05)).square()
    loss = flow.flow_loss(data, noise, at, output, prediction, 0.05, clamp_target=True)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
