"""Every command that a page gives runs as it stands: in a copy of the project in which a tiny study stands in the place of `digits`."""

import os
import re
import shutil
import subprocess
import sys
from glob import glob
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import yaml
from conftest import TINY, tiny_values
from doors import PAGES, blocks, commands, commands_of, text_of
from dry_run import DryRuns
from PIL import Image
from pipeline import Pipeline
from toy import toy_study, toy_values

from harness.cli import main as cli
from harness.denoiser.build import build_denoiser
from harness.machine import device as runtime
from harness.report.claims import render_claims
from harness.report.page import render_page
from harness.report.table import render_table
from harness.study import typed as config
from harness.study.study import parse_study, read_study

ROOT = config.ROOT
SCALE = "imagenet256_siglip2_b"


class Way(NamedTuple):
    """How the commands that `pattern` matches are run, and why so."""

    pattern: str
    how: str
    why: str


# The first that matches counts; a command without one is a fault.
WAYS = [
    Way(r"pre-commit install", "hooks", "writes into .git: what it reads is there, and .ci/run runs it"),
    Way(r"pytest --(benchmark-enable|hypothesis-profile) .*", "collected", "takes minutes: with --collect-only added, of a file"),
    Way(
        r"python3 -m venv .*|\. .*/activate|(pip install|pre-commit run|pytest) .*|\.ci/run",
        "ci",
        "takes minutes: .ci/run runs the very line",
    ),
    Way(r"snakemake .*", "planned", "takes minutes to days: with -n added, which plans all of it"),
    Way(r"dsr benchmark --peers", "toy", "takes minutes: its step alone, with --rows and --out added"),
    Way(r"dsr (import|benchmark) .*", "toy", "needs a file that nobody has here, or a GPU: the same study at toy size"),
    Way(r"dsr .*", "run", "as it stands"),
]


def way_of(words):
    line = " ".join(words)
    return next((way.how for way in WAYS if re.fullmatch(way.pattern, line)), None)


def test_every_command_has_a_way_and_every_way_a_command():
    given = [words for page in PAGES for words in commands(page)]
    assert [words for words in given if way_of(words) is None] == []
    assert {way_of(words) for words in given} == {way.how for way in WAYS}


# -------------------------------------------------------------------------------------------------------------- the copy


def own_images():
    """The README's study of one's own images, with few of them."""
    (example,) = blocks("README.md", "yaml")
    given = yaml.safe_load(example)
    values = config.merge(config.merge(read_study(given.pop("extends")), given), TINY)
    return config.merge(values, {"data": {"classes": 3, "train_images": 60}, "evaluation": {"clip": None}})


def write_images(study, root):
    """Random pictures in the folders that a study names."""
    rng = np.random.default_rng(0)
    for asset, count in ((study.data.train, study.data.train_images), (study.data.held_out, study.data.reference)):
        for i in range(count):
            path = root / asset.path / f"class{i % study.data.classes}" / f"{i:03d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (5, 6, 3), dtype=np.uint8)).resize((60, 48)).save(path)


