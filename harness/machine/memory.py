"""How much memory a process has had. Imports no torch."""

import resource
import sys
from pathlib import Path


def peak_memory() -> float:
    """MiB that this process had at most, from its start on. On Linux `ru_maxrss` begins with what its parent had."""
    status = Path("/proc/self/status")
    for line in status.read_text(encoding="utf-8").splitlines() if status.exists() else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
