"""`dsr fetch STUDY` against servers on loopback: what it names, asks, gets, refuses and leaves to its user; killed, and gone on with."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from file_server import COMMIT, Served, file_server, hub_server

from harness.cli import main as cli
from harness.commands.fetch import command
from harness.commands.fetch.needs import record_file
from harness.store import published
from harness.store.assets import record_asset
from harness.study.study import load_study, read_study
from harness.study.typed import ROOT, merge

VAE, JUDGE = np.random.default_rng(0).bytes(3_000_000), np.random.default_rng(1).bytes(700_000)
WEIGHTS = "encoders/sd-vae-ft-ema/diffusion_pytorch_model.safetensors"
FOLDER = "/stabilityai/sd-vae-ft-ema"
ON_HUB, ON_PAGE = f"{FOLDER}/diffusion_pytorch_model.safetensors", "/judge.pth"


def digest(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A study of a VAE on a hub and a judge at an address, in a folder of its own; the servers of both, and what they serve."""
    monkeypatch.chdir(tmp_path)
    for name in ("HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    files = {ON_HUB: Served(VAE), f"{FOLDER}/config.json": Served(b"{}", etag='"c1"')}
    page = {ON_PAGE: Served(JUDGE, etag='"1"')}
    with ExitStack() as stack:
        cdn = stack.enter_context(file_server(files))
        hub = stack.enter_context(hub_server(files, cdn))
        host = stack.enter_context(file_server(page))
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        study = {
            "encoder": {"weights": {"sha256": digest(VAE), "bytes": len(VAE)}},
            "evaluation": {
                "clip": None,
                "references": [],
                "judge": {"weights": {"path": "weights/judge.pth", "sha256": None, "bytes": None}},
            },
        }
        (tmp_path / "studies").mkdir()
        values = merge(read_study("imagenet256_sit_xl"), study)
        (tmp_path / "studies" / "mine.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
        listed = {"weights/judge.pth": {"what": "a judge", "url": f"{host.url}{ON_PAGE}", "stated_by": "this test"}}
        listed |= {path: yaml.safe_load(published.LIST.read_text(encoding="utf-8"))[path] for path in ("imagenet/train", "imagenet/val")}
        (tmp_path / "list.yaml").write_text(yaml.safe_dump(listed), encoding="utf-8")
        monkeypatch.setattr("harness.study.study.STUDIES", tmp_path / "studies")
        monkeypatch.setattr(published, "LIST", tmp_path / "list.yaml")
        published.published.cache_clear()
        yield SimpleNamespace(root=tmp_path / "assets", files=files, page=page, hub=hub, cdn=cdn, host=host, values=values)
        published.published.cache_clear()


def dsr(monkeypatch, capsys, *arguments, answer=None):
    """(exit code, stdout, stderr); `answer`: what is typed at a terminal, None where there is none."""
    monkeypatch.setattr(sys, "argv", ["dsr", *arguments])
    typed = io.StringIO(answer or "")
    typed.isatty = lambda: answer is not None
    monkeypatch.setattr(sys, "stdin", typed)
    code = 0
    try:
        cli.main()
    except SystemExit as stopped:
        code = stopped.code or 0
    return code, *capsys.readouterr()


def there(world):
    return (
        sorted(path.relative_to(world.root).as_posix() for path in world.root.rglob("*") if path.is_file()) if world.root.exists() else []
    )


ALL = ["encoders/sd-vae-ft-ema/config.json", WEIGHTS, "weights/judge.pth"]


# ------------------------------------------------------------------------------------------------------------ told, and asked


def test_everything_that_is_missing_is_named_without_the_network(world, monkeypatch, capsys):
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: pytest.fail("asked for an address"))
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("connected"))
    code, out, err = dsr(monkeypatch, capsys, "fetch", "mine", "--dry-run")
    assert (code, err) == (0, "")
    for told in (WEIGHTS, "from 127.0.0.1: stabilityai/sd-vae-ft-ema: diffusion_pytorch_model.safetensors", "3.00 MB", digest(VAE)[:16],
                 "weights/judge.pth", f"{world.host.url}{ON_PAGE}", "size unknown; sha256 unknown", "imagenet/train", "imagenet/val",
                 "left to you: ImageNet-1k (ILSVRC2012), training images: download it from image-net.org"):  # fmt: skip
        assert told in out
    assert there(world) == []
    assert [*world.hub.seen, *world.cdn.seen, *world.host.seen] == []


