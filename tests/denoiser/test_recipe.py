"""How a study says that its denoiser is sampled from, and what other projects' samplers do, written out from their formulas."""

import itertools

import pytest
import torch
from conftest import tiny_values
from hypothesis import given
from hypothesis import strategies as st

from harness.denoiser.recipe import Recipe, recipe_of
from harness.machine.streams import stream
from harness.report.notes import sampled
from harness.study.sections.sampling import Guidance, Sampling
from harness.study.study import parse_study
from harness.study.typed import UserError, digest

NULL = 10
shifts = st.floats(0.2, 8)
steps = st.integers(2, 60)


def recipe(prediction="velocity", time_shift=1.0, **sampling):
    return Recipe(Sampling(**{"count": 1, "batch": 1, "grid_points": 7} | sampling), NULL, prediction, time_shift)


def field(x, t, labels):
    return torch.sin(3 * x + t[:, None, None, None] + labels[:, None, None, None])


def noise(*shape, seed=0):
    return torch.randn(shape, generator=stream(seed, "test"))


# ------------------------------------------------------------------------------------------------------------------ times


@given(steps)
def test_a_velocity_ends_where_it_is_said_to(count):
    points = count + 1
    assert torch.equal(recipe(grid_points=points).times(), 1 - torch.linspace(0, 0.999, points))  # as released with DSR
    assert torch.equal(recipe(grid_points=points, last_time=0).times(), 1 - torch.linspace(0, 1, points))  # SiT
    assert recipe("data", grid_points=points).times()[-1] == 0
    assert recipe("data", grid_points=points, last_time=0.25).times()[-1] == 0.75 - 0.5


@given(steps, shifts, st.floats(0.01, 0.5))
def test_a_last_step_is_that_of_ddt(count, shift, last):
    """MCG-NJU/DDT: linspace(0, 1 - last_step, steps), then 1, mapped by t / (t + (1 - t) shift); its t = 0 is noise."""
    t = torch.cat([torch.linspace(0, 1 - last, count), torch.ones(1)])
    theirs = t / (t + (1 - t) * shift)
    ours = recipe(grid_points=count + 1, time_shift=shift, last_step=last).times()
    torch.testing.assert_close(1 - ours, theirs, rtol=0, atol=1e-6)


@given(steps, shifts)
def test_a_shift_of_lightningdits_time_is_its_inverse_here(count, shift):
    """hustvl/LightningDiT: t' = s t / (1 + (s - 1) t), whose t = 0 is noise."""
    t = torch.linspace(0, 1, count + 1)
    theirs = shift * t / (1 + (shift - 1) * t)
    ours = recipe(grid_points=count + 1, time_shift=1 / shift, last_time=0).times()
    torch.testing.assert_close(1 - ours, theirs, rtol=0, atol=1e-6)


# ------------------------------------------------------------------------------------------------------------------ state


