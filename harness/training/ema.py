"""Trained tensors and their moving averages (EMA)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from harness.machine import processes
from harness.study.sections.training import Training

EPSILON = 1e-8  # as in the released configs


class Weights:
    """Trained tensors, their moving averages and AdamW's moments, as lists; `losses` (steps,), NaN where a step was skipped.

    AdamW in torch's functional form: the class would import the compiler, 1.1 s in every training job.
    """

    def __init__(self, model: nn.Module | None, ema: Sequence[float], steps: int) -> None:
        self.parameters = [p for p in model.parameters() if p.requires_grad] if model else []
        self.averages = [[p.detach().clone() for p in self.parameters] for _ in ema]
        self.first = [torch.zeros_like(p) for p in self.parameters]
        self.second = [torch.zeros_like(p) for p in self.parameters]
        self.steps = [torch.zeros((), device=p.device) for p in self.parameters]
        self.decays = torch.zeros(len(ema), dtype=torch.float64)  # that the averages last moved by
        self.losses = torch.zeros(steps if self.parameters else 0, device=self.parameters[0].device if self.parameters else None)

    @torch.no_grad()
    def update(self, training: Training, lr: float, step: int, loss: Tensor) -> None:
        """Follow the gradients, added up over the processes as `loss`, (), is. Where they or it are not finite nothing changes and the step
        is skipped.

        The device decides, so that nobody waits for it.
        """
        used = [i for i, p in enumerate(self.parameters) if p.grad is not None]
        parameters, first, second, steps = ([values[i] for i in used] for values in (self.parameters, self.first, self.second, self.steps))
        gradients = [p.grad for p in parameters]
        processes.add_up([*gradients, loss])
        norm = torch.nn.utils.get_total_norm(gradients)
        if training.clip:
            torch.nn.utils.clip_grads_with_norm_(parameters, training.clip, norm)
        skipped = ~(loss.isfinite() & norm.isfinite())
        adamw(
            parameters, gradients, first, second, [], steps, fused=True, amsgrad=False, maximize=False, lr=lr, found_inf=skipped.float(),
            beta1=training.betas[0], beta2=training.betas[1], eps=EPSILON, weight_decay=training.weight_decay,
        )  # fmt: skip
        self.losses[step] = loss.masked_fill(skipped, torch.nan)

    @torch.no_grad()
    def follow(self, decays: Sequence[float]) -> None:
        """Move each average towards the weights."""
        self.decays.copy_(torch.tensor(list(decays), dtype=torch.float64))
        for average, decay in zip(self.averages, decays, strict=True):
            torch._foreach_lerp_(average, self.parameters, 1 - decay)

    @torch.no_grad()
    def averaged(self, model: nn.Module) -> list[dict[str, Tensor]]:
        """(name -> tensor) the state of `model` with each average in the place of its weights; the model itself keeps the first."""
        states = []
        for average in reversed(self.averages):
            torch._foreach_copy_(self.parameters, average)
            states.append({key: value.detach().clone() for key, value in model.state_dict().items()})
        return states[::-1]

    def skipped(self) -> list[int]:
        """Steps that were skipped."""
        return self.losses.isnan().nonzero().flatten().tolist()

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """What a checkpoint holds, by `<prefix>.<list>.<number>`; the tensors themselves, no copies."""
        lists = {"parameters": self.parameters, "first": self.first, "second": self.second, "steps": self.steps, "losses": [self.losses]}
        lists["decays"] = [self.decays]
        lists |= {f"average{i}": average for i, average in enumerate(self.averages)}
        return {f"{prefix}.{name}.{i}": tensor for name, values in lists.items() for i, tensor in enumerate(values)}
