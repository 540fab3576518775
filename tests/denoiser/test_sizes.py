"""Parameters and FLOPs of the paper."""

import pytest
import torch
from architectures import on_meta
from torch.utils.flop_counter import FlopCounterMode

from harness.denoiser.ddt import DDT
from harness.denoiser.ditdh import DiTDH
from harness.denoiser.jit import JiT
from harness.denoiser.lightningdit import LightningDiT
from harness.denoiser.sit import SiT

RAE = {"input_size": 16, "in_channels": 768, "num_classes": 1000}
S, B, XL = (
    {**RAE, "hidden_size": width, "depth": depth, "num_heads": heads}
    for width, depth, heads in ((384, 12, 6), (768, 12, 12), (1152, 28, 16))
)
DH_XL = {**XL, "head_width": 2048, "head_depth": 2, "head_heads": 16}
SIT_XL = {**XL, "input_size": 32, "in_channels": 4, "patch_size": 2}
DDT_XL = {**SIT_XL, "depth": 22, "head_depth": 6}  # 675M in the README of MCG-NJU/DDT
JIT_H = {"input_size": 256, "in_channels": 3, "num_classes": 1000, "hidden_size": 1280, "depth": 32, "num_heads": 16, "patch_size": 16}
AT_4, AT_8 = ({"registers": 36, "register_start": start} for start in (4, 8))


@pytest.mark.parametrize(
    ("architecture", "sizes", "millions", "digits"),
    [
        (LightningDiT, S, 33.65, 2),
        (LightningDiT, B, 131.88, 2),
        (LightningDiT, XL, 677.25, 2),
        (LightningDiT, XL | AT_8, 677.33, 2),
        (DiTDH, DH_XL, 838.68, 2),
        (DiTDH, DH_XL | AT_8, 838.91, 2),
        (SiT, SIT_XL, 675, 0),
        (DDT, DDT_XL, 675, 0),
        (JiT, JIT_H, 953, 0),
    ],
    ids=["S", "B", "XL", "XL+36@8", "DH-XL", "DH-XL+36@8", "SiT-XL/2", "DDT-XL/2", "JiT-H/16"],
)
def test_parameters_of_the_paper(architecture, sizes, millions, digits):
    model = on_meta(architecture, **sizes)
    fixed = [table for name, table in model.named_buffers() if name.endswith(("pos_embed", ".W"))]  # parameters in the released code
    assert round(sum(v.numel() for v in [*model.parameters(), *fixed]) / 1e6, digits) == millions


def test_trainable_parameters_of_xl():
    assert round(sum(p.numel() for p in on_meta(LightningDiT, **XL).parameters()) / 1e6, 2) == 676.95


@pytest.mark.parametrize(
    ("architecture", "sizes", "gflops", "digits"),
    [
        (LightningDiT, S, 12.4, 1),
        (LightningDiT, S | AT_4, 13.67, 2),
        (LightningDiT, B, 46.6, 1),
        (LightningDiT, B | AT_4, 51.16, 2),
        (LightningDiT, XL, 238.1, 1),
        (LightningDiT, XL | AT_8, 262.9, 1),
        (DiTDH, DH_XL, 323.2, 1),
        (DiTDH, DH_XL | AT_8, 359.3, 1),
    ],
    ids=["S", "S+36@4", "B", "B+36@4", "XL", "XL+36@8", "DH-XL", "DH-XL+36@8"],
)
def test_gflops_of_the_paper(architecture, sizes, gflops, digits):
    model = on_meta(architecture, **sizes)
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, 768, 16, 16), torch.empty(1), torch.empty(1, dtype=torch.long))
    assert round(counter.get_total_flops() / 1e9, digits) == gflops
