import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from harness.results.outlier_rule import median_norm, outlier_norm, share_above

NORMS = arrays(np.float32, array_shapes(min_dims=1, max_dims=4, max_side=5), elements=st.floats(0, 1e6, width=32) | st.just(np.nan))


def test_of_an_even_count_it_is_the_lower_middle():
    values = np.array([3.0, 10.0, 1.0, 2.0])
    assert median_norm(values) == median_norm(torch.tensor(values)).item() == 2.0
    assert outlier_norm(values, 3.0) == 6.0


@given(NORMS)
def test_numpy_and_torch_agree(norms):
    np.testing.assert_array_equal(median_norm(norms), median_norm(torch.from_numpy(norms)).numpy())


@given(NORMS, st.data())
def test_over_axes_it_is_that_of_each_slice(norms, data):
    axis = data.draw(st.integers(0, norms.ndim - 1))
    others = tuple(place for place in range(norms.ndim) if place != axis)
    medians = median_norm(norms, others)
    assert medians.shape == tuple(norms.shape[axis] if place == axis else 1 for place in range(norms.ndim))
    np.testing.assert_array_equal(medians.ravel(), [median_norm(np.asarray(part)) for part in np.moveaxis(norms, axis, 0)])


@given(NORMS, st.floats(0, 1e6, width=32))
def test_what_is_above_a_norm_is_counted_and_no_number_counts_too(norms, limit):
    above = sum(not norm <= limit for norm in norms.ravel().tolist())
    assert share_above(norms, limit) == share_above(torch.from_numpy(norms), limit) == above / norms.size
