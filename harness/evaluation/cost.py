"""What a network costs: parameters, bytes and FLOPs of one forward pass, counted by torch as in the paper (2 per multiply-add, attention
included). Everything is built on the `meta` device, where tensors have shapes and no values: any size is counted in well under a second,
and the count is the same on every machine. (Of real tensors it is not: the counter does not know the CPU's fused attention.)
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harness.denoiser.base import TABLES
from harness.study.study import Study

META = torch.device("meta")


@dataclass(frozen=True)
class Price:
    """Of one network. `flops`: one forward pass of one image."""

    parameters: int  # trainable ones
    all_parameters: int  # and the fixed position tables and Fourier frequencies, which are parameters in the released code
    stored: int  # values of a saved state: rotary tables too
    flops: int


def flops(call: Callable[[], object]) -> int:
    """FLOPs of what `call` computes. Tensors that it creates are on `meta`."""
    from torch.utils.flop_counter import FlopCounterMode

    with META, torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def price(build: Callable[[], nn.Module], *shape: int, run: Callable[[nn.Module, Tensor], object] = lambda model, x: model(x)) -> Price:
    """Of the module that `build` returns, run on one input of `shape`, batch axis included."""
    with META:
        model = build().to(META).eval()
        counted = flops(lambda: run(model, torch.empty(shape)))
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    fixed = sum(table.numel() for name, table in model.named_buffers() if name.endswith(TABLES))
    return Price(parameters, parameters + fixed, sum(value.numel() for value in model.state_dict().values()), counted)


def denoiser_price(study: Study, build: Callable[[], nn.Module]) -> Price:
    """Of a denoiser on one latent of the study."""

    def run(model: nn.Module, x: Tensor) -> Tensor:
        return model(x, torch.empty(1), torch.empty(1, dtype=torch.long))

    return price(build, 1, *study.latent_shape, run=run)


def kept_for_backward(study: Study, build: Callable[[], nn.Module]) -> int:
    """Bytes that a denoiser's forward pass of one latent keeps for the backward, in float32 and without compilation."""
    saved: list[Tensor] = []
    with META, torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        model = build().to(META)
        model(torch.empty(1, *study.latent_shape), torch.empty(1), torch.empty(1, dtype=torch.long))
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in saved}
    return sum(size for storage, size in storages.items() if storage not in weights)


def method_price(study: Study, method: str) -> Price:
    """Of the method's denoiser, changes by its `modify_denoiser` included."""
    from harness.denoiser.build import build_denoiser

    return denoiser_price(study, lambda: build_denoiser(study, method))


def cost_scores(study: Study, method: str) -> dict[str, float]:
    """The scores `parameters`, trainable ones, and `gflops`, of one forward pass of one latent."""
    counted = method_price(study, method)
    return {"parameters": counted.parameters, "gflops": counted.flops / 1e9}
