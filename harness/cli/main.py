"""`dsr <stage> ...`: parse, call one function, print what it returns. No logic.

Each stage imports what it needs when it runs: importing torch costs more than most jobs.
"""

import argparse
import json
import os
import re
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from harness import __version__
from harness.cli.adding import Command
from harness.cli.commands import COMMANDS, add_commands
from harness.store.artifacts import Finished
from harness.store.assets import ASSETS_FOLDER
from harness.study.method import EncoderRegisters, load_method
from harness.study.seeds import PUBLISHED, seed, seed_text
from harness.study.study import load_study
from harness.study.typed import UserError, check_seeds, did_you_mean
from harness.workflow.counting import count_left_out
from harness.workflow.stages import STAGES, Parameter, parameters
from harness.workflow.start import importing, in_utf8

ABOUT = """Benchmark and reproducibility harness for Dual-Stage Registers (arXiv 2605.05206).

Every subcommand is one stage of the DAG and does what one Snakemake rule does; run the whole with
    snakemake --cores all reports/table1.md
and see a rule's exact subcommand with
    snakemake -n --printshellcmds reports/table1.md

What a paper-scale study would cost and needs: dsr plan imagenet256_siglip2_b
"""


HELP = {
    "name": "field of the study that names the asset, such as evaluation.judge.weights",
    "assets": "folder that the study's assets are in",
    "records": "records of the assets that the stage reads (stage asset); a study without assets needs none",
    "data": "data set folder (stage data)",
    "backbone": "encoder folder (stage encoder); training reads it only where latents are not cached",
    "encoder": "encoder variant: plain, trained_registers, ttr_<rounds> or ttr_until_clean",
    "registers": "register neurons (stage registers); leave out for an encoder without test-time registers",
    "latents": "whitened latents (stage latents)",
    "decoder": "decoder weights (stage decoder)",
    "denoiser": "denoiser weights (stage denoiser)",
    "judge": "judge weights (stage judge)",
    "clip": "open_clip folder (stage clip); leave out for a study without a CLIP score",
    "references": "what samples are compared with (stage references)",
    "method": "a file in baselines/, without .py",
    "methods": "methods, in the order of the rows",
    "seed": "seed of the run: weights, data order, noise",
    "seeds": "seeds of the runs, in the order of the files; `published` for published weights",
    "samples": "one samples file a seed (stage samples)",
    "denoisers": "one weights file a seed (stage denoiser)",
    "guidance": "guidance that was chosen for the method (stage guidance), in the place of the study's",
    "steps": "of the weights at the study's denoiser.snapshots instead, in step<n> beside those of the last step",
    "results": "results folder of the study",
    "reports": "folder of the study's rendered figures",
    "tables": "which tables (default: those that are there); a page always has the first",
    "figures": "figures to show (default: those that are there)",
    "figure": "one figure of reports/figures.yaml (default: all that the study has)",
    "spec": "specification, e.g. reports/tables/table1.yaml",
    "state": "folder for checkpoints; a run that was killed goes on from there",
    "out": "what to write",
}
CHOICES = {"backbone": "with or without trained registers"}  # of an option that names one of a few


class Parser(argparse.ArgumentParser):
    """argparse, with its complaints in one line and the nearest stage for a mistyped one."""

    def error(self, message: str) -> NoReturn:
        if mistyped := re.match(r"argument STAGE: invalid choice: '(.*?)'", message):
            message = f"unknown stage '{mistyped[1]}'{did_you_mean(mistyped[1], [*STAGES, *COMMANDS])}"
        print(f"error: {message}; see '{self.prog} --help'", file=sys.stderr)
        sys.exit(2)


