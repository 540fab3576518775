import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness import artifacts
from harness.config import UserError
from harness.sections import Schedule, Training
from harness.train import loop

TRAINING = Training(steps=60, batch=4, lr=1e-2)
IMAGES = 40


def model_and_loss(nan_at=None, stop_at=None):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)

    def loss(step, generator):
        if step == stop_at:
            raise KeyboardInterrupt
        x = torch.randn(4, 3, generator=generator)
        factor = float("nan") if nan_at is not None and step >= nan_at else 1.0
        return model(x).square().mean() * factor

    return model, loss


def run(state, ema=0.9, training=TRAINING, **kwargs):
    model, loss = model_and_loss(**kwargs)
    return loop.fit(model, loss, training, images=IMAGES, name="test", seed=3, state=state, ema=[ema] if ema else [])[0]


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("stop_at", [1, 20, 37, 59])
def test_a_run_that_was_stopped_ends_in_the_same_bytes(tmp_path, monkeypatch, stop_at, ema):
    whole = {k: v.clone() for k, v in run(tmp_path / "whole", ema).items()}
    monkeypatch.setattr(loop, "SAVE_EVERY", 0)
    monkeypatch.setattr(loop, "SAVE_SHARE", 1e9)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", ema, stop_at=stop_at)
    resumed = run(tmp_path / "parts", ema)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_loss_that_turns_nan_names_step_and_rate_and_keeps_the_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", 0)
    monkeypatch.setattr(loop, "SAVE_SHARE", 1e9)
    with pytest.raises(UserError, match=r"test: the loss is nan at step 43, learning rate [0-9.e-]+; lower training.lr") as caught:
        run(tmp_path, nan_at=43)
    assert "\n" not in str(caught.value)
    tensors, metadata = artifacts.load_tensors(tmp_path / "checkpoint.safetensors", check=False)
    assert metadata["step"] == 40
    assert all(torch.isfinite(value).all() for value in tensors.values())
    assert run(tmp_path)  # the partial run goes on


def test_a_truncated_checkpoint_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", 0)
    monkeypatch.setattr(loop, "SAVE_SHARE", 1e9)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, stop_at=30)
    checkpoint = tmp_path / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(UserError, match="not a checkpoint of this run"):
        run(tmp_path)


def test_kept_weights_are_the_average_only_with_ema(tmp_path):
    raw, averaged = run(tmp_path / "a", ema=0.0), run(tmp_path / "b", ema=0.99)
    assert not torch.equal(raw["weight"], averaged["weight"])


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 40), batch=st.integers(1, 50))
def test_every_epoch_is_a_permutation(seed, count, batch):
    size = min(batch, count)
    steps = count // size
    rows = torch.cat([loop.batch_indices(seed, step, count, batch) for step in range(steps, 2 * steps)])
    assert len(set(rows.tolist())) == len(rows) == steps * size
    assert rows.max() < count


def test_clipping_bounds_the_gradient_and_nothing_else(tmp_path):
    def trained(clip):
        model, loss = model_and_loss()
        training = TRAINING.model_copy(update={"clip": clip})
        return loop.fit(model, loss, training, images=IMAGES, name="test", seed=3, state=tmp_path / str(clip))[0]

    free, wide, tight = trained(0.0), trained(1e9), trained(1e-9)
    assert torch.equal(free["weight"], wide["weight"])
    assert not torch.equal(free["weight"], tight["weight"])


def test_schedule_warms_up_and_ends_near_zero():
    values = [loop.rate(step, Training(steps=100, batch=4, lr=1.0), IMAGES) for step in range(100)]
    assert values[:5] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert values[5:] == sorted(values[5:], reverse=True)
    assert 0 < values[-1] < 0.01


def test_schedule_of_the_released_ditdh():  # 2e-4 for 40 epochs, then linear to 2e-5 at epoch 800
    schedule = Schedule(decay="linear", warm_up=0, hold=40, until=800, final=0.1)
    training = Training(epochs=1400, batch=1024, lr=2e-4, schedule=schedule)
    epoch = training.epoch(1281167)
    assert epoch == 1251
    rates = {at: training.lr * loop.rate(at * epoch, training, 1281167) for at in (0, 39, 40, 420, 800, 1399)}
    assert rates == pytest.approx({0: 2e-4, 39: 2e-4, 40: 2e-4, 420: 1.1e-4, 800: 2e-5, 1399: 2e-5})


