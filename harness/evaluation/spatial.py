"""sFID (arXiv 2103.03841): the Frechet distance of features that keep their place in the image, of an inner layer of Inception.

The layer is the first branch of Mixed_6d after its batch norm and ReLU, as in ADM's evaluator and ADM-evaluation-suite-pytorch@c31f9de.
A layout that is wrong on both sides gives the right distance: only the features themselves, or another's statistics, show it.
"""

from torch import Tensor

from harness.evaluation.fid import fid
from harness.evaluation.frechet import Frechet
from harness.evaluation.outcome import Measured
from harness.evaluation.reference_statistics import ReferenceStatistics
from harness.evaluation.sets import checked
from harness.study.typed import UserError

BRANCH, CHANNELS = (192, 17, 17), 7  # channels, height, width; the channels that are kept
WIDTH = CHANNELS * BRANCH[1] * BRANCH[2]


def spatial_features(branch: Tensor) -> Tensor:
    """`Mixed_6d.branch1x1` (N, 192, 17, 17) -> (N, 2023): the first 7 channels, channels last, flattened."""
    if branch.ndim != 4 or tuple(branch.shape[1:]) != BRANCH:
        raise UserError(f"sFID: Mixed_6d.branch1x1 must be (N, {', '.join(map(str, BRANCH))}), got {tuple(branch.shape)}")
    return branch[:, :CHANNELS].permute(0, 2, 3, 1).flatten(1)


def sfid(samples: Tensor, reference: ReferenceStatistics, resampled: int) -> Measured:
    """Spatial features (N, 2023) against statistics of such (`mu_s` and `sigma_s` of ADM's npz), by the code that FID is computed with.

    UserError for as few samples as features: their covariance is singular. frechet.exact_distance has the distance of those, too.
    """
    (samples,) = checked("sFID", 2, samples=samples)
    if samples.shape[1] != WIDTH or reference.mu.shape != (WIDTH,):
        raise UserError(f"sFID is of {WIDTH} spatial features: the samples have {samples.shape[1]}, the reference {len(reference.mu)}")
    if len(samples) <= WIDTH:
        raise UserError(f"sFID needs more samples than features: got {len(samples)} for {WIDTH} features")
    return Frechet(samples, reference, resampled).with_interval(fid(samples, reference)["fid"])
