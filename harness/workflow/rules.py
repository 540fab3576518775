"""What the rules share: the command of a stage, made from its rule's named inputs, and what its numbers depend on."""

import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.store import code
from harness.study.folders import PROJECT, from_here
from harness.workflow.run import Run
from harness.workflow.stages import STAGES, Parameter, parameters


def as_written(path: Path) -> str:
    """A path of the project for a rule: relative where the run is in the project; a brace in it is no wildcard."""
    return from_here(path).replace("{", "{{").replace("}", "}}")


ENV = str(PROJECT / "envs" / "harness.yaml")
SPECS = as_written(PROJECT / "reports")
SHELL = "{params.command} 2>&1 | tee {log:q}"
REPORT = {"mem_mb": 1000, "runtime": 10}  # resources of what reads rows and computes nothing


def resources(run: Run, processes: int = 1) -> dict[str, int]:
    """What one of the study's heavy jobs asks of the machine, for `processes` that share it."""
    job = run.study.job
    return {"mem_mb": job.mem_mb, "runtime": job.minutes, "gpu": job.gpus * processes}


def stage(run: Run, name: str, /, *sections: str, **more: Any) -> dict[str, Any]:
    """Params of the rule that runs a stage: its source files with their hashes, a hash of the `sections` that it reads, its command.

    A file a param, because Snakemake prints the params that have changed. A parameter of the stage's function is what the rule has of that
    name: one of `more`, an input, or a wildcard, in this order. What is in `more` and is no parameter is a param alone: a number depends on
    it. The main output is `out`, or the first.
    """
    known = {parameter.name for parameter in parameters(name)}
    options = {key: value for key, value in more.items() if key in known}
    config = {"config": run.config(*sections)} if sections else {}
    others = {key: value for key, value in more.items() if key not in known}
    return {**code_of(STAGES[name].module), **config, **others, "command": command(run, name, options)}


def code_of(module: str) -> dict[str, str]:
    """Params of a rule that runs `module`: the version of Python, and each source file with its hash, as Snakemake prints them."""
    return {"python": code.PYTHON} | {f"code_of_{file}": f"{file} {value}" for file, value in code.sources(module).items()}


def command(run: Run, name: str, options: Mapping[str, Any]) -> Callable[..., str]:
    """The function that Snakemake asks for the command of a job. Values of `options` may hold wildcards."""
    study = run.study.name
    common = {
        "seeds": run.seeds,
        "methods": run.methods,
        "assets": run.assets,
        "results": f"results/{study}",
        "state": f"results/{study}/state",
    }
    launcher = run.launcher if STAGES[name].shared else "python -m harness"

    def value(parameter: str, wildcards: Any, input: Any, output: Any) -> Any:
        if parameter in options:
            return _filled(options[parameter], wildcards)
        if parameter == "out":
            return output.get("out", output[0])
        if parameter in input.keys():
            return input[parameter] or None  # an input that a study does not need is an empty list
        return wildcards.get(parameter, common.get(parameter))

    def of_job(wildcards: Any, input: Any, output: Any) -> str:
        words = [*launcher.split(), name, "--study", study]
        for parameter in parameters(name):
            words += _option(parameter, value(parameter.name, wildcards, input, output))
        return shlex.join(words)

    return of_job


def _filled(value: Any, wildcards: Any) -> Any:
    """Strings, alone or in a list, with wildcards filled in."""
    if isinstance(value, str):
        return value.format(**dict(wildcards.items()))
    return [_filled(item, wildcards) for item in value] if isinstance(value, list) else value


def _option(parameter: Parameter, value: Any) -> Iterable[str]:
    """Words of the command line. An empty list that is given is an option without values; a flag is there or not."""
    if value is None or value is False:
        return []
    if value is True:
        return [f"--{parameter.name}"]
    return [f"--{parameter.name}", *map(str, [value] if isinstance(value, str | int) else value)]
