"""Servers on loopback: of files, with Range, and what can go wrong on the way; and the routes of the Hugging Face hub that are asked."""

import hashlib
import threading
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "a" * 40


@dataclass
class Served:
    """A file, and how it is given: `cuts` are the bytes after which each of the first connections breaks, `stall` waits there instead."""

    content: bytes = b""
    etag: str | None = None
    ranges: bool = True
    if_range: bool = True  # whether If-Range is heeded
    length: bool = True  # whether Content-Length is said
    cuts: list[int] = field(default_factory=list)
    stall: threading.Event | None = None
    content_range: str | None = None  # in the place of the right one
    status: int | None = None  # without the file
    headers: Mapping[str, str] = field(default_factory=dict)


class Handler(BaseHTTPRequestHandler):
    server: "Server"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.seen.append((self.command, self.path, {name.lower(): value for name, value in self.headers.items()}))
        self.server.answer(self)

    do_HEAD = do_GET  # noqa: N815 (as http.server has it)

    def give(self, served):
        """The file, or the part of it that is asked for."""
        asked = self.headers.get("Range", "")
        first = int(asked.removeprefix("bytes=").rstrip("-")) if asked and served.ranges else 0
        if self.headers.get("If-Range") not in (None, served.etag) and served.if_range:
            first, asked = 0, ""
        size = len(served.content)
        if served.status:
            self.send_response(served.status)
        elif first >= size > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.end_headers()
            return
        else:
            self.send_response(206 if asked and served.ranges else 200)
        if asked and served.ranges:
            self.send_header("Content-Range", served.content_range or f"bytes {first}-{size - 1}/{size}")
        body = b"" if served.status else served.content[first:]
        if served.length:
            self.send_header("Content-Length", str(len(body)))
        for name, value in ({"ETag": served.etag} if served.etag else {}).items() | served.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = served.cuts.pop(0) if served.cuts else None
        self.wfile.write(body[:cut])
        if cut is not None and served.stall:
            self.wfile.flush()
            served.stall.wait()
        self.close_connection = True


class Server(ThreadingHTTPServer):
    """`seen`: every request, as (method, path, headers by their names in lower case)."""

    daemon_threads = True

    def __init__(self, answer: Callable[[Handler], None]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer, self.seen = answer, []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def ranges(self, path):
        """What was asked for of a file, request by request: the first byte."""
        asked = [headers.get("range", "bytes=0-") for method, there, headers in self.seen if (method, there) == ("GET", path)]
        return [int(one.removeprefix("bytes=").rstrip("-")) for one in asked]


@contextmanager
def running(answer):
    server = Server(answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def file_server(files: dict[str, Served]):
    """`files` at their paths, 404 for all others."""

    def answer(handler):
        served = files.get(handler.path.partition("?")[0])
        if served is None:
            handler.send_error(404)
        else:
            handler.give(served)

    with running(answer) as server:
        yield server


@contextmanager
def hub_server(files: dict[str, Served], cdn: Server, sha256: Mapping[str, str] | None = None):
    """A hub whose `OWNER/NAME/resolve/REVISION/FILE` sends on to `cdn` at the file's path, as the real one does with large files; small
    ones (JSON) it gives itself. `sha256`: of a file, what it says instead of the right one.
    """

    def answer(handler):
        repository, _, rest = handler.path.removeprefix("/").partition("/resolve/")
        file = f"/{repository}/{rest.partition('/')[2]}"
        known = [path for path in files if path.startswith(f"/{repository}/")]
        if not known or file not in files:
            handler.send_response(404)
            handler.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
        elif files[file].status:
            handler.give(files[file])
        elif file.endswith(".json"):
            files[file].headers = {"X-Repo-Commit": COMMIT}
            handler.give(files[file])
        else:
            content = files[file].content
            digest = (sha256 or {}).get(file, hashlib.sha256(content).hexdigest())
            handler.send_response(302)
            for name, value in {"X-Repo-Commit": COMMIT, "X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content)),
                                "Location": cdn.url + file, "Content-Length": "0"}.items():  # fmt: skip
                handler.send_header(name, value)
            handler.end_headers()

    with running(answer) as server:
        yield server
