"""Density and coverage beside precision and recall: the rule of ties, blocks, standard errors."""

import numpy as np
import pytest
import torch
from golden import golden, normal
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.evaluation import neighbours
from harness.evaluation import prdc as module
from harness.evaluation.bootstrap import Z
from harness.evaluation.neighbours import nearest
from harness.evaluation.prdc import balls, prdc
from harness.evaluation.precision_recall import precision_recall
from harness.study.typed import UserError

RULES = {"<": "float64_strict_less", "<=": "float64_less_equal"}


def shares(of, k):
    return {
        "precision": (of.holding > 0).double().mean().item(),
        "recall": of.recalled.double().mean().item(),
        "density": of.holding.double().mean().item() / k,
        "coverage": of.reached.double().mean().item(),
    }


def written_out(samples, reference, k, ties):
    """By every pair's difference."""

    def radius(points, of):
        return sorted((point - points[of]).square().sum().item() for i, point in enumerate(points) if i != of)[k - 1]

    def within(distance, radius):
        return distance < radius if ties == "<" else distance <= radius

    own, its = ([radius(points, i) for i in range(len(points))] for points in (samples, reference))
    pairs = [[(x - y).square().sum().item() for y in reference] for x in samples]
    held = np.array([[within(d, its[j]) for j, d in enumerate(row)] for row in pairs])
    recalled = np.array([[within(d, own[i]) for d in row] for i, row in enumerate(pairs)])
    return {
        "precision": held.any(1).mean(),
        "recall": recalled.any(0).mean(),
        "density": held.sum(1).mean() / k,
        "coverage": held.any(0).mean(),
    }


@pytest.mark.parametrize("ties", ["<", "<="])
@pytest.mark.parametrize("of", ["", "_ties"])
@pytest.mark.parametrize("k", [3, 5])
def test_recorded_values(ties, of, k):
    arrays, values = golden("prdc")
    run = values[f"ties_k{k}" if of else f"k{k}"]
    ours = shares(balls(arrays[f"fake{of}"], arrays[f"real{of}"], k, ties=ties), k)
    assert ours == {name: pytest.approx(value, rel=1e-13) for name, value in run[RULES[ties]].items()}
    programs = ["dgm_eval_prdc"] if ties == "<" else ["adm_pytorch", "fd_loss", "torch_fidelity_full", "torch_fidelity_part"]
    for program in programs:
        assert {name: ours[name] for name in run[program]} == pytest.approx(run[program], rel=1e-6)


def test_the_rule_decides_where_points_tie():
    arrays, _ = golden("prdc")
    strict, loose = (shares(balls(arrays["fake_ties"], arrays["real_ties"], 3, ties=ties), 3) for ties in ("<", "<="))
    assert (strict["precision"], loose["precision"]) == (0.68, 0.96)
    assert all(strict[name] < loose[name] for name in strict)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(4, 14), st.integers(4, 14), st.integers(1, 3), st.sampled_from(["<", "<="]), st.booleans())
def test_they_are_what_every_pair_says_in_blocks_and_in_any_order(draw, n, m, k, ties, grid):
    """On a grid moved far from 0, too, where a product of matrices in float64 cannot tell a tie from its neighbours."""
    samples, reference = normal(n, draw, width=3).double(), normal(m, draw + 1, 0.2, width=3).double()
    if grid:
        samples, reference = (rows.round() / 7 + 1e5 for rows in (samples, reference))
    expected = written_out(samples, reference, k, ties)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(draw))
    with pytest.MonkeyPatch.context() as patch:
        for at_once, values in ((256, 2**22), (3, 5)):
            patch.setattr(module, "ROWS", at_once)
            patch.setattr(neighbours, "ROWS", at_once)
            patch.setattr(neighbours, "VALUES", values)
            assert shares(balls(samples, reference, k, ties=ties), k) == pytest.approx(expected, rel=1e-12)
            assert shares(balls(samples[order], reference, k, ties=ties), k) == pytest.approx(expected, rel=1e-12)


def test_a_set_with_itself_is_covered():
    x = normal(50, 0)
    of = shares(balls(x, x, 3), 3)
    assert {name: of[name] for name in ("precision", "recall", "coverage")} == {"precision": 1, "recall": 1, "coverage": 1}
    assert shares(balls(x, x + 100, 3), 3) == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 30), st.integers(1, 12))
def test_nearest_neighbours(draw, n, count):
    x, y = normal(n, draw).double(), normal(n + 12, draw + 1).double()
    values, numbers = nearest(x, y, count)
    every = (x[:, None] - y[None]).square().sum(2)
    assert torch.allclose(values, every.sort(dim=1).values[:, :count], rtol=1e-12)
    assert torch.allclose(every.gather(1, numbers), values, rtol=1e-12)
    own, of = nearest(y, y, count, own=True)
    assert not (of == torch.arange(len(y))[:, None]).any()
    twice = torch.cat([y, y])
    assert (nearest(twice, twice, 1, own=True)[0] == 0).all()  # a copy is a neighbour, a point itself is not
    assert (own > 0).all()


def test_no_block_of_pairs_has_more_rows_than_told(monkeypatch):
    sizes, products = [], neighbours.products
    for place in (neighbours, module):
        monkeypatch.setattr(place, "products", lambda a, b: sizes.append(len(a)) or products(a, b))
    balls(normal(600, 0), normal(500, 1), 3)
    assert max(sizes) == neighbours.ROWS < 500
    assert len(sizes) == 3 + 2 + 3  # radii of both sides, and one pass over their pairs


def test_precision_and_recall_are_those_of_torch_fidelity_but_for_its_rounding():
    samples, reference = normal(300, 0, 0.3), normal(250, 1)
    ours, library = prdc(samples, reference, 3, 20), precision_recall(samples, reference, 3, 20)
    for name, one in library.items():
        assert ours[name].value == pytest.approx(one.value, abs=1e-6)
        assert (ours[name].low, ours[name].high) == pytest.approx((one.low, one.high), abs=1e-6)


def test_standard_errors_are_the_spread_of_fresh_draws():
    reference = normal(300, 99)
    measured = [prdc(normal(250, draw, 0.2), reference, 3, 40) for draw in range(30)]
    for name in ("density", "coverage"):
        errors = [(one[name].high - one[name].low) / 2 / Z for one in measured]
        assert np.mean(errors) == pytest.approx(np.std([one[name].value for one in measured], ddof=1), rel=0.4)
    assert "40 halves" in measured[0]["coverage"].how
    assert "40 resamples" in measured[0]["density"].how


def test_a_half_covers_what_its_samples_cover():
    samples, reference = normal(90, 0), normal(70, 1)
    from harness.machine.streams import stream

    kept = torch.randperm(90, generator=stream(0, "halves coverage", 90))[:45]
    alone = balls(samples[kept], reference, 3).reached.double().mean()
    assert balls(samples, reference, 3, halves=1).reached_by_halves.tolist() == [pytest.approx(alone.item())]


def test_what_does_not_fit_is_one_line():
    x = normal(20, 0)
    for samples, reference, k, says in [
        (x[:3], x, 3, "density and coverage need at least 1 neighbour and more images than that: 3 of 3"),
        (x, x, 0, "at least 1 neighbour"),
        (x, x[:, :3], 3, "samples has 6 features, reference 3"),
        (x * torch.inf, x, 3, "samples has features that are not finite, first in row 0"),
    ]:
        with pytest.raises(UserError, match=says):
            balls(samples, reference, k)