@pytest.mark.parametrize("answer", ["\n", "n\n", "", "perhaps\n"])
def test_without_a_yes_nothing_is_fetched(world, monkeypatch, capsys, answer):
    code, out, _ = dsr(monkeypatch, capsys, "fetch", "mine", answer=answer)
    assert code == 0
    assert "Fetch 4 files, 3.00 MB and 1 of unknown size, from 127.0.0.1? [y/N]" in out
    assert "nothing was fetched" in out
    assert there(world) == []
    assert [*world.hub.seen, *world.host.seen] == []


def test_without_a_terminal_it_is_refused(world, monkeypatch, capsys):
    code, _, err = dsr(monkeypatch, capsys, "fetch", "mine")
    assert code == 2
    assert err == "error: fetch: there is no terminal to ask on; add --yes to get these files, or --dry-run to see them alone\n"
    assert world.hub.seen == []


# ------------------------------------------------------------------------------------------------------------------- fetched


@pytest.mark.parametrize(("flags", "answer"), [(["--yes"], None), ([], "y\n")])
def test_what_a_study_lacks_is_fetched(world, monkeypatch, capsys, flags, answer):
    code, out, err = dsr(monkeypatch, capsys, "fetch", "mine", *flags, answer=answer)
    assert (code, err) == (0, "")
    assert there(world) == ALL
    assert (world.root / WEIGHTS).read_bytes() == VAE
    assert (world.root / "weights" / "judge.pth").read_bytes() == JUDGE
    assert f"sha256 {digest(VAE)} (that of the study and of the hub)" in out
    assert f"sha256 {digest(JUDGE)} (none is stated; its first use records it)" in out
    assert "preprocessor_config.json: there is none" in out
    assert {path for _, path, _ in world.hub.seen if path.endswith(".safetensors")} == {
        f"{FOLDER}/resolve/{revision}/diffusion_pytorch_model.safetensors" for revision in ("main", COMMIT)
    }
    before = len(world.hub.seen), len(world.host.seen)
    code, out, _ = dsr(monkeypatch, capsys, "fetch", "mine", "--yes")
    assert code == 0
    assert WEIGHTS not in out
    assert "imagenet/train" in out
    assert (len(world.hub.seen), len(world.host.seen)) == before


def test_the_offline_switch_is_lifted_for_this_command_alone(world, monkeypatch, capsys):
    from huggingface_hub import constants

    assert constants.is_offline_mode()
    assert dsr(monkeypatch, capsys, "fetch", "mine", "--yes")[0] == 0
    assert constants.is_offline_mode()
    world.files[ON_HUB].status = 500
    (world.root / WEIGHTS).unlink()
    assert dsr(monkeypatch, capsys, "fetch", "mine", "--yes")[0] == 2
    assert constants.is_offline_mode()


