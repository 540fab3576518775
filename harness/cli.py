"""`dsr <stage> ...`: parse, call one function, print what it returns. No logic.

Each stage imports what it needs when it runs: importing torch costs more than most jobs.
"""

import argparse
import json
import os
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from harness import __version__, artifacts
from harness.config import EncoderRegisters, UserError, check_seeds, did_you_mean, load_method, nearest
from harness.study import Study, load_study

ABOUT = """Benchmark and reproducibility harness for Dual-Stage Registers (arXiv 2605.05206).

Every subcommand is one stage of the DAG and does what one Snakemake rule does; run the whole with
    snakemake --cores all reports/table1.md
and see a rule's exact subcommand with
    snakemake -n --printshellcmds reports/table1.md

What a paper-scale study would cost and needs: dsr plan imagenet256_siglip2_b
"""


def asset(study: Study, a: argparse.Namespace) -> object:
    from harness.assets import record

    return record(study, a.name, a.assets, a.out)


def data(study: Study, a: argparse.Namespace) -> object:
    from harness.data import make

    return make(study.data, a.out, a.records)


def judge(study: Study, a: argparse.Namespace) -> object:
    from harness.train.judge import make_judge

    return make_judge(study, data_folder=a.data, assets=a.records, state=a.state, out=a.out)


def clip(study: Study, a: argparse.Namespace) -> object:
    from harness.train.judge import make_clip

    return make_clip(study, data_folder=a.data, assets=a.records, state=a.state, out=a.out)


def references(study: Study, a: argparse.Namespace) -> object:
    from harness.evaluate.references import make

    return make(study, data_folder=a.data, judge=a.judge, assets=a.records, out=a.out)


def encoder(study: Study, a: argparse.Namespace) -> object:
    from harness.encode import make_backbone

    return make_backbone(study, a.backbone, data_folder=a.data, asset_records=a.records, state=a.state, out=a.out)


def registers(study: Study, a: argparse.Namespace) -> object:
    from harness.encode import search

    found = search(study, a.encoder, data_folder=a.data, backbone=a.backbone, out=a.out)
    return {key: found[key] for key in ("neurons", "source", "outlier_share_left", "precision", "recall")}


def latents(study: Study, a: argparse.Namespace) -> object:
    from harness.encode import make

    return make(study, data_folder=a.data, backbone=a.backbone, registers=a.registers, out=a.out)


def decoder(study: Study, a: argparse.Namespace) -> object:
    from harness.train.decoder import make

    return make(
        study,
        key=a.encoder,
        data_folder=a.data,
        latents_file=a.latents,
        backbone=a.backbone,
        registers=a.registers,
        asset_records=a.records,
        state=a.state,
        out=a.out,
    )


def denoiser(study: Study, a: argparse.Namespace) -> object:
    from harness.train.denoiser import train

    return train(
        study,
        method_name=a.method,
        seed=a.seed,
        latents_file=a.latents,
        data_folder=a.data,
        backbone=a.backbone,
        registers=a.registers,
        state=a.state,
        out=a.out,
    )


def samples(study: Study, a: argparse.Namespace) -> object:
    from harness.sample import draw

    return draw(
        study,
        method_name=a.method,
        seed=a.seed,
        denoiser=a.denoiser,
        decoder=a.decoder,
        latents_file=a.latents,
        asset_records=a.records,
        out=a.out,
    )


def scores(study: Study, a: argparse.Namespace) -> object:
    from harness.evaluate.scores import score_runs

    return score_runs(
        study,
        method_name=a.method,
        seeds=a.seeds,
        sample_files=a.samples,
        denoiser_files=a.denoisers,
        decoder=a.decoder,
        latents_file=a.latents,
        data_folder=a.data,
        judge=a.judge,
        clip=a.clip,
        references=a.references,
        outs=a.out,
    )


def outliers(study: Study, a: argparse.Namespace) -> object:
    from harness.evaluate.outliers import measure_runs

    return measure_runs(study, method_name=a.method, seeds=a.seeds, denoiser_files=a.denoisers, latents_file=a.latents, outs=a.out)


