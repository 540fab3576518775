"""A file over HTTP: whole, in its place, with the bytes of the server, whatever breaks on the way; or one line and nothing in its place."""

import errno
import hashlib
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from file_server import Served, file_server

from harness.commands.fetch import download as downloads
from harness.commands.fetch.download import GoneError, Part, Remote, download
from harness.study.typed import UserError

CONTENT = np.random.default_rng(0).bytes(1_000_000)
OTHER = np.random.default_rng(1).bytes(1_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PATH = "/models/weights.pt"


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch):
    monkeypatch.setattr(downloads.time, "sleep", lambda _seconds: None)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "decoders" / "weights.pt"


@pytest.fixture
def serve():
    """Start a server of one file; (what it serves, server)."""
    running = []

    def start(served):
        context = file_server({PATH: served})
        running.append(context)
        return context.__enter__()

    yield start
    for context in running:
        context.__exit__(None, None, None)


def left(target):
    return sorted(path.name for path in target.parent.iterdir()) if target.parent.exists() else []


def refused(server, target, match, **stated):
    with pytest.raises(UserError, match=match) as caught:
        download(Remote(server.url + PATH, **stated), target)
    assert "\n" not in str(caught.value)
    assert not target.exists()
    return str(caught.value)


def half(target, server, content=CONTENT, keep=400_000, **facts):
    """What an earlier call has left of a file."""
    part = Part(target)
    target.parent.mkdir(parents=True)
    part.start(**({"url": server.url + PATH, "version": None, "validator": None} | facts))
    part.path.write_bytes(content[:keep])
    return part


# ---------------------------------------------------------------------------------------------------------------- whole files


@pytest.mark.parametrize("stated", [{}, {"sha256": {"the study": SHA256[:12]}}, {"bytes": len(CONTENT)}])
def test_a_file_is_in_its_place_with_its_bytes_and_nothing_beside_it(serve, target, stated):
    server = serve(Served(CONTENT))
    assert download(Remote(server.url + PATH, **stated), target) == SHA256
    assert target.read_bytes() == CONTENT
    assert left(target) == ["weights.pt"]
    assert [headers["accept-encoding"] for _, _, headers in server.seen] == ["identity"]


def test_an_empty_file_is_one(serve, target):
    assert download(Remote(serve(Served(b"")).url + PATH), target) == hashlib.sha256(b"").hexdigest()
    assert target.read_bytes() == b""


def test_a_connection_that_breaks_is_made_again_where_it_broke(serve, target):
    server = serve(Served(CONTENT, etag='"1"', cuts=[300_000, 200_000, 400_000]))
    assert download(Remote(server.url + PATH), target) == SHA256
    assert target.read_bytes() == CONTENT
    first, *later = server.ranges(PATH)
    assert first == 0
    assert len(later) == 3
    assert later == sorted(later)
    assert 0 < later[0] <= 300_000


def test_one_that_brings_nothing_any_more_ends_and_the_next_call_goes_on(serve, target):
    served = Served(CONTENT, etag='"1"', cuts=[500_000, *[0] * (len(downloads.WAITS) + 1)])
    server = serve(served)
    said = refused(server, target, "the connection broke|ended early")
    part = target.with_name("weights.pt.part")
    assert f"{part} keeps " in said
    assert "the same command goes on there" in said
    kept = part.stat().st_size
    assert part.read_bytes() == CONTENT[:kept] != b""
    assert download(Remote(server.url + PATH), target) == SHA256
    assert server.ranges(PATH)[-1] == kept
    assert target.read_bytes() == CONTENT
    assert left(target) == ["weights.pt"]


def test_two_at_once_get_it_once(serve, target):
    hold_on = threading.Event()
    server = serve(Served(CONTENT, etag='"1"', cuts=[500_000], stall=hold_on))
    found = []
    threads = [threading.Thread(target=lambda: found.append(download(Remote(server.url + PATH), target))) for _ in range(2)]
    for thread in threads:
        thread.start()
    hold_on.set()
    for thread in threads:
        thread.join()
    assert found == [SHA256] * 2
    assert server.ranges(PATH).count(0) == 1
    assert target.read_bytes() == CONTENT


# -------------------------------------------------------------------------------------------------------- where a part goes on


