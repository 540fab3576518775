"""The workflow itself: dry runs, its errors, and that its source is clean. `.ci/run` runs it whole on the study `smoke`."""

import os
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from conftest import tiny_values
from dry_run import DryRuns

from harness.study import typed as config
from harness.study.method import method_names
from harness.study.study import load_study, parse_study, study_names
from harness.workflow.run import Run
from harness.workflow.targets import Targets

BIN = Path(sys.executable).parent


def tool(*arguments, timeout=120):
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "HF_HUB_CACHE": "nowhere"}
    return subprocess.run(arguments, cwd=config.ROOT, capture_output=True, text=True, check=False, env=environment, timeout=timeout)


@cache
def dry_runs():
    return DryRuns(config.ROOT)


def snakemake(*arguments):
    return dry_runs()("-n", "--nolock", "--forceall", *arguments)


def jobs(done):
    """rule -> number of jobs, from a dry run."""
    assert done.returncode == 0, done.stdout + done.stderr
    stats = done.stdout[done.stdout.index("Job stats:") :]
    return Counter({name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", stats, re.MULTILINE)})


def total(counts, rule):
    """Jobs of a rule in the modules of all studies."""
    return sum(count for name, count in counts.items() if name == rule or name.endswith(f"_{rule}"))


def test_methods_share_encoders_and_seeds_a_job():
    counts = jobs(snakemake("reports/table1.md"))
    assert counts["encoder"] == 2
    assert counts["registers"] == 2
    assert counts["latents"] == counts["decoder"] == 4
    assert counts["denoiser"] == counts["samples"] == 8
    assert counts["scores"] == counts["outliers"] == 8


def test_seeds_and_methods_can_be_chosen():
    counts = jobs(snakemake("--config", "study=smoke", "seeds=[0,1]", "methods=[baseline,dsr]", "--", "reports/table1.md"))
    assert counts["denoiser"] == counts["scores"] == 2
    counts = jobs(snakemake("--config", "study=digits", "seeds=[100,101]", "--", "reports/table1.md"))  # guidance is chosen on seed 100
    assert counts["denoiser"] == 8


def of_different_assets():
    """The paper-scale studies, one of each set of assets and methods."""
    studies = [load_study(name) for name in study_names() if name.startswith("imagenet256_")]
    return sorted({(*study.assets, *study.methods): study.name for study in reversed(studies)}.values())


PAPER_SCALE = of_different_assets()
QUICK = "imagenet256_siglip2_b_ditdh"  # the others are planned in the same way


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name == QUICK else pytest.mark.slow) for name in PAPER_SCALE])
def test_paper_scale_study_is_planned_whole_and_every_missing_asset_is_one_line(name):
    """On a machine without any of the assets."""
    planned = snakemake("--config", f"study={name}", "assets=nowhere", "--", "reports/table1.md")
    study, counts = load_study(name), jobs(planned)
    assert counts["denoiser"] == counts["samples"] == len(study.methods) * len(study.seeds)
    assert total(counts, "asset") == len(study.assets)
    missing = [line for line in planned.stderr.splitlines() if line.startswith("missing:")]
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


def test_control_study_takes_judge_and_data_of_its_base_and_has_its_own_encoder():
    counts = jobs(snakemake("--config", "study=digits_control", "--", "reports/table1.md"))
    assert counts["denoiser"] == 8
    assert counts["encoder"] == 2
    for part in ("data", "judge", "clip", "references"):
        assert counts[part] == 0
        assert counts[f"digits_{part}"] == 1


def test_a_table_of_several_studies_trains_nothing_twice():
    counts = jobs(snakemake("--config", "study=smoke", "--", "reports/scaling.md"))
    for part in ("data", "judge", "clip", "references", "encoder"):
        assert total(counts, part) == counts[part] == 1
    assert total(counts, "latents") == total(counts, "decoder") == counts["decoder"] == 2  # plain, and test-time registers
    assert total(counts, "denoiser") == 6
    assert counts["denoiser"] == counts["smoke_dit_s_denoiser"] == counts["smoke_dit_b_denoiser"] == 2
    assert counts["tables"] == counts["configured"] == 1


def test_tables_that_share_runs_train_them_once():
    one, both = (
        jobs(snakemake("--config", "study=smoke", "--", *targets))
        for targets in (["reports/scaling.md"], ["reports/scaling.md", "reports/table1.md"])
    )
    assert both["denoiser"] == len(load_study("smoke").methods)
    assert total(both, "denoiser") - both["denoiser"] == total(one, "denoiser") - one["denoiser"]


def test_variants_of_a_method_are_runs_of_their_own():
    counts = jobs(snakemake("--config", "study=smoke", "seeds=[0,1]", "--", "reports/register_ablation.md"))
    assert counts["denoiser"] == 3
    assert counts["encoder"] == counts["latents"] == 1


def test_only_the_configured_study_takes_the_configured_methods():
    counts = jobs(snakemake("--config", "study=smoke", "methods=[baseline,dsr]", "--", "reports/table1.md", "reports/masking.md"))
    assert counts["denoiser"] == 5  # masked and its variants are what the other table shows


