"""What a number depends on besides its inputs, settings and code: the commit, versions, device."""

import platform
import subprocess
from functools import cache
from importlib import metadata
from typing import Any

from harness.study.typed import ROOT


def _git(*arguments: str) -> str | None:
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


@cache
def commit() -> tuple[str, bool]:
    """The commit, and whether what decides a result differs from it (rendered reports and pages of text do not count)."""
    head = _git("rev-parse", "--short=12", "HEAD")
    decides = ("harness", "baselines", "Snakefile", "pyproject.toml", "envs/constraints.txt", ":(exclude)*.md")
    changed = _git("status", "--porcelain", "--", *decides)
    return (head, bool(changed)) if head else ("unknown (not a git checkout)", True)


@cache
def provenance() -> dict[str, Any]:
    """What a number depends on besides its inputs and settings: commit, versions, device. (Precision and compilation are settings.)"""
    import torch

    from harness.machine.device import device

    cuda = device().type == "cuda"
    head, dirty = commit()
    return {
        "commit": head,
        "dirty": dirty,
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in ("torch", "numpy", "torch-fidelity", "transformers", "open-clip-torch")},
        "device": torch.cuda.get_device_name() if cuda else f"{platform.machine()} CPU",
        "threads": torch.get_num_threads(),
        "tf32": bool(torch.backends.cuda.matmul.allow_tf32) if cuda else False,
    }
