"""Assets: files and folders that a study's user supplies (weights, statistics, images). Nothing here reaches for the network.

The stage `asset` looks at one of them, checks its sha256 where the study knows it, and writes a small record. Later stages take the
record: its own hash stands for the asset's content, so that a moved folder changes no result.
"""

import hashlib
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from harness.store import artifacts
from harness.store.files import write_json
from harness.study.sections.asset import Asset
from harness.study.study import Study
from harness.study.typed import UserError, nearest

ASSETS_FOLDER = "assets"  # default folder, beside the Snakefile


class AssetStatus(BaseModel):
    """Where an asset is looked for, and whether it is there. `missing`, `present` (no sha256 to compare), `verified`, `wrong`."""

    name: str
    path: Path
    state: Literal["missing", "present", "verified", "wrong"]
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


def look(name: str, asset: Asset, root: Path) -> AssetStatus:
    """The state of an asset. A folder's sha256 is that of the file that the study names, else of its files' names and sizes."""
    path = place(asset, root)
    if not path.exists():
        return AssetStatus(name=name, path=path, state="missing")
    if path.is_dir() and asset.file and not (path / asset.file).is_file():
        return AssetStatus(name=name, path=path / asset.file, state="missing")
    if path.is_dir():
        names, size = _listing(path)
        sha256 = artifacts.sha256(path / asset.file) if asset.file else names
    else:
        sha256, size = artifacts.sha256(path), path.stat().st_size
    state = "present" if asset.sha256 is None else "verified" if sha256.startswith(asset.sha256) else "wrong"
    return AssetStatus(name=name, path=path, state=state, sha256=sha256, bytes=size)


def missing_line(name: str, asset: Asset, root: Path) -> str:
    """One line: what is missing, where to put it, where it comes from."""
    path = Path(root) / asset.path
    download = f"; hf download {asset.hub} --local-dir {path}" if asset.hub else ""
    return f"asset '{name}' is missing: put it at {path} ({asset.source}{download})"


def missing(study: Study, root: Path, names: Collection[str] | None = None) -> list[str]:
    """A line for each of the study's assets (or of those `names`) that is not there."""
    wanted = {name: study.assets[name] for name in study.assets if names is None or name in names}
    return [missing_line(name, asset, root) for name, asset in wanted.items() if not place(asset, root).exists()]


def record_asset(study: Study, *, name: str, assets: Path, out: Path) -> dict[str, Any]:
    """Stage `asset`: write the record of the asset `name`; UserError if it is missing or another file than the study names."""
    asset = study.assets[nearest(name, study.assets, "asset")]
    status = look(name, asset, assets)
    if status.state == "missing":
        raise UserError(missing_line(name, asset, assets))
    if status.state == "wrong":
        raise UserError(
            f"asset '{name}': {status.path} has sha256 {str(status.sha256)[:16]}..., the study wants {asset.sha256}...; "
            f"get it again from {asset.source}"
        )
    with artifacts.artifact(out, stage="asset", module=__name__, config=asset, path=str(status.path.absolute())) as temporary:
        write_json(temporary, {"name": name, "sha256": status.sha256, "bytes": status.bytes})
    return {"asset": name, "state": status.state, "sha256": status.sha256}


def record_of(records: Iterable[Path], field: str) -> Path:
    """That of the asset `field` among the files of records; UserError where it is not there."""
    path_of_record = next((Path(path) for path in records if Path(path).name == f"{field}.json"), None)
    if path_of_record is None:
        raise UserError(f"asset '{field}': its record is needed; name it with --records (stage asset writes it)")
    return path_of_record


def locate(record_file: Path) -> Path:
    """Where the asset of a record is; UserError if it is gone or has another size."""
    wanted = artifacts.read_json(record_file)
    path = Path(artifacts.meta(record_file)["path"])
    if not path.exists():
        raise UserError(
            f"asset '{wanted['name']}' is no longer at {path}; put it back, or delete {record_file} and run the same command again"
        )
    if path.is_file() and path.stat().st_size != wanted["bytes"]:
        raise UserError(
            f"asset '{wanted['name']}': {path} has another size than when it was checked; delete {record_file} to check it again"
        )
    return path


def _listing(folder: Path) -> tuple[str, int]:
    """(sha256 of the names and sizes of a folder's files, their bytes). Contents are checked by whoever reads them."""
    lines, total = [], 0
    for directory, _, files in os.walk(folder):
        for file in files:
            path = Path(directory, file)
            if not file.startswith("."):
                size = path.stat().st_size
                lines.append(f"{path.relative_to(folder).as_posix()} {size}")
                total += size
    return hashlib.sha256("\n".join(sorted(lines)).encode(errors="surrogateescape")).hexdigest(), total
