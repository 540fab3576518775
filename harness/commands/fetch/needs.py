"""What a study needs and lacks: the files that can be fetched, and those that are left to its user."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from harness.store import artifacts
from harness.store.asset_states import examine
from harness.store.assets import place
from harness.store.published import BESIDE, Publication, publication_of
from harness.study.sections.asset import Asset
from harness.study.study import Study
from harness.study.typed import UserError


@dataclass(frozen=True)
class Need:
    """A file to fetch. `sha256`: who states it -> digest; `exact`: whether `bytes` is its very size; `optional`: not all have it."""

    target: Path
    publication: Publication
    sha256: Mapping[str, str] = field(default_factory=dict)
    bytes: int | None = None
    exact: bool = False
    optional: bool = False

    @property
    def source(self) -> str:
        """For people: repository and file, or the address."""
        return f"{self.publication.hub}: {self.publication.file}" if self.publication.hub else str(self.publication.address)


@dataclass(frozen=True)
class Needs:
    """Of a study: what it lacks, and (path, what to do) of what a person has to get."""

    files: list[Need]
    by_hand: list[tuple[Path, str]]


def needs_of(study: Study, root: Path, results: Path = Path("results")) -> Needs:
    """What the study's assets lack below `root`. A sha256 that nobody states but `results` have recorded is one that is stated.

    UserError, in one line, for a file that is there and is another one than the study names: nothing is overwritten.
    """
    files: dict[Path, Need] = {}
    by_hand: dict[Path, str] = {}
    for name, asset in study.assets.items():
        found = examine(name, asset, root, check=False)
        if found.state.startswith("wrong"):
            raise UserError(f"{found.path}: {found.state}: {found.detail} (asset '{name}'); nothing is overwritten: move it away first")
        path, publication = Path(root) / asset.path, publication_of(asset)
        missing = found.state == "missing"
        if publication is None or publication.address is None:
            if missing:
                by_hand[path] = _instruction(asset, path, publication)
        elif not asset.hub:
            if missing:
                files[path] = _need(study, name, asset, path, publication, results)
        elif missing or (place(asset, root) == path and not _beside(path, asset, "config.json").exists()):
            files |= {need.target: need for need in _of_folder(study, name, asset, path, publication, results) if not need.target.exists()}
    return Needs(list(files.values()), list(by_hand.items()))


def _need(study: Study, name: str, asset: Asset, target: Path, publication: Publication, results: Path) -> Need:
    sha256 = {}
    if asset.sha256:
        sha256["the study"] = asset.sha256
    elif publication.sha256:
        sha256[publication.stated_by] = publication.sha256
    elif known := recorded(study.name, name, results):
        sha256[str(record_file(study.name, name, results))] = known
    return Need(target, publication, sha256, publication.bytes, exact=not asset.file)


def _of_folder(study: Study, name: str, asset: Asset, path: Path, publication: Publication, results: Path) -> list[Need]:
    """The weights that stand for a folder, and the files beside them that are read with them."""
    weights = _need(study, name, asset, path / str(asset.file), publication, results)
    beside = []
    for file in BESIDE:
        in_repository = PurePosixPath(str(asset.file)).with_name(file).as_posix()
        told = publication.model_copy(update={"file": in_repository, "bytes": None, "sha256": None})
        beside.append(Need(_beside(path, asset, file), told, optional=True))
    return [weights, *beside]


def _beside(path: Path, asset: Asset, file: str) -> Path:
    return (path / str(asset.file)).with_name(file)


def _instruction(asset: Asset, path: Path, publication: Publication | None) -> str:
    if publication and publication.instruction:
        return f"{publication.what}: {publication.instruction}"
    return f"{asset.source}; hf download {asset.hub} --local-dir {shlex.quote(str(path))}" if asset.hub else asset.source


def record_file(study: str, name: str, results: Path) -> Path:
    """Where the stage `asset` records an asset of a study."""
    return results / study / "assets" / f"{name}.json"


def recorded(study: str, name: str, results: Path) -> str | None:
    """The SHA-256 that was recorded of an asset at its first use; None where it was not used yet."""
    try:
        return artifacts.read_json(record_file(study, name, results))["sha256"]
    except UserError:
        return None
