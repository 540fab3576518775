"""CMMD: its definition, what it does not depend on, its standard error."""

import numpy as np
import pytest
import torch
from golden import golden, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from harness.evaluation import cmmd as module
from harness.evaluation.bootstrap import Z
from harness.evaluation.cmmd import cmmd, discrepancy
from harness.study.typed import UserError


def units(n, draw, shift=0.0):
    return normalize(normal(n, draw, shift).double())


def test_the_values_that_float32_hides_are_met():
    arrays, values = golden("extractors/cmmd")
    pairs = {"raw": ("X", "Y"), "unit_norm": ("X_unit", "Y_unit"), "X_Y_swapped": ("Y_unit", "X_unit"), "same": ("X_unit", "X_unit")}
    for name, (x, y) in pairs.items():
        assert discrepancy(arrays[x], arrays[y])[0] == pytest.approx(values[name]["direct_float64"], rel=1e-11, abs=0)
    assert cmmd(arrays["X_unit"], arrays["Y_unit"], 10).value == discrepancy(arrays["X_unit"], arrays["Y_unit"])[0]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 40), st.integers(2, 40), st.integers(1, 50))
def test_it_is_the_mean_of_kernels_whatever_order_and_blocks(draw, n, m, rows):
    x, y = units(n, draw), units(m, draw + 1, 0.5)

    def kernel(one, other):
        return torch.exp(-(one[:, None] - other[None]).square().sum(2) / 200).mean()

    expected = 1000 * (kernel(x, x) + kernel(y, y) - 2 * kernel(x, y)).item()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ROWS", rows)
        in_blocks, shares = discrepancy(x, y)
    assert in_blocks == pytest.approx(expected, rel=1e-8, abs=1e-9)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(draw))
    assert discrepancy(x[order], y)[0] == pytest.approx(in_blocks, rel=1e-9, abs=1e-10)
    assert discrepancy(y, x)[0] == pytest.approx(in_blocks, rel=1e-9, abs=1e-10)
    assert discrepancy(x, x)[0] == pytest.approx(0, abs=1e-10)
    assert len(shares) == n
    assert in_blocks >= -1e-10


def test_no_block_of_pairs_has_more_rows_than_told(monkeypatch):
    sizes, products = [], module.products
    monkeypatch.setattr(module, "products", lambda a, b: sizes.append(len(a)) or products(a, b))
    discrepancy(units(600, 0), units(500, 1))
    assert max(sizes) == module.ROWS < 500


def test_its_standard_error_is_the_spread_of_fresh_draws():
    reference = units(300, 99)
    measured = [cmmd(units(200, draw, 0.3), reference, 100) for draw in range(40)]
    errors = [(one.high - one.value) / Z for one in measured]
    assert np.mean(errors) == pytest.approx(np.std([one.value for one in measured], ddof=1), rel=0.25)


def test_embeddings_of_another_norm_are_refused():
    x = units(10, 0)
    for samples, reference, says in [
        (2 * x, x, "CMMD: samples must be divided by their norms: row 0 has norm 2"),
        (x, torch.cat([x, 0.9 * x]), "CMMD: reference must be divided by their norms: row 10 has norm 0.9"),
        (x, x[:, :5], "samples has 6 features, reference 5"),
        (x[:1], x, "CMMD needs at least 2 rows of features: samples has 1"),
        (x, x * torch.nan, "reference has features that are not finite, first in row 0"),
    ]:
        with pytest.raises(UserError, match=says):
            cmmd(samples, reference, 10)
    assert cmmd(x.half().float(), x.half().float(), 10).value == 0  # what half precision has rounded is taken
