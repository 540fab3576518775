import itertools
import math

import pytest
import torch
from architectures import GOLDEN, build
from conftest import error
from hypothesis import given
from hypothesis import strategies as st

from harness.denoiser import samplers
from harness.denoiser.flow import shift_time, velocity
from harness.denoiser.registry import SAMPLERS
from harness.machine.streams import stream
from harness.study.sections.sampling import Sampling
from harness.study.typed import UserError

every_sampler = pytest.mark.parametrize("sampler", list(SAMPLERS))
shifts = st.floats(0.1, 10)
predictions = st.sampled_from(["data", "velocity"])


def nfe(sampler, points):
    return Sampling(count=1, batch=1, sampler=sampler, grid_points=points).nfe


def gaussian(mean, std, noise_std=1.0):
    """The exact velocity of data N(mean, std^2) and noise N(0, noise_std^2), element by element."""

    def velocity_at(x, t):
        t = t[:, None, None, None].to(x.dtype)
        residual = (x - (1 - t) * mean) / (((1 - t) * std) ** 2 + (t * noise_std) ** 2)
        return t * noise_std**2 * residual - (mean + (1 - t) * std**2 * residual)

    return velocity_at


def gaussian_at(noise, t, mean, std):
    """Where the ODE of `gaussian` takes the noise: its quantile stays the same."""
    return (1 - t) * mean + math.hypot((1 - t) * std, t) * noise


def noise_of(seed, step, indices, shape=(2, 3, 3)):
    return torch.stack([torch.randn(shape, generator=stream(seed, f"step {step}", i)) for i in indices])


def run(sampler, velocity_at, noise, times, *, seed=0, indices=None, **extra):
    indices = range(len(noise)) if indices is None else indices
    noise_at = lambda step: noise_of(seed, step, indices, noise.shape[1:])  # noqa: E731
    return SAMPLERS[sampler].integrate(velocity_at, noise, times, noise_at, **extra)


# ------------------------------------------------------------------------------------------------------------------ times


@given(st.integers(2, 300), shifts, predictions)
def test_times_fall_from_one_to_its_end(points, shift, prediction):
    times = samplers.ode_times(points, shift, prediction)
    assert times.shape == (points,)
    assert (times.diff() < 0).all()
    end = 0 if prediction == "data" else 0.001 * shift / (1 + (shift - 1) * 0.001)
    assert (times[0].item(), times[-1].item()) == pytest.approx((1, end), abs=1e-6)


@given(st.integers(2, 300), shifts)
def test_times_are_the_released_ones_to_the_bit(points, shift):
    assert torch.equal(samplers.ode_times(points, shift, "data"), shift_time(1 - torch.linspace(0, 1, points), shift))
    assert torch.equal(samplers.ode_times(points, shift, "velocity"), shift_time(1 - torch.linspace(0, 0.999, points), shift))


def test_times_for_a_velocity_can_end_at_the_data():
    assert samplers.ode_times(5, 1.0, "velocity", end=1.0).tolist() == [1, 0.75, 0.5, 0.25, 0]


@given(st.integers(3, 300), shifts, st.floats(0.01, 0.5))
def test_sde_times_take_the_last_step_from_a_time_of_its_own(points, shift, last):
    times = samplers.sde_times(points, shift, last_step=last)
    assert times.shape == (points,)
    assert (times.diff() < 0).all()
    assert times[0].item() == pytest.approx(1)
    assert times[-2].item() == pytest.approx(last, rel=1e-4)
    assert times[-1] == 0


def test_sde_times_are_those_of_sit():
    times = samplers.sde_times(251, 1.0)
    assert torch.allclose(times[:-1], 1 - torch.linspace(0, 0.96, 250))
    assert nfe("euler_maruyama", len(times)) == 250


def test_times_that_make_no_sense_are_refused():
    for points, end in [(1, None), (5, 0.0), (5, 1.1)]:
        with pytest.raises(UserError, match="at least 2 points and an end in"):
            samplers.ode_times(points, 1.0, "data", end)
    for points, last in [(2, 0.04), (5, 0.0), (5, 1.0)]:
        with pytest.raises(UserError, match="at least 3 points and a last step in"):
            samplers.sde_times(points, 1.0, last_step=last)