@pytest.mark.parametrize(
    ("facts", "stated"),
    [
        ({"validator": '"1"'}, {}),
        ({"version": "commit"}, {"version": "commit"}),
        ({}, {"sha256": {"the study": SHA256}}),
    ],
    ids=["validator", "version", "sha256"],
)
def test_a_part_of_the_same_file_is_gone_on_with(serve, target, facts, stated):
    server = serve(Served(CONTENT, etag='"1"' if "validator" in facts else None))
    half(target, server, **facts)
    assert download(Remote(server.url + PATH, **stated), target) == SHA256
    assert server.ranges(PATH) == [400_000]
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("facts", "stated"),
    [
        ({}, {}),
        ({"version": "commit"}, {"version": "another"}),
        ({"url": "http://elsewhere/weights.pt", "validator": '"1"'}, {}),
    ],
    ids=["nothing tells", "another version", "another address"],
)
def test_a_part_of_who_knows_what_is_not(serve, target, facts, stated):
    server = serve(Served(CONTENT, etag='"1"'))
    half(target, server, OTHER, **facts)
    assert download(Remote(server.url + PATH, **stated), target) == SHA256
    assert server.ranges(PATH) == [0]
    assert target.read_bytes() == CONTENT


def test_a_part_whose_facts_are_lost_is_not(serve, target):
    server = serve(Served(CONTENT, etag='"1"'))
    part = half(target, server, OTHER, validator='"1"')
    (part.path.parent / ".weights.pt.part.json").write_text("[", encoding="utf-8")
    assert download(Remote(server.url + PATH), target) == SHA256
    assert server.ranges(PATH) == [0]


@pytest.mark.parametrize("if_range", [True, False], ids=["server heeds If-Range", "server does not"])
def test_a_file_that_has_changed_meanwhile_starts_anew(serve, target, if_range):
    server = serve(Served(CONTENT, etag='"2"', if_range=if_range))
    half(target, server, OTHER, validator='"1"')
    assert download(Remote(server.url + PATH), target) == SHA256
    assert server.ranges(PATH) == ([400_000] if if_range else [400_000, 0])
    assert target.read_bytes() == CONTENT


def test_a_server_without_ranges_starts_anew_and_that_is_said(serve, target, capsys):
    server = serve(Served(CONTENT, etag='"1"', ranges=False))
    half(target, server, validator='"1"')
    assert download(Remote(server.url + PATH), target) == SHA256
    assert target.read_bytes() == CONTENT
    assert "starts anew" in capsys.readouterr().out


def test_a_part_that_is_whole_is_put_in_its_place(serve, target):
    server = serve(Served(CONTENT, etag='"1"'))
    half(target, server, keep=len(CONTENT), validator='"1"')
    assert download(Remote(server.url + PATH), target) == SHA256
    assert server.ranges(PATH) == [len(CONTENT)]


def test_a_part_that_is_longer_than_the_file_starts_anew(serve, target):
    server = serve(Served(CONTENT, etag='"1"'))
    half(target, server, CONTENT + b"more", keep=len(CONTENT) + 4, validator='"1"')
    assert download(Remote(server.url + PATH), target) == SHA256
    assert target.read_bytes() == CONTENT


def test_a_range_from_elsewhere_is_not_appended(serve, target):
    server = serve(Served(CONTENT, etag='"1"', content_range="bytes 7-999999/1000000"))
    half(target, server, validator='"1"')
    assert download(Remote(server.url + PATH), target) == SHA256
    assert server.ranges(PATH) == [400_000, 0]
    assert target.read_bytes() == CONTENT


# ---------------------------------------------------------------------------------------------------------- what is not the file


def test_a_wrong_sha256_leaves_nothing_and_says_what_was_got(serve, target):
    server = serve(Served(OTHER))
    said = refused(server, target, "it was removed, and nothing is in its place", sha256={"the study": SHA256})
    assert hashlib.sha256(OTHER).hexdigest()[:16] in said
    assert f"the study says {SHA256[:16]}" in said
    assert left(target) == []


def test_after_a_part_of_another_file_the_next_call_starts_anew(serve, target):
    server = serve(Served(CONTENT))
    half(target, server, OTHER)
    stated = {"sha256": {"the study": SHA256}}
    refused(server, target, "nothing is in its place", **stated)
    assert download(Remote(server.url + PATH, **stated), target) == SHA256
    assert server.ranges(PATH) == [400_000, 0]


