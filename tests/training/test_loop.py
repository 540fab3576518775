import math
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.store.tensors import CHECKPOINT, load_checkpoint, save_checkpoint
from harness.study.sections.training import Schedule, Training
from harness.study.typed import UserError
from harness.training import checkpoint, loop
from harness.training.ema import Weights
from harness.training.order import batch_indices

TRAINING = Training(steps=60, batch=4, lr=1e-2)
IMAGES = 40
FAULTS = ["loss is nan", "loss is infinite", "gradient is nan"]


def interrupt():
    raise KeyboardInterrupt


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def model_and_loss(faults=None, stop_at=None, stop=interrupt):
    """`faults`: what is wrong at a step; `stop` is called at `stop_at`."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)

    def loss(step, generator):
        if step == stop_at:
            stop()
        x = torch.randn(4, 3, generator=generator)
        value = model(x).square().mean()
        match (faults or {}).get(step):
            case "loss is nan":
                return value * math.nan
            case "loss is infinite":
                return value * math.inf
            case "gradient is nan":
                return value + (model.weight.sum() * 0).sqrt()
        return value

    return model, loss


def run(folder, ema=0.9, training=TRAINING, record=None, **kwargs):
    model, loss = model_and_loss(**kwargs)
    averages = [ema] if ema else []
    return loop.fit(model, loss, training, images=IMAGES, name="test", seed=3, state=Path(folder), ema=averages, outcome=record)[0]


@pytest.fixture
def often(monkeypatch):
    """A checkpoint at every look."""
    monkeypatch.setattr(loop, "SAVE_EVERY", 0)
    monkeypatch.setattr(loop, "SAVE_SHARE", 1e9)


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("stop_at", [1, 20, 37, 59])
def test_a_run_that_was_stopped_ends_in_the_same_bytes(tmp_path, often, stop_at, ema):
    whole = {k: v.clone() for k, v in run(tmp_path / "whole", ema).items()}
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", ema, stop_at=stop_at)
    resumed = run(tmp_path / "parts", ema)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_loss_that_stays_nan_names_step_and_rate_and_keeps_the_checkpoint(tmp_path, often):
    faults = dict.fromkeys(range(43, 60), "loss is nan")
    message = (
        r"test: 17 steps had no finite loss or gradient, training.skips allows 10: step 53, learning rate [0-9.e-]+; lower training.lr"
    )
    with pytest.raises(loop.Diverged, match=message) as caught:
        run(tmp_path, faults=faults)
    assert "\n" not in str(caught.value)
    assert (caught.value.step, caught.value.count) == (53, 17)
    tensors, facts = load_checkpoint(tmp_path)
    assert facts["step"] == 40
    assert all(torch.isfinite(value).all() for value in tensors.values())
    assert run(tmp_path)  # the partial run goes on


def without_updates(steps, folder, ema=0.9, training=TRAINING):
    """A run whose optimiser does nothing at `steps`."""
    original = Weights.update

    def update(weights, training, lr, step, loss):
        if step not in steps:
            original(weights, training, lr, step, loss)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Weights, "update", update)
        return run(folder, ema, training)


@given(
    faults=st.dictionaries(st.integers(0, 23), st.sampled_from(FAULTS), max_size=5),
    clip=st.sampled_from([0.0, 0.5]),
    ema=st.sampled_from([0.0, 0.9]),
)
def test_a_step_that_is_not_finite_changes_nothing(faults, clip, ema):
    training = TRAINING.model_copy(update={"steps": 24, "clip": clip, "skips": 5, "weight_decay": 0.1})
    with tempfile.TemporaryDirectory() as folder:
        record = {}
        skipping = run(f"{folder}/a", ema, training, record, faults=faults)
        skipping = {name: value.clone() for name, value in skipping.items()}
        wanted = without_updates(faults, f"{folder}/b", ema, training)
    assert record["skipped_steps"] == len(faults)
    assert [loss is None for loss in record["losses"]] == [step in faults for step in range(24)]
    assert all(torch.equal(skipping[name], value) for name, value in wanted.items())


@given(faults=st.sets(st.integers(0, 59), min_size=1, max_size=8), skips=st.integers(0, 7))
def test_more_skipped_steps_than_allowed_end_the_training(faults, skips):
    training = TRAINING.model_copy(update={"skips": skips})
    faults = dict.fromkeys(faults, "loss is nan")
    with tempfile.TemporaryDirectory() as folder:
        if len(faults) <= skips:
            run(folder, training=training, faults=faults)
            return
        with pytest.raises(loop.Diverged) as caught:
            run(folder, training=training, faults=faults)
    assert caught.value.step == sorted(faults)[skips]
    assert all(value.isfinite().all() for kept in caught.value.kept for value in kept.values())


@pytest.mark.parametrize("faults", [{7: "loss is nan", 35: "gradient is nan"}, dict.fromkeys((7, 15, 35), "loss is infinite")])
def test_skipped_steps_and_the_loss_curve_survive_a_stop(tmp_path, often, faults):
    def outcome(folder, **kwargs):
        record = {}
        try:
            kept = run(folder, training=TRAINING.model_copy(update={"skips": 2}), record=record, faults=faults, **kwargs)
            return record, {name: value.clone() for name, value in kept.items()}
        except loop.Diverged as error:
            return record, error.kept[0] | {"step": torch.tensor(error.step)}

    record, whole = outcome(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        outcome(tmp_path / "parts", stop_at=30)
    again, resumed = outcome(tmp_path / "parts")
    assert again == record
    assert record["skipped_steps"] == len(faults)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_run_whose_last_checkpoint_is_its_end_knows_its_losses(tmp_path, often):
    first, again = {}, {}
    run(tmp_path, record=first, faults={7: "loss is nan"})
    run(tmp_path, record=again)
    assert again == first


@given(steps=st.integers(1, 1000), done=st.integers(1, 1000), seed=st.integers(0, 9))
def test_the_curve_is_the_mean_of_equal_windows(steps, done, seed):
    losses = torch.rand(min(done, steps), generator=torch.Generator().manual_seed(seed))
    losses[::7] = math.nan
    curve, size = loop.curve(losses, steps), math.ceil(steps / loop.WINDOWS)
    assert len(curve) == math.ceil(len(losses) / size) <= loop.WINDOWS
    for i, mean in enumerate(curve):
        finite = [value for value in losses[i * size : (i + 1) * size].tolist() if math.isfinite(value)]
        assert mean == (pytest.approx(sum(finite) / len(finite)) if finite else None)


@pytest.mark.parametrize("spoil", [lambda content: content[:100], lambda content: content[:-1] + bytes([content[-1] ^ 1])])
def test_a_spoiled_checkpoint_costs_time_not_bytes(tmp_path, often, spoil):
    whole = {name: value.clone() for name, value in run(tmp_path / "whole").items()}
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", stop_at=50)
    checkpoint = tmp_path / "parts" / CHECKPOINT
    checkpoint.write_bytes(spoil(checkpoint.read_bytes()))
    resumed = run(tmp_path / "parts")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_checkpoint_of_another_run_is_one_line(tmp_path):
    save_checkpoint(tmp_path, {"other": torch.zeros(1)}, step=20)
    with pytest.raises(UserError, match="its checkpoint is of another run") as caught:
        run(tmp_path)
    assert "\n" not in str(caught.value)


KILLED = """
import sys
sys.path[:0] = sys.argv[1:3]
import test_loop
from harness.machine import device as runtime
runtime.set_up(1)
test_loop.loop.SAVE_EVERY, test_loop.loop.SAVE_SHARE = 0, 1e9
test_loop.run(sys.argv[3], stop_at=47, stop=test_loop.kill)
"""


def test_a_killed_process_leaves_what_another_ends_in_the_same_bytes(tmp_path, often):
    here = Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", KILLED, here, here.parents[1], tmp_path / "parts"], check=False)
    assert done.returncode == -signal.SIGKILL
    assert load_checkpoint(tmp_path / "parts")[1]["step"] == 40
    whole = {name: value.clone() for name, value in run(tmp_path / "whole").items()}
    resumed = run(tmp_path / "parts")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def watched(monkeypatch, clock):
    """Steps at which a training with this clock saves."""
    steps, save = [], checkpoint.State.save
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=clock))
    monkeypatch.setattr(checkpoint.State, "save", lambda self, folder, step: (save(self, folder, step), steps.append(step)))
    return steps


@pytest.mark.parametrize("jump", [1e6, -1e6])
def test_a_clock_that_jumps_changes_no_byte_and_stops_no_checkpoint(tmp_path, monkeypatch, jump):
    whole = {name: value.clone() for name, value in run(tmp_path / "whole").items()}
    now = [0.0]

    def clock():
        now[0] += jump
        return now[0]

    steps = watched(monkeypatch, clock)
    jumped = run(tmp_path / "jumped")
    assert steps == [20, 40, 60]
    assert all(torch.equal(whole[name], jumped[name]) for name in whole)


def test_a_clock_that_jumps_while_a_checkpoint_is_written_delays_the_next_by_an_hour_at_most(tmp_path, monkeypatch):
    times = iter([0.0, 11.0, 12.0, 1e12, 1e12 + 3000, 1e12 + 3601, 1e12 + 3602, 1e12 + 3603])
    steps = watched(monkeypatch, lambda: next(times))
    run(tmp_path)
    assert steps == [20, 60]


def test_kept_weights_are_the_average_only_with_ema(tmp_path):
    raw, averaged = run(tmp_path / "a", ema=0.0), run(tmp_path / "b", ema=0.99)
    assert not torch.equal(raw["weight"], averaged["weight"])


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 40), batch=st.integers(1, 50))
def test_every_epoch_is_a_permutation(seed, count, batch):
    size = min(batch, count)
    steps = count // size
    rows = torch.cat([batch_indices(seed, step, count, batch) for step in range(steps, 2 * steps)])
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


def with_opponent(folder, stop_at=None, faults=(), record=None, training=TRAINING):
    """A model and a discriminator with a spectral norm, whose buffers move. `faults`: steps at which the discriminator's loss is NaN."""
    torch.manual_seed(0)
    model, judge = torch.nn.Linear(3, 2), torch.nn.utils.spectral_norm(torch.nn.Linear(2, 1))

    def loss(step, generator):
        if step == stop_at:
            raise KeyboardInterrupt
        return -judge(model(torch.randn(4, 3, generator=generator))).mean()

    def against(step, generator):
        real = torch.randn(4, 2, generator=generator)
        value = judge(model(real.new_zeros(4, 3)).detach()).mean() - judge(real).mean()
        return value * math.nan if step in faults else value

    opponent = loop.Opponent(judge, against, start=10)
    [kept] = loop.fit(model, loss, training, images=IMAGES, name="test", seed=3, state=folder, opponent=opponent, outcome=record)
    return {**kept, **{f"judge.{name}": value.clone() for name, value in judge.state_dict().items()}}


@pytest.mark.parametrize("stop_at", [5, 30])
def test_an_adversarial_run_that_was_stopped_ends_in_the_same_bytes(tmp_path, monkeypatch, often, stop_at):
    whole = with_opponent(tmp_path / "whole")
    monkeypatch.setattr(loop, "CHECK_EVERY", 4)
    with pytest.raises(KeyboardInterrupt):
        with_opponent(tmp_path / "parts", stop_at=stop_at)
    resumed = with_opponent(tmp_path / "parts")
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_steps_of_the_opponent_are_skipped_and_counted_too(tmp_path):
    record, faults = {}, (12, 40, 41)
    kept = with_opponent(tmp_path / "a", faults=faults, record=record)
    assert record["skipped_steps"] == 3
    assert None not in record["losses"]  # the curve is the model's own
    assert all(value.isfinite().all() for value in kept.values())
    with pytest.raises(loop.Diverged) as caught:
        with_opponent(tmp_path / "b", faults=faults, training=TRAINING.model_copy(update={"skips": 2}))
    assert caught.value.step == 41
