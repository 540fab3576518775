"""sFID: the features' layout, the exact distance of few rows, and where it is refused."""

import numpy as np
import pytest
import torch
from golden import golden, normal
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.evaluation.fid import symmetric_distance
from harness.evaluation.frechet import exact_distance
from harness.evaluation.reference_statistics import ReferenceStatistics
from harness.evaluation.spatial import WIDTH, sfid, spatial_features
from harness.parity.sfid import Recipe, channels_first, distance_of_moments, drawn
from harness.study.typed import UserError


def test_the_features_have_adms_layout():
    arrays, _ = golden("sfid")
    branch = arrays["small.branch_times4_uint8"].float() / 4
    features = spatial_features(branch)
    assert torch.equal(features, arrays["small.features"])
    assert features[1, 7 * (17 * 3 + 5) + 2] == branch[1, 2, 3, 5]  # channels last: by row, column, channel
    assert not torch.equal(channels_first(features), arrays["small.features"])
    for shape in ((3, 768, 17, 17), (3, 192, 8, 8), (192, 17, 17)):
        with pytest.raises(UserError, match=r"Mixed_6d.branch1x1 must be \(N, 192, 17, 17\), got"):
            spatial_features(torch.zeros(shape))


def test_the_distance_of_fewer_rows_than_features_is_exact():
    arrays, values = golden("sfid")
    a, b = (arrays[f"{name}_times4_uint8"].float() / 4 for name in "AB")
    wanted = values["rank_deficient"]
    assert exact_distance(a, b) == pytest.approx(wanted["exact"], rel=1e-13)
    assert exact_distance(b, a) == pytest.approx(wanted["exact"], rel=1e-13)
    assert exact_distance(channels_first(a), channels_first(b)) == pytest.approx(wanted["wrong_layout_both_sides_exact"], rel=1e-13)
    assert exact_distance(channels_first(a), b) == pytest.approx(wanted["wrong_layout_one_side_exact"], rel=1e-13)
    assert exact_distance(a, b) == pytest.approx(wanted["adm_code"], rel=1e-6)


@pytest.mark.slow
def test_the_distance_of_more_rows_than_features_is_the_recorded_one():
    """adm-evaluation-suite-pytorch@c31f9de: 1339.1311974537; exact: 1339.1311981839; FID's own function: the exact one, too."""
    p, q = drawn(Recipe(n=(2300, 2200), seeds=(44, 45)))
    assert p.double().var(dim=0).sum().item() == pytest.approx(2373.5496324659366, rel=1e-9)
    assert exact_distance(p, q) == pytest.approx(1339.1311981839422, rel=1e-9)
    assert distance_of_moments(p, q) == pytest.approx(1339.1311981839422, rel=1e-9)
    reference = ReferenceStatistics("drawn", q.double().mean(0).numpy(), np.cov(q.double(), rowvar=False), q, "", "given", "")
    measured = sfid(p, reference, 2)
    assert measured.value == pytest.approx(1339.1311981839422, rel=1e-6)
    assert measured.low < measured.value < measured.high


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 30), st.integers(2, 30))
def test_exact_distances(draw, n, m):
    """Of few and of many rows: that of the formula, 0 of a set with itself, the same of permuted rows and features, and of either order."""
    x, y = normal(n, draw).double(), normal(m, draw + 1, 0.4).double()
    once = exact_distance(x, y)
    moments = [array for rows in (x, y) for array in (rows.mean(0).numpy(), np.cov(rows.numpy(), rowvar=False))]
    assert once == pytest.approx(symmetric_distance(*moments), abs=1e-6)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(draw))
    assert exact_distance(x[order], y) == pytest.approx(once, rel=1e-9)
    assert exact_distance(x[:, [3, 1, 0, 2, 5, 4]], y[:, [3, 1, 0, 2, 5, 4]]) == pytest.approx(once, rel=1e-9)
    assert exact_distance(y, x) == pytest.approx(once, rel=1e-9)
    assert exact_distance(x, x) == pytest.approx(0, abs=1e-12)
    assert exact_distance(x, x + 2) == pytest.approx(4 * x.shape[1], rel=1e-9)


@pytest.mark.parametrize("name", ["main", "rank_deficient", "dead_dimension", "same"])
def test_recorded_distances(name):
    arrays, values = golden("fdr6_frechet")
    ours = exact_distance(arrays[f"{name}.X"], arrays[f"{name}.Y"])
    assert ours == pytest.approx(values[name]["exact_psd"], rel=1e-8, abs=1e-12)
    assert ours == pytest.approx(values[name]["fdeval"], rel=1e-7, abs=1e-12)


def test_as_few_samples_as_features_are_refused():
    identity = np.eye(WIDTH)
    reference = ReferenceStatistics("flat", np.zeros(WIDTH), identity, torch.zeros(1, WIDTH), "", "given", "")
    few = torch.zeros(WIDTH, WIDTH)
    with pytest.raises(UserError, match="sFID needs more samples than features: got 2023 for 2023 features"):
        sfid(few, reference, 2)
    with pytest.raises(UserError, match="sFID is of 2023 spatial features: the samples have 2048, the reference 2023"):
        sfid(torch.zeros(2100, 2048), reference, 2)
    with pytest.raises(UserError, match="sFID: samples has features that are not finite, first in row 1"):
        sfid(torch.cat([few[:1], few * torch.nan]), reference, 2)
    with pytest.raises(UserError, match="the Frechet distance needs at least 2 rows of features: reference has 1"):
        exact_distance(few, few[:1])
