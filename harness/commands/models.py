"""`dsr models`: the published files that the harness knows, from studies and from the list beside them, and which of them are here."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.commands.fetch.needs import recorded
from harness.results.units import bytes_text
from harness.store.asset_states import DIGITS, Examined, examine
from harness.store.published import publication_of, published
from harness.study.sections.asset import Asset
from harness.study.study import Study, load_study, study_names
from harness.study.typed import UserError

HERE = {  # state of an asset -> what is said of it
    "missing": "not here",
    "verified": "here, and its sha256 is right",
    "present": "here; no sha256 is stated, its first use records it",
    "present, not hashed": "here, too large to be hashed without --check",
    "wrong size": "here, but another file: its size is",
    "wrong sha256": "here, but another file: its sha256 is",
}


def models(study: str | None, *, root: Path, check: bool, results: Path = Path("results")) -> list[dict[str, Any]]:
    """Of each file that a study names or the list has, or of those of one study: what `dsr models --json` prints.

    `host`, `repository`, `file`, `url`, `by_hand`, `bytes`, `sha256` are None where nobody states them. `state` is that of the plan;
    `recorded` has, by study, the SHA-256 that the file had at its first use. `check`: hash large files, too.
    """
    uses: dict[tuple[object, ...], list[tuple[Study, str, Asset]]] = {}
    for one in _studies(study):
        for name, asset in one.assets.items():
            uses.setdefault((asset.path, asset.hub, asset.file, asset.sha256, asset.bytes), []).append((one, name, asset))
    entries = [_entry(users[0][2], users, root, check, results) for users in uses.values()]
    if study is None:
        named = {entry["path"] for entry in entries}
        for path, publication in published().items():
            if path not in named:
                asset = Asset(path=path, source=publication.what, bytes=publication.bytes, sha256=publication.sha256)
                entries.append(_entry(asset, [], root, check, results))
    return entries


def _studies(name: str | None) -> Iterator[Study]:
    for one in [name] if name else study_names():
        try:
            yield load_study(one)
        except UserError as error:
            if name:
                raise
            print(f"left out: {error}", file=sys.stderr)


def _entry(asset: Asset, users: list[tuple[Study, str, Asset]], root: Path, check: bool, results: Path) -> dict[str, Any]:
    publication, studies = publication_of(asset), dict[str, list[str]]()
    for study, name, _ in users:
        studies.setdefault(study.name, []).append(name)
    found = examine(asset.path, asset, root, check)
    known = {study.name: sha256 for study, name, _ in users if (sha256 := recorded(study.name, name, results))}
    return {
        "path": asset.path,
        "what": publication.what if publication else asset.source,
        "source": asset.source,
        "host": publication.host if publication else None,
        "repository": publication.hub if publication else asset.hub,
        "file": publication.file if publication else asset.file,
        "url": publication.address if publication else None,
        "by_hand": publication.instruction if publication else None,
        "stated_by": publication.stated_by if publication else "the study",
        "put_at": str(Path(root) / asset.path),
        "bytes": publication.bytes if publication else asset.bytes,
        "sha256": publication.sha256 if publication else asset.sha256,
        "studies": studies,
        "state": found.state,
        "here": _here(found),
        "recorded": known,
    }


def _here(found: Examined) -> str:
    if found.state.startswith("wrong"):
        return f"{HERE[found.state]} {found.detail}"
    return f"{HERE[found.state]} ({found.detail})" if found.state == "missing" and found.detail else HERE[found.state]


def render(entries: list[dict[str, Any]], as_json: bool) -> str:
    """For people: a block a file, then how many are here; or JSON."""
    if as_json:
        return json.dumps(entries, indent=2, ensure_ascii=False)
    here = sum(entry["state"] != "missing" for entry in entries)
    last = f"{len(entries)} files, {here} of them here. `dsr fetch STUDY` gets those of a study that a program may get."
    return "\n\n".join([*map(_block, entries), last])


def _block(entry: dict[str, Any]) -> str:
    lines = [entry["path"], f"  what     {entry['what']}"]
    if entry["url"]:
        lines.append(f"  from     {entry['url']} (so says {entry['stated_by']})")
    else:
        lines.append(f"  by hand  {entry['by_hand'] or entry['source']}")
    size = bytes_text(entry["bytes"]) if entry["bytes"] else "unknown"
    lines += [f"  size     {size}; sha256 {entry['sha256'] or 'unknown'}", f"  put at   {entry['put_at']}: {entry['here']}"]
    lines += [f"           recorded as {sha256[:DIGITS]}... by study {study}" for study, sha256 in entry["recorded"].items()]
    used = ", ".join(f"{study} ({' '.join(fields)})" for study, fields in entry["studies"].items())
    return "\n".join([*lines, f"  used by  {used or 'no study here; one of yours may name it, and `dsr import` reads denoisers'}"])
