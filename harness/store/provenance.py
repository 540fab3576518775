"""What a number depends on besides its inputs and settings: the code that made it, the commit, versions, device."""

import ast
import hashlib
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

from harness.study.typed import ROOT


@cache
def _imports(source: str) -> set[str]:
    """Names of the harness modules that a file's source imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in names if name.split(".")[0] == "harness"}


def module_file(name: str) -> Path | None:
    """The source of a module of this repository."""
    path = ROOT.joinpath(*name.split("."))
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


@cache
def code_hash(*modules: str) -> str:
    """Hash of the source of `modules` and of every harness module that they import, directly or not.

    Snakemake does not see imported modules; this hash, as a param of each rule, makes it rerun what a change touches and no more.
    """
    waiting, files = list(modules), {}
    while waiting:
        name = waiting.pop()
        path = module_file(name)
        if path is not None and path not in files:
            source = path.read_text()
            files[path] = hashlib.sha256(source.encode()).hexdigest()
            waiting += _imports(source)
            waiting += [name.rpartition(".")[0]] if "." in name else []  # a package's __init__ runs too
    lines = sorted(f"{path.relative_to(ROOT).as_posix()} {value}" for path, value in files.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _git(*arguments: str) -> str | None:
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


@cache
def commit() -> tuple[str, bool]:
    """The commit, and whether what decides a result differs from it (rendered reports do not count)."""
    head = _git("rev-parse", "--short=12", "HEAD")
    changed = _git("status", "--porcelain", "--", "harness", "baselines", "Snakefile", "pyproject.toml", "envs/constraints.txt")
    return (head, bool(changed)) if head else ("unknown (not a git checkout)", True)


@cache
def provenance() -> dict:
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