# ------------------------------------------------------------------------------------------------------------ integrators


@pytest.mark.parametrize("name", GOLDEN)
def test_sampling_agrees_with_the_authors_code(golden, name):
    config, expected = golden(name)
    model, y, points, shift = build(config, expected), expected["in.y"], config["ode_grid_points"], config["time_dist_shift"]

    def data_model(x, t):
        return velocity(x, model(x, t, y), t, "data", 0.05)

    def velocity_model(x, t):
        return velocity(x, model(x, t, y), t, "velocity", 0.05)

    times = samplers.ode_times(points, shift, "data")
    assert error(samplers.euler(data_model, expected["ode.noise"], times), expected["ode.sample"]) < 1e-5
    assert error(samplers.euler(data_model, expected["ode.noise"], times[:7]), expected["ode.mid"]) < 1e-5
    times = samplers.ode_times(points, shift, "velocity")
    assert error(samplers.euler(velocity_model, expected["ode.noise"], times), expected["ode.velocity_sample"]) < 1e-5


@pytest.mark.parametrize("points", [3, 4, 31])
@every_sampler
def test_evaluations_are_what_they_are_said_to_be(sampler, points):
    seen = []
    run(sampler, lambda x, t: seen.append(t) or x, torch.zeros(3, 1, 1, 1), samplers.ode_times(points, 2.0, "data"))
    assert len(seen) == nfe(sampler, points)
    assert all(t.shape == (3,) for t in seen)
    assert (seen[0] == 1).all()
    assert min(t.min() for t in seen) > 0  # none at t = 0, where a data prediction has no velocity


def test_fifty_points_are_49_evaluations():  # the released `num_steps: 50`
    assert [nfe(sampler, 50) for sampler in SAMPLERS] == [49, 97, 49]


@pytest.mark.parametrize("sampler", ["euler", "heun"])
@given(seed=st.integers(0, 1000), points=st.integers(2, 9), shift=shifts)
def test_a_perfect_denoiser_leads_back_to_the_data(sampler, seed, points, shift):
    data, noise = torch.randn(2, 2, 3, 2, 2, generator=stream(seed, "test"))
    times = samplers.ode_times(points, shift, "data")
    sampled = run(sampler, lambda x, t: velocity(x, data, t, "data", 1e-9), noise, times)
    assert torch.allclose(sampled, data, atol=1e-4)


@pytest.mark.parametrize(("mean", "std", "shift"), [(1.0, 0.5, 2.0), (0.0, 0.4, 1.0), (-2.0, 2.0, 4.0)])
@pytest.mark.parametrize(("sampler", "order"), [("euler", 1), ("heun", 2)])
def test_the_error_falls_with_the_order_of_the_method(sampler, order, mean, std, shift):
    noise = torch.randn(2, 1, 4, 4, generator=stream(0, "test"), dtype=torch.float64)
    exact = gaussian_at(noise, 0, mean, std)

    def distance(steps):
        times = shift_time(1 - torch.linspace(0, 1, steps + 1, dtype=torch.float64), shift)
        return (run(sampler, gaussian(mean, std), noise, times) - exact).norm().item()

    assert math.log2(distance(400) / distance(800)) == pytest.approx(order, abs=0.1)


@given(seed=st.integers(0, 1000), mean=st.floats(-2, 2), std=st.floats(0.4, 2))
def test_times_for_a_velocity_stop_at_the_state_of_its_end(seed, mean, std):
    noise = torch.randn(2, 1, 4, 4, generator=stream(seed, "test"), dtype=torch.float64)
    times = samplers.ode_times(150, 4.0, "velocity").double()
    sampled = samplers.heun(gaussian(mean, std), noise, times)
    assert torch.allclose(sampled, gaussian_at(noise, times[-1].item(), mean, std), atol=1e-2)


