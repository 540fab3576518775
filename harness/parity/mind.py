"""MIND of torch-fidelity@5e211a9 and diffusionbench-evals@01c437f, which agree to the bit, in float32 and in float64."""

import torch

from harness.evaluation.mind import distance, draws
from harness.parity.base import Described, Format, number
from harness.parity.files import GoldenFile, Tensors


class Run(Described):
    """What one value was computed with."""

    num_projections: int
    rng_seed: int


class MINDConfig(Described):
    """Runs by their names: `swapped` is of Y against X, `equal_n_head` of as many first rows, `self` of X against itself."""

    values: dict[str, Run]


def outputs(file: GoldenFile, config: MINDConfig) -> Tensors:
    """Of `X` (N, D) and `Y` (M, D): of every run the value () and how many rows of each side it is of; draws of the main run.

    These are the rows (n,) of both and the first three directions (3, D).
    """
    x, y = file.take("X", "Y")
    few = min(len(x), len(y))
    pairs = {"swapped": (y, x), "equal_n_head": (x[:few], y[:few]), "self": (x, x)}
    main = config.values["main"]
    rows_x, rows_y, directions = draws((len(x), len(y)), x.shape[1], main.rng_seed, main.num_projections)
    computed = {"subsample_index_X": rows_x, "subsample_index_Y": rows_y, "directions_first3": directions[:3]}
    for name, run in config.values.items():
        sides = pairs.get(name, (x, y))
        value, shares = distance(*sides, run.rng_seed, run.num_projections)
        computed |= {f"values.{name}.{program}": number(value) for program in ("fdeval", "torch_fidelity", "float64")}
        computed[f"values.{name}.n_used"] = torch.tensor(float(len(shares)))
    return computed


FORMAT = Format(MINDConfig, outputs, inputs=("X", "Y", "values.*.num_projections", "values.*.rng_seed"))
