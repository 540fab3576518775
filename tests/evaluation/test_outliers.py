import json

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.denoiser.lightningdit import LightningDiT
from harness.evaluation.outcome import scores_by
from harness.evaluation.outlier_scores import FUNCTIONS, Tokens, layer_of, norm_statistics
from harness.evaluation.outliers import denoiser_norms, filtered
from harness.machine.streams import stream
from harness.results.schema import NONE, ScoreFile
from harness.results.scores import thresholds_of
from harness.store import artifacts


@given(st.integers(0, 1000), st.integers(0, 20), st.floats(10, 100))
def test_share_counts_what_was_put_in(seed, outliers, size):
    norms = torch.rand(100, generator=stream(seed, "test")) * 0.5 + 0.75  # within 0.75 and 1.25: none above 3 x median
    norms[:outliers] = size
    statistics = norm_statistics(norms, 3.0)
    assert statistics["share"] == pytest.approx(outliers / 100)
    assert statistics["max_over_median"] == pytest.approx(statistics["max"] / statistics["median"])


@given(st.floats(1e-3, 1e3))
def test_statistics_do_not_depend_on_the_scale(scale):
    norms = torch.rand(64, generator=stream(1, "test"), dtype=torch.float64) ** 4
    one, other = norm_statistics(norms, 3.0), norm_statistics(norms * scale, 3.0)
    assert one["share"] == other["share"]
    assert one["max_over_median"] == pytest.approx(other["max_over_median"])


def test_an_images_share_is_of_its_own_tokens_and_the_interval_of_their_mean_is_of_images():
    norms = torch.ones(50, 16)
    norms[:5] = 10.0  # five images of outliers alone
    layer = layer_of("encoder", 3, None, norms, 3.0)
    assert layer.shares.tolist() == [1.0] * 5 + [0.0] * 45
    layers = [layer, layer_of("encoder", 4, None, torch.ones(50, 16), 3.0)]
    scores = scores_by(FUNCTIONS, ["encoder_outlier_share", "encoder_max_over_median"], Tokens(50, NONE, ("encoder", NONE), layers))
    assert scores["encoder_outlier_share"].value == 0.1
    half = (scores["encoder_outlier_share"].high - scores["encoder_outlier_share"].low) / 2
    assert half == pytest.approx(1.96 * (0.1 * 0.9 / 50) ** 0.5, rel=0.2)  # of 50 images, not of 800 tokens
    assert scores["encoder_max_over_median"].how == "none: a maximum"


def test_registers_are_not_counted():
    torch.manual_seed(0)
    model = LightningDiT(input_size=4, in_channels=8, hidden_size=32, depth=3, num_heads=2, num_classes=10, registers=4, register_start=1)
    args = (torch.randn(2, 8, 4, 4), torch.randn(2, 8, 4, 4), torch.tensor([0, 1]), 0.5)
    before = denoiser_norms(model, *args)
    assert [tuple(n.shape) for n in before] == [(2, 16)] * 4  # three blocks, and the final layer
    model.register_tokens.data.mul_(1e6)  # adaLN is zero at the start, so blocks pass the registers through unchanged
    assert max(n.max() for n in denoiser_norms(model, *args)) < 1e3


def test_files_hold_every_layer_block_and_noise_level(study, runs):
    folder = runs.runs["dsr"][0]
    table = pd.read_parquet(folder / "outliers.parquet")
    encoder, denoiser = (table[table["part"] == part] for part in ("encoder", "denoiser"))
    assert encoder["layer"].tolist() == list(range(-1, study.encoder.depth))
    assert len(denoiser) == study.denoiser.depth * len(study.outlier_statistics.times)
    file = ScoreFile.model_validate(json.loads((folder / "outliers.json").read_text(encoding="utf-8")))
    assert file.scores["encoder_outlier_share"].value == encoder["share"].max()
    assert file.scores["denoiser_max_over_median"].value == denoiser["max_over_median"].max()
    assert file.scores["encoder_outlier_share"].extractor == file.encoder
    assert file.scores["denoiser_outlier_share"].extractor == file.denoiser
    masked = {name for name in file.scores if name.startswith("filtered_share@")}
    assert {(score.n, score.reference) for name, score in file.scores.items() if name not in masked} == {
        (study.outlier_statistics.images, file.latents)
    }
    assert {file.scores[name].value for name in masked} == {0.0}  # the method has no loss mask
    for place, lines in [("output", table[table["part"] == "output"]), ("block2", denoiser[denoiser["layer"] == 2])]:
        assert file.scores[f"denoiser_outlier_share@{place}"].value == pytest.approx(lines["share"].mean())


def test_a_mask_leaves_out_what_the_training_did(study, runs):
    folder = runs.runs["masked"][0]
    file = ScoreFile.model_validate(json.loads((folder / "outliers.json").read_text(encoding="utf-8")))
    shares = [file.scores[f"filtered_share@{place}"].value for place in thresholds_of(study)]
    assert shares == sorted(shares, reverse=True)
    assert shares[2] == pytest.approx(artifacts.meta(folder / "denoiser.safetensors")["filtered_share"])  # both at 3 x the median
    assert 0 < shares[2] < shares[0] < 1


def test_the_norm_after_the_final_layer_norm_is_constant_and_a_mask_of_it_leaves_nothing_out(study, built):
    scores = filtered(study, "masked-post_ln", built.encoders["plain"].latents)
    assert {score.value for score in scores.values()} == {0.0}
    shares = [
        [score.value for score in filtered(study, f"masked-{norm}", built.encoders["plain"].latents).values()]
        for norm in ("pre_ln", "whitened")
    ]
    assert shares[0] != shares[1]
    assert all(of_norm == sorted(of_norm, reverse=True) for of_norm in shares)


def test_test_time_registers_take_the_outliers_away(runs):
    def share(method):
        return json.loads((runs.runs[method][0] / "outliers.json").read_text(encoding="utf-8"))["scores"]["encoder_outlier_share"]["value"]

    assert share("baseline") > 0.01
    assert share("dsr") < 0.1 * share("baseline")
