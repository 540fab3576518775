"""Files that stages hand to one another: written atomically, each with a sidecar that says what it is and how it came about.

`x.safetensors` has `x.safetensors.meta.json` beside it: sha256, inputs with their sha256, config and code hash, commit, versions,
device, precision, seconds. A reader checks the sha256 first, so a truncated or changed file is refused by name.
"""

import ast
import hashlib
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path

from harness.config import ROOT, UserError, digest

META = ".meta.json"


# ----------------------------------------------------------------------------------------------------------------- writing


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path`, renamed onto it at the end of the block; removed if the block fails."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if temporary.is_dir():
            if path.is_dir():
                shutil.rmtree(path)
        else:
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True) if temporary.is_dir() else temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path | str, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text)


def write_json(path: Path | str, value: object) -> None:
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


@contextmanager
def artifact(
    path: Path | str,
    /,
    *,
    stage: str,
    module: str,
    config: object = None,
    inputs: Iterable[Path | str] = (),
    found: dict | None = None,
    **facts: object,
) -> Iterator[Path]:
    """Write an artifact: yields the temporary path; at the end the sidecar appears, then the artifact.

    `module` is the code that makes it, `facts` are further JSON values for the sidecar (seed, count, ...). `found`: those that are known
    only at the end of the block, which fills it.
    """
    began = time.monotonic()
    path = Path(path)
    record = _record(stage, module, config, inputs, facts)
    with atomic(path) as temporary:
        yield temporary
        record |= (found or {}) | {"sha256": sha256(temporary), "seconds": round(time.monotonic() - began, 3), "provenance": provenance()}
        write_json(path.with_name(path.name + META), record)


@contextmanager
def trained_artifact(
    path: Path | str,
    /,
    *,
    state: Path | str,
    stage: str,
    module: str,
    config: object,
    inputs: Iterable[Path | str] = (),
    found: dict | None = None,
    **facts: object,
) -> Iterator[tuple[Path, Path]]:
    """An artifact that takes long: yields (temporary path, folder for checkpoints).

    The folder, below `state`, is named after everything that the result depends on, so a checkpoint can only be met by the run it
    belongs to; it is removed once the artifact is there, and stays when the block fails.
    """
    folder = Path(state) / f"{stage}-{digest(_record(stage, module, config, inputs, facts))}"
    with artifact(path, stage=stage, module=module, config=config, inputs=inputs, found=found, **facts) as temporary:
        yield temporary, folder
    shutil.rmtree(folder, ignore_errors=True)


def _record(stage: str, module: str, config: object, inputs: Iterable[Path | str], facts: dict) -> dict:
    config = config.model_dump(mode="json") if hasattr(config, "model_dump") else config
    return {"stage": stage, "config": config, "inputs": {str(i): checked(i) for i in inputs}, "code": code_hash(module), **facts}


# ----------------------------------------------------------------------------------------------------------------- reading


def sha256(path: Path | str) -> str:
    """Of a file, or of a folder's files and their names."""
    path = Path(path)
    if path.is_dir():
        names = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
        return hashlib.sha256("\n".join(f"{name} {sha256(path / name)}" for name in names).encode()).hexdigest()
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def meta(path: Path | str) -> dict:
    """The sidecar of an artifact."""
    sidecar = Path(path).with_name(Path(path).name + META)
    try:
        return json.loads(sidecar.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: its record {sidecar.name} is missing; delete {path} and run the same command again") from None
    except json.JSONDecodeError:
        raise UserError(f"{sidecar}: not valid JSON; delete it and {path}, then run the same command again") from None


def checked(path: Path | str) -> str:
    """The artifact's sha256, after comparing it with its record. UserError if the file is missing or not what was written."""
    if not Path(path).exists():
        raise UserError(f"{path}: no such file; run the stage that makes it, or the whole line again")
    wanted, found = meta(path).get("sha256"), sha256(path)
    if wanted != found:
        raise UserError(
            f"{path}: corrupted or truncated: sha256 is {found[:16]}..., {str(wanted)[:16]}... was recorded; delete it and run the same command again"
        )
    return found


def read_json(path: Path | str) -> dict:
    checked(path)
    return json.loads(Path(path).read_text())


# -------------------------------------------------------------------------------------------------------------- provenance


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


def _module_file(name: str) -> Path | None:
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
        path = _module_file(name)
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

    from harness.runtime import device

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


# ----------------------------------------------------------------------------------------------------------------- tensors


def save_tensors(path: Path, tensors: dict, **metadata_: object) -> None:
    """safetensors with JSON metadata, under one name: the library writes several names in an order that differs from run to run."""
    from safetensors.torch import save_file

    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    path.touch()
    mode = path.stat().st_mode  # as the user's umask has it; the library writes a file for its owner alone
    save_file(tensors, path, {"harness": json.dumps(metadata_, sort_keys=True)})
    path.chmod(mode)


def load_tensors(path: Path | str, check: bool = True) -> tuple[dict, dict]:
    """(tensors, metadata) of a safetensors file; UserError if it is not the file that was recorded."""
    from safetensors import SafetensorError, safe_open

    if check:
        checked(path)
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, json.loads((file.metadata() or {}).get("harness", "{}"))
    except SafetensorError as error:
        raise UserError(f"{path}: not a readable safetensors file ({error}); delete it and run the same command again") from None


def check_weights(model: object, tensors: dict, path: Path | str) -> None:
    """UserError that names the first mismatch between a model's state and `tensors`, if there is one."""
    own = model.state_dict()
    for name in [*own, *tensors]:
        if name not in own or name not in tensors or own[name].shape != tensors[name].shape:
            have = tuple(tensors[name].shape) if name in tensors else "nothing"
            want = tuple(own[name].shape) if name in own else "nothing"
            raise UserError(f"{path}: weights of another architecture: '{name}' is {have} in the file, {want} in the model")


def load_weights(model: object, tensors: dict, path: Path | str) -> object:
    """`model` with `tensors` as its weights, strictly; UserError that names the first mismatch."""
    check_weights(model, tensors, path)
    model.load_state_dict(tensors)
    return model
