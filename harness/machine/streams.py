"""Random streams: what a draw depends on, and nothing else."""

import numpy as np
import torch


def stream(seed: int, purpose: str, index: int = 0, place: str | torch.device = "cpu") -> torch.Generator:
    """A generator that depends on (seed, purpose, index) and nothing else. A GPU's draws are other numbers than a CPU's."""
    words = [seed, index, *purpose.encode()]
    return torch.Generator(place).manual_seed(int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1))


def seed_initialisation(seed: int) -> None:
    """Seed the global generator that layers draw their first weights from."""
    torch.manual_seed(stream(seed, "initialisation").initial_seed())
