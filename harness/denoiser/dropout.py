"""Dropout whose masks depend on a sample's key and the layer alone: not on the batch, its split, the device or a kill."""

import torch
from torch import Tensor

# of SplitMix64 (Steele, Lea, Flood 2014); the last is an odd number without another meaning
STEP, FIRST, SECOND, OF_LAYER = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD1B54A32D192ED03
KEYS = 2**63 - 1  # keys are 0 to KEYS - 1
BITS = 24  # of a uniform number


def uniform_of(keys: Tensor, layer: int, count: int) -> Tensor:
    """(B, count) float32 in [0, 1), of (B,) int64 keys: the first numbers of SplitMix64 from seeds STEP x key."""
    # counted before it is multiplied: torch.compile on CPUs takes a product of an arange for an index, and writes where it should not
    state = ((keys + _signed(layer * OF_LAYER))[:, None] + torch.arange(1, count + 1, device=keys.device)) * _signed(STEP)
    state = (state ^ _shifted(state, 30)) * _signed(FIRST)
    state = (state ^ _shifted(state, 27)) * _signed(SECOND)
    return _shifted(state ^ _shifted(state, 31), 64 - BITS).float() / 2**BITS


def dropped(x: Tensor, share: float, keys: Tensor, layer: int) -> Tensor:
    """x (B, N, C) with about `share` of its values set to 0 and the others divided by 1 - share; keys (B,) int64."""
    kept = uniform_of(keys, layer, x[0].numel()).view(x.shape) >= share
    return x * kept / (1 - share)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Shifted to the right without the sign."""
    return (x >> bits) & (2 ** (64 - bits) - 1)


def _signed(number: int) -> int:
    """Modulo 2^64, as a signed integer of 64 bits."""
    return (number + 2**63) % 2**64 - 2**63
