"""Assets: files and folders that a study's user supplies (weights, statistics, images). Nothing here reaches for the network.

The stage `asset` hashes one of them, checks its sha256 where the study knows it, and records its content; later stages take that record.
Where the asset is, and the sizes and times of its files, stand in the sidecar: a copy or a touched file costs a hash and no result.
"""

import os
import shlex
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NoReturn

from pydantic import BaseModel

from harness.store import artifacts, asset_files
from harness.store.asset_files import Facts, Listing
from harness.store.files import write_json
from harness.study.sections.asset import Asset
from harness.study.study import Study
from harness.study.typed import UserError, nearest

ASSETS_FOLDER = "assets"  # default folder, beside the Snakefile
LISTING = ".files"  # suffix of the list of a folder's files, beside its record
State = Literal["missing", "present", "verified", "wrong"]  # present: there is no sha256 to compare with


class AssetStatus(BaseModel):
    """Where an asset is looked for, and whether it is there."""

    name: str
    path: Path
    state: State
    sha256: str | None = None
    bytes: int | None = None


def place(asset: Asset, root: Path) -> Path:
    """Where an asset is, or ought to be: below the assets folder, else in the local cache of the hub. Never the network."""
    path = Path(root) / asset.path
    if path.exists() or asset.hub is None:
        return path
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(asset.hub, asset.file or "config.json")
    return Path(cached).parent if isinstance(cached, str) else path


def is_there(asset: Asset, path: Path) -> bool:
    """Whether an asset is at `path`, and of a folder the file that the study names."""
    return path.exists() and not (path.is_dir() and asset.file and not (path / asset.file).is_file())


def look(name: str, asset: Asset, root: Path) -> AssetStatus:
    """The state of an asset. A folder's sha256 is that of the file that the study names, else of its files' names and contents."""
    path = place(asset, root)
    if not is_there(asset, path):
        return AssetStatus(name=name, path=path / asset.file if path.exists() and asset.file else path, state="missing")
    return Found.at(path, asset.file).status(name, asset)


def missing_line(name: str, asset: Asset, root: Path) -> str:
    """One line: what is missing, where to put it, where it comes from."""
    path = Path(root) / asset.path
    download = f"; hf download {asset.hub} --local-dir {shlex.quote(str(path))}" if asset.hub else ""
    return f"asset '{name}' is missing: put it at {path} ({asset.source}{download})"


def missing(study: Study, root: Path, names: Collection[str] | None = None) -> list[str]:
    """A line for each of the study's assets (or of those `names`) that is not there."""
    wanted = {name: study.assets[name] for name in study.assets if names is None or name in names}
    return [missing_line(name, asset, root) for name, asset in wanted.items() if not place(asset, root).exists()]


# ----------------------------------------------------------------------------------------------------------- what is there


@dataclass(frozen=True)
class Found:
    """An asset as it is now: its files with size and time, hashed when asked for. `file`: of a folder, the weights that stand for it."""

    path: Path
    file: str | None
    files: Mapping[str, Facts]
    known: Mapping[str, tuple[Facts, str]] | None = None  # hashes that need not be made anew

    @classmethod
    def at(cls, path: Path, file: str | None) -> "Found":
        """At a path as it is given: a link stays one, and what it points to counts."""
        path = Path(os.path.abspath(path))
        file = file if path.is_dir() else None
        return cls(path, file, asset_files.facts_of(path, file))

    @property
    def stamp(self) -> str:
        return asset_files.stamp(self.path, self.files)

    @property
    def listed(self) -> bool:
        """Whether each of its files is looked at when it is opened: a folder that no single file stands for."""
        return self.file is None and "" not in self.files

    @cached_property
    def hashes(self) -> dict[str, str]:
        return asset_files.hashes(self.path, self.files, self.known)

    @cached_property
    def content(self) -> dict[str, Any]:
        """What results depend on: sha256 and bytes; of a folder with weights, also the sha256 of the JSON files beside them."""
        content: dict[str, Any] = {"sha256": self.hashes.get(self.file or ""), "bytes": asset_files.total(self.files)}
        if self.listed:
            content["sha256"] = asset_files.digest_of("\n".join(f"{name} {sha256}" for name, sha256 in self.hashes.items()))
        if self.file:
            content["beside"] = {name: sha256 for name, sha256 in self.hashes.items() if name != self.file}
        return content

    def status(self, name: str, asset: Asset) -> AssetStatus:
        sha256 = self.content["sha256"]
        known: State = "present" if asset.sha256 is None else "verified" if sha256.startswith(asset.sha256) else "wrong"
        return AssetStatus(name=name, path=self.path, state=known, sha256=sha256, bytes=self.content["bytes"])

    def check(self, name: str, asset: Asset) -> str:
        """`present` or `verified`; UserError if it is another file than the study names."""
        status = self.status(name, asset)
        if status.state == "wrong":
            raise UserError(
                f"asset '{name}': {status.path} has sha256 {str(status.sha256)[:16]}..., the study wants {asset.sha256}...; "
                f"get it again from {asset.source}"
            )
        return status.state

    def write_listing(self, record_file: Path) -> str | None:
        """The list of a folder's files, beside the record. Returns its SHA-256."""
        return Listing.of(self.files, self.hashes).write(_listing_file(record_file)) if self.listed else None


# ---------------------------------------------------------------------------------------------------------------- recording


