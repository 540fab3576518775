import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness import artifacts
from harness.config import Training, UserError
from harness.train import loop

TRAINING = Training(steps=60, batch=4, lr=1e-2)


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


def run(state, ema=0.9, **kwargs):
    model, loss = model_and_loss(**kwargs)
    return loop.fit(model, loss, TRAINING, name="test", seed=3, state=state, ema=ema)


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("stop_at", [1, 20, 37, 59])
def test_a_run_that_was_stopped_ends_in_the_same_bytes(tmp_path, monkeypatch, stop_at, ema):
    whole = {k: v.clone() for k, v in run(tmp_path / "whole", ema).items()}
    monkeypatch.setattr(loop, "SAVE_EVERY", 0)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", ema, stop_at=stop_at)
    resumed = run(tmp_path / "parts", ema)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_loss_that_turns_nan_names_step_and_rate_and_keeps_the_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", 0)
    with pytest.raises(UserError, match=r"test: the loss is nan at step 43, learning rate [0-9.e-]+; lower training.lr") as caught:
        run(tmp_path, nan_at=43)
    assert "\n" not in str(caught.value)
    tensors, metadata = artifacts.load_tensors(tmp_path / "checkpoint.safetensors", check=False)
    assert metadata["step"] == 40
    assert all(torch.isfinite(value).all() for value in tensors.values())
    assert run(tmp_path)  # the partial run goes on


def test_a_truncated_checkpoint_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", 0)
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
        return loop.fit(model, loss, TRAINING.model_copy(update={"clip": clip}), name="test", seed=3, state=tmp_path / str(clip))

    free, wide, tight = trained(0.0), trained(1e9), trained(1e-9)
    assert torch.equal(free["weight"], wide["weight"])
    assert not torch.equal(free["weight"], tight["weight"])


def test_schedule_warms_up_and_ends_near_zero():
    values = [loop.schedule(step, 100) for step in range(100)]
    assert values[:5] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert values[5:] == sorted(values[5:], reverse=True)
    assert 0 < values[-1] < 0.01
