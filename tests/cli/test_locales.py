"""Under a locale that is not UTF-8 everything is read, hashed and printed as under one that is."""

import os
import subprocess
import sys

import pytest

from harness.store.artifacts import sha256
from harness.study.typed import ROOT

PRINTS = "import sys; from harness.workflow.start import in_utf8; in_utf8(); print(sys.argv[1], sys.flags.utf8_mode)"
HASHES = "import sys; from harness.store.artifacts import sha256; print(sha256(sys.argv[1]))"
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def run(*arguments, **variables):
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | ASCII | variables
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, check=False, env=environment)


def test_dsr_speaks_utf8():
    done = run("-m", "harness", "data", "--study", "größe", "--out", "nowhere")
    assert done.returncode == 2
    assert "error: unknown study 'größe'" in done.stderr.decode()


@pytest.mark.parametrize("variables", [{}, {"LC_ALL": "POSIX"}])
def test_a_command_starts_once_more_with_its_words_as_they_were(variables):
    done = run("-c", PRINTS, "ΔFID −0.1 ± größe", **variables)
    assert (done.returncode, done.stdout.decode()) == (0, "ΔFID −0.1 ± größe 1\n"), done.stderr


def test_an_output_that_cannot_say_a_sign_is_no_traceback():
    done = run("-c", PRINTS, "Δ ± x", PYTHONIOENCODING="latin-1", PYTHONUTF8="1")
    assert (done.returncode, done.stdout) == (0, b"\\u0394 \xb1 x 1\n"), done.stderr


@pytest.mark.parametrize("name", ["größe.png".encode(), b"gr\xf6\xdfe.png"])
def test_a_folder_has_the_same_hash_under_any_locale_whatever_its_names_are(tmp_path, name):
    for one in (name, b"~.png", b"a.png", "\U0001f600.png".encode()):
        (tmp_path / os.fsdecode(one)).write_bytes(one)
    done = run("-c", HASHES, str(tmp_path))
    assert done.stdout.decode().strip() == sha256(tmp_path), done.stderr
