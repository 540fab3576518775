"""The commands that rules run are made from their named inputs, outputs and wildcards."""

import re
import shlex
from dataclasses import replace

import pytest
from snakemake.iocontainers import Namedlist

from harness.store import code
from harness.study.study import load_study
from harness.workflow import rules
from harness.workflow.run import Run
from harness.workflow.stages import STAGES, parameters

RUN = Run(load_study("smoke"), [0, 1], ["baseline", "dsr"])
RUNS = [f"results/smoke/runs/dsr/seed{seed}/denoiser.safetensors" for seed in (0, 1)]


def job(name, *sections, wildcards=(), inputs=(), outputs=(), **more):
    """The command of a job, as words."""
    params = rules.stage(RUN, name, *sections, **more)
    return shlex.split(
        params["command"](Namedlist(fromdict=dict(wildcards)), Namedlist(fromdict=dict(inputs)), Namedlist(fromdict=dict(outputs)))
    )


def test_inputs_wildcards_and_outputs_are_options_by_their_names():
    words = job(
        "outliers", wildcards={"method": "dsr"}, inputs={"denoisers": RUNS, "latents": "l at.safetensors"}, outputs={"out": "o.json"}
    )
    expected = "python -m harness outliers --study smoke --method dsr --seeds 0 1"
    assert words == [*expected.split(), "--denoisers", *RUNS, "--latents", "l at.safetensors", "--out", "o.json"]


def test_a_folder_of_assets_with_spaces_and_braces_is_one_word():
    params = rules.stage(replace(RUN, assets="my {assets}"), "asset", name="{asset}")
    line = params["command"](Namedlist(fromdict={"asset": "data.train"}), Namedlist(), Namedlist(fromdict={"out": "o.json"}))
    words = shlex.split(line)
    assert words[words.index("--assets") + 1] == "my {assets}"
    assert words[words.index("--name") + 1] == "data.train"


def test_an_input_that_a_study_does_not_need_is_no_option():
    words = job("latents", inputs={"data": "d", "backbone": "b", "registers": []}, outputs={"out": "o"})
    assert "--registers" not in words
    assert words[words.index("--backbone") + 1] == "b"


def test_what_a_rule_says_comes_before_inputs_and_is_filled_in():
    inputs = {"tables": ["t.md"], "denoisers": ["other"]}
    words = job("page", inputs=inputs, outputs={"out": "reports/all"}, tables=[], figures=["fid"], out="index.html")
    assert words[words.index("--tables") : words.index("--tables") + 2] == ["--tables", "--figures"]
    assert words[words.index("--out") + 1] == "index.html"
    words = job(
        "samples", wildcards={"method": "dsr", "seed": "1"}, inputs=inputs, outputs={"out": "o"}, steps=True, denoisers=["d/{seed}"]
    )
    assert words[words.index("--denoisers") + 1] == "d/1"
    assert "--steps" in words


def test_what_is_no_option_is_a_param_that_numbers_depend_on():
    params = rules.stage(RUN, "registers", "search", lists="neurons")
    files = {value for key, value in params.items() if key.startswith("code_of_")}
    assert files == {f"{name} {value}" for name, value in code.sources("harness.encoder.encode").items()}
    assert params["python"] == code.PYTHON
    assert params["config"] == RUN.config("search")
    assert params["lists"] == "neurons"


def test_processes_share_what_can_be_shared():
    study = RUN.study.model_copy(update={"job": RUN.study.job.model_copy(update={"processes": 2, "gpus": 1})})
    assert rules.resources(Run(study, [0], ["dsr"]), processes=2)["gpu"] == 2
    started = {name: rules.stage(Run(study, [0], ["dsr"]), name)["command"] for name in ("denoiser", "latents")}
    nothing = Namedlist(fromdict={}), Namedlist(fromdict={}), Namedlist(fromdict={"out": "o"})
    assert started["denoiser"](*nothing).startswith("torchrun --standalone --nproc-per-node 2 -m harness denoiser")
    assert started["latents"](*nothing).startswith("python -m harness latents")


@pytest.mark.parametrize("name", STAGES)
def test_the_options_of_a_stage_are_the_parameters_of_its_function(name):
    import inspect
    from importlib import import_module

    function = getattr(import_module(STAGES[name].module), STAGES[name].function)
    real = list(inspect.signature(function).parameters.values())
    assert real[0].name == "study"
    assert [p.name for p in real[1:]] == [p.name for p in parameters(name)]
    needed = {p.name for p in real[1:] if p.default is p.empty}
    assert {p.name for p in parameters(name) if p.required} == needed
    assert all(p.kind is p.KEYWORD_ONLY for p in real[1:])
    many = {p.name for p in real[1:] if re.search("list|tuple|Sequence|Iterable", str(p.annotation))}
    assert {p.name for p in parameters(name) if p.several} == many
    assert [p.name for p in real[1:] if "None" in str(p.annotation) and p.default is p.empty] == []  # a study may have none of it


def test_records_are_as_many_as_a_study_has_assets():
    for name in STAGES:
        assert all(parameter.several for parameter in parameters(name) if parameter.name == "records"), name
