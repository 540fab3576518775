"""The records beside the artifacts of a results folder, read as a chain from a score back to the data, each file hashed once."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath

from pydantic import BaseModel, ValidationError

from harness.store import artifacts, code
from harness.store.assets import locate
from harness.study.sections.pixels import Pixels
from harness.study.typed import UserError

# Inputs are listed from the samples back to the data, so that each artifact is met first where it belongs.
ORDER = (
    "outliers", "samples", "guidance", "denoiser", "decoder", "latents", "registers", "encoder",
    "references", "judge", "clip", "data", "asset",
)  # fmt: skip


class TracedProvenance(BaseModel):
    """What is read of how an artifact was made."""

    commit: str
    dirty: bool
    device: str
    python: str

    @property
    def revision(self) -> str:
        """The commit, and whether files had been changed since."""
        return self.commit + "+dirty" * self.dirty


class Supplied(BaseModel):
    """What is read of the whitening statistics that a study supplies."""

    file: str
    entries: dict[str, list[int] | None]


class Record(BaseModel):
    """What is read of an artifact's sidecar."""

    stage: str
    sha256: str
    inputs: dict[str, str]
    code: str
    sources: dict[str, str] = {}  # a record of before they were recorded has none
    config: object
    seconds: float
    provenance: TracedProvenance
    pixels: Pixels | None = None  # of a decoder: what its output is
    statistics: Supplied | None = None  # of latents: what whitens them, where it is not their own

    @property
    def remarks(self) -> list[str]:
        """What else is told of it."""
        supplied = [f"whitened by {self.statistics.file} ({', '.join(self.statistics.entries)})"] if self.statistics else []
        return [*supplied, *([self.pixels.text] if self.pixels else [])]

    @cached_property
    def changed(self) -> list[str]:
        """Source files in which now something else runs than when the artifact was made, as far as this version of Python can say."""
        return code.changed(self.sources) if code.python(self.provenance.python) == code.PYTHON else []


@dataclass(frozen=True)
class Artifact:
    """`name`: path below the results folder, where it is there. `sha256` is of the file as it is now; None where it is missing."""

    name: str
    sha256: str | None
    record: Record | None
    content: str | None  # of an asset's record: sha256 of the asset
    problem: str | None

    @property
    def hashes(self) -> set[str]:
        """Those that a row can have of it; of a file that is spoiled or missing the one that was recorded, so that it is one problem."""
        return {value for value in (self.record.sha256 if self.record else self.sha256, self.content) if value}


class Chain:
    """The artifacts below a results folder; each is hashed once."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self.seen: dict[str, Artifact] = {}

    def artifact(self, recorded: str) -> Artifact:
        """The artifact that a record calls `recorded`."""
        name = relative(recorded, self.results)
        if name not in self.seen:
            self.seen[name] = self._look(name)
        return self.seen[name]

    def _look(self, name: str) -> Artifact:
        path = self.results / name
        sha256 = artifacts.sha256(path) if path.exists() else None
        record, content, problem = None, None, None if sha256 else "no such file"
        try:
            record = Record.model_validate(artifacts.meta(path))
            if sha256 and sha256 != record.sha256:
                problem = f"sha256 is {brief(sha256)}, its record says {brief(record.sha256)}"
            elif sha256 and record.stage == "asset":
                content = str(json.loads(path.read_text(encoding="utf-8"))["sha256"])
                problem = _differs(path)
        except UserError:
            problem = problem or "its record is missing or not JSON"
        except (ValidationError, ValueError, KeyError, TypeError):
            problem = problem or "its record is not one that this harness writes"
        return Artifact(name, sha256, record, content, problem)

    def inputs(self, artifact: Artifact) -> list[tuple[Artifact, str]]:
        """(artifact, sha256 that the consumer read) of what an artifact was made from, in the order of ORDER."""
        inputs = [(self.artifact(name), sha256) for name, sha256 in artifact.record.inputs.items()] if artifact.record else []
        return sorted(inputs, key=lambda pair: (_place(pair[0]), pair[0].name))

    def behind(self, artifact: Artifact) -> dict[str, Artifact]:
        """An artifact and everything it was made from, directly or not, by name."""
        seen, waiting = {}, [artifact]
        while waiting:
            one = waiting.pop()
            if one.name not in seen:
                seen[one.name] = one
                waiting += [other for other, _ in self.inputs(one)]
        return seen


def _differs(record_file: Path) -> str | None:
    """Why an asset is not what its record says, all of it hashed; None where it is."""
    try:
        locate(record_file, anew=True)
    except UserError as error:
        return str(error)
    return None


def _place(artifact: Artifact) -> int:
    """In ORDER; after all of them without a record of a stage."""
    stage = artifact.record.stage if artifact.record else ""
    return ORDER.index(stage) if stage in ORDER else len(ORDER)


def brief(sha256: str | None) -> str:
    """The first 12 digits of a hash; ? where there is none."""
    return sha256[:12] if sha256 else "?"


def relative(recorded: str, results: Path) -> str:
    """A path of a record, below the results folder or that of another study beside it: the longest end of it that is there; else as it is.

    Records name paths as the stage was given them, from the folder it was started in; results may have moved since.
    """
    parts = PurePath(recorded).parts
    ends = [PurePath(*parts[start:]) for start in range(len(parts)) if start or not PurePath(recorded).is_absolute()]
    for name in [*ends, *(PurePath("..", *end.parts) for end in ends if len(end.parts) > 1)]:
        if (results / name).exists() or (results / f"{name}{artifacts.META}").exists():
            return name.as_posix()
    return recorded
