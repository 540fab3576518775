"""What a method costs: parameters and FLOPs of its denoiser, counted by torch as in the paper (2 per multiply-add, attention included)."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.config import Study
from harness.train import denoiser as denoisers


def cost(study: Study, method_name: str) -> dict[str, float]:
    """`parameters`: trainable ones. `gflops`: one forward pass of one latent."""
    model = denoisers.build(study, method_name).eval()
    shape = (1, study.encoder.width, study.grid, study.grid)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(shape), torch.zeros(1), torch.zeros(1, dtype=torch.long))
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {"parameters": parameters, "gflops": counter.get_total_flops() / 1e9}
