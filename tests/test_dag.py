"""The workflow itself: dry runs, its errors, and that its source is clean. `.ci/run` runs it whole on the study `smoke`."""

import os
import re
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import tiny_values

from harness import config
from harness.dag import Run
from harness.study import load_study, parse_study, study_names

BIN = Path(sys.executable).parent


def tool(*arguments, timeout=120):
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "HF_HUB_CACHE": "nowhere"}
    return subprocess.run(arguments, cwd=config.ROOT, capture_output=True, text=True, check=False, env=environment, timeout=timeout)


def snakemake(*arguments):
    return tool(sys.executable, "-m", "snakemake", "-n", "--nolock", "--forceall", *arguments)


def jobs(done):
    """rule -> number of jobs, from a dry run."""
    assert done.returncode == 0, done.stdout + done.stderr
    stats = done.stdout[done.stdout.index("Job stats:") :]
    return Counter({name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", stats, re.MULTILINE)})


def test_methods_share_encoders_and_every_run_is_one_job():
    found = jobs(snakemake("reports/table1.md"))
    assert found["encoder"] == 2
    assert found["registers"] == 2
    assert found["latents"] == found["decoder"] == 4
    assert found["denoiser"] == found["samples"] == 24
    assert found["scores"] == found["outliers"] == 8


def test_seeds_and_methods_can_be_chosen():
    found = jobs(snakemake("--config", "study=smoke", "seeds=[0,1]", "methods=[baseline,dsr]", "--", "reports/table1.md"))
    assert found["denoiser"] == 4
    assert found["scores"] == 2


PAPER_SCALE = [name for name in study_names() if name.startswith("imagenet256_")]


@pytest.fixture(scope="module")
def planned():
    """Dry runs of every paper-scale study, on a machine without any of the assets."""
    with ThreadPoolExecutor(2) as pool:
        runs = pool.map(lambda name: snakemake("--config", f"study={name}", "assets=nowhere", "--", "reports/table1.md"), PAPER_SCALE)
        return dict(zip(PAPER_SCALE, runs, strict=True))


@pytest.mark.parametrize("name", PAPER_SCALE)
def test_paper_scale_study_is_planned_whole_and_every_missing_asset_is_one_line(planned, name):
    study, found = load_study(name), jobs(planned[name])
    assert found["denoiser"] == found["samples"] == len(study.methods) * len(study.seeds)
    assert found["asset"] == len(study.assets)
    missing = [line for line in planned[name].stderr.splitlines() if line.startswith("missing:")]
    assert len(missing) == len(study.assets)
    for asset, line in zip(study.assets.items(), missing, strict=True):
        assert f"asset '{asset[0]}' is missing: put it at nowhere/{asset[1].path} (" in line


def test_a_study_that_misses_an_asset_stops_with_one_line_that_names_it(tmp_path):
    out = tmp_path / "record.json"
    done = tool(
        sys.executable, "-m", "harness", "asset", "--study", "imagenet256_siglip2_b", "--name", "evaluation.judge.weights",
        "--assets", str(tmp_path), "--out", str(out),
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "asset 'evaluation.judge.weights' is missing: put it at" in done.stderr
    assert not out.exists()


def test_compute_table_is_a_target():
    assert jobs(snakemake("reports/compute.md")) == {"compute": 1, "total": 1}


def test_control_study_has_the_same_dag():
    assert jobs(snakemake("--config", "study=digits_control", "--", "reports/table1.md"))["denoiser"] == 24


def test_dry_run_explains_itself():
    done = snakemake("--config", "study=smoke", "--", "reports/table1.md")
    assert "Train the denoiser of smoke: dsr, seed 0" in done.stdout
    assert "Reason:" in done.stdout


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("study=digts", "unknown study 'digts', did you mean 'digits'"),
        ("sedes=[1]", "unknown config key 'sedes', did you mean 'seeds'"),
        ("seeds=[]", "seeds must be a list of one or more whole numbers"),
        ("seeds=[0.5]", "seeds must be a list of one or more whole numbers"),
        ("methods=[baseline,drs]", "unknown method 'drs', did you mean 'dsr'"),
        ("methods=[dsr]", "methods must contain 'baseline'"),
        ("study=imagenet256_sit_xl methods=[baseline,ttr]", "method 'ttr' works on the tokens of a ViT encoder"),
        ("study=imagenet256_siglip2_b methods=[baseline,dsr_trained]", "needs an encoder with trained registers"),
        ("study=imagenet256_siglip2_so400m_released methods=[baseline,ttr]", "names no list for ttr_1"),
    ],
)
def test_a_mistake_in_the_config_is_one_line_before_any_job(setting, message):
    done = snakemake("--config", *setting.split())
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in done.stdout + done.stderr


def test_every_rule_has_log_threads_resources_conda_and_message():
    for path in (config.ROOT / "harness" / "rules").glob("*.smk"):
        for rule in re.split(r"^rule ", path.read_text(), flags=re.MULTILINE)[1:]:
            for directive in ("log:", "threads:", "resources:", "conda:", "message:"):
                assert directive in rule, f"{path.name}: rule {rule.splitlines()[0]} has no {directive}"


def test_workflow_lints():
    done = tool(sys.executable, "-m", "snakemake", "--lint")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["snakefmt", "--check", "."]])
def test_source_is_clean(arguments):
    done = tool(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("change", "rerun"),
    [
        ({"evaluation": {"kid_subsets": 7}}, {"scores"}),
        ({"evaluation": {"judge": {"width": 24}}}, {"judge", "references", "scores"}),
        ({"outlier_statistics": {"times": [0.5]}}, {"outliers"}),
        ({"sampling": {"guidance": {"scale": 2.0}}}, {"samples"}),
        ({"denoiser": {"ema": [0.98, 0.9, 0.995, 0.5]}}, {"denoiser"}),
        ({"sampling": {"averages": [0.9]}}, {"samples", "scores"}),
        ({"search": {"variant": "released"}}, {"registers", "latents"}),
        ({"title": "another"}, set()),
    ],
)
def test_a_changed_field_reruns_the_rules_that_read_it(change, rerun):
    """By the params of the rules; what comes after them runs again because its inputs do."""
    sections = {}
    for path in (config.ROOT / "harness" / "rules").glob("*.smk"):
        for rule, names in re.findall(r"^rule (\w+):.*?config=RUN\.config\((.*?)\)", path.read_text(), re.MULTILINE | re.DOTALL):
            sections[rule] = re.findall(r'"([\w.]+)"', names)
    assert len(sections) == 16
    studies = [parse_study("tiny", tiny_values(**changed)) for changed in ({}, change)]
    before, after = ({rule: Run(study, [0], ["baseline"]).config(*names) for rule, names in sections.items()} for study in studies)
    assert {rule for rule in sections if before[rule] != after[rule]} - {"table1", "claims", "figures", "page"} == rerun