@pytest.mark.parametrize("diffusion", list(samplers.DIFFUSIONS))
@pytest.mark.parametrize(("mean", "std", "noise_std", "shift"), [(1.0, 0.5, 1.0, 1.0), (-2.0, 1.5, 1.0, 4.0), (0.5, 0.7, 2.0, 1.0)])
def test_the_sde_has_the_mean_and_the_variance_of_the_data(diffusion, mean, std, noise_std, shift):
    count, shape = 8, (8, 32, 32)
    sampled = samplers.euler_maruyama(
        gaussian(mean, std, noise_std),
        noise_std * noise_of(0, "first", range(count), shape),
        samplers.ode_times(400, shift, "data"),
        noise_at=lambda step: noise_std * noise_of(1, step, range(count), shape),
        diffusion=diffusion,
    )
    assert sampled.mean().item() == pytest.approx(mean, abs=0.02)
    assert sampled.std().item() == pytest.approx(std, rel=0.02)


def test_the_sde_forgets_its_first_noise_and_the_ode_does_not():
    noise, times = torch.randn(4, 1, 8, 8, generator=stream(0, "test")), samplers.ode_times(200, 1.0, "data")
    close = {
        name: torch.corrcoef(torch.stack([noise.flatten(), run(name, gaussian(0, 1), noise, times).flatten()]))[0, 1] for name in SAMPLERS
    }
    assert close["euler"] > 0.999
    assert close["heun"] > 0.999
    assert close["euler_maruyama"] < 0.7


@pytest.mark.parametrize("shift", [1.0, 6.928])
@pytest.mark.parametrize("diffusion", list(samplers.DIFFUSIONS))
def test_the_sde_returns_to_data_at_one_point(diffusion, shift):  # but for what the mean of the last step leaves of the noise
    noise = noise_of(0, "first", range(2), (8, 16, 16))
    sampled = run("euler_maruyama", gaussian(1.0, 0.0), noise, samplers.sde_times(251, shift), diffusion=diffusion)
    assert sampled.mean().item() == pytest.approx(1, abs=0.01)
    assert sampled.std().item() < 0.07


def test_the_last_step_of_the_sde_is_its_mean():
    seen = []

    def noise_at(step):
        seen.append(step)
        return torch.zeros(1, 1, 1, 1)

    x, times = torch.full((1, 1, 1, 1), 0.3), torch.tensor([1.0, 0.6, 0.04, 0.0])
    sampled = samplers.euler_maruyama(gaussian(1.0, 0.5), x, times, noise_at=noise_at)
    assert seen == [0, 1]
    for now, then in itertools.pairwise(times.tolist()):
        v = gaussian(1.0, 0.5)(x, torch.tensor([now]))
        score = -(x - (1 - now)) / ((1 - now) ** 2 * 0.25 + now**2)  # of N((1 - t) 1, ((1 - t) 0.5)^2 + t^2)
        x = x + (then - now) * (v - now * score)
    assert torch.allclose(sampled, x)


@every_sampler
@given(seed=st.integers(0, 1000), cut=st.integers(1, 4), points=st.integers(2, 9), prediction=predictions)
def test_a_sample_does_not_depend_on_its_batch(sampler, seed, cut, points, prediction):
    noise, times = noise_of(seed, "first", range(5)), samplers.ode_times(points, 2.0, prediction)
    whole = run(sampler, gaussian(1.0, 0.5), noise, times, seed=seed)
    parts = [run(sampler, gaussian(1.0, 0.5), noise[i], times, seed=seed, indices=range(5)[i]) for i in (slice(cut), slice(cut, None))]
    assert torch.equal(whole, torch.cat(parts))
    assert whole.dtype == torch.float32


@every_sampler
def test_sampling_builds_no_graph(sampler):
    weight = torch.ones((), requires_grad=True)
    assert not run(sampler, lambda x, _t: weight * x, torch.ones(1, 1, 1, 1), samplers.ode_times(4, 1.0, "data")).requires_grad


def test_an_unknown_diffusion_is_refused():
    x, times = torch.zeros(1, 1, 1, 1), samplers.ode_times(3, 1.0, "data")
    with pytest.raises(UserError, match="diffusion 'SBDM': choose one of sigma, increasing_decreasing"):
        run("euler_maruyama", gaussian(0, 1), x, times, diffusion="SBDM")