def table(study: Study, a: argparse.Namespace) -> object:
    from harness.report.table import render

    return render(study, methods=a.methods, seeds=a.seeds, results=a.results, spec=a.spec, out=a.out)


def figures(study: Study, a: argparse.Namespace) -> object:
    from harness.report.figures import render

    return render(study, methods=a.methods, seeds=a.seeds, results=a.results, out=a.out)


FILE, NAME = {"type": Path, "metavar": "PATH"}, {"metavar": "NAME"}
OPTIONS: dict[str, dict] = {
    "name": NAME | {"help": "field of the study that names the asset, such as evaluation.judge.weights"},
    "assets": FILE | {"help": "folder that the study's assets are in"},
    "records": FILE | {"help": "folder of the assets' records (stage asset); a study without assets needs none"},
    "data": FILE | {"help": "data set folder (stage data)"},
    "backbone": FILE | {"help": "encoder folder (stage encoder); training reads it only where latents are not cached"},
    "encoder": NAME | {"help": "encoder variant: plain, trained_registers, ttr_<rounds> or ttr_until_clean"},
    "registers": FILE | {"help": "register neurons (stage registers); leave out for an encoder without test-time registers"},
    "latents": FILE | {"help": "whitened latents (stage latents)"},
    "decoder": FILE | {"help": "decoder weights (stage decoder)"},
    "denoiser": FILE | {"help": "denoiser weights (stage denoiser)"},
    "judge": FILE | {"help": "judge weights (stage judge)"},
    "clip": FILE | {"help": "open_clip folder (stage clip); leave out for a study without a CLIP score"},
    "references": FILE | {"help": "what samples are compared with (stage references)"},
    "method": NAME | {"help": "a file in baselines/, without .py"},
    "methods": NAME | {"nargs": "+", "help": "methods, in the order of the rows"},
    "seed": {"type": int, "help": "seed of the run: weights, data order, noise"},
    "seeds": {"type": int, "nargs": "+", "metavar": "SEED", "help": "seeds of the runs, in the order of the files"},
    "samples": FILE | {"nargs": "+", "help": "one samples file a seed (stage samples)"},
    "denoisers": FILE | {"nargs": "+", "help": "one weights file a seed (stage denoiser)"},
    "results": FILE | {"help": "results folder of the study"},
    "spec": FILE | {"help": "table specification, e.g. reports/table1.yaml"},
    "state": FILE | {"help": "folder for checkpoints; a run that was killed goes on from there"},
    "out": FILE | {"help": "what to write"},
}
# stage -> (function, one line of help, options besides --study; ? marks those that not every study needs, * several files)
STAGES: dict[str, tuple[Callable, str, str]] = {
    "asset": (asset, "check a file or folder that the study's user supplies, and record what it is", "name assets out"),
    "data": (data, "build the data set", "records? out"),
    "judge": (judge, "the network whose features FID, IS, KID, precision and recall use: train or import it", "data? records? state out"),
    "clip": (clip, "the open_clip model of the CLIP score: train or import it", "data? records? state out"),
    "encoder": (encoder, "the vision encoder: train it (and plant outliers) or import it", "backbone data records? state out"),
    "registers": (registers, "search for register neurons (test-time registers)", "encoder data backbone out"),
    "latents": (latents, "whitening statistics, and the whitened latents where they are cached", "data backbone registers? out"),
    "decoder": (
        decoder,
        "the decoder of an encoder variant: train or import it",
        "encoder data latents backbone? registers? records? state out",
    ),
    "denoiser": (denoiser, "train one method's denoiser with one seed", "method seed latents data? backbone? registers? state out"),
    "samples": (samples, "draw one run's samples", "method seed denoiser decoder latents records? out"),
    "references": (references, "features and statistics that samples are compared with", "data judge records? out"),
    "scores": (
        scores,
        "score the samples of a method's runs and its decoder",
        "method seeds samples denoisers decoder latents data judge references clip? out*",
    ),
    "outliers": (
        outliers,
        "token norms at every layer of a method's encoder, and every block and noise level of its denoisers",
        "method seeds denoisers latents out*",
    ),
    "table": (table, "render a table from the results: Markdown, CSV, LaTeX, times", "methods seeds results spec out"),
    "figures": (figures, "render the figures from the results, PNG and PDF", "methods seeds results out"),
}


