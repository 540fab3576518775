"""What an outlier token is: one whose L2 norm exceeds a factor times its layer's median norm (paper, section 3; released TTR/shared)."""

import math
from typing import Any

import numpy as np


def median_norm(norms: Any, axis: tuple[int, ...] | None = None) -> Any:
    """The median over all values of `norms` (a tensor or an array) or, of a numpy array, over `axis`.

    Of an even count it is the lower of the two middle values, which is torch's definition and so the released code's (numpy's is their
    mean). NaN where a value is NaN. A scalar tensor or numpy number; with `axis` an array that keeps these axes with length 1, so that it
    broadcasts.
    """
    if not isinstance(norms, np.ndarray):
        return norms.median()
    over = tuple(range(norms.ndim)) if axis is None else axis
    kept = [place for place in range(norms.ndim) if place not in over]
    flat = norms.transpose(*kept, *over).reshape(*(norms.shape[place] for place in kept), -1)
    middle = (flat.shape[-1] - 1) // 2
    medians = np.where(np.isnan(flat).any(axis=-1), np.nan, np.partition(flat, middle, axis=-1)[..., middle]).astype(norms.dtype)
    return medians[()] if axis is None else np.expand_dims(medians, over)


def share_above(norms: Any, limit: Any) -> float:
    """Share of `norms` (a tensor or an array of any shape) that are not at most `limit`, a NaN among them: a count over their number."""
    count = math.prod(norms.shape)
    return (count - int((norms <= limit).sum())) / count


def outlier_norm(norms: Any, factor: float, axis: tuple[int, ...] | None = None) -> Any:
    """The norm above which a token of `norms` is an outlier: `factor` times `median_norm`, with its shape."""
    return factor * median_norm(norms, axis)
