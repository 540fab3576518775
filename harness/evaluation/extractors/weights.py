"""The weights of an extractor, from a local file or a folder of the hub; nothing is downloaded."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from harness.store import asset_files, foreign
from harness.study.sections.extractors import ExtractorInfo
from harness.study.typed import UserError

IN_FOLDERS = ("model.safetensors", "pytorch_model.bin")  # of timm and transformers: the first that is there


class Source(NamedTuple):
    """The file that weights come from, its SHA-256, and the container that was taken of it."""

    file: Path
    sha256: str
    container: str


@dataclass(frozen=True)
class Wanted:
    """An extractor by name, and its weights at `path`, a file or a folder of the hub.

    `sha256`: that of the file, or its first digits, where it is known; `container`: of several in it, the one that is meant; `shape`: what
    the network's constructor is given in place of the published sizes; `precision`: `fp32` or `bf16`.
    """

    name: str
    info: ExtractorInfo
    path: Path
    sha256: str | None = None
    container: str | None = None
    shape: Mapping[str, Any] = field(default_factory=dict)
    precision: str = "fp32"

    def read(self) -> tuple[dict[str, Tensor], Source]:
        """Tensors of any shape by name, floating ones in float32, and where they come from.

        UserError where the file is not there, is another one, or cannot be read as weights alone.
        """
        file = self.file(IN_FOLDERS)
        digest = self.check_hash(file)
        tensors, taken = foreign.read_container(file, self.container)
        floats = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
        return floats, Source(file, digest, str(taken["container"]))

    def file(self, names: tuple[str, ...]) -> Path:
        """`path`, or of a folder the first file of `names` in it; UserError that says where it is published if it is not there."""
        if not self.path.exists():
            raise UserError(f"{self.path}: no such file; extractor '{self.name}' needs {self.published}")
        if not self.path.is_dir():
            return self.path
        file = next((self.path / name for name in names if (self.path / name).is_file()), None)
        if file is None:
            raise UserError(f"{self.path}: a folder without {' or '.join(names)}; extractor '{self.name}' needs {self.published}")
        return file

    def check_hash(self, file: Path) -> str:
        """SHA-256 of a file; UserError if it does not begin with the one that is wanted."""
        digest = asset_files.sha256(file)
        if self.sha256 and not digest.startswith(self.sha256):
            raise UserError(
                f"{file}: has sha256 {digest[:16]}..., extractor '{self.name}' is to have {self.sha256[:16]}...; it needs {self.published}"
            )
        return digest

    @property
    def published(self) -> str:
        return f"the weights that are published at {self.info.published}"


def without(tensors: dict[str, Tensor], *beginnings: str) -> dict[str, Tensor]:
    """Tensors, of any shape, whose names do not begin so: parts of the file's network that the extractor does not have."""
    return {name: value for name, value in tensors.items() if not name.startswith(beginnings)}
