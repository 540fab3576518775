"""What sampling says that it was: counted and read where the network is called, not where the study is."""

import json

import numpy as np
import pytest
import torch

from harness.denoiser.calls import in_words, times_of_calls, with_times
from harness.denoiser.sample import draw_samples
from harness.store import artifacts
from harness.store.artifacts import read_json
from harness.study.typed import UserError
from harness.training.ema import Weights


class Model(torch.nn.Module):
    def forward(self, x, _t, _labels):
        return x


def test_times_are_those_of_the_calls():
    model = Model()

    def make(indices):
        for time in (1.0, 0.5, 0.25):
            model(torch.zeros(2, 1), torch.full((2,), time), None)
        return {"images": np.zeros(len(indices))}

    made = with_times(model, make)(range(4))
    assert made["times"].tolist() == [[1.0, 0.5, 0.25]] * 4
    assert made["images"].shape == (4,)
    with times_of_calls(model) as times:
        pass
    model(torch.zeros(1), torch.zeros(1), None)
    assert times == []
    words = in_words(made["times"], 0.98)
    assert words.startswith("3 calls from t = 1 to 0.25 (")
    assert words.endswith(") of weights averaged with 0.98")
    assert in_words(made["times"] + 1e-9, 0.98) == words  # another device's rounding
    assert len({words, in_words(made["times"][:, :2], 0.98), in_words(made["times"] ** 2, 0.98), in_words(made["times"], 0.0)}) == 4
    made["times"][3, 1] = 0.4
    with pytest.raises(UserError, match="drawn at different times"):
        in_words(made["times"], 0.98)


def redrawn(runs, tmp_path, **changes):
    """What the record says of samples of the baseline's seed 0, drawn again with a changed study."""
    run, encoder = runs.runs["baseline"][0], runs.encoders["plain"]
    study = runs.study.model_copy(update={name: getattr(runs.study, name).model_copy(update=change) for name, change in changes.items()})
    out = tmp_path / "samples.npz"
    draw_samples(
        study, method="baseline", seeds=[0], denoisers=[run / "denoiser.safetensors"], decoder=encoder.decoder, latents=encoder.latents,
        state=tmp_path / "state", out=[out],
    )  # fmt: skip
    return artifacts.meta(out)["sampled"]


def test_rows_hold_what_their_samples_were_drawn_with(runs, tmp_path):
    run = runs.runs["baseline"][0]
    sampled = artifacts.meta(run / "samples.npz")["sampled"]
    calls = runs.study.sampling.nfe
    assert sampled.startswith(f"{calls} calls from t = 1 to ")
    assert sampled.endswith("weights averaged with 0.571429")  # the warm-up's (1 + step) / (10 + step), at step 11
    assert read_json(run / "scores.json")["sampled"] == sampled
    assert json.loads((run / "outliers.json").read_text(encoding="utf-8"))["sampled"] == "none"
    assert redrawn(runs, tmp_path / "same") == sampled
    shift = runs.study.denoiser.time_shift
    others = [
        redrawn(runs, tmp_path / "shift", denoiser={"time_shift": 4 * shift}),
        redrawn(runs, tmp_path / "steps", sampling={"grid_points": runs.study.sampling.grid_points - 1}),
    ]
    assert len({sampled, *others}) == 3
    assert others[1].startswith(f"{calls - 1} calls")


def test_the_decay_is_the_one_that_moved_the_averages():
    weights = Weights(torch.nn.Linear(2, 2), [0.9, 0.5], steps=1)
    weights.follow([0.9, 0.25])
    assert weights.decays.tolist() == [0.9, 0.25]
