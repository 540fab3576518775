import re
import subprocess
import sys

import pytest

from harness import cli


def dsr(*arguments):
    return subprocess.run([sys.executable, "-m", "harness", *arguments], capture_output=True, text=True, check=False)


def call(monkeypatch, capsys, *arguments):
    """The command in this process: (exit code, stdout, stderr)."""
    monkeypatch.setattr(sys, "argv", ["dsr", *arguments])
    code = 0
    try:
        cli.main()
    except SystemExit as stopped:
        code = stopped.code
    return code, *capsys.readouterr()


@pytest.mark.parametrize("stage", cli.STAGES)
def test_every_stage_explains_itself(monkeypatch, capsys, stage):
    code, out, _ = call(monkeypatch, capsys, stage, "--help")
    assert code == 0
    assert "--study" in out
    assert "--out" in out


def test_help_lists_the_stages_in_order(monkeypatch, capsys):
    _, out, _ = call(monkeypatch, capsys, "--help")
    places = [re.search(rf"^ +{stage}\b", out, re.MULTILINE).start() for stage in cli.STAGES]
    assert places == sorted(places)
    assert "snakemake --cores all reports/table1.md" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["denoise", "--study", "smoke"], "unknown stage 'denoise', did you mean 'denoiser'?"),
        (["data", "--study", "smoke"], "the following arguments are required: --out; see 'dsr data --help'"),
        (["samples", "--study", "smoke", "--seed", "x"], "argument --seed: invalid int value: 'x'"),
        (
            ["outliers", "--study", "smoke", "--method", "dsr", "--seeds", "-1", "--denoisers", "d", "--latents", "l", "--out", "x"],
            "seeds must be",
        ),
        (["data", "--study", "digts", "--out", "x"], "unknown study 'digts', did you mean 'digits'?"),
        (
            ["registers", "--study", "smoke", "--encoder", "ttr1", "--data", "d", "--backbone", "b", "--out", "x"],
            "unknown encoder 'ttr1', did you mean 'ttr_1'",
        ),
        (
            ["denoiser", "--study", "smoke", "--method", "drs", "--seed", "0", "--latents", "l", "--state", "s", "--out", "x"],
            "did you mean 'dsr'",
        ),
        (
            ["denoiser", "--study", "smoke", "--method", "dsr", "--seed", "0", "--latents", "l", "--state", "s", "--out", "x"],
            "l: no such file",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(monkeypatch, capsys, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(monkeypatch, capsys, *arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_module_and_version():
    done = dsr("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("dsr-harness ")


def test_the_command_line_does_not_import_torch():
    code = "import sys, harness.cli, harness.dag, harness.report.table; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
