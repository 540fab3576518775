"""Improved precision and recall by torch-fidelity, k nearest neighbours. The samples are its input 1, the reference is its input 2."""

from statistics import stdev

import torch
from torch import Tensor
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

from harness.evaluation.bootstrap import ERRORS, SEED, around, share
from harness.evaluation.outcome import Measured
from harness.machine.device import device
from harness.machine.streams import stream
from harness.study.typed import UserError

ROWS = 256  # of distances at once: memory that hardly grows with N, and no slower than more
NEAREST = 8  # neighbours kept for each of the k + 1: at k = 3, a half lacks the radius of one sample in 4 million, and takes the last


def precision_recall(samples: Tensor, reference: Tensor, neighbours: int, halves: int) -> dict[str, Measured]:
    """(N, D) features of the samples and (M, D) of the reference -> `precision` and `recall`. Distances are made in blocks of ROWS rows.

    Recall's standard error is the spread of `halves` of the samples: a resample that repeats images covers less than a new draw, and its
    spread is too small.
    """
    precision, recall = precision_and_recall(samples, reference, neighbours)
    error = stdev(recall_of_halves(samples, reference, neighbours, halves))
    how = f"{halves} halves of the samples, drawn without replacement, seeded: {ERRORS}"
    return {"precision": share(precision, len(samples)), "recall": around(recall, error, how, least=0.0, most=1.0)}


def precision_and_recall(samples: Tensor, reference: Tensor, neighbours: int) -> tuple[float, float]:
    """Both values. UserError for too few images."""
    least = min(len(samples), len(reference))
    if least <= neighbours:
        raise UserError(f"precision and recall need more than evaluation.neighbours = {neighbours} images, there are {least}")
    options = {"prc_neighborhood": neighbours, "prc_batch_size": ROWS, "save_cpu_ram": True, "verbose": False}
    values = prc_features_to_metric(samples, reference, **options)
    return values[KEY_METRIC_PRECISION], values[KEY_METRIC_RECALL]


def recall_of_halves(samples: Tensor, reference: Tensor, neighbours: int, halves: int) -> list[float]:
    """Recall of `halves` random halves of the samples (N, D) against the reference (M, D), each with the radii that it has by itself.

    Two parts of size n / 2 differ from the whole as much as the whole from another of its size, so their spread is the standard error.
    """
    samples, reference, n = samples.to(device()), reference.to(device()), len(samples)
    near = [torch.cdist(part, samples).topk(min(NEAREST * (neighbours + 1), n), largest=False) for part in samples.split(ROWS)]
    distances, numbers = torch.cat([part.values for part in near]), torch.cat([part.indices for part in near])
    generator, radii = stream(SEED, "halves recall", n), []
    for _ in range(halves):
        kept = torch.zeros(n, dtype=torch.bool)
        kept[torch.randperm(n, generator=generator)[: max(n // 2, neighbours + 1)]] = True
        kept = kept.to(device())
        last = (kept[numbers].cumsum(1) <= neighbours).sum(1).clamp(max=numbers.shape[1] - 1)  # itself is its first neighbour
        radii.append(distances.gather(1, last[:, None])[:, 0].masked_fill(~kept, -1.0))
    radii = torch.stack(radii)
    largest, covered = radii.amax(0), torch.zeros(halves)
    for part in reference.split(ROWS):
        between = torch.cdist(part, samples)
        image, sample = (between <= largest).nonzero(as_tuple=True)  # few of all pairs
        inside = between[image, sample] <= radii[:, sample]
        covered += torch.tensor([float(image[hit].unique_consecutive().numel()) for hit in inside])
    return (covered / len(reference)).tolist()
