"""Denoisers of several seeds as one: a CPU spends much of a small model's step on calls, and a stack makes one call for all of them.

A seed's numbers are the same bits whatever else is in its stack, or nothing is; `tests/denoiser/test_stack.py` holds it.
"""

import copy
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.denoiser.base import Denoiser
from harness.denoiser.layers import FourierTimeEmbedding, RMSNorm
from harness.denoiser.loss import Parts
from harness.machine import processes
from harness.machine.device import device
from harness.study.sections.training import Training
from harness.training.loop import Descent


class StackedLinear(nn.Linear):
    """Weights (S, out, in) and bias (S, out)."""

    def forward(self, x: Tensor) -> Tensor:
        """(S x B, ..., in), seed by seed -> (S x B, ..., out)."""
        return _by_seed(x, self.weight, self.bias)


class StackedPatches(nn.Conv2d):
    """Weights (S, out, in, 1, 1) and bias (S, out) of a convolution that looks at one place at a time."""

    def forward(self, x: Tensor) -> Tensor:
        """(S x B, in, H, W), seed by seed -> (S x B, out, H, W)."""
        rows = _by_seed(x.flatten(2).mT, self.weight.flatten(2), self.bias)
        return rows.mT.unflatten(2, x.shape[2:])


class StackedEmbedding(nn.Embedding):
    """Weights (S, rows, width)."""

    def forward(self, y: Tensor) -> Tensor:
        """(S x B,), seed by seed -> (S x B, width)."""
        seeds, rows, _ = self.weight.shape
        return F.embedding((y.view(seeds, -1) + rows * torch.arange(seeds)[:, None]).flatten(), self.weight.flatten(0, 1))


class StackedRMSNorm(RMSNorm):
    """Weights (S, width)."""

    def forward(self, x: Tensor) -> Tensor:
        """(S x B, ..., width), seed by seed -> as x."""
        normal = F.rms_norm(x, (x.shape[-1],), eps=self.eps)
        return (normal.view(len(self.weight), -1, x.shape[-1]) * self.weight[:, None]).view(x.shape)


class StackedFourierTimeEmbedding(FourierTimeEmbedding):
    """Frequencies `W` (S, features)."""

    def forward(self, t: Tensor) -> Tensor:
        """(S x B,), seed by seed -> (S x B, width)."""
        angle = (2 * math.pi * t.view(len(self.W), -1, 1) * self.W[:, None]).flatten(0, 1)
        return self.mlp(torch.cat([angle.sin(), angle.cos()], dim=-1))


LANES = 32  # numbers that torch's loops over a tensor take at once: two registers of AVX-512
STACKED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: StackedLinear,
    nn.Conv2d: StackedPatches,
    nn.Embedding: StackedEmbedding,
    RMSNorm: StackedRMSNorm,
    FourierTimeEmbedding: StackedFourierTimeEmbedding,
}


def _by_seed(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (S x B, ..., in), weight (S, out, in), bias (S, out) -> (S x B, ..., out)."""
    rows = x.reshape(len(weight), -1, x.shape[-1])
    out = torch.bmm(rows, weight.mT) if bias is None else torch.baddbmm(bias[:, None], rows, weight.mT)
    return out.view(*x.shape[:-1], out.shape[-1])


def stacks(model: nn.Module, training: Training, images: int) -> bool:
    """Whether such a model is trained in a stack, be it of one: in one process with one thread of a CPU, in full precision, not compiled.

    Not where a part of it has weights and no stacked form, or is somebody's own, which may look at a batch as a whole; nor where LANES do
    not divide what of a training set of `images` is together: torch computes exponentials at the end of a tensor in another way.
    """
    batch = min(training.batch, images)
    if batch % LANES or (training.micro_batch or batch) % LANES:
        return False
    if device().type != "cpu" or torch.get_num_threads() != 1 or processes.count() != 1 or training.compile or training.precision != "fp32":
        return False
    return isinstance(model, Denoiser) and all(_has_form(module) for module in model.modules())


def _has_form(module: nn.Module) -> bool:
    if not type(module).__module__.startswith(("torch.nn.", "harness.")):
        return False
    if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
        return False
    if isinstance(module, nn.Conv2d):
        return module.kernel_size == (1, 1) and module.stride == (1, 1) and module.groups == 1
    own = {name for name, _ in module.named_parameters(recurse=False)}
    return type(module) in STACKED or not own or (isinstance(module, Denoiser) and own <= {"register_tokens"})


def stack(models: Sequence[nn.Module]) -> nn.Module:
    """One model for the batches of all, (S x B, ...), seed by seed. Its weights are those of `models`: both change together."""
    whole = copy.deepcopy(models[0])
    for module in whole.modules():
        module.__class__ = STACKED.get(type(module), type(module))
    for name, one in models[0].named_parameters():
        parts = [model.get_parameter(name) for model in models]
        join = torch.cat if name == "register_tokens" else torch.stack  # registers have an axis for the batch
        joined = nn.Parameter(join([part.data for part in parts]), requires_grad=one.requires_grad)
        for number, part in enumerate(parts):
            part.data = joined.data[number].view(part.shape)
        _put(whole, name, joined)
    for name, _ in models[0].named_buffers():
        parts = [model.get_buffer(name) for model in models]
        if isinstance(whole.get_submodule(name.rpartition(".")[0]), StackedFourierTimeEmbedding):
            _put(whole, name, torch.stack(parts))
        elif not all(torch.equal(part, parts[0]) for part in parts):
            raise ValueError(f"buffer {name} differs between seeds and has no stacked form")  # an architecture that STACKED does not know
    return whole


def _put(model: nn.Module, name: str, tensor: Tensor) -> None:
    place, _, own = name.rpartition(".")
    setattr(model.get_submodule(place), own, tensor)


def stacked_descent(models: Sequence[nn.Module], parts: Sequence[Parts]) -> Descent:
    """One step of several seeds, each with its own micro-batches; the gradients are in `models` afterwards."""
    whole = stack(models)
    names = [name for name, parameter in whole.named_parameters() if parameter.requires_grad]
    own = [(whole.get_parameter(name), [model.get_parameter(name) for model in models]) for name in names]

    def descend(step: int, generators: Sequence[torch.Generator]) -> list[Tensor]:
        for parameter, _ in own:
            parameter.grad = None
        totals = torch.zeros(len(models))
        of_seeds = [make(step, generator) for make, generator in zip(parts, generators, strict=True)]
        for beside in zip(*of_seeds, strict=True):
            output = whole(*map(torch.cat, zip(*(part.inputs for part in beside), strict=True)))
            losses = [part.loss(of) for part, of in zip(beside, output.chunk(len(models)), strict=True)]
            torch.stack(losses).sum().backward()
            totals += torch.stack(losses).detach()
        for parameter, of_models in own:
            for number, one in enumerate(of_models):
                one.grad = None if parameter.grad is None else parameter.grad[number].view(one.shape)
        return list(totals)

    return descend
