"""CMMD: cmmd-pytorch@f7673a9 `distance.mmd` in float32 and float64, FD-Loss@2f22479 `compute_mmd` at the same sigma, and pixels."""

from torch.nn.functional import normalize

from harness.evaluation.cmmd import discrepancy
from harness.parity.base import Format, number
from harness.parity.extractors import CMMD_PIXELS_LEFT_OUT, Pixels, pixels_cmmd
from harness.parity.files import GoldenFile, Tensors

PROGRAMS = ("cmmd_pytorch_float32", "cmmd_pytorch_float64_input", "direct_float64", "fd_loss_compute_mmd_sigma10")


def outputs(file: GoldenFile, config: Pixels) -> Tensors:
    """Of `X` (N, D) and `Y` (M, D): the same with norm 1; the discrepancy () of these in either order, of one with itself, and of any norm.

    And the pixels that CLIP is fed of the images beside.
    """
    x, y = file.take("X", "Y")
    unit_x, unit_y = normalize(x), normalize(y)
    pairs = {"raw": (x, y), "unit_norm": (unit_x, unit_y), "X_Y_swapped": (unit_y, unit_x), "same": (unit_x, unit_x)}
    values = {name: number(discrepancy(*pair)[0]) for name, pair in pairs.items()}
    distances = {f"values.{name}.{program}": value for name, value in values.items() for program in PROGRAMS}
    return distances | {"X_unit": unit_x, "Y_unit": unit_y} | pixels_cmmd(file, config.grid_step)


SIZES = {"values.same.*": 1000.0}  # of a kernel's mean, times 1000
FORMAT = Format(Pixels, outputs, inputs=("X", "Y", "values.clip_*"), left_out=CMMD_PIXELS_LEFT_OUT, sizes=SIZES)
