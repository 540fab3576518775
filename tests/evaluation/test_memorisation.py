"""Vendi score, AuthPct and C_T: recorded values, what each sees, and what is refused."""

import math

import numpy as np
import pytest
import torch
from golden import golden, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from harness.evaluation import vendi as module
from harness.evaluation.bootstrap import Z
from harness.evaluation.memorisation import authenticity, c_t, copying
from harness.evaluation.vendi import score, vendi, vendi_per_class
from harness.study.typed import UserError


def units(n, draw, width=6):
    return normalize(normal(n, draw, 0.3, width).double())


# ------------------------------------------------------------------------------------------------------------------- Vendi


def test_recorded_vendi_scores():
    arrays, values = golden("memorisation")
    x, wanted = normalize(arrays["vendi.X"].double()), values["vendi"]
    assert vendi(x, 5).value == pytest.approx(wanted["float64_q1"], rel=1e-12)
    assert [vendi(x, 5, order).value for order in (1, 2, math.inf)] == pytest.approx([wanted["q1"], wanted["q2"], wanted["qinf"]], rel=1e-5)
    classes = vendi_per_class(x, arrays["vendi.labels"], 5)
    assert [one.value for one in classes.values()] == pytest.approx(wanted["per_class"], rel=1e-6)
    others = vendi_per_class(x, 10 - 3 * arrays["vendi.labels"], 5)  # which raises there
    assert {10 - 3 * label: one for label, one in classes.items()} == others
    with pytest.raises(UserError, match=r"the Vendi score: features must be divided by their norms: row 0 has norm 8\.665"):
        vendi(arrays["vendi.X"], 5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 25), st.sampled_from([0.5, 1.0, 2.0, 3.5, math.inf]), st.integers(1, 30))
