"""What a number depends on besides its inputs, settings and code: the commit, versions, device."""

import hashlib
import os
import platform
import shlex
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from harness.study.folders import CODE, PROJECT, original

DECIDES = ("harness", "baselines", "Snakefile", "pyproject.toml", "envs/constraints.txt", ":(exclude)*.md")  # a result; reports do not


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Git of the folder that the code is in, whatever repository its variables point to."""
    elsewhere = [name for name in os.environ if name.startswith("GIT_") and not name.startswith("GIT_CONFIG_")]
    environment = {name: value for name, value in os.environ.items() if name not in elsewhere} | {"LC_ALL": "C"}
    return subprocess.run(
        ["git", *arguments], cwd=CODE, env=environment, capture_output=True, encoding="utf-8", errors="replace", check=False
    )


@cache
def commit() -> tuple[str, bool]:
    """The commit, and whether what decides a result differs from it. Of no repository but the project's own."""
    head, reason = _head()
    if reason is None:
        return head[:12], bool(_git("status", "--porcelain", "--", *DECIDES).stdout.strip())
    if not (CODE / "Snakefile").exists() and (version := _released()):
        return version, _methods() != _methods(original(CODE))
    return f"unknown ({reason})", True


def _head() -> tuple[str, str | None]:
    """The commit in full, and None; or why the code is in no repository of its own with one, as git says it."""
    try:
        asked = _git("rev-parse", "--show-toplevel", ":Snakefile", "HEAD")  # of what it does not find, it says the name, and stops
    except OSError as error:
        return "", f"git does not run: {error.strerror}"
    if not asked.stdout:
        first = next(iter(asked.stderr.splitlines()), "git says nothing").removeprefix("fatal: ")
        cure = f"; git config --global --add safe.directory {shlex.quote(str(CODE))}" if "dubious ownership" in first else ""
        return "", f"git: {first}{cure}"
    top, snakefile, *head = asked.stdout.splitlines()
    if Path(top).resolve() != CODE.resolve():
        return "", f"the repository around it, {top}, is another project's"
    if snakefile == ":Snakefile":
        return "", "its repository does not have the Snakefile"
    return head[0], "its repository has no commit" if asked.returncode else None


def _methods(project: Path | None = None) -> dict[str, bytes]:
    """Files in baselines/: of the project, or of another."""
    return {path.name: path.read_bytes() for path in ((project or PROJECT) / "baselines").glob("*.py")}


def _released() -> str | None:
    """Version of the installed package, with a hash of what is in it; None where it is not installed."""
    try:
        version = metadata.version("dsr-harness")
    except metadata.PackageNotFoundError:
        return None
    package = CODE / "harness"
    files = sorted(path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    lines = [f"{path.relative_to(package).as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files]
    return f"version {version}, package {hashlib.sha256(chr(10).join(lines).encode()).hexdigest()[:12]}"


@cache
def provenance() -> dict[str, Any]:
    """What a number depends on besides its inputs and settings: commit, versions, device. (Precision and compilation are settings.)"""
    import torch

    from harness.machine.device import device, device_name

    cuda = device().type == "cuda"
    head, dirty = commit()
    return {
        "commit": head,
        "dirty": dirty,
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in ("torch", "numpy", "torch-fidelity", "transformers", "open-clip-torch")},
        "device": device_name(),
        "threads": torch.get_num_threads(),
        "tf32": bool(torch.backends.cuda.matmul.allow_tf32) if cuda else False,
    }