def test_who_one_is_stays_with_the_hub(world, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert dsr(monkeypatch, capsys, "fetch", "mine", "--yes")[0] == 0
    assert {headers.get("authorization") for _, _, headers in world.hub.seen} == {"Bearer hf_secret"}
    assert {headers.get("authorization") for _, _, headers in [*world.cdn.seen, *world.host.seen]} == {None}


SCRIPT = """
import sys
from pathlib import Path
from harness.store import published
from harness.study import study
published.LIST, study.STUDIES = Path("list.yaml"), Path("studies").resolve()
sys.argv = ["dsr", "fetch", "mine", "--yes"]
from harness.cli.main import main
main()
"""


def test_killed_and_interrupted_it_goes_on_to_the_same_bytes(world):
    """The real thing: two processes that end in the middle of a file, by SIGKILL and by Ctrl-C, and one that ends well."""
    stall = threading.Event()
    world.files[ON_HUB].stall, world.files[ON_HUB].cuts = stall, [1_000_000, 1_000_000]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")} | {"PYTHONPATH": str(ROOT)}
    part = world.root / f"{WEIGHTS}.part"

    def started():
        script = [
            sys.executable,
            "-c",
            f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{SCRIPT}",
        ]  # as in a terminal
        return subprocess.Popen(script, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def wait_for(size, process):
        while not (part.exists() and part.stat().st_size >= size):
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)

    first = started()
    wait_for(900_000, first)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    kept = part.stat().st_size
    assert part.read_bytes() == VAE[:kept]
    assert not (world.root / WEIGHTS).exists()

    second = started()
    wait_for(1_900_000, second)
    second.send_signal(signal.SIGINT)
    _, err = second.communicate()
    assert second.returncode == 130
    assert "stopped: " in err
    assert "the same command goes on there" in err
    assert "Traceback" not in err
    assert part.stat().st_size > kept

    stall.set()
    third = started()
    out, err = third.communicate()
    assert third.returncode == 0, err
    assert "of it are there" in out
    assert (world.root / WEIGHTS).read_bytes() == VAE
    assert there(world) == ALL
    asked = world.cdn.ranges(ON_HUB)
    assert asked[0] == 0
    assert asked[1] == kept
    assert asked == sorted(set(asked))


# -------------------------------------------------------------------------------------------------------------------- refused


def refused(world, monkeypatch, capsys, match):
    code, _, err = dsr(monkeypatch, capsys, "fetch", "mine", "--yes")
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert match in err
    return err


def test_another_file_on_the_hub_is_refused_before_its_bytes(world, monkeypatch, capsys):
    world.files[ON_HUB].content = VAE[::-1]
    err = refused(
        world, monkeypatch, capsys, f"is another file by now, of sha256 {digest(VAE[::-1])[:16]}..., the study says {digest(VAE)[:16]}"
    )
    assert "nothing was taken" in err
    assert there(world) == []
    assert world.cdn.ranges(ON_HUB) == []


def test_bytes_that_are_not_what_the_hub_says_leave_nothing(world, monkeypatch, capsys):
    """The study's sha256 is unknown; the hub's own is compared."""
    values = merge(world.values, {"encoder": {"weights": {"sha256": None}}})
    (world.root.parent / "studies" / "mine.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    with hub_server(world.files, world.cdn, sha256={ON_HUB: "0" * 64}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        err = refused(world, monkeypatch, capsys, f"has sha256 {digest(VAE)[:16]}..., the hub says 0000000000000000")
    assert "nothing is in its place" in err
    assert there(world) == []


@pytest.mark.parametrize(
    ("status", "code", "match"),
    [
        (403, "GatedRepo", "its authors ask that terms be accepted"),
        (404, "RepoNotFound", "has no such repository, or it is private"),
        (404, "EntryNotFound", "the repository has no such file"),
        (500, "", "does not give it"),
    ],
)
def test_what_the_hub_does_not_give_is_one_line(world, monkeypatch, capsys, status, code, match):
    world.files[ON_HUB].status, world.files[ON_HUB].headers = status, {"X-Error-Code": code}
    refused(world, monkeypatch, capsys, match)
    assert there(world) == []


def test_without_a_network_it_is_one_line(world, monkeypatch, capsys):
    with file_server({}) as closed:
        pass
    monkeypatch.setenv("HF_ENDPOINT", closed.url)
    refused(world, monkeypatch, capsys, f"{closed.url} does not give it")
    assert there(world) == []


def test_what_came_before_stays(world, monkeypatch, capsys):
    del world.page[ON_PAGE]
    refused(world, monkeypatch, capsys, "no such file (404)")
    assert there(world) == ALL[:2]


def test_a_file_that_is_there_is_never_overwritten(world, monkeypatch, capsys):
    (world.root / WEIGHTS).parent.mkdir(parents=True)
    (world.root / WEIGHTS).write_bytes(b"mine")
    refused(world, monkeypatch, capsys, "nothing is overwritten: move it away first")
    assert (world.root / WEIGHTS).read_bytes() == b"mine"
    assert world.hub.seen == []


def test_what_results_recorded_is_what_has_to_come(world, monkeypatch, capsys):
    """Nobody states the judge's sha256: the one of its first use counts."""
    name, judge = "evaluation.judge.weights", world.root / "weights" / "judge.pth"
    judge.parent.mkdir(parents=True)
    judge.write_bytes(b"the judge of the first use")
    record = record_file("mine", name, world.root.parent / "results")
    record.parent.mkdir(parents=True)
    record_asset(load_study("mine"), name=name, assets=world.root, out=record)
    judge.unlink()
    err = refused(world, monkeypatch, capsys, f"{record.relative_to(world.root.parent)} says {digest(b'the judge of the first use')[:16]}")
    assert digest(JUDGE)[:16] in err
    world.page[ON_PAGE] = Served(b"the judge of the first use")
    assert dsr(monkeypatch, capsys, "fetch", "mine", "--yes")[0] == 0
    assert judge.read_bytes() == b"the judge of the first use"


def test_a_disk_without_room_is_one_line_before_anything(world, monkeypatch, capsys):
    monkeypatch.setattr(command.shutil, "disk_usage", lambda _folder: SimpleNamespace(free=1_000_000))
    refused(world, monkeypatch, capsys, "these files need 3.00 MB, 1.00 MB are free")
    assert world.hub.seen == []


def test_a_study_without_assets_lacks_nothing(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, out, _ = dsr(monkeypatch, capsys, "fetch", "digits", "--yes")
    assert (code, out) == (0, "study 'digits': nothing is missing in assets\n")
    assert list(tmp_path.iterdir()) == []