def test_the_score_is_the_entropy_of_the_kernel_matrix(draw, n, order, rows):
    """Of fewer and of more images than features, in blocks and in any order, between 1 and both numbers."""
    x = units(n, draw)
    p = torch.linalg.eigvalsh(x @ x.T / n)
    p = p[p > 1e-13]
    expected = {1.0: torch.special.entr(p).sum().exp(), math.inf: 1 / p.max()}.get(order)
    expected = (p**order).sum() ** (1 / (1 - order)) if expected is None else expected
    shuffled = x[torch.randperm(n, generator=torch.Generator().manual_seed(draw))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ROWS", rows)
        value, shares = score(shuffled, order)
    assert value == pytest.approx(expected.item(), rel=1e-6)
    assert 1 - 1e-9 <= value <= min(n, 6) + 1e-9
    assert shares.mean().item() == pytest.approx(0, abs=1e-7)


def test_identical_and_orthogonal_images():
    for order in (0.5, 1, 2, math.inf):
        assert vendi(torch.eye(7), 5, order).value == pytest.approx(7)
        same = vendi(torch.eye(7)[:1].expand(9, -1), 5, order)
        assert same.value == pytest.approx(1)
        assert same.low is None  # resamples do not differ


@pytest.mark.parametrize("order", [1.0, 2.0, math.inf])
def test_vendis_standard_error_is_the_spread_of_fresh_draws(order):
    measured = [vendi(units(300, draw), 100, order) for draw in range(40)]
    errors = [(one.high - one.low) / 2 / Z for one in measured]
    assert np.mean(errors) == pytest.approx(np.std([one.value for one in measured], ddof=1), rel=0.3)


def test_what_has_no_vendi_score_is_one_line():
    x = units(10, 0)
    for call, says in [
        (lambda: vendi(x, 5, 0), "the Vendi score's order must be above 0, got 0"),
        (lambda: vendi(x, 5, math.nan), "order must be above 0, got nan"),
        (lambda: vendi(x[:1], 5), "the Vendi score needs at least 2 rows of features: features has 1"),
        (lambda: vendi(x * torch.nan, 5), "features has features that are not finite"),
        (lambda: vendi_per_class(x, torch.zeros(9), 5), r"needs a label an image: 10 images, labels \(9,\)"),
        (lambda: vendi_per_class(x, torch.arange(10), 5), "needs at least 2 rows"),
    ]:
        with pytest.raises(UserError, match=says):
            call()


# ----------------------------------------------------------------------------------------------------------------- AuthPct


def test_recorded_shares_of_authentic_samples():
    arrays, values = golden("memorisation")
    train, gen = arrays["auth.train"], arrays["auth.gen"]
    copies, twice = arrays["auth.gen_with_copies"], arrays["auth.train_with_duplicates"]
    runs = {
        "main": (gen, train),
        "with_copies": (copies, train),
        "train_duplicates": (gen, twice),
        "train_duplicates_and_copies": (copies, twice),
        "gen_is_train": (train, train),
    }
    ours = {name: 100 * authenticity(*run).value for name, run in runs.items()}
    assert ours == {name: pytest.approx(values["authpct"][name]["float64"], rel=1e-12) for name in runs}


def test_copies_are_not_authentic_and_far_samples_are():
    train = normal(60, 0)
    assert authenticity(train[:20], train).value == 0
    assert authenticity(train[:20], torch.cat([train, train])).value == 0  # as far from it as it is from its copy: not strictly
    far = authenticity(train[:20] + 100, train)
    assert far.value == 1
    assert far.low < 1
    half = authenticity(torch.cat([train[:10], train[:10] + 100]), train)
    assert half.value == 0.5
    with pytest.raises(UserError, match="AuthPct needs at least 2 training images, there is 1"):
        authenticity(train, train[:1])
    with pytest.raises(UserError, match="AuthPct: samples has 6 features, training 5"):
        authenticity(train, train[:, :5])


# --------------------------------------------------------------------------------------------------------------------- C_T


def test_recorded_tests_of_copying():
    arrays, values = golden("memorisation")
    train, test, gen, copies = (arrays[f"ct.{name}"] for name in ("train", "test", "gen", "gen_copying"))
    cells = tuple(arrays[f"ct.{name}_cells"] for name in ("gen", "test", "train"))
    wanted = values["ct"]
    assert copying(gen, test, train) == pytest.approx(wanted["Zu_global"], rel=1e-12)
    assert copying(copies, test, train) == pytest.approx(wanted["Zu_global_copying"], rel=1e-12)
    assert c_t(gen, test, train, cells).value == pytest.approx(wanted["C_T_given_cells_tau_20_over_m"], rel=1e-12)
    assert c_t(gen, test, train, cells, 0.25 * len(gen)).value == pytest.approx(wanted["C_T_given_cells_tau_.25"], rel=1e-12)


def test_copies_are_below_and_draws_of_the_same_kind_near_zero():
    train, test = normal(200, 0), normal(150, 1)
    noise = 0.01 * normal(150, 3)
    assert copying(train[:150] + noise, test, train) < -10
    values = [copying(normal(150, draw), test, train) for draw in range(10, 40)]
    assert abs(np.mean(values)) < 1.2  # one held-out set for all
    assert 0.4 < np.std(values) < 1.4
    whole = (torch.zeros(150), torch.zeros(150), torch.zeros(200))
    plain = c_t(normal(150, 10), test, train, whole)
    assert plain.value == pytest.approx(values[0])
    assert plain.low is None
    assert "a test statistic" in plain.how


def test_cells_that_are_empty_or_small():
    train, test, gen = normal(60, 0), normal(50, 1), normal(40, 2)
    near, far = torch.zeros(60), torch.ones(60)
    halves = torch.cat([near[:10], far[:30]])  # of samples: 10 in one cell, 30 in the other
    split = torch.arange(60) % 2
    both = c_t(gen, test, train, (halves, split[:50], split))
    alone = copying(gen[10:], test[split[:50] == 1], train[split == 1])
    assert both.value == pytest.approx(alone)  # the small cell is left out
    for cells, says in [
        ((halves, near[:50], split), "C_T: cell 1.0 has samples and no held-out or no training image; take fewer cells"),
        ((halves, split[:50], near), "C_T: cell 1.0 has samples and no held-out or no training image"),
        ((torch.arange(40), split[:50], split), "C_T: no cell has more than 20 samples"),
        ((halves[:3], split[:50], split), r"C_T needs a cell an image: 40 images, cells \(3,\)"),
    ]:
        with pytest.raises(UserError, match=says):
            c_t(gen, test, train, cells)
    with pytest.raises(UserError, match="Z_U: samples has 6 features, training 5"):
        copying(gen, test, train[:, :5])
