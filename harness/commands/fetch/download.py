"""One file over HTTP, into its place. A part lies beside the place until it is whole and checked; a later call goes on with that.

It goes on only where the rest is sure to be of the same file: an address that holds one version for good, If-Range with the validator of
the first answer (RFC 9110, section 13.1.5), or a known sha256, which is compared in the end.
"""

import errno
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import requests

from harness.machine.progress import Progress
from harness.results.units import bytes_text
from harness.store.asset_files import sha256
from harness.store.files import sync, write_json
from harness.store.locks import hold
from harness.study.typed import UserError

SUFFIX = ".part"  # of what is there of a file
CHUNK = 1 << 16
MEGABYTE = 10**6
TIMEOUT = (20, 60)  # seconds to connect, and of silence
WAITS = (1, 4, 15)  # seconds before each attempt that follows one without a new byte
PASSING = (408, 429, 500, 502, 503, 504)  # answers that may be others a little later
DIGITS = 16  # of a sha256, shown


@dataclass(frozen=True)
class Remote:
    """A file elsewhere. `version`: what its address holds for good, where it does; `sha256`: who states it -> digest, or first digits."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    version: str | None = None
    bytes: int | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or self.url


class GoneError(UserError):
    """The server has no such file."""


class _Passing(Exception):  # noqa: N818 (it is told to nobody, unless it lasts)
    """An answer that may be another one a little later."""


def download(remote: Remote, target: Path) -> str:
    """Get `remote` to `target`, which is not there before and appears whole; its SHA-256.

    UserError, in one line, where the server does not give it (GoneError: it has none), where it has another size or sha256 than was stated
    (nothing of it is kept then), or where the disk does not take it. Else what was received stays beside it, for the next call.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with hold(target):
        if target.exists():  # another process has got it meanwhile
            return sha256(target)
        with requests.Session() as session:
            part = Part(target)
            _fill(part, remote, session)
        found = sha256(part.path)
        for who, stated in remote.sha256.items():
            if not found.startswith(stated):
                part.remove()
                raise UserError(
                    f"{target}: what {remote.host} gave has sha256 {found[:DIGITS]}..., {who} says {stated[:DIGITS]}...; it was removed, "
                    "and nothing is in its place"
                )
        part.put_in_place()
        return found


