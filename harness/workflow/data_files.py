"""Hashes of files that rules read besides code, settings and inputs; a param of the rules that do."""

from pathlib import Path

from harness.store.artifacts import sha256
from harness.study.study import load_study
from harness.study.typed import digest

HARNESS = Path(__file__).parents[1]
SIZES = ["siglip2_b_dit_s", "siglip2_b_dit_b", "siglip2_b_dit_l", "siglip2_b", "siglip2_b_ditdh", "siglip2_so400m", "sit_xl", "jit_h"]
SIZED = [f"imagenet256_{name}" for name in SIZES]  # one study for each size of denoiser in the paper, in the order of compute.md


def paper_sizes() -> str:
    """Hash of what reports/compute.md is rendered from, besides code."""
    paper = sha256(HARNESS / "report" / "paper.yaml")
    return digest([paper, *(load_study(name).model_dump(mode="json") for name in SIZED)])


def published_neurons() -> str:
    """Hash of the published neuron lists, which are data and no part of a code hash."""
    return sha256(HARNESS / "encoder" / "register_neurons")[:16]


def report_data() -> str:
    """Hash of what reports are rendered from besides code and rows: the paper's values, the template of the HTML page."""
    return digest([sha256(HARNESS / "report" / name) for name in ("paper.yaml", "page.html.j2")])
