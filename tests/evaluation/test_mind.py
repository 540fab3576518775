"""MIND: its definition, what it does not depend on, and its standard error."""

import numpy as np
import pytest
import torch
from golden import golden, normal
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.evaluation import mind as module
from harness.evaluation.bootstrap import Z
from harness.evaluation.mind import distance, draws, mind
from harness.study.typed import UserError

WIDTH = 6


def value(*arguments, **options):
    return distance(*arguments, **options)[0]


def test_the_programs_values_are_met_where_float32_does_not_hide_them():
    arrays, values = golden("mind")
    x, y = arrays["X"], arrays["Y"]
    runs = {
        "main": value(x, y),
        "swapped": value(y, x),
        "M64": value(x, y, directions=64),
        "seed0": value(x, y, seed=0),
        "equal_n_head": value(x, y[:300]),
        "self": value(x, x),
    }
    assert runs == {name: pytest.approx(of["float64"], rel=1e-14) for name, of in values.items()}
    assert {name: pytest.approx(run, rel=2e-7) for name, run in runs.items()} == {name: of["fdeval"] for name, of in values.items()}


def test_it_is_the_squared_wasserstein_distance_of_a_shift():
    """A shift by v moves every projection by its product with v: 3 D mean (u v)^2, which is 3 |v|^2 over all directions."""
    x, shift = normal(200, 0), torch.linspace(-0.4, 0.6, WIDTH)
    _, _, units = draws((200, 200), WIDTH)
    assert value(x, x + shift) == pytest.approx(3 * WIDTH * (units @ shift.double()).square().mean().item(), rel=1e-5)
    assert value(x, x + shift) == pytest.approx(3 * shift.square().sum().item(), rel=0.1)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 60), st.integers(1, 40))
def test_order_scale_and_blocks(draw, n, columns):
    x, y = normal(n, draw), normal(n, draw + 1, 0.3)
    once = value(x, y, directions=50)
    shuffled = x[torch.randperm(n, generator=torch.Generator().manual_seed(draw))]
    assert value(shuffled, y, directions=50) == pytest.approx(once, rel=1e-12)
    assert value(y, x, directions=50) == pytest.approx(once, rel=1e-12)
    assert value(3 * x.double(), 3 * y.double(), directions=50) == pytest.approx(9 * once, rel=1e-12)
    assert value(x, x, directions=50) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "COLUMNS", columns)
        in_blocks, shares = distance(x, y, directions=50)
    assert in_blocks == pytest.approx(once, rel=1e-12)
    assert torch.allclose(shares, distance(x, y, directions=50)[1], rtol=1e-9, atol=1e-12)
    assert shares.mean().item() == pytest.approx(0, abs=1e-9)


def test_of_the_larger_set_rows_are_drawn_before_the_directions():
    first, second, units = draws((5, 9), WIDTH)
    equal = draws((5, 5), WIDTH)
    assert first.tolist() == equal[0].tolist() == equal[1].tolist() == [0, 1, 2, 3, 4]
    assert len(set(second.tolist())) == 5
    assert second.tolist() != first.tolist()
    assert not torch.equal(units, equal[2])
    assert torch.equal(draws((9, 5), WIDTH)[0], second)
    assert torch.allclose(units.norm(dim=1), torch.ones(1).double(), atol=1e-6)


def test_no_projection_of_all_directions_is_made_at_once(monkeypatch):
    """Memory is that of the features and of COLUMNS projections of a row."""
    sizes, sort = [], torch.Tensor.sort
    monkeypatch.setattr(torch.Tensor, "sort", lambda self, **options: sizes.append(tuple(self.shape)) or sort(self, **options))
    value(normal(90, 0), normal(120, 1))
    assert set(sizes) == {(90, 32), (90, 1000 % 32)}


def test_its_standard_error_is_the_spread_of_fresh_draws():
    reference = normal(400, 99)
    measured = [mind(normal(300, draw, 0.2), reference, 100) for draw in range(60)]
    errors = [(one.high - one.value) / Z for one in measured]
    assert np.mean(errors) == pytest.approx(np.std([one.value for one in measured], ddof=1), rel=0.25)
    assert measured[0] == mind(normal(300, 0, 0.2), reference, 100)
    assert "300 of each side, draw 2020" in measured[0].how
    assert all(one.low >= 0 for one in measured)


def test_a_share_is_what_a_sample_adds_in_first_order():
    """With 50 copies of every row, one copy of a sample in another's place moves the distance by the difference of their shares.

    To the mean of both directions: a sample's place in the order has a neighbour on either side.
    """
    x, y = normal(80, 0, 0.2).double(), normal(80, 1).double()
    once, shares = distance(x, y, directions=200)
    copies, others = x.repeat_interleave(50, 0), y.repeat_interleave(50, 0)
    assert value(copies, others, directions=200) == pytest.approx(once, rel=1e-12)
    lowest, highest = int(shares.argmin()), int(shares.argmax())

    def moved(of, into):
        changed = copies.clone()
        changed[50 * into] = x[of]
        return value(changed, others, directions=200) - once

    expected = (shares[lowest] - shares[highest]).item() / 4000
    assert (moved(lowest, highest) - moved(highest, lowest)) / 2 == pytest.approx(expected, rel=1e-6)


def test_sets_that_do_not_fit_are_one_line():
    x = normal(20, 0)
    spoiled = x.clone()
    spoiled[3, 2] = float("nan")
    for samples, reference, says in [
        (x[:1], x, "MIND needs at least 2 rows of features: samples has 1"),
        (x, x[:, :4], "MIND: samples has 6 features, reference 4; they must be of one network"),
        (x, spoiled, "MIND: reference has features that are not finite, first in row 3"),
        (x.long(), x, r"MIND: samples must be features \(N, D\) in floating point, got \(20, 6\) torch.int64"),
        (x[0], x, r"MIND: samples must be features \(N, D\) in floating point, got \(6,\)"),
    ]:
        with pytest.raises(UserError, match=says):
            mind(samples, reference, 10)
