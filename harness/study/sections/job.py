"""Section `job`."""

from typing import Annotated

from pydantic import Field

from harness.study.typed import Count, Strict


class Job(Strict):
    """What one of the heavy jobs asks of the machine."""

    threads: Count = 1  # fixed, because it changes the last bits of a float
    mem_mb: Count = 1500
    minutes: Count = 120
    gpus: Annotated[int, Field(ge=0, le=1)] = 0  # of one process
    processes: Count = 1  # that train and sample one denoiser together (torchrun); the others' work is shorter
