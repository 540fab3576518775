"""What a plan counts the cost of."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Network:
    """A module with fresh weights (`build` works under torch.device("meta"), too), and one call of it."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]  # of the input, batch axis included
    run: Callable[[nn.Module, Tensor], object] = lambda model, x: model(x)
