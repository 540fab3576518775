"""Recorded arrays and values of other programs' scores, from tests/data."""

import json
from pathlib import Path

import numpy as np
import torch

DATA = Path(__file__).parent / "data"


def golden(name):
    """Its arrays as tensors, and its values."""
    with np.load(DATA / f"{name}.npz", allow_pickle=False) as file:
        tensors = {key: torch.from_numpy(file[key]) for key in file.files if key != "meta"}
        return tensors, json.loads(str(file["meta"]))["values"]


def normal(n, draw, shift=0.0, width=6):
    """(n, width) float32 features of a drawn set."""
    return torch.randn(n, width, generator=torch.Generator().manual_seed(draw)) * torch.linspace(0.5, 1.5, width) + shift
