"""`dsr fetch STUDY`: say what is missing and from where, ask, get it."""

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from harness.commands.fetch.download import DIGITS, GoneError, Part, Remote, download
from harness.commands.fetch.hub import endpoint, on_hub, online
from harness.commands.fetch.needs import Need, Needs, needs_of
from harness.results.units import bytes_text
from harness.store.files import there_of
from harness.study.study import Study
from harness.study.typed import UserError

STOPPED = 130  # exit code after Ctrl-C, as shells have it


def fetch(study: Study, *, root: Path, yes: bool, dry_run: bool) -> int:
    """Get what the study lacks below `root`; the exit code. Nothing is asked of the network before the answer, nor at all with `dry_run`.

    UserError, in one line, where there is nobody to ask and `yes` is not given, or for the first file that does not come as it should:
    what came before stays.
    """
    needs = needs_of(study, root)
    print(_told(study, needs, root))
    if dry_run or not needs.files:
        return 0
    _check_room(needs.files, root)
    if not yes and not _agreed(needs.files):
        print("nothing was fetched")
        return 0
    current: Path | None = None
    try:
        with online():
            for need in needs.files:
                current = need.target
                _get(need)
    except KeyboardInterrupt:
        kept = f": {Part(current).kept}" if current else ""
        print(f"\nstopped{kept}", file=sys.stderr)
        return STOPPED
    return 0


# ---------------------------------------------------------------------------------------------------------------- what is told


def _told(study: Study, needs: Needs, root: Path) -> str:
    if not needs.files and not needs.by_hand:
        return f"study '{study.name}': nothing is missing in {root}"
    lines = [f"study '{study.name}' lacks, in {root}:"]
    for need in needs.files:
        part = Part(need.target).size
        there = f", {bytes_text(part)} of it are there" if part else ""
        lines += ["", f"  {need.target.relative_to(root)}{' (where there is one)' if need.optional else ''}"]
        lines += [f"    from {_host(need)}: {need.source}", f"    {_size(need)}{there}; sha256 {_stated(need)}"]
    for path, text in needs.by_hand:
        lines += ["", f"  {path.relative_to(root)}", f"    left to you: {text}"]
    return "\n".join([*lines, ""])


def _host(need: Need) -> str:
    return Remote(endpoint()).host if need.publication.hub else str(need.publication.host)


def _size(need: Need) -> str:
    if need.bytes is None:
        return "size unknown" if not need.optional else "a few kB"
    return f"{bytes_text(need.bytes)}{'' if need.exact else ', about'}"


def _stated(need: Need) -> str:
    return next((f"{digest[:DIGITS]} ({who})" for who, digest in need.sha256.items()), "unknown")


def _agreed(files: list[Need]) -> bool:
    if not sys.stdin.isatty():
        raise UserError("fetch: there is no terminal to ask on; add --yes to get these files, or --dry-run to see them alone")
    unknown = sum(need.bytes is None and not need.optional for need in files)
    sizes = bytes_text(sum(need.bytes or 0 for need in files)) + (f" and {unknown} of unknown size" if unknown else "")
    print(f"Fetch {len(files)} file{'s' * (len(files) > 1)}, {sizes}, from {', '.join(_hosts(files))}? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _hosts(files: Iterable[Need]) -> list[str]:
    return list(dict.fromkeys(map(_host, files)))


def _check_room(files: list[Need], root: Path) -> None:
    """UserError where the disk is too small for what is known to come."""
    needed = sum((need.bytes or 0) - Part(need.target).size for need in files if need.bytes)
    free = shutil.disk_usage(there_of(root)).free
    if free < needed:
        raise UserError(
            f"{root}: these files need {bytes_text(needed)}, {bytes_text(free)} are free; make room, or name another with --assets"
        )


# --------------------------------------------------------------------------------------------------------------------- getting


def _get(need: Need) -> None:
    size, publication = need.bytes if need.exact else None, need.publication
    if need.target.exists():
        return
    try:
        if publication.hub and publication.file:
            remote = on_hub(publication.hub, publication.file, sha256=need.sha256, size=size)
        else:
            remote = Remote(str(publication.url), bytes=size, sha256=need.sha256)
        print(f"{need.target}: from {remote.host}", flush=True)
        found = download(remote, need.target)
    except GoneError:
        if not need.optional:
            raise
        print(f"{need.target}: there is none", flush=True)
        return
    compared = f"that of {' and of '.join(remote.sha256)}" if remote.sha256 else "none is stated; its first use records it"
    print(f"{need.target}: {bytes_text(need.target.stat().st_size)}, sha256 {found} ({compared})", flush=True)