def record_asset(study: Study, *, name: str, assets: Path, out: Path) -> dict[str, Any]:
    """Stage `asset`: write the record of the asset `name`; UserError if it is missing or another file than the study names."""
    asset = study.assets[nearest(name, study.assets, "asset")]
    path = place(asset, assets)
    if not is_there(asset, path):
        raise UserError(missing_line(name, asset, assets))
    found = Found.at(path, asset.file)
    state, stamp, outcome = found.check(name, asset), found.stamp, dict[str, object]()
    with artifacts.artifact(
        out, stage="asset", module=__name__, config=asset, outcome=outcome, path=str(found.path), stamp=stamp, first=stamp
    ) as temporary:
        write_json(temporary, {"name": name, **found.content})
        outcome["listing"] = found.write_listing(out)
    return {"asset": name, "state": state, "sha256": found.content["sha256"]}


def state_of(record_file: Path, name: str, asset: Asset, root: Path) -> str:
    """Path, size and time of an asset, as a line that is another one only where its content is, too: a param of the rule that records it.

    What differs in path, size or time is hashed; where the content is the same, the sidecar learns them and the line stays that of the
    record, as it does where the asset is missing. UserError if it is another file than the study names.
    """
    path, recorded = place(asset, root), _sidecar(record_file)
    if not is_there(asset, path):
        return recorded.get("first", "")
    found = Found.at(path, asset.file)
    if recorded.get("stamp") in (None, found.stamp):
        return recorded.get("first", found.stamp)
    listing = Listing.read(_listing_file(record_file), recorded["listing"])
    found = Found(found.path, found.file, found.files, listing.known() if listing else None)
    found.check(name, asset)
    if artifacts.read_json(record_file) != {"name": name, **found.content}:
        return found.stamp
    with suppress(OSError):  # read-only results: it is hashed again next time
        facts = {"path": str(found.path), "stamp": found.stamp, "listing": found.write_listing(record_file)}
        artifacts.write_record(record_file, recorded | facts)
    return recorded["first"]


def _sidecar(record_file: Path) -> dict[str, Any]:
    """Of a sound record; empty where there is none."""
    try:
        artifacts.checked(record_file)
        return artifacts.meta(record_file)
    except UserError:
        return {}


def _listing_file(record_file: Path) -> Path:
    return record_file.with_name(f"{record_file.name}{LISTING}")


# ------------------------------------------------------------------------------------------------------------------ reading


def record_of(records: Iterable[Path], field: str) -> Path:
    """That of the asset `field` among the files of records; UserError where it is not there."""
    path_of_record = next((Path(path) for path in records if Path(path).name == f"{field}.json"), None)
    if path_of_record is None:
        raise UserError(f"asset '{field}': its record is needed; name it with --records (stage asset writes it)")
    return path_of_record


def locate(record_file: Path, *, anew: bool = False) -> Path:
    """Where the asset of a record is; UserError if it is gone or holds something else.

    A file is hashed, once by a process; of a folder, what has another size or time than was recorded, or with `anew` everything.
    """
    kept = Kept(record_file)
    kept.check(anew)
    return kept.path


class Kept:
    """The asset of a record. UserError if it is gone; what it holds is compared when `check` or `file` is called."""

    def __init__(self, record_file: Path) -> None:
        self.record, self.content, facts = Path(record_file), artifacts.read_json(record_file), artifacts.meta(record_file)
        self.path, self.name = Path(facts["path"]), self.content["name"]
        self._weights, self._listing = (facts.get("config") or {}).get("file"), facts.get("listing")
        if not self.path.exists():
            raise UserError(
                f"asset '{self.name}' is no longer at {self.path}; put it back, or run the same command again with assets=FOLDER, where "
                "it is now"
            )

    @cached_property
    def listing(self) -> Listing:
        """Of a folder that no single file stands for."""
        listing = Listing.read(_listing_file(self.record), self._listing)
        if listing is None:
            raise UserError(f"{_listing_file(self.record)}: not as it was written; delete {self.record} and run the same command again")
        return listing

    def check(self, anew: bool) -> None:
        """UserError for the first file that is not what was recorded."""
        found = Found.at(self.path, self._weights)
        if not found.listed:
            if self.content != {"name": self.name, **found.content}:
                before = {found.file or "": self.content["sha256"], **self.content.get("beside", {})}
                names = sorted(before.keys() | found.hashes.keys())
                self._refuse(next((n for n in names if before.get(n) != found.hashes.get(n)), ""), "has changed")
            return
        for name in self.listing.names:
            if name not in found.files:
                self._refuse(name, "is gone")
        for name, facts in found.files.items():
            if change := self.listing.change(self.path, name, facts):
                self._refuse(name, change)
        if anew:
            for name, sha256 in zip(self.listing.names, self.listing.sha256, strict=True):
                if found.hashes[name] != sha256:
                    self._refuse(name, "has changed")

    def file(self, name: str) -> Path:
        """Of a folder: the path of one of its files; UserError if that is not what was recorded."""
        if change := self.listing.change(self.path, name):
            self._refuse(name, change)
        return self.path / name

    def _refuse(self, name: str, change: str) -> NoReturn:
        raise UserError(
            f"asset '{self.name}': {self.path / name} {change} since it was recorded; put back what was there, "
            f"or delete {self.record} and run the same command again"
        )
