"""What code a number depends on: every source file that its stage imports, each with a hash of what runs in it.

What runs is the syntax tree without docstrings: comments, blank lines and formatting are not in it. The grammar, and with it the tree,
differs between minor versions of Python, so that hashes of two versions are not compared: a version is part of the code.
"""

import ast
import hashlib
import platform
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from harness.study.folders import CODE, PROJECT

PACKAGES = ("harness", "baselines")

# What is imported and can change no number, each with the reason. Whatever is not named here counts.
CHANGES_NO_NUMBER = {
    "harness.machine.progress": "prints, and hands nothing on",
    "harness.store.code": "makes these hashes: where they come out otherwise, everything runs again by itself",
    "harness.store.locks": "says who writes an artifact first, not what is in it",
}


def python(version: str) -> str:
    """The minor version of Python, of 3.11.7 say, whose grammar the hashes follow."""
    return "Python " + ".".join(version.split(".")[:2])


PYTHON = python(platform.python_version())


def module_file(name: str) -> Path | None:
    """The source of a module of this repository."""
    path = _file(name.replace(".", "/"))
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


def sources(module: str, *files: Path) -> dict[str, str]:
    """File -> hash of what runs in it: of `module`, of `files` (of methods), and of what they import of this repository, by any way."""
    found = dict(_closure(module))
    for file in files:
        source = _read(file.read_bytes())
        found[_name(file)] = source.runs
        for name in source.imports(f"baselines.{file.stem.replace('.', '_')}"):
            found |= _closure(name)
    return dict(sorted(found.items()))


def read_anew() -> None:
    """Forget what the files were: within a process each is read once."""
    _closure.cache_clear()
    _module.cache_clear()
    _now.cache_clear()


def code_hash(module: str, *files: Path) -> str:
    """One hash of `sources` and of the version of Python, which a row and the record of an artifact name."""
    return hash_of(sources(module, *files))


def hash_of(hashes: dict[str, str]) -> str:
    """`code_hash` of what `sources` gave."""
    return _digest("\n".join([PYTHON, *(f"{name} {value}" for name, value in hashes.items())]))


def changed(recorded: dict[str, str]) -> list[str]:
    """Those of the files of earlier `sources` in which something else runs now, or that are gone."""

    return [name for name, value in recorded.items() if _now(_file(name)) != value]


@cache
def _now(path: Path) -> str | None:
    """Hash of what runs in a file; None where there is none that can be read."""
    with suppress(OSError, SyntaxError, ValueError):
        return _read(path.read_bytes()).runs
    return None


@cache
def _closure(module: str) -> dict[str, str]:
    waiting, found = [module], {}
    while waiting:
        one = _module(waiting.pop())
        if one is not None and one.file not in found:
            found[one.file] = one.runs
            waiting += one.imports
    return found


class _Module(NamedTuple):
    """A module of this repository that can change a number: its file, the hash of what runs in it, and names that it imports."""

    file: str
    runs: str
    imports: tuple[str, ...]


@cache
def _module(name: str) -> _Module | None:
    path = module_file(name)
    if path is None or name in CHANGES_NO_NUMBER:
        return None
    source = _read(path.read_bytes())
    imports = dict.fromkeys(source.imports(f"{name}.__init__" if path.name == "__init__.py" else name))
    parents = [name.rpartition(".")[0]] if "." in name else []  # a package's __init__ runs too
    return _Module(_name(path), source.runs, (*imports, *parents))


def _name(path: Path) -> str:
    """Of a source file, alike in a checkout and installed: `harness/...` below the code, `baselines/...` below the project."""
    roots = [root for root in (CODE, PROJECT) if path.is_relative_to(root)]
    root = max(roots, key=lambda root: len(root.parts), default=path.parent)  # the inner one, where one lies in the other
    return path.relative_to(root).as_posix()


def _file(name: str) -> Path:
    """The file that `_name` calls so."""
    return (PROJECT if name.partition("/")[0] == "baselines" else CODE) / name


class _Source(NamedTuple):
    """What is asked of a source file: the hash of what runs, and (dots before the name, module, names) of each import in it."""

    runs: str
    imported: tuple[tuple[int, str, tuple[str, ...]], ...]

    def imports(self, importer: str) -> Iterator[str]:
        """Names that may be modules of this repository, imported by the module `importer`."""
        for dots, module, names in self.imported:
            parents = importer.split(".")[:-dots] if dots else []
            whole = ".".join([*parents, *([module] if module else [])])
            if whole.partition(".")[0] in PACKAGES:
                yield whole
                yield from (f"{whole}.{name}" for name in names)


@cache
def _read(source: bytes) -> _Source:
    tree = ast.parse(source)
    imported: list[tuple[int, str, tuple[str, ...]]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported += [(0, alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported.append((node.level, node.module or "", tuple(alias.name for alias in node.names)))
        elif isinstance(node, ast.Constant):
            node.kind = None  # u"..."
        for block in ("body", "orelse", "finalbody"):
            if isinstance(statements := getattr(node, block, None), list):
                setattr(node, block, [one for one in statements if not _prose(one)] or (statements and [ast.Pass()]))
    return _Source(_digest(ast.dump(tree)), tuple(imported))


def _prose(statement: ast.stmt) -> bool:
    """A docstring, or a string that stands alone elsewhere."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:16]