def parser(words: list[str]) -> Parser:
    """Of the command line `words`: a stage's options are read from its source, and so only those of a stage that is named."""
    main_parser = Parser(prog="dsr", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    main_parser.add_argument("--version", action="version", version=f"dsr-harness {__version__}")
    places = main_parser.add_subparsers(
        title="stages, in the order of the DAG, then commands", metavar="STAGE", required=True, dest="stage"
    )
    for name, stage in STAGES.items():
        sub = places.add_parser(name, help=stage.about, description=f"{stage.about[0].upper()}{stage.about[1:]}.")
        sub.add_argument("--study", required=True, metavar="NAME", help="a file in harness/studies/, without .yaml")
        for parameter in parameters(name) if name in words else ():
            sub.add_argument(f"--{parameter.name}", **_settings(parameter))

    def add(name: str, function: Command, about: str) -> argparse.ArgumentParser:
        sub = places.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
        sub.set_defaults(command=function)
        return sub

    add_commands(add)
    return main_parser


def _settings(parameter: Parameter) -> dict[str, Any]:
    """What argparse is told of a stage's parameter."""
    if parameter.choices:
        return {"required": True, "choices": parameter.choices, "help": CHOICES[parameter.name]}
    if parameter.type == "bool":
        return {"action": "store_true", "help": HELP[parameter.name]}
    types = {"Path": (Path, "PATH"), "int": (seed, "SEED"), "str": (str, "NAME")}
    settings: dict[str, Any] = dict(zip(("type", "metavar"), types[parameter.type], strict=True))
    several = {"nargs": "+" if parameter.required else "*"} if parameter.several else {}
    return settings | several | {"required": parameter.required, "help": HELP[parameter.name]}


def main() -> None:
    """Entry point of `dsr`. A UserError is one line on stderr and exit code 2."""
    in_utf8()
    arguments = parser(sys.argv[1:]).parse_args()
    warnings.filterwarnings("ignore", module="cleanfid|open_clip|timm|transformers|diffusers|PIL")
    try:
        if name := getattr(arguments, "study", None) or getattr(arguments, "name", None):
            count_left_out(name, getattr(arguments, "assets", None) or Path(ASSETS_FOLDER))
        if "command" in arguments:
            sys.exit(arguments.command(arguments))
        result = _run_stage(arguments)
    except Finished as error:
        result = {"already": str(error)}
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except (OSError, MemoryError) as error:
        if os.environ.get("DSR_DEBUG"):
            raise
        print(f"error: {type(error).__name__}: {error}; set DSR_DEBUG=1 for the traceback", file=sys.stderr)
        sys.exit(2)
    if result:
        print(f"{arguments.stage}: {json.dumps(result)}")


def _run_stage(arguments: argparse.Namespace) -> object:
    study, stage = load_study(arguments.study), STAGES[arguments.stage]
    given = {p.name: value for p in parameters(arguments.stage) if (value := getattr(arguments, p.name)) is not None}
    for name in {*given.get("methods", []), given.get("method")} - {None}:
        load_method(name)
    seeds = [given["seed"]] if "seed" in given else given.get("seeds", [0])
    if seeds != [PUBLISHED]:
        check_seeds(seeds)
    if "method" in given and (seeds == [PUBLISHED]) != (given["method"] in study.denoiser.released) and {"seed", "seeds"} & given.keys():
        of = "published: it has one run" if seeds != [PUBLISHED] else "trained: it has a run a seed"
        raise UserError(f"seed {seed_text(seeds[0])}: the weights of method '{given['method']}' of study '{study.name}' are {of}")
    for record in given.get("records", []):
        if record.suffix != ".json":
            raise UserError(f"--records {record}: give the files that stage asset wrote, results/STUDY/assets/FIELD.json")
    if "encoder" in given:
        EncoderRegisters.from_key(given["encoder"])
    if stage.computes:
        with importing():
            from harness.machine.device import set_up
        set_up(study.job.threads, study.job.gpus if stage.gpu else 0, shared=stage.shared)
    with importing():
        run = getattr(import_module(stage.module), stage.function)
    return run(study, **given)
