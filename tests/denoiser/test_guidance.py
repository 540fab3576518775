import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.denoiser import guidance, samplers
from harness.denoiser.flow import velocity
from harness.machine.streams import stream
from harness.study.typed import UserError

NULL = 10


class Model:
    """Output depends on x, t and label; remembers how many elements each call had."""

    def __init__(self, strength=1.0):
        self.strength, self.batches = strength, []

    def __call__(self, x, t, labels):
        self.batches.append(len(x))
        return torch.sin(self.strength * x + t[:, None, None, None] + labels[:, None, None, None])


def batch(seed, t, count=3):
    x, labels = (
        torch.randn(count, 2, 2, 2, generator=stream(seed, "test")),
        torch.randint(0, NULL, (count,), generator=stream(seed, "label")),
    )
    return x, torch.full((count,), t), labels


@given(st.integers(0, 1000), st.floats(0, 1), st.floats(1.01, 5))
def test_classifier_free_guidance_is_one_double_batch_to_the_bit(seed, t, scale):
    (x, t, labels), model = batch(seed, t), Model()
    given_, free = model(torch.cat([x, x]), torch.cat([t, t]), torch.cat([labels, torch.full_like(labels, NULL)])).chunk(2)
    assert torch.equal(guidance.classifier_free(model, labels, NULL, scale)(x, t), free + scale * (given_ - free))
    assert model.batches == [6, 6]


@given(st.integers(0, 1000), st.floats(0, 1))
def test_scale_one_is_the_plain_model(seed, t):
    (x, t, labels), model, weak = batch(seed, t), Model(), Model(0.5)
    assert torch.equal(guidance.classifier_free(model, labels, NULL, 1)(x, t), model(x, t, labels))
    assert torch.equal(guidance.autoguidance(model, weak, labels, 1)(x, t), model(x, t, labels))
    assert set(model.batches) == {3}
    assert not weak.batches


@pytest.mark.parametrize(
    ("t", "inside"), [(0.0, False), (0.299, False), (0.3, True), (0.5, True), (0.7, True), (0.701, False), (1.0, False)]
)
def test_trap11_guidance_interval_is_one_pair(t, inside):  # the released LightningDiT reads it as a list of pairs: TypeError
    (x, t, labels), model, weak = batch(0, t), Model(), Model(0.5)
    plain = model(x, t, labels)
    model.batches.clear()
    guided = guidance.classifier_free(model, labels, NULL, 2.0, (0.3, 0.7))(x, t)
    assert model.batches == [6 if inside else 3]  # outside, no second half
    assert torch.equal(guided, plain) != inside
    guided = guidance.autoguidance(model, weak, labels, 2.0, (0.3, 0.7))(x, t)
    assert weak.batches == ([3] if inside else [])
    assert torch.equal(guided, plain) != inside


@pytest.mark.parametrize("interval", [(0.0, 0.3), (0.7, 1.0)])
def test_the_ends_of_an_interval_belong_to_it_in_float32(interval):
    model, (x, t, labels) = Model(), batch(0, min(interval, key=lambda end: abs(end - 0.5)))
    guidance.classifier_free(model, labels, NULL, 2.0, interval)(x, t)
    assert model.batches == [6]


@pytest.mark.parametrize(
    ("closed", "inside"), [("both", (True, True)), ("low", (True, False)), ("high", (False, True)), ("neither", (False, False))]
)
def test_an_end_belongs_to_its_interval_where_that_is_said(closed, inside):
    """JiT's is t < high and t > low or low = 0 of its time, MCG-NJU/DDT's is open at both ends; a grid point may lie exactly on an end."""
    times = 1 - torch.linspace(0, 1, 51)  # of JiT's 50 steps
    for time, guided in [(times[45], inside[0]), (times[5], inside[1]), (times[44], True), (times[6], True), (times[46], False)]:
        model, (x, t, labels) = Model(), batch(0, time.item())
        guidance.classifier_free(model, labels, NULL, 2.0, (0.1, 0.9), closed=closed)(x, t)
        weak = Model()
        guidance.autoguidance(model, weak, labels, 2.0, (0.1, 0.9), closed=closed)(x, t)
        assert (model.batches[0], weak.batches) == ((6, [3]) if guided else (3, []))


@given(st.integers(0, 1000), st.integers(1, 2))
def test_guided_channels_are_the_first_and_the_others_conditional(seed, channels):
    (x, t, labels), model, weak = batch(seed, 0.5), Model(), Model(0.5)
    plain = model(x, t, labels)
    ways = {"channels": channels}, {}
    for some, all_ in (
        [guidance.classifier_free(model, labels, NULL, 2.0, **way)(x, t) for way in ways],
        [guidance.autoguidance(model, weak, labels, 2.0, **way)(x, t) for way in ways],
    ):
        assert torch.equal(some[:, :channels], all_[:, :channels])
        assert torch.equal(some[:, channels:], plain[:, channels:])


def test_the_full_interval_holds_every_time():
    schedules = [samplers.ode_times(3, shift / 100, "data") for shift in range(10, 1000)]
    assert max(times[0].item() for times in schedules) > 1  # float32 rounds some shifted times upwards
    model, (x, _, labels) = Model(), batch(0, 1.0)
    guided = guidance.classifier_free(model, labels, NULL, 2.0)
    for times in schedules:
        samplers.euler(guided, x, times)
    assert set(model.batches) == {6}


@given(st.integers(0, 1000), st.floats(0, 1), st.floats(1.01, 5))
def test_autoguidance_starts_from_the_weak_model(seed, t, scale):
    (x, t, labels), model, weak = batch(seed, t), Model(), Model(0.5)
    bad = weak(x, t, labels)
    assert torch.equal(guidance.autoguidance(model, weak, labels, scale)(x, t), bad + scale * (model(x, t, labels) - bad))


@given(st.integers(0, 1000), st.floats(0.1, 1), st.floats(1.01, 5))
def test_guiding_data_or_velocity_is_the_same(seed, t, scale):
    (x, t, labels), model = batch(seed, t), Model()

    def as_velocity(x, t, labels):
        return velocity(x, model(x, t, labels), t, "data", 0.05)

    of_outputs = velocity(x, guidance.classifier_free(model, labels, NULL, scale)(x, t), t, "data", 0.05)
    assert torch.allclose(of_outputs, guidance.classifier_free(as_velocity, labels, NULL, scale)(x, t), rtol=1e-5, atol=1e-3)


@given(st.integers(0, 1000), st.integers(1, 4))
def test_guidance_does_not_depend_on_the_batch(seed, cut):
    (x, t, labels), model = batch(seed, 0.5, count=5), Model()
    whole = guidance.classifier_free(model, labels, NULL, 2.0)(x, t)
    parts = [guidance.classifier_free(model, labels[i], NULL, 2.0)(x[i], t[i]) for i in (slice(cut), slice(cut, None))]
    assert torch.allclose(whole, torch.cat(parts), atol=1e-6)  # sin is vectorised: its last bit depends on the place in memory


@pytest.mark.parametrize("interval", [(0.7, 0.3), (-0.1, 0.5), (0.5, 1.1), ((0.0, 0.5), (0.6, 1.0)), (0.5,), 0.5])
def test_intervals_that_are_no_pair_of_times_are_refused(interval):
    labels = torch.zeros(1, dtype=torch.long)
    with pytest.raises(UserError, match="guidance interval"):
        guidance.classifier_free(Model(), labels, NULL, 2.0, interval)
    with pytest.raises(UserError, match="guidance interval"):
        guidance.autoguidance(Model(), Model(), labels, 2.0, interval)