@pytest.mark.parametrize("study", ["smoke", "digits", "digits_sit", "imagenet256_siglip2_b"])
def test_everything_is_planned_from_nothing(study):
    counts = jobs(snakemake("--config", f"study={study}", "assets=nowhere", "--", "reports/all"))
    targets = Targets(Run(load_study(study), [0], load_study(study).methods or method_names()))
    assert counts["tables"] + counts["table1"] == len(targets.tables)
    assert counts["own_figures"] == bool(targets.own_figures)
    assert counts["figures"] == len(targets.figures) - len(targets.own_figures)
    assert total(counts, "judge") == len({run.homes["judge"] for name in targets.tables for run in targets.table(name).runs})


def test_missing_assets_of_other_studies_are_named_once_and_only_where_they_are_needed():
    settings = ["--config", "study=imagenet256_jit_h", "assets=nowhere", "--"]
    own, other = (snakemake(*settings, f"reports/{name}.md") for name in ("table1", "scaling"))
    lines = [[line for line in done.stderr.splitlines() if line.startswith("missing:")] for done in (own, other)]
    assert len(lines[0]) == len(load_study("imagenet256_jit_h").assets)
    assert not any("encoder.plain.weights" in line for line in lines[0])
    assert sum("encoder.plain.weights" in line for line in lines[1]) == 1
    assert len(set(lines[1])) == len(lines[1])


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("reports/scalin.md", "unknown table 'scalin', did you mean 'scaling'?"),
        ("reports/smoke/scalin.tex", "unknown table 'scalin', did you mean 'scaling'?"),
        ("reports/smoke/fidd.png", "unknown figure 'fidd', did you mean 'fid'?"),
        ("reports/shapes/scaling.csv study=shapes", "reports/tables/scaling.yaml names no study for the family 'shapes'"),
        (
            "reports/imagenet256_jit_h/encoder_norms.pdf study=imagenet256_jit_h",
            "figure 'encoder_norms': study 'imagenet256_jit_h' has not",
        ),
    ],
)
def test_a_target_that_there_is_not_is_one_line_before_any_job(target, message):
    target, *settings = target.split()
    done = snakemake("--config", "study=smoke", *settings, "--", target)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in done.stdout + done.stderr


def test_dry_run_explains_itself():
    done = snakemake("--config", "study=smoke", "--", "reports/table1.md")
    assert "Train the denoisers of smoke: dsr" in done.stdout
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


def rules():
    """(name, text, whether it is another with changes) of every rule."""
    for path in sorted((config.ROOT / "harness" / "rules").glob("*.smk")):
        for text in re.split(r"^ *(?=(?:use )?rule )", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            named = re.match(r"(use )?rule (?:\w+ as )?(\w+)", text)
            yield named[2], text.split("\n\n")[0], bool(named[1])


def test_every_rule_has_log_threads_resources_conda_and_message():
    for name, text, derived in rules():
        for directive in ("log:", "message:") if derived else ("log:", "threads:", "resources:", "conda:", "message:"):
            assert directive in text, f"rule {name} has no {directive}"


def test_a_rule_reads_like_a_table_of_contents():
    lengths = {name: len(text.splitlines()) for name, text, _ in rules()}
    assert max(lengths.values()) <= 30, lengths
    assert sum(lengths.values()) / len(lengths) <= 20, lengths


def test_workflow_lints():
    done = tool(sys.executable, "-m", "snakemake", "--lint")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["snakefmt", "--check", "."]])
def test_source_is_clean(arguments):
    done = tool(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr


DRAWN = {"samples", "step_samples", "guidance", "guided_samples", "published_samples"}
SCORED = {"scores", "step_scores", "guided_scores", "published_scores"}


@pytest.mark.parametrize(
    ("change", "rerun"),
    [
        ({"evaluation": {"kid_subsets": 7}}, SCORED),
        ({"evaluation": {"judge": {"width": 24}}}, {"judge", "references", *SCORED}),
        ({"outlier_statistics": {"times": [0.5]}}, {"outliers", "maps", "published_outliers", "published_maps"}),
        ({"sampling": {"guidance": {"scale": 2.0}}}, DRAWN),
        ({"denoiser": {"ema": [0.98, 0.9, 0.995, 0.5]}}, {"denoiser", "held_out_denoiser", "released"}),
        ({"sampling": {"averages": [0.9]}}, {*DRAWN, "scores"}),
        ({"search": {"variant": "released"}}, {"registers", "latents", "encoder_maps"}),
        ({"title": "another"}, set()),
    ],
)
def test_a_changed_field_reruns_the_rules_that_read_it(change, rerun):
    """By the params of the rules; what comes after them runs again because its inputs do."""
    drawn = re.search(
        r"^DRAWN = \[(.*?)\]", (config.ROOT / "harness" / "rules" / "denoiser.smk").read_text(encoding="utf-8"), re.MULTILINE
    )[1]
    sections = {}
    for rule, text, derived in rules():
        called = re.search(r"\*\*stage\(\s*\"\w+\"((?:,\s*(?:\*DRAWN|\"[\w.]+\"))+)", text)
        sections[rule] = re.findall(r'"([\w.]+)"', called[1].replace("*DRAWN", drawn)) if called else []
        if derived and not called and rule.endswith("samples"):
            sections[rule] = sections["samples"]
    sections = {rule: names for rule, names in sections.items() if names}
    assert len(sections) == 25
    studies = [parse_study("tiny", tiny_values(**changed)) for changed in ({}, change)]
    before, after = ({rule: Run(study, [0], ["baseline"]).config(*names) for rule, names in sections.items()} for study in studies)
    assert {rule for rule in sections if before[rule] != after[rule]} == rerun
