"""AuthPct and C_T: are samples copies of training images? Diagnostics: both miss memorisation on ImageNet, as dgm-eval's authors say.

As dgm-eval@74c79f7 `compute_authpct` (arXiv 2102.08921) and `ct.py` (arXiv 2004.05675), decided in float64, in blocks of rows.
"""

import math

from scipy.stats import mannwhitneyu
from torch import Tensor

from harness.evaluation.bootstrap import share
from harness.evaluation.neighbours import nearest
from harness.evaluation.outcome import Measured, without
from harness.evaluation.sets import checked
from harness.study.typed import UserError

LEAST = 20  # samples that a cell must have more than, to count in C_T
NO_INTERVAL = "a test statistic: 0, with a standard error of 1 in each cell, where samples are as far from training images as others are"


def authenticity(samples: Tensor, training: Tensor) -> Measured:
    """(N, D) and (M, D) features -> the share of samples that are farther from their nearest training image than that is from its own.

    Strictly farther: an exact copy of an image that the training set has twice is not authentic. dgm-eval prints it x 100, as AuthPct.
    """
    samples, training = checked("AuthPct", 1, samples=samples, training=training)
    if len(training) < 2:
        raise UserError("AuthPct needs at least 2 training images, there is 1")
    distances, numbers = (each[:, 0] for each in nearest(samples, training, 1))
    own = nearest(training, training, 1, own=True)[0][:, 0]
    return share((distances > own[numbers]).double().mean().item(), len(samples))


def copying(samples: Tensor, held_out: Tensor, training: Tensor) -> float:
    """Z_U: are samples (N, D) closer to training images (L, D) than held-out images (M, D) are? Below 0: they are, which is copying.

    The Mann-Whitney statistic of the distances to the nearest training image, in standard errors, corrected for continuity.
    """
    samples, held_out, training = checked("Z_U", 1, samples=samples, held_out=held_out, training=training)
    n, m = len(samples), len(held_out)
    distances = [nearest(rows, training, 1)[0][:, 0].cpu().numpy() for rows in (samples, held_out)]
    statistic = mannwhitneyu(*distances, alternative="less", method="asymptotic").statistic
    return float((statistic - (n * m / 2 - 0.5)) / math.sqrt(n * m * (n + m + 1) / 12))


def c_t(samples: Tensor, held_out: Tensor, training: Tensor, cells: tuple[Tensor, Tensor, Tensor], least: float = LEAST) -> Measured:
    """C_T: Z_U within cells of the feature space, averaged with the held-out images' shares. `cells`: of each set, (N,), (M,) and (L,).

    Cells with at most `least` samples are left out. The original's cells are three, of k-means on the training features, after a PCA to 64
    dimensions where there are more (sklearn's). UserError where a cell that counts lacks held-out or training images, or none counts.
    """
    samples, held_out, training = checked("C_T", 1, samples=samples, held_out=held_out, training=training)
    sets = (samples, held_out, training)
    for rows, of in zip(sets, cells, strict=True):
        if of.shape != rows.shape[:1]:
            raise UserError(f"C_T needs a cell an image: {len(rows)} images, cells {tuple(of.shape)}")
    weighted, weights = 0.0, 0
    for cell in cells[0].unique().tolist():
        members = [rows[(of == cell).to(rows.device)] for rows, of in zip(sets, cells, strict=True)]
        if len(members[0]) > least:
            if not all(map(len, members)):
                raise UserError(f"C_T: cell {cell} has samples and no held-out or no training image; take fewer cells")
            weighted, weights = weighted + len(members[1]) * copying(*members), weights + len(members[1])
    if not weights:
        raise UserError(f"C_T: no cell has more than {least:g} samples; take fewer cells or more samples")
    return without(weighted / weights, NO_INTERVAL)