# ---------------------------------------------------------------------------------------------- commands beside the stages


def plan(a: argparse.Namespace) -> int:
    from harness.config import method_names
    from harness.dag import check_fits
    from harness.plan import plan as plan_of

    study = load_study(a.name)
    methods = a.methods or study.methods or method_names()
    for method in methods:
        check_fits(study, method)
    seeds = len(study.seeds) if a.seeds is None else a.seeds
    print(plan_of(study, methods=methods, seeds=seeds, assets=a.assets, utilisation=a.utilisation, peak_tflops=a.peak_tflops))
    return 0


def parity(a: argparse.Namespace) -> int:
    from harness.parity import report

    text, agrees = report(a.files)
    print(text)
    return 0 if agrees else 1


def import_(a: argparse.Namespace) -> int:
    from harness.importing import import_checkpoint

    print(json.dumps(import_checkpoint(a.checkpoint, load_study(a.study), method=a.method, part=a.part, out=a.out)))
    return 0


def benchmark(a: argparse.Namespace) -> int:
    import tempfile

    from harness.benchmark import append
    from harness.benchmark import benchmark as measure
    from harness.config import merge
    from harness.runtime import set_up
    from harness.study import parse_study

    load_method(a.method)
    study = load_study(a.study)
    training = {"precision": a.precision, "compile": a.compile, "batch": a.batch, "micro_batch": a.micro_batch}
    changes = {"denoiser": {"training": {key: value for key, value in training.items() if value is not None}}}
    study = parse_study(study.name, merge(study.model_dump(exclude={"name"}), changes))
    set_up(study.job.threads, study.job.gpus)
    with tempfile.TemporaryDirectory() as state:
        line = measure(study, a.method, steps=a.steps, peak_tflops=a.peak_tflops, state=Path(state))
    append(line, a.out)
    print(json.dumps(line))
    return 0


def compute(a: argparse.Namespace) -> int:
    from harness.dag import SIZED
    from harness.plan import compute_table

    artifacts.write_text(a.out, compute_table(SIZED))
    return 0


def _add_commands(add: Callable[[str, Callable, str], argparse.ArgumentParser]) -> None:
    sub = add("plan", plan, "what a study would run: parameters, FLOPs, GPU-hours, disk, and every asset with where to put it")
    sub.add_argument("name", metavar="STUDY", help="a file in harness/studies/, without .yaml")
    sub.add_argument("--seeds", type=int, metavar="N", help="number of seeds; default: the study's own")
    sub.add_argument("--methods", **OPTIONS["methods"])
    sub.add_argument("--assets", type=Path, default=Path("assets"), metavar="PATH", help="folder that the assets are in (default: assets)")
    sub.add_argument("--utilisation", type=float, default=0.4, help="share of the peak that training reaches (default: 0.4)")
    sub.add_argument("--peak-tflops", type=float, help="peak of the accelerator; default: an H100's, by precision")
    sub = add("parity", parity, "compare this implementation with outputs of the authors' code; exit code 1 above a relative error of 1e-5")
    sub.add_argument("files", nargs="+", type=Path, metavar="FILE", help="safetensors with weights, inputs and outputs, as in tests/data")
    sub = add("import", import_, "check a released .pt or .safetensors against a study's model and write it as safetensors")
    sub.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="weights only; nothing in the file is executed")
    sub.add_argument("--study", required=True, **NAME, help="the study whose model the weights must fit")
    sub.add_argument("--method", default="baseline", **NAME, help="for a denoiser: whose registers it has (default: baseline)")
    sub.add_argument("--part", choices=["denoiser", "decoder"], default="denoiser", help="which of the study's models it is")
    sub.add_argument("--out", required=True, type=Path, metavar="PATH", help="safetensors to write")
    sub = add("benchmark", benchmark, "speed and memory of a study's denoiser on this machine; adds a line to a CSV")
    sub.add_argument("--study", required=True, **NAME, help="whose denoiser, recipe and sampler")
    sub.add_argument("--method", default="dsr", **NAME, help="whose registers (default: dsr)")
    sub.add_argument("--steps", type=int, default=10, help="training steps that are timed (default: 10)")
    sub.add_argument("--precision", choices=["fp32", "bf16"], help="of training; default: the study's")
    sub.add_argument("--compile", action=argparse.BooleanOptionalAction, help="default: the study's")
    sub.add_argument("--batch", type=int, help="default: the study's")
    sub.add_argument("--micro-batch", type=int, help="default: the study's")
    sub.add_argument("--peak-tflops", type=float, default=989.0, help="that utilisation is a share of (default: an H100's in bf16)")
    sub.add_argument("--out", required=True, type=Path, metavar="PATH", help="CSV to add the line to")
    sub = add("compute", compute, "render the compute table of the paper-scale studies")
    sub.add_argument("--out", required=True, type=Path, metavar="PATH", help="Markdown to write")


