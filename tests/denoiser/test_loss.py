"""The loss of a training step, from its parts."""

import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_values

from harness.denoiser.loss import loss_of
from harness.encoder.latents import Batch
from harness.machine.streams import stream
from harness.study.method import LossMask
from harness.study.study import parse_study

LATENTS = torch.randn(6, 3, 2, 2, generator=stream(0, "latents"))
NORMS = {"whitened": torch.rand(6, 4, generator=stream(0, "norms"))}


def value_of(mask=None, **denoiser):
    """(the loss of a step, everything that the network was given and gave)."""
    study = parse_study("x", tiny_values(denoiser={"prediction": "velocity", **denoiser}))
    seen = []

    def network(x, t, _labels):
        seen.append((x, t, torch.sin(x + t[:, None, None, None])))
        return seen[-1][-1]

    batch = Batch(LATENTS, torch.arange(6), NORMS, None)
    loss = sum(loss_of(study, mask, 0.7, lambda _step: batch, network)(0, stream(0, "step")))
    return loss, [torch.cat(parts) for parts in zip(*seen, strict=True)]


@pytest.mark.parametrize("micro_batch", [None, 2])
@pytest.mark.parametrize("mask", [None, LossMask(norm="whitened")])
def test_a_cosine_comes_to_the_squared_error_of_the_tokens_that_count(mask, micro_batch):
    training = {"micro_batch": micro_batch}
    plain, _ = value_of(mask, training=training)
    both, (x, t, output) = value_of(mask, training=training, cosine_loss=True)
    target = (x - LATENTS) / t[:, None, None, None]  # noise - data
    weight = (NORMS["whitened"] <= 0.7).float() if mask else torch.ones(6, 4)
    cosine = (1 - F.cosine_similarity(output, target, dim=1)).flatten(1)
    squared = (output - target).square().mean(1).flatten(1)
    torch.testing.assert_close(plain, (squared * weight).sum() / weight.sum())
    torch.testing.assert_close(both, ((squared + cosine) * weight).sum() / weight.sum())