@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_a_state_in_fp64_is_integrated_so_and_the_model_stays_in_fp32(sampler):
    """sihyun-yu/REPA `samplers.py`: times and state are float64, what the model is given is float32."""
    seen, start, labels = [], noise(3, 2, 2, 2), torch.tensor([0, 3, 9])

    def model(x, t, y):
        seen.append((x.dtype, t.dtype))
        return field(x, t, y)

    wide = recipe(sampler=sampler, state="fp64", last_time=0)
    assert wide.times().dtype == torch.float64
    assert torch.equal(wide.times(), 1 - torch.linspace(0, 1, 7, dtype=torch.float64))
    sampled = wide.sample(model, labels, start)
    assert (sampled.dtype, set(seen)) == (torch.float32, {(torch.float32, torch.float32)})

    state, grid = start.double(), wide.times()
    for place, (now, then) in enumerate(itertools.pairwise(grid)):
        first = field(state.float(), now.float().expand(3), labels).double()
        step = first
        if sampler == "heun" and place < 5:
            step = (first + field((state + (then - now) * first).float(), then.float().expand(3), labels).double()) / 2
        state = state + (then - now) * step
    assert torch.equal(sampled, state.float())
    plain = recipe(sampler=sampler, last_time=0).sample(field, labels, start)
    assert not torch.equal(plain, sampled)
    torch.testing.assert_close(plain, sampled, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("closed", ["both", "neither"])
def test_guidance_is_held_through_a_step_by_its_first_time(closed):
    """sihyun-yu/REPA `samplers.py`: its Heun asks once a step whether the step's first time lies in the interval."""
    labels, start, null = torch.tensor([0, 3]), noise(2, 2, 2, 2), torch.full((2,), NULL)
    guidance = {"scale": 3.0, "interval": (0.3, 0.65), "closed": closed, "held": True}
    state, grid = start, 1 - torch.linspace(0, 1, 6)

    def velocity(x, now, guided):
        given, free = (field(x, now.expand(2), y) for y in (labels, null))
        return free + 3 * (given - free) if guided else given

    for place, (now, then) in enumerate(itertools.pairwise(grid)):
        guided = 0.3 < now < 0.65
        step = first = velocity(state, now, guided)
        if place < 4:
            step = (first + velocity(state + (then - now) * first, then, guided)) / 2
        state = state + (then - now) * step
    held = recipe(sampler="heun", grid_points=6, last_time=0, guidance=guidance)
    torch.testing.assert_close(held.sample(field, labels, start), state)
    own = recipe(sampler="heun", grid_points=6, last_time=0, guidance=guidance | {"held": False})
    assert not torch.allclose(own.sample(field, labels, start), state)


def test_noise_has_its_scale():
    labels = torch.tensor([0, 3])
    doubled = Recipe(recipe().sampling, NULL, "velocity", noise_scale=2.0)
    start = noise(2, 2, 2, 2)
    assert torch.equal(doubled.sample(field, labels, start), recipe().sample(field, labels, 2 * start))


# ------------------------------------------------------------------------------------------------------------------ a study


def study(**sampling):
    return parse_study("x", tiny_values(sampling=sampling))


def test_a_study_says_its_recipe():
    plain = study()
    assert recipe_of(plain).times().tolist() == pytest.approx(recipe_of(study(time_shift=plain.time_shift)).times().tolist())
    assert recipe_of(study(time_shift=3.0)).time_shift == 3
    assert plain.denoiser.prediction == "data"
    chosen = study(guidance={"scale": 2.0, "channels": 1, "interval": [0.0, 0.9], "closed": "neither"}, last_step=0.04, state="fp64")
    assert chosen.sampling.guidance.text == "classifier-free, scale 2 for t in (0, 0.9), channels 1 to 1 alone"
    assert chosen.sampling.title == "Euler, last step 0.04, state in fp64"
    assert study(time_shift=2.0, last_time=0.5).sampling.title == "Euler, time shift 2, down to t = 0.5"


@pytest.mark.parametrize(
    "changes",
    [
        {"guidance": {"scale": 2.0, "channels": 1}},
        {"guidance": {"scale": 2.0, "closed": "neither"}},
        {"last_time": 0.1},
        {"last_step": 0.1},
        {"time_shift": 3.0},
        {"state": "fp64"},
    ],
)
def test_each_belongs_to_what_a_run_is(changes):
    """To the settings that its samples are recorded with, to the words of its table, and to the times or velocities that are used."""
    base = study(guidance={"scale": 2.0}) if "guidance" in changes else study()
    changed = study(**changes)
    assert digest(changed.sampling) != digest(base.sampling)
    assert sampled(changed, ["baseline"]) != sampled(base, ["baseline"])


def test_defaults_are_said_as_before():
    assert Guidance(scale=2.0).text == "classifier-free, scale 2"
    assert Guidance(scale=2.0, interval=(0.0, 0.9)).text == "classifier-free, scale 2 for t in [0, 0.9]"
    assert Guidance(scale=2.0, held=True).text == "classifier-free, scale 2, by the start of a step"
    assert Guidance(scale=2.0, closed="low").text == "classifier-free, scale 2 for t in [0, 1)"
    assert study().sampling.title == "Euler"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"guidance": {"channels": 0}}, "channels: Input should be greater than or equal to 1"),
        ({"guidance": {"channels": 1000}}, r"sampling\.guidance\.channels 1000 is more than the latent's \d+"),
        ({"guidance": {"interval": [0.7, 0.3]}}, r"guidance\.interval: 0\.7 to 0\.3 holds no time"),
        ({"guidance": {"interval": [0.5, 0.5], "closed": "low"}}, r"guidance\.interval: 0\.5 to 0\.5 with closed: low holds no time"),
        ({"guidance": {"closed": "left"}}, "closed: Input should be 'both', 'low', 'high' or 'neither'"),
        ({"last_time": 1.0}, "last_time: Input should be less than 1"),
        ({"last_time": 0.1, "last_step": 0.1}, "a grid with a last_step ends at t = 0"),
        ({"last_time": 0.1, "sampler": "euler_maruyama"}, r"last_time: euler_maruyama ends at t = 0"),
        ({"guidance": {"held": True}}, r"guidance\.held: euler evaluates once a step"),
        ({"last_step": 1.0}, "last_step: Input should be less than 1"),
        ({"time_shift": 0}, "time_shift: Input should be greater than 0"),
        ({"state": "bf16"}, "state: Input should be 'fp32' or 'fp64'"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(changes, line):
    with pytest.raises(UserError, match=line) as caught:
        study(**changes)
    assert "\n" not in str(caught.value)