COMMANDS = ("plan", "parity", "import", "benchmark", "compute")


class Parser(argparse.ArgumentParser):
    """argparse, with its complaints in one line and the nearest stage for a mistyped one."""

    def error(self, message: str) -> NoReturn:
        if mistyped := re.match(r"argument STAGE: invalid choice: '(.*?)'", message):
            message = f"unknown stage '{mistyped[1]}'{did_you_mean(mistyped[1], [*STAGES, *COMMANDS])}"
        print(f"error: {message}; see '{self.prog} --help'", file=sys.stderr)
        sys.exit(2)


def parser() -> Parser:
    main_parser = Parser(prog="dsr", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    main_parser.add_argument("--version", action="version", version=f"dsr-harness {__version__}")
    places = main_parser.add_subparsers(
        title="stages, in the order of the DAG, then commands", metavar="STAGE", required=True, dest="stage"
    )
    for name, (function, about, options) in STAGES.items():
        sub = places.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
        sub.set_defaults(function=function)
        sub.add_argument("--study", required=True, **NAME, help="a file in harness/studies/, without .yaml")
        for option in options.split():
            key = option.rstrip("*?")
            settings = OPTIONS[key] | ({"nargs": "+"} if option.endswith("*") else {})
            if name == "encoder" and key == "backbone":
                settings = {"choices": ["plain", "trained_registers"], "help": "with or without trained registers"}
            sub.add_argument(f"--{key}", required=not option.endswith("?"), **settings)

    def add(name: str, function: Callable, about: str) -> argparse.ArgumentParser:
        sub = places.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
        sub.set_defaults(command=function)
        return sub

    _add_commands(add)
    return main_parser


def main() -> None:
    """Entry point of `dsr`. A UserError is one line on stderr and exit code 2."""
    arguments = parser().parse_args()
    warnings.filterwarnings("ignore", module="cleanfid|open_clip|timm|transformers|diffusers")
    try:
        if "command" in arguments:
            sys.exit(arguments.command(arguments))
        result = _run_stage(arguments)
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
    study = load_study(arguments.study)
    for name in {*getattr(arguments, "methods", []), getattr(arguments, "method", None)} - {None}:
        load_method(name)
    check_seeds([arguments.seed] if "seed" in arguments else getattr(arguments, "seeds", [0]))
    if isinstance(getattr(arguments, "encoder", None), str):
        EncoderRegisters.from_key(arguments.encoder)
    if arguments.stage == "asset":
        nearest(arguments.name, study.assets, "asset")
    if arguments.stage not in ("asset", "table", "figures"):  # they compute nothing, so they are spared the import of torch
        from harness.runtime import set_up

        set_up(study.job.threads, study.job.gpus)
    return arguments.function(study, arguments)