@given(
    decay=st.sampled_from(["constant", "cosine", "linear"]),
    lengths=st.tuples(st.floats(0, 2), st.floats(0, 2), st.floats(0.1, 9)),
    final=st.floats(0, 1),
)
def test_schedule_stays_between_its_final_value_and_one(decay, lengths, final):
    warm_up, hold, until = lengths[0], lengths[1], sum(lengths)
    schedule = Schedule(decay=decay, warm_up=warm_up, hold=hold, until=until, final=final)
    training = Training(epochs=4, batch=5, lr=1.0, schedule=schedule)
    values = [loop.rate(step, training, IMAGES) for step in range(training.length(IMAGES))]
    assert all(0 < value <= 1 for value in values if final)
    after = values[round(warm_up * training.epoch(IMAGES)) :]
    assert after == sorted(after, reverse=True)
    assert min(after, default=1) >= final - 1e-12


def accumulated(parts, state):
    """A model trained on the same data in micro-batches."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)

    def loss(step, generator):
        x = torch.randn(4, 3, generator=generator)
        for part in x.split(4 // parts):
            yield model(part).square().mean() * (len(part) / len(x))

    return loop.fit(model, loss, TRAINING, images=IMAGES, name="test", seed=3, state=state)[0]


def test_trap3_gradients_of_micro_batches_add_up(tmp_path):  # the released train.py:416 forgets all but the last
    whole, halves, quarters = (accumulated(parts, tmp_path / str(parts)) for parts in (1, 2, 4))
    for name in whole:
        torch.testing.assert_close(halves[name], whole[name], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(quarters[name], whole[name], rtol=1e-4, atol=1e-6)


def test_trap1_averages_are_kept_at_every_decay_and_the_model_ends_with_the_first(tmp_path):
    """The released train.py:244-249 evaluates raw weights as if they were averaged."""
    decays = [0.5, 0.9, 0.0]
    model, loss = model_and_loss()
    together = loop.fit(model, loss, TRAINING, images=IMAGES, name="test", seed=3, state=tmp_path / "s", ema=decays, ema_warm_up=False)
    raw = run(tmp_path / "raw", ema=0.0)
    for decay, average in zip(decays, together, strict=True):
        model_alone, loss = model_and_loss()
        [alone] = loop.fit(
            model_alone, loss, TRAINING, images=IMAGES, name="test", seed=3, state=tmp_path / str(decay), ema=[decay], ema_warm_up=False
        )
        assert torch.equal(alone["weight"], average["weight"])
    assert torch.equal(together[2]["weight"], raw["weight"])  # decay 0 follows the weights exactly
    assert not torch.equal(together[0]["weight"], raw["weight"])
    assert torch.equal(model.weight, together[0]["weight"])


def test_average_follows_its_formula(tmp_path):
    seen = []
    model, loss = model_and_loss()
    expected = model.weight.detach().clone()

    def watched(step, generator):
        if step:
            seen.append(model.weight.detach().clone())
        return loss(step, generator)

    [average] = loop.fit(model, watched, TRAINING, images=IMAGES, name="test", seed=3, state=tmp_path, ema=[0.9], ema_warm_up=False)
    raw = run(tmp_path / "raw", ema=0.0)
    for weight in [*seen, raw["weight"]]:
        expected = 0.9 * expected + 0.1 * weight
    torch.testing.assert_close(average["weight"], expected)


def with_opponent(state, stop_at=None):
    """A model and a discriminator with a spectral norm, whose buffers move."""
    torch.manual_seed(0)
    model, judge = torch.nn.Linear(3, 2), torch.nn.utils.spectral_norm(torch.nn.Linear(2, 1))

    def loss(step, generator):
        if step == stop_at:
            raise KeyboardInterrupt
        return -judge(model(torch.randn(4, 3, generator=generator))).mean()

    def against(step, generator):
        real = torch.randn(4, 2, generator=generator)
        return judge(model(real.new_zeros(4, 3)).detach()).mean() - judge(real).mean()

    opponent = loop.Opponent(judge, against, start=10)
    [kept] = loop.fit(model, loss, TRAINING, images=IMAGES, name="test", seed=3, state=state, opponent=opponent)
    return {**kept, **{f"judge.{name}": value.clone() for name, value in judge.state_dict().items()}}


@pytest.mark.parametrize("stop_at", [5, 30])
def test_an_adversarial_run_that_was_stopped_ends_in_the_same_bytes(tmp_path, monkeypatch, stop_at):
    whole = with_opponent(tmp_path / "whole")
    monkeypatch.setattr(loop, "SAVE_EVERY", 0)
    monkeypatch.setattr(loop, "SAVE_SHARE", 1e9)
    monkeypatch.setattr(loop, "CHECK_EVERY", 4)
    with pytest.raises(KeyboardInterrupt):
        with_opponent(tmp_path / "parts", stop_at=stop_at)
    resumed = with_opponent(tmp_path / "parts")
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