class Part:
    """What is there of a file, at its own path with `.part`; beside it, hidden, what it is a part of."""

    def __init__(self, target: Path) -> None:
        self.target, self.path = target, target.with_name(target.name + SUFFIX)
        self._facts = target.with_name(f".{target.name}{SUFFIX}.json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def facts(self) -> dict[str, str | None]:
        """url, version and validator of what it is a part of; nothing where that is not known."""
        try:
            facts = json.loads(self._facts.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return facts if isinstance(facts, dict) else {}

    @property
    def kept(self) -> str:
        """What to tell whose download did not end."""
        return f"{self.path} keeps {bytes_text(self.size)}, and the same command goes on there" if self.size else "nothing was kept"

    def goes_on(self, remote: Remote) -> bool:
        """Whether what follows is sure to be of the same file, or a sha256 will tell."""
        facts = self.facts
        same = facts.get("url") == remote.url and facts.get("version") == remote.version
        return self.size > 0 and same and bool(remote.version or facts.get("validator") or remote.sha256)

    def start(self, **facts: str | None) -> None:
        """With nothing. OSError where the disk does not take it."""
        self.remove()
        write_json(self._facts, facts)
        self.path.touch()

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self._facts.unlink(missing_ok=True)

    def put_in_place(self) -> None:
        sync(self.path)
        self.path.replace(self.target)
        self._facts.unlink(missing_ok=True)


# ----------------------------------------------------------------------------------------------------------------- the network


def _fill(part: Part, remote: Remote, session: requests.Session) -> None:
    """Receive until the part is whole. A connection that breaks is made again, as long as each brings bytes, and then a few times more."""
    first, fruitless = part.size, 0
    while True:
        before = part.size
        try:
            if _receive(part, remote, session):
                return
            problem, again = "the connection ended early", True
        except _Passing as error:
            problem, again = str(error), True
        except requests.exceptions.SSLError as error:
            problem, again = f"no safe connection: {_reason(error)}", False
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            problem, again = f"cannot be reached, or the connection broke: {_reason(error)}", part.size != first
        except requests.TooManyRedirects:
            problem, again = "redirects without an end", False
        except requests.RequestException as error:
            problem, again = _reason(error), False
        fruitless = 0 if part.size > before else fruitless + 1
        if not again or fruitless > len(WAITS):
            raise UserError(f"{part.target.name} from {remote.host}: {problem}; {part.kept}")
        time.sleep(WAITS[max(fruitless - 1, 0)])


def _reason(error: BaseException) -> str:
    """The innermost cause, without the names of classes around it."""
    while (inner := getattr(error, "reason", None) or next((a for a in error.args if isinstance(a, BaseException)), None)) is not None:
        if not isinstance(inner, BaseException):
            break
        error = inner
    return str(error.args[-1] if error.args else error) or type(error).__name__


def _receive(part: Part, remote: Remote, session: requests.Session) -> bool:
    """One request, and what it brings; whether the part is whole. requests' errors, and _Passing, where another try may help."""
    headers = {"Accept-Encoding": "identity", **remote.headers}
    asked = part.size if part.goes_on(remote) else 0
    if asked:
        headers["Range"] = f"bytes={asked}-"
        if (validator := part.facts.get("validator")) and not remote.version:
            headers["If-Range"] = validator
    with session.get(remote.url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416 and asked:
            return _ends_there(response, part, remote)
        total = _accept(response, part, remote, asked)
        _check_room(part, total)
        progress = Progress(part.target.name, total // MEGABYTE, "MB", part.size // MEGABYTE) if total else None
        _write(response, part, progress)
    return part.size == total if total is not None else True


def _ends_there(response: requests.Response, part: Part, remote: Remote) -> bool:
    """After the answer that nothing follows the part: whether it is whole; else it is of another file, and removed."""
    whole = response.headers.get("Content-Range") == f"bytes */{part.size}" and remote.bytes in (None, part.size)
    if not whole:
        part.remove()
    return whole


def _accept(response: requests.Response, part: Part, remote: Remote, asked: int) -> int | None:
    """Bytes of the whole file, None where that is not said; the part is now what the answer's body follows. UserError for another file."""
    name, host, status = part.target.name, urlsplit(response.url).hostname, response.status_code
    if status in PASSING:
        raise _Passing(f"{host} answers {status} {response.reason}")
    if status == 404:
        raise GoneError(f"{name} from {host}: no such file (404): {response.url.partition('?')[0]}")
    if status in (401, 403):
        raise UserError(f"{name} from {host}: not for everybody ({status}); get it by hand, and put it at {part.target}")
    if status not in (200, 206):
        raise UserError(f"{name} from {host}: answers {status} {response.reason}; {part.kept}")
    if remote.url.startswith("https:") and not response.url.startswith("https:"):
        raise UserError(
            f"{name} from {remote.host}: is sent on to {response.url.partition('?')[0]}, which is not encrypted; nothing was taken"
        )
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise UserError(
            f"{name} from {host}: comes compressed although that was not asked for; get it by hand, and put it at {part.target}"
        )
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise UserError(f"{name} from {host}: is a web page, not the file; get it by hand, and put it at {part.target}")
    start, total = _range_of(response)
    validator = _validator(response)
    other = status == 206 and (start != asked or (validator and not remote.version and validator != part.facts.get("validator")))
    if other or (status == 206 and not asked):
        part.remove()
        raise _Passing(f"{host} sends another part than it was asked for")
    if total is None and not remote.sha256:
        raise UserError(
            f"{name} from {host}: does not say how large it is, and no sha256 is known: whether it came whole could not be told"
        )
    if remote.bytes is not None and total not in (None, remote.bytes):
        raise UserError(f"{name} from {host}: has {total:,} bytes, {remote.bytes:,} are stated; it is another file: nothing was taken")
    if status == 200:
        if asked:
            _say(f"{name}: {host} has no part of it to give, or another file by now; starts anew")
        with _disk(part):
            part.start(url=remote.url, version=remote.version, validator=validator)
    return total


def _range_of(response: requests.Response) -> tuple[int, int | None]:
    """(first byte of the body, size of the whole file)."""
    if response.status_code == 206:
        unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
        span, _, total = rest.partition("/")
        first = span.partition("-")[0]
        return (int(first) if unit == "bytes" and first.isdigit() else -1), int(total) if total.isdigit() else None
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _validator(response: requests.Response) -> str | None:
    """What stands for this very version of the file in If-Range: a strong ETag, else the time of its last change."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified")


def _check_room(part: Part, total: int | None) -> None:
    free = shutil.disk_usage(part.path.parent).free
    if total is not None and free < total - part.size:
        raise UserError(
            f"{part.target}: needs {bytes_text(total - part.size)} more, {bytes_text(free)} are free there; make room, or name another "
            f"folder with --assets; {part.kept}"
        )


def _write(response: requests.Response, part: Part, progress: Progress | None) -> None:
    with open(part.path, "ab", buffering=0) as file:  # unbuffered: what was received stays whatever ends this process
        done = part.size
        for chunk in response.iter_content(CHUNK):
            with _disk(part):
                file.write(chunk)
            done += len(chunk)
            if progress:
                progress.update(done // MEGABYTE)


@contextmanager
def _disk(part: Part) -> Iterator[None]:
    """A block that writes; UserError, in one line, where the disk does not take it."""
    try:
        yield
    except OSError as error:
        full = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else f"cannot be written: {error.strerror}"
        raise UserError(f"{part.path}: {full}; {part.kept}") from None


def _say(text: str) -> None:
    print(text, flush=True)
