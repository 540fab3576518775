"""What keeps this project easy to join: the same tests everywhere, checks before a commit, workflows and issue forms that are sound."""

import re
import shlex
import tomllib

import pytest
import yaml
from hypothesis import settings
from snakemake.cli import parse_args

from harness.cli.main import parser
from harness.study.study import study_names
from harness.study.typed import ROOT

GITHUB = ROOT / ".github"
CI, CHECK = GITHUB / "workflows" / "ci.yml", GITHUB / "workflows" / "check.yml.example"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def steps(workflow, key):
    return [step[key] for job in workflow["jobs"].values() for step in job["steps"] if key in step]


def parse(line, **environment):
    """Put the words of a command through the parser of its program; ends the test where that refuses them."""
    for name, value in environment.items():
        line = line.replace(f"${name}", value)
    program, *words = shlex.split(line)
    if program == "dsr":
        return parser(words).parse_args(words)
    assert program == "snakemake"
    return parse_args(words)[1]


# ------------------------------------------------------------------------------------------------------------------- tests


def test_examples_are_drawn_anew_only_where_that_is_asked_for():
    same, random = settings.get_profile("same"), settings.get_profile("random")
    assert (same.derandomize, same.database) == (True, None)
    assert (random.derandomize, random.print_blob) == (False, True)
    assert random.max_examples == 10 * same.max_examples


# ------------------------------------------------------------------------------------------------------------------ checks


def test_checks_before_a_commit_are_of_the_pinned_versions():
    pins = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / "envs" / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE))
    hooks = [hook for repo in read(ROOT / ".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    assert {hook["id"] for hook in hooks} == {"ruff-check", "ruff-format", "snakefmt", "lint-imports", "mypy"}
    for hook in hooks:
        if hook["language"] == "system":
            assert hook["entry"] in PROJECT["optional-dependencies"]["test"]
        else:
            (name, version), *more = [one.split("==") for one in hook["additional_dependencies"]]
            assert (pins[name], more) == (version, [])


# --------------------------------------------------------------------------------------------------------------- workflows


@pytest.mark.parametrize("path", [CI, CHECK], ids=lambda path: path.name)
def test_a_workflow_is_one(path):
    workflow = read(path)
    assert {"name", True, "permissions", "concurrency", "jobs"} <= set(workflow)  # YAML reads the key `on` as True
    for job in workflow["jobs"].values():
        assert {"runs-on", "timeout-minutes", "steps"} <= set(job)
        assert all(("uses" in step) != ("run" in step) for step in job["steps"])
        assert all(re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]) for step in job["steps"] if "uses" in step)


def test_ci_runs_everything_on_one_python_and_the_tests_on_the_others():
    workflow = read(CI)
    classified = {line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line}
    everything, tests = workflow["jobs"]["all"], workflow["jobs"]["tests"]
    (python,) = [step["with"]["python-version"] for step in everything["steps"] if "python-version" in step.get("with", {})]
    assert {python, *tests["strategy"]["matrix"]["python"]} == classified
    assert PROJECT["requires-python"] == f">={python}"
    assert ".ci/run" in steps({"jobs": {"all": everything}}, "run")
    (found,) = [re.search(r"grep -m1 '(.*)' (\S+)\)", line) for line in steps({"jobs": {"tests": tests}}, "run")]
    lines = (ROOT / found[2]).read_text(encoding="utf-8").splitlines()
    assert next(line for line in lines if re.search(found[1], line)).startswith("python3 -m venv ")


def test_the_workflow_to_copy_runs_what_there_is():
    workflow = read(CHECK)
    study = workflow["env"]["STUDY"]
    assert study in study_names()
    assert (ROOT / "reports" / "reference" / f"{study}.csv").is_file()
    install, run, check, *_ = steps(workflow, "run")
    assert install in (ROOT / "README.md").read_text(encoding="utf-8")
    assert parse(run, STUDY=study).targets == ["reports/table1.md"]
    assert parse(check.partition(" | ")[0], STUDY=study).study == study
    told = CHECK.read_text(encoding="utf-8")
    first, second = re.search(r"^# +(snakemake .*) && (dsr .*)$", told, re.MULTILINE).groups()
    assert parse(first).config[0] == "study=STUDY"
    assert parse(second).update
    copied = re.search(r"cp (\S+) (\S+)$", told, re.MULTILINE)
    assert (ROOT / copied[1], ROOT / copied[2]) == (CHECK, CHECK.with_suffix(""))


# ------------------------------------------------------------------------------------------------------------------- forms


@pytest.mark.parametrize("name", ["number", "method"])
def test_a_form_is_one(name):
    form = read(GITHUB / "ISSUE_TEMPLATE" / f"{name}.yml")
    assert {"name", "description", "body"} <= set(form)
    parts = {part["id"]: part for part in form["body"]}
    assert len(parts) == len(form["body"])
    for part in parts.values():
        assert part["type"] in ("input", "textarea", "checkboxes")
        assert "label" in part["attributes"]
        for command in re.findall(r"`(dsr .*?)`", part["attributes"].get("description", "")):
            parse(command)
    asked = {"number": {"trace", "commit", "study", "machine"}, "method": {"source", "file", "expected"}}
    assert asked[name] <= set(parts)