def test_another_size_is_refused_before_a_byte_is_kept(serve, target):
    server = serve(Served(CONTENT))
    refused(server, target, "has 1,000,000 bytes, 999,999 are stated", bytes=999_999)
    assert left(target) == []


@pytest.mark.parametrize(
    ("served", "match"),
    [
        (Served(status=403), r"not for everybody \(403\); get it by hand, and put it at"),
        (Served(status=401), "not for everybody"),
        (Served(status=410), "answers 410"),
        (Served(status=503), "answers 503 .*; nothing was kept"),
        (Served(status=302, headers={"Location": PATH}), "redirects without an end"),
        (Served(b"<html>", headers={"Content-Type": "text/html; charset=utf-8"}), "is a web page, not the file"),
        (Served(CONTENT, headers={"Content-Encoding": "gzip"}), "comes compressed"),
        (Served(CONTENT, length=False), "does not say how large it is"),
        (Served(status=302, headers={"Location": "ftp://elsewhere/x"}), "ftp"),
    ],
    ids=["403", "401", "410", "503", "loop", "html", "gzip", "no length", "ftp"],
)
def test_what_the_server_does_not_give_is_one_line(serve, target, served, match):
    refused(serve(served), target, match)
    assert left(target) == []


def test_a_file_that_is_not_there_is_told_by_its_address(serve, target):
    server = serve(Served())
    with pytest.raises(GoneError, match=f"no such file \\(404\\): {server.url}/nothing.pt$"):
        download(Remote(f"{server.url}/nothing.pt?secret=1"), target)
    assert server.seen[0][1] == "/nothing.pt?secret=1"


def test_a_passing_answer_is_asked_again(serve, target):
    served = Served(CONTENT, status=503)
    server = serve(served)
    original = server.answer

    def recovered(handler):
        original(handler)
        served.status = None

    server.answer = recovered
    assert download(Remote(server.url + PATH), target) == SHA256
    assert len(server.seen) == 2


def test_a_length_that_is_not_said_does_not_matter_where_a_sha256_tells(serve, target):
    server = serve(Served(CONTENT, length=False))
    assert download(Remote(server.url + PATH, sha256={"the study": SHA256}), target) == SHA256


def test_where_nobody_answers_it_is_one_line_at_once(serve, target, monkeypatch):
    monkeypatch.setattr(downloads.time, "sleep", lambda _: pytest.fail("waited"))
    with file_server({}) as server:
        pass  # its port is closed by now
    said = refused(server, target, "weights.pt from 127.0.0.1: cannot be reached.*refused; nothing was kept")
    assert "HTTPConnectionPool" not in said
    assert left(target) == []


def test_a_redirect_out_of_encryption_is_refused(target):
    sent_on = SimpleNamespace(url="http://elsewhere/weights.pt?key=1", status_code=200, reason="OK", headers={})
    with pytest.raises(UserError, match=r"is sent on to http://elsewhere/weights\.pt, which is not encrypted"):
        downloads._accept(sent_on, Part(target), Remote("https://known/weights.pt"), 0)


# ------------------------------------------------------------------------------------------------------------------- the disk


def test_too_small_a_disk_is_seen_before(serve, target, monkeypatch):
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _folder: SimpleNamespace(free=500_000))
    refused(serve(Served(CONTENT)), target, r"needs 1\.00 MB more, 500 kB are free there; make room")


def test_a_disk_that_fills_up_keeps_what_it_took(serve, target, monkeypatch):
    server = serve(Served(CONTENT, etag='"1"'))

    class Full:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, piece):
            if self.file.tell() > 300_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(piece)

    with monkeypatch.context() as patch:
        patch.setattr(downloads, "open", lambda path, *_, **__: Full(path.open("ab", buffering=0)), raising=False)
        said = refused(server, target, "weights.pt.part: the disk is full; .* keeps ")
    kept = target.with_name("weights.pt.part").stat().st_size
    assert downloads.bytes_text(target.with_name("weights.pt.part").stat().st_size) in said
    assert kept > 300_000
    assert download(Remote(server.url + PATH), target) == SHA256
    assert server.ranges(PATH) == [0, kept]
    assert target.read_bytes() == CONTENT


def test_a_folder_that_cannot_be_written_is_one_line(serve, target, monkeypatch):
    server = serve(Served(CONTENT))

    def denied(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(downloads, "write_json", denied)
    refused(server, target, "cannot be written: Permission denied; nothing was kept")
