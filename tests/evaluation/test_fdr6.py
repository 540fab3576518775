"""FDr6: the ratios, their mean, what it is refused for; and the Inception Score by diffusionbench-evals' splits."""

import numpy as np
import pytest
import torch
from golden import golden, normal

from harness.evaluation.bootstrap import Z
from harness.evaluation.fdr6 import VALIDATION, fdr6, mean_ratio, ratios, refusal
from harness.evaluation.frechet import Frechet
from harness.evaluation.inception_score import inception_score, of_whole_splits
from harness.evaluation.outcome import Stop
from harness.evaluation.reference_statistics import ReferenceStatistics
from harness.parity.fdr6 import NAMES
from harness.study.sections.extractors import EXTRACTORS
from harness.study.typed import UserError

SIX = {
    "inception": 3.1727,
    "convnext_fdr6": 102.8158,
    "dinov2_fdr6": 25.7364,
    "mae_fdr6": 0.0829,
    "siglip_fdr6": 0.6464,
    "clip_fdr6": 9.6682,
}


def spread(error):
    return {name: [value + error * step for step in (-1, 0, 1)] for name, value in SIX.items()}


def test_the_ratios_and_their_mean_are_the_recorded_ones():
    _, values = golden("fdr6_frechet")
    wanted = values["fdr6"]
    assert {NAMES[name]: value for name, value in wanted["fd"].items()} == SIX
    assert {NAMES[name]: value for name, value in wanted["val_fd"].items()} == VALIDATION
    assert ratios(SIX) == {NAMES[name]: pytest.approx(value, rel=1e-14) for name, value in wanted["ratios"].items()}
    assert mean_ratio(SIX) == pytest.approx(wanted["fdr6"], rel=1e-14)
    for missing in SIX:
        assert mean_ratio({name: value for name, value in SIX.items() if name != missing}) is wanted["fdr6_if_one_missing"] is None
    assert mean_ratio(VALIDATION) == 1  # by construction


def test_its_extractors_are_those_that_are_defined_for_it():
    assert set(VALIDATION) == {name for name, info in EXTRACTORS.items() if "FDr6" in info.used_in.split(", ")}


def test_it_is_refused_where_it_is_not_defined():
    assert not refusal(50_000, imagenet=True)
    for n, imagenet, says in [
        (49_999, True, "FDr6 is defined for 50,000 samples, there are 49,999; here the plain Frechet distances stand"),
        (50_000, False, "FDr6 is defined against statistics of ImageNet's training images alone"),
    ]:
        with pytest.raises(UserError, match=says):
            fdr6(SIX, spread(0.1), n, imagenet)
    with pytest.raises(UserError, match=r"unknown extractor of FDr6 'clip_fdr5', did you mean 'clip_fdr6'\?"):
        ratios({"clip_fdr5": 1.0})


def test_it_comes_with_its_six_ratios_and_what_the_networks_share_is_in_its_error():
    outcomes = fdr6(SIX, spread(0.01), 50_000, imagenet=True)
    assert set(outcomes) == {"fdr6", *(f"fdr_{name}" for name in SIX)}
    assert outcomes["fdr6"].value == pytest.approx(mean_ratio(SIX))
    halves = {name: (one.high - one.low) / 2 for name, one in outcomes.items()}
    assert halves["fdr_clip_fdr6"] == pytest.approx(Z * 0.01 / 5.6)
    assert halves["fdr6"] == pytest.approx(sum(halves[f"fdr_{name}"] for name in SIX) / 6)  # they move together here
    assert outcomes["fdr_mae_fdr6"].how.endswith("published with one digit: this ratio is known to 12 %")
    turned = spread(0.01) | {"mae_fdr6": spread(0.01)["mae_fdr6"][::-1]}
    against = fdr6(SIX, turned, 50_000, imagenet=True)["fdr6"]
    assert against.high - against.value < halves["fdr6"]


def test_without_one_network_the_others_stand():
    five = {name: value for name, value in SIX.items() if name != "mae_fdr6"}
    outcomes = fdr6(five, spread(0.01), 50_000, imagenet=True)
    assert outcomes["fdr6"] == Stop("skipped", "FDr6 is the mean over six networks; missing: mae_fdr6")
    assert set(outcomes) == {"fdr6", *(f"fdr_{name}" for name in five)}


def test_resampled_distances_are_of_the_same_rows_for_every_network():
    """Features that are twice another's have distances four times as large, resample by resample."""
    x, y = normal(200, 0, 0.2), normal(150, 1)
    one, other = (Frechet(scale * x, ReferenceStatistics.of_features("", scale * y), 5) for scale in (1, 2))
    assert np.array(other.resampled_distances) == pytest.approx(4 * np.array(one.resampled_distances), rel=1e-4)
    assert one.error == pytest.approx(np.std(one.resampled_distances, ddof=1))


def test_the_inception_score_by_either_rule_is_the_recorded_one():
    arrays, values = golden("fdr6_frechet")
    logits, wanted = arrays["is.logits"], values["inception_score"]
    assert inception_score(logits, 5).value == pytest.approx(wanted["fd_loss_seed2020"][0], rel=1e-12)
    assert of_whole_splits(logits) == pytest.approx(wanted["fdeval_seed0_floor_chunks"], rel=1e-8)
    plain, other = inception_score(logits, 5), inception_score(logits, 5, rule="diffusionbench-evals")
    assert other.value == of_whole_splits(logits)
    assert other.high - other.value == pytest.approx(plain.high - plain.value)


def test_what_is_no_whole_split_is_left_out():
    logits = 2 * torch.randn(107, 10, generator=torch.Generator().manual_seed(0))
    order = np.random.RandomState(0).permutation(107)
    changed = logits.clone()
    changed[order[100:]] += 100 * torch.eye(10)[:7]
    assert of_whole_splits(changed) == of_whole_splits(logits)
    changed[order[99]] += 5 * torch.eye(10)[3]
    assert of_whole_splits(changed) != of_whole_splits(logits)
    assert of_whole_splits(torch.zeros(20, 10)) == pytest.approx(1)
    assert of_whole_splits(200 * torch.eye(10).repeat(1, 1), splits=1) == pytest.approx(10)
    with pytest.raises(UserError, match="at least 10 samples, there are 9"):
        inception_score(logits[:9], 5, rule="diffusionbench-evals")
