"""Intervals within a run, against what fresh draws do."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_fidelity.metric_prc import prc_features_to_metric

from harness.evaluation import frechet, kid, precision_recall, reconstruction
from harness.evaluation.bootstrap import Z, around, by_resampling, means, resamples, share
from harness.evaluation.fid import fid, symmetric_distance
from harness.evaluation.frechet import Frechet, reference_bias, scarce, too_few
from harness.evaluation.inception_score import inception_score
from harness.evaluation.reference_statistics import GIVEN, ReferenceStatistics
from harness.machine.streams import stream
from harness.study.sections.evaluation import Evaluation

WIDTH = 8
TURN = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=stream(0, "turn")))[0] * torch.linspace(0.6, 1.4, WIDTH)
SHIFT = 0.3


def model(n, draw=0):
    """(n, WIDTH) features of a generator that is a normal distribution."""
    return torch.randn(n, WIDTH, generator=stream(draw, "model")) @ TURN + SHIFT


def truth(n=400, width=WIDTH):
    return torch.randn(n, width, generator=stream(0, "truth"))


@pytest.fixture(scope="module")
def reference():
    return ReferenceStatistics.of_features("reference", truth())


def true_fid(reference):
    return symmetric_distance(np.full(WIDTH, SHIFT), (TURN.T @ TURN).numpy(), reference.mu, reference.sigma)


def error_of(measured):
    return (measured.high - measured.low) / 2 / Z


# ------------------------------------------------------------------------------------------------------------- any interval


@given(st.integers(0, 1000), st.integers(2, 200))
def test_resamples_depend_on_score_and_n_alone(number, n):
    first, longer = (list(resamples("fid", n, count)) for count in (3, 7))
    assert all(torch.equal(a, b) for a, b in zip(first, longer, strict=False))
    assert all(rows.min() >= 0 and rows.max() < n and len(rows) == n for rows in longer)
    assert n < 10 or not torch.equal(longer[0], longer[1])
    torch.manual_seed(number)
    assert torch.equal(next(resamples("fid", n, 1)), first[0])


@given(st.integers(0, 400), st.integers(1, 400))
def test_a_share_lies_in_its_interval_which_has_a_width_at_0_and_1_too(hits, n):
    measured = share(min(hits, n) / n, n)
    assert 0 <= measured.low <= measured.value <= measured.high <= 1
    assert measured.low < measured.high


def test_resamples_that_do_not_differ_say_nothing():
    for measured in (around(3.0, 0.0, "x"), around(3.0, float("nan"), "x"), by_resampling(0.5, [0.5, 0.5, 0.5])):
        assert (measured.low, measured.high, measured.how) == (None, None, "none: resamples do not differ")


def test_the_interval_of_a_mean_holds_it_as_often_as_it_says():
    held = 0
    for draw in range(200):
        values = torch.randn(60, generator=stream(draw, "mean"), dtype=torch.float64).exp()
        measured = by_resampling(values.mean().item(), means("mean", values, 100))
        held += measured.low <= np.exp(0.5) <= measured.high
    assert 0.86 < held / 200 <= 0.99  # 95 %, and a little less because the values are skewed


# --------------------------------------------------------------------------------------------------------------------- FID


@settings(max_examples=10)
@given(st.integers(0, 1000), st.integers(WIDTH + 20, 300))
def test_the_distance_of_all_rows_is_the_librarys(reference, draw, n):
    features = model(n, draw)
    ours = Frechet(features, reference, 20)
    value = fid(features, reference)["fid"]
    assert ours.distance(ours.sums(torch.arange(n))) == pytest.approx(value, rel=1e-4, abs=1e-5)
    interval = ours.with_interval(value)
    assert interval.low < interval.value == value < interval.high


def test_the_distance_of_some_rows_is_the_librarys_and_blocks_add_up(reference, monkeypatch):
    features, rows = model(500), next(resamples("fid", 500, 1))
    ours = Frechet(features, reference, 20)
    once = ours.distance(ours.sums(rows))
    assert once == pytest.approx(fid(features[rows], reference)["fid"], rel=1e-5)
    monkeypatch.setattr(frechet, "ROWS", 64)
    assert ours.distance(ours.sums(rows)) == pytest.approx(once, rel=1e-12)
    parts = [ours.sums(part) for part in rows.tensor_split(7)]
    assert ours.distance(sum(parts[1:], parts[0])) == pytest.approx(once, rel=1e-12)


def test_the_distance_to_another_reference_is_the_librarys(reference):
    features, other = model(300), ReferenceStatistics.of_features("other", 1.3 * truth(150) - 0.4)
    assert Frechet(features, reference, 2).distance_to(other) == pytest.approx(fid(features, other)["fid"], rel=1e-6)


def test_fids_standard_error_is_the_spread_of_fresh_draws(reference):
    fresh = np.std([fid(model(400, draw), reference)["fid"] for draw in range(200)], ddof=1)
    errors = [Frechet(model(400, draw), reference, 100).error for draw in range(8)]
    assert np.mean(errors) == pytest.approx(fresh, rel=0.25)


def test_fids_interval_shrinks_like_the_root_of_n(reference):
    small, large = (np.mean([Frechet(model(n, draw), reference, 100).error for draw in range(4)]) for n in (250, 4000))
    assert small / large == pytest.approx(4, rel=0.3)


def test_the_interval_of_fid_is_the_same_each_time(reference):
    first, again = (Frechet(model(300), reference, 30).with_interval(1.0) for _ in range(2))
    assert first == again
    assert first.how == "bootstrap, 30 resamples of the samples, seeded: value ± 1.96 standard errors"


def test_reconstructions_of_the_images_themselves_are_resampled_with_them():
    """A resample that split the pairs would have a distance between the two sides of the same image."""
    features = truth(300)
    assert max(reconstruction.paired(features, features, 10)) == pytest.approx(0, abs=1e-9)
    near = reconstruction.paired(features * 1.1, features, 30)
    assert min(near) > 0
    assert np.std(near) < 0.2 * np.mean(near)


# ------------------------------------------------------------------------------------------------------------ FID-infinity


def test_fid_infinity_is_closer_to_the_truth_and_its_interval_holds_it(reference):
    true, n = true_fid(reference), 120
    plain, infinite, spread, held = [], [], [], 0
    for draw in range(40):
        features = model(n, draw)
        measured = Frechet(features, reference, 40).infinity()
        plain.append(fid(features, reference)["fid"])
        infinite.append(measured.value)
        spread.append(error_of(measured))
        held += measured.low <= true <= measured.high
    bias = np.mean(plain) - true
    assert bias > 0.1 * true
    assert abs(np.mean(infinite) - true) < 0.3 * bias
    assert np.abs(np.array(infinite) - true).mean() < np.abs(np.array(plain) - true).mean()
    assert np.std(infinite) < 1.25 * np.std(plain)  # little noise of its own
    assert np.mean(spread) == pytest.approx(np.std(infinite), rel=0.35)
    assert held >= 33


def test_fid_infinity_of_what_is_exactly_linear_in_1_over_n(reference, monkeypatch):
    monkeypatch.setattr(Frechet, "distance", lambda _self, of: 5 + 70 / of.count)
    value, error = Frechet(model(607), reference, 20).line()
    assert value == pytest.approx(5, abs=1e-9)
    assert error == pytest.approx(0, abs=1e-9)


@given(st.integers(1, 3000), st.integers(1, 200))
def test_too_few_samples_have_no_straight_line_and_are_told_how_many_have(n, width):
    reason = too_few(n, width)
    assert bool(reason) == (n < max(4 * width, 60))
    if reason:
        needed = int(reason.split("sampling.count to ")[1].split()[0])
        assert str(n) in reason
        assert f"{width} features" in reason
        assert needed > n
        assert not too_few(needed, width)
    assert bool(scarce(n, width, [])) == (n < 10 * width)


# --------------------------------------------------------------------------------------------------------- the other scores


def settings_of(study, **changes):
    return Evaluation.model_validate(study.evaluation.model_dump() | changes)


def test_kids_standard_error_is_the_spread_of_fresh_draws(study):
    section = settings_of(study, kid_subset=50, kid_subsets=20, resamples=100)
    measured = [kid.kid(model(300, draw), truth(), section) for draw in range(60)]
    assert np.mean([error_of(one) for one in measured]) == pytest.approx(np.std([one.value for one in measured], ddof=1), rel=0.3)


def test_kids_projections_in_blocks_are_those_at_once_and_their_mean_is_the_distance(monkeypatch):
    samples, other = model(70), truth(90)
    at_once = kid.projections(samples, other)
    own, between, its = ((a.double() @ b.double().T / WIDTH + 1) ** 3 for a, b in ((samples, samples), (samples, other), (other, other)))
    mmd = (own.sum() - own.trace()) / (70 * 69) - 2 * between.mean() + (its.sum() - its.trace()) / (90 * 89)
    linear = at_once.mean() - (own.sum() - own.trace()) / (70 * 69) + (its.sum() - its.trace()) / (90 * 89)
    assert linear.item() == pytest.approx(mmd.item(), rel=1e-9)
    monkeypatch.setattr(kid, "ROWS", 16)
    assert torch.allclose(kid.projections(samples, other), at_once, rtol=1e-12)


def test_recalls_standard_error_is_the_spread_of_fresh_draws():
    measured = [precision_recall.precision_recall(model(300, draw), truth(), 3, 40)["recall"] for draw in range(40)]
    assert np.mean([error_of(one) for one in measured]) == pytest.approx(np.std([one.value for one in measured], ddof=1), rel=0.35)


def test_recall_of_a_half_is_torch_fidelitys_of_these_samples(monkeypatch):
    samples, other = model(90), truth(70)
    kept = torch.randperm(90, generator=stream(0, "halves recall", 90))[:45]
    wanted = precision_recall.precision_recall(samples[kept], other, 3, 2)["recall"].value
    assert precision_recall.recall_of_halves(samples, other, 3, 1) == [pytest.approx(wanted, abs=1.5 / 70)]  # a tie may fall either way
    monkeypatch.setattr(precision_recall, "ROWS", 16)
    assert precision_recall.recall_of_halves(samples, other, 3, 1) == [pytest.approx(wanted, abs=1.5 / 70)]


def test_no_block_of_pairs_grows_with_the_number_of_images_and_values_stay_torch_fidelitys(monkeypatch):
    samples, other, sizes, cdist = model(900), truth(700), [], torch.cdist
    wanted = prc_features_to_metric(samples, other, prc_neighborhood=3, save_cpu_ram=False, verbose=False)  # all pairs at once
    monkeypatch.setattr(torch, "cdist", lambda a, b: sizes.append(len(a)) or cdist(a, b))
    measured = precision_recall.precision_recall(samples, other, 3, 4)
    assert {name: one.value for name, one in measured.items()} == {name: wanted[name] for name in ("precision", "recall")}
    assert len(sizes) > 8
    assert max(sizes) == precision_recall.ROWS < 300


def test_the_inception_scores_standard_error_is_the_spread_of_fresh_draws():
    measured = [inception_score(2 * torch.randn(400, 10, generator=stream(draw, "logits")), 40) for draw in range(40)]
    assert np.mean([error_of(one) for one in measured]) == pytest.approx(np.std([one.value for one in measured], ddof=1), rel=0.3)


@pytest.mark.parametrize(("ratio", "least", "most"), [(4.4, 0.03, 0.11), (16, -0.01, 0.035)])
def test_with_few_samples_a_feature_fid_infinity_takes_off_too_much(ratio, least, most):
    """As the note under a table says: up to 7 % of the bias at 4, less than 2 % at 16."""
    width, draws = 32, 40
    n = int(ratio * width)
    spread = 0.05 * torch.ones(width) + 1
    reference = ReferenceStatistics("real", np.zeros(width), np.eye(width), torch.zeros(1, width), "", GIVEN, "")
    true = float(((spread - 1) ** 2).sum())
    values = []
    for draw in range(draws):
        beside = Frechet(torch.randn(n, width, generator=torch.Generator().manual_seed(draw)) * spread, reference, 2)
        values.append((beside.line()[0], beside.distance(beside.sums(torch.arange(n)))))
    infinite, plain = np.mean(values, axis=0)
    assert least < (true - infinite) / (plain - true) < most


def test_what_a_finite_reference_adds_is_told_by_its_halves():
    """Over references of 400 images from a known population, the distance is above that to the population by as much, on average."""
    width, n = 8, 400
    samples = 1.2 * torch.randn(5000, width, generator=torch.Generator().manual_seed(0)) + 0.2
    population = ReferenceStatistics("all", np.zeros(width), np.eye(width), torch.zeros(1, width), "", GIVEN, "")

    def distance(of):
        beside = Frechet(samples, of, 2)
        return beside.distance(beside.sums(torch.arange(len(samples))))

    added, told = [], []
    for draw in range(60):
        features = torch.randn(n, width, generator=torch.Generator().manual_seed(1000 + draw))
        real = ReferenceStatistics.of_features("real", features)
        added.append(distance(real) - distance(population))
        told.append(reference_bias(Frechet(samples, real, 2)))
    error = np.std(added, ddof=1) / math.sqrt(len(added))
    assert np.mean(told) == pytest.approx(np.mean(added), abs=3 * error)
    assert np.mean(told) > 3 * error  # so that nothing would not do
    assert reference_bias(Frechet(samples, population, 2)) is None
    assert reference_bias(Frechet(samples, ReferenceStatistics.of_features("few", features[: 2 * width]), 2)) is None