def measured(study, root, methods):
    """Results and reports of a study, below `root`."""
    pipeline = Pipeline(study, root / "results" / study.name, root / "assets").prepare(sorted({"plain", *methods.values()}))
    for method in methods:
        pipeline.run(method, [0])
    out = root / "reports" / study.name
    where = {"methods": [*methods], "seeds": [0], "results": pipeline.root}
    render_table(study, spec=ROOT / "reports" / "tables" / "table1.yaml", out=out / "table1.md", **where)
    render_claims(study, spec=ROOT / "reports" / "claims.yaml", out=out / "claims.md", **where)
    render_page(study, out=out / "index.html", **where)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The copy, with the tiny study as `digits` and own images as `mine`, and results of both."""
    runtime.set_up(1)
    root = tmp_path_factory.mktemp("project")
    for folder in ("harness", "baselines", "profiles", "envs", "reports/tables", "tests/data"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("Snakefile", "pyproject.toml", "reports/claims.yaml", "reports/figures.yaml"):
        shutil.copy(ROOT / file, root / file)
    studies = {"digits": tiny_values(), "mine": own_images()}
    for name, values in studies.items():
        (root / "harness" / "studies" / f"{name}.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    digits, mine = (parse_study(name, values) for name, values in studies.items())
    write_images(mine, root / "assets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.study.study.STUDIES", root / "harness" / "studies")
        measured(digits, root, {"baseline": "plain", "dsr": "ttr_until_clean"})
        measured(mine, root, {"baseline": "plain"})
    toys = root / "toys"
    toys.mkdir()
    (toys / f"{SCALE}.yaml").write_text(yaml.safe_dump(toy_values(SCALE)), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def dry_runs(project):
    server = DryRuns(project)
    yield server
    server.close()


# -------------------------------------------------------------------------------------------------------------- the ways


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_every_command_runs_as_it_stands(page, project, dry_runs, monkeypatch, capsys):
    """In the order of the page: what one writes the next may read. What another page ran before is not run again."""
    monkeypatch.chdir(project)
    faults = []
    for words in commands(page):
        if words not in KNOWN:
            with monkeypatch.context() as patch:
                KNOWN[words] = RUN[way_of(words)](words, dry_runs=dry_runs, monkeypatch=patch, capsys=capsys)
        code, printed = KNOWN[words]
        faults += [f"{' '.join(words)}: exit code {code}\n{printed}"] if code else []
    assert not faults, "\n".join(faults)


def in_ci(words, **_):
    """Whether .ci/run runs it: by itself, or in the README's test line, which installs what the tests need, too."""
    ci, line = text_of(".ci/run"), " ".join(words)
    tested = commands_of(blocks("README.md", "sh")[0].splitlines()[1])
    whole = "line=$(grep -m1 'pytest -n logical$' README.md)" in ci and {words, (*words[:-1], f"{words[-1]}[test]")} & {*tested}
    return 0 if whole or line in ci or line == ".ci/run" else 1, "is not in .ci/run"


def has_hooks(*_, **__):
    there = "repos:" in text_of(".pre-commit-config.yaml") and "\npre-commit run " in text_of(".ci/run")
    return 0 if there else 1, "has no hooks, or .ci/run does not run them"


def collected(words, **_):
    files = [] if any(word.startswith("tests/") for word in words) else ["tests/encoder/test_benchmarks_search.py"]
    command = [sys.executable, "-m", *words, *files, "--collect-only", "-p", "no:cacheprovider"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def planned(words, *, dry_runs, **_):
    done = dry_runs(*words[1:], *([] if "-n" in words else ["-n"]))
    return done.returncode, done.stdout + done.stderr


def run(words, *, monkeypatch, capsys, studies="harness/studies", **_):
    """In this process, which has imported torch, with the copy's studies."""
    monkeypatch.setattr("harness.study.study.STUDIES", Path(studies).resolve())
    monkeypatch.setattr(sys, "argv", [found for word in words for found in sorted(glob(word)) or [word]])
    code = 0
    try:
        cli.main()
    except SystemExit as stopped:
        code = stopped.code or 0
    return code, "".join(capsys.readouterr())


def at_toy_size(words, **tools):
    """With the toy of the study that it names, and a checkpoint of that toy where it reads one."""
    if "--peers" in words:
        return run([*words, "--rows", "step", "--out", "page.md"], **tools)
    assert words[words.index("--study") + 1] == SCALE
    if words[1] == "import":
        weights = build_denoiser(toy_study(SCALE), words[words.index("--method") + 1]).state_dict()
        torch.save({"ema": weights}, words[2])
    return run(words, studies="toys", **tools)


RUN = {"hooks": has_hooks, "collected": collected, "ci": in_ci, "planned": planned, "toy": at_toy_size, "run": run}
KNOWN = {}  # words -> (exit code, what was printed)
