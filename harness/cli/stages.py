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

from harness import __version__
from harness.cli.commands import COMMANDS, add_commands
from harness.store.artifacts import Finished
from harness.study.method import EncoderRegisters, load_method
from harness.study.study import Study, load_study
from harness.study.typed import UserError, check_seeds, did_you_mean, nearest

ABOUT = """Benchmark and reproducibility harness for Dual-Stage Registers (arXiv 2605.05206).

Every subcommand is one stage of the DAG and does what one Snakemake rule does; run the whole with
    snakemake --cores all reports/table1.md
and see a rule's exact subcommand with
    snakemake -n --printshellcmds reports/table1.md

What a paper-scale study would cost and needs: dsr plan imagenet256_siglip2_b
"""


def asset(study: Study, a: argparse.Namespace) -> object:
    from harness.store.assets import record

    return record(study, a.name, a.assets, a.out)


def data(study: Study, a: argparse.Namespace) -> object:
    from harness.data.stage import make

    return make(study.data, a.out, a.records)


def judge(study: Study, a: argparse.Namespace) -> object:
    from harness.evaluation.judge import make_judge

    return make_judge(study, data_folder=a.data, assets=a.records, state=a.state, out=a.out)


def clip(study: Study, a: argparse.Namespace) -> object:
    from harness.evaluation.clip import make_clip

    return make_clip(study, data_folder=a.data, assets=a.records, state=a.state, out=a.out)


def references(study: Study, a: argparse.Namespace) -> object:
    from harness.evaluation.references import make

    return make(study, data_folder=a.data, judge=a.judge, assets=a.records, out=a.out)


def encoder(study: Study, a: argparse.Namespace) -> object:
    from harness.encoder.encode import make_backbone

    return make_backbone(study, a.backbone, data_folder=a.data, asset_records=a.records, state=a.state, out=a.out)


def registers(study: Study, a: argparse.Namespace) -> object:
    from harness.encoder.encode import search

    found = search(study, a.encoder, data_folder=a.data, backbone=a.backbone, out=a.out)
    return {key: found[key] for key in ("neurons", "source", "outlier_share_left", "precision", "recall")}


def latents(study: Study, a: argparse.Namespace) -> object:
    from harness.encoder.encode import make

    return make(study, data_folder=a.data, backbone=a.backbone, registers=a.registers, out=a.out)


def decoder(study: Study, a: argparse.Namespace) -> object:
    from harness.decoder.train import make

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
    from harness.denoiser.train import train

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
    from harness.denoiser.sample import draw

    return draw(
        study,
        method_name=a.method,
        seed=a.seed,
        denoiser=a.denoiser,
        decoder=a.decoder,
        latents_file=a.latents,
        asset_records=a.records,
        guidance=a.guidance,
        steps=a.steps,
        state=a.state,
        out=a.out,
    )


def guidance(study: Study, a: argparse.Namespace) -> object:
    from harness.evaluation.guidance import search

    return search(
        study,
        method_name=a.method,
        denoiser=a.denoiser,
        decoder=a.decoder,
        latents_file=a.latents,
        judge=a.judge,
        references=a.references,
        asset_records=a.records,
        state=a.state,
        out=a.out,
    )


def scores(study: Study, a: argparse.Namespace) -> object:
    from harness.evaluation.scores import score_runs

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
        guidance=a.guidance,
        steps=a.steps,
        outs=a.out,
    )


def outliers(study: Study, a: argparse.Namespace) -> object:
    from harness.evaluation.outliers import measure_runs

    return measure_runs(study, method_name=a.method, seeds=a.seeds, denoiser_files=a.denoisers, latents_file=a.latents, outs=a.out)


def maps(study: Study, a: argparse.Namespace) -> object:
    from harness.evaluation.maps import make

    files = {"denoiser": a.denoiser, "decoder": a.decoder, "latents_file": a.latents, "data_folder": a.data, "out": a.out}
    return make(study, method_name=a.method, seed=a.seed, **files)


def encoder_maps(study: Study, a: argparse.Namespace) -> object:
    from harness.evaluation.maps import make_encoder

    return make_encoder(study, data_folder=a.data, backbone=a.backbone, registers=a.registers, out=a.out)


def claims(study: Study, a: argparse.Namespace) -> object:
    from harness.report.claims import render

    return render(study, methods=a.methods, seeds=a.seeds, results=a.results, spec=a.spec, out=a.out)


def page(study: Study, a: argparse.Namespace) -> object:
    from harness.report.page import render

    shown = {"tables": a.tables, "figures": a.figures}
    return render(study, methods=a.methods, seeds=a.seeds, results=a.results, reports=a.out.parent, out=a.out, **shown)


def table(study: Study, a: argparse.Namespace) -> object:
    from harness.report.table import render

    return render(study, methods=a.methods, seeds=a.seeds, results=a.results, spec=a.spec, out=a.out)


def numbers(study: Study, a: argparse.Namespace) -> object:
    from harness.report.numbers import render

    return render(study, methods=a.methods, seeds=a.seeds, out=a.out, tables=a.tables)


def figures(study: Study, a: argparse.Namespace) -> object:
    from harness.report.figures import render

    return render(study, methods=a.methods, seeds=a.seeds, results=a.results, out=a.out, figure=a.figure)


def gallery(study: Study, a: argparse.Namespace) -> object:
    from harness.report.gallery import render

    return render(study, reports=a.reports, out=a.out)


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
    "guidance": FILE | {"help": "guidance that was chosen for the method (stage guidance), in the place of the study's"},
    "steps": {
        "action": "store_true",
        "help": "of the weights at the study's denoiser.snapshots instead, in step<n> beside those of the last step",
    },
    "results": FILE | {"help": "results folder of the study"},
    "reports": FILE | {"help": "folder of the study's rendered figures"},
    "tables": NAME | {"nargs": "*", "help": "which tables (default: those that are there); a page always has the first"},
    "figures": NAME | {"nargs": "*", "help": "figures to show (default: those that are there)"},
    "figure": NAME | {"help": "one figure of reports/figures.yaml (default: all that the study has)"},
    "spec": FILE | {"help": "specification, e.g. reports/tables/table1.yaml"},
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
    "samples": (samples, "draw one run's samples", "method seed denoiser decoder latents records? guidance? steps? state out"),
    "references": (references, "features and statistics that samples are compared with", "data judge records? out"),
    "guidance": (
        guidance,
        "choose a method's guidance by FID, with a denoiser of the held-out seed of sampling.guidance_search",
        "method denoiser decoder latents judge references records? state out",
    ),
    "scores": (
        scores,
        "score the samples of a method's runs and its decoder",
        "method seeds samples denoisers decoder latents data judge references clip? guidance? steps? out*",
    ),
    "outliers": (
        outliers,
        "token norms at every layer of a method's encoder, and every block and noise level of its denoisers",
        "method seeds denoisers latents out*",
    ),
    "encoder_maps": (
        encoder_maps,
        "every token of an encoder variant for a few images: norm, first principal component, attention received",
        "data backbone registers? out",
    ),
    "maps": (
        maps,
        "every token of one run's denoiser for a few images: norm, first principal component, attention received; what it predicts, decoded",
        "method seed denoiser decoder latents data out",
    ),
    "table": (table, "render a table from the results: Markdown, CSV, LaTeX, times", "methods seeds results spec out"),
    "claims": (claims, "test the paper's claims on the results: Markdown, CSV", "methods seeds results spec out"),
    "figures": (figures, "render the figures from the results: PNG, PDF, data", "figure? methods seeds results out"),
    "numbers": (numbers, "every cell of the tables beside `out` as a LaTeX command", "methods seeds tables? out"),
    "page": (page, "everything on one HTML page, each number with where it comes from", "methods seeds results tables? figures? out"),
    "gallery": (gallery, "the figures that are kept with the code, on a page, and in the README's section of them", "reports out"),
}
COMPUTE_NOTHING = ("asset", "table", "claims", "figures", "numbers", "page", "gallery")  # so they are spared the import of torch
SHARED = ("denoiser", "samples", "guidance")  # by the processes that torchrun starts


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

    add_commands(add)
    return main_parser


def main() -> None:
    """Entry point of `dsr`. A UserError is one line on stderr and exit code 2."""
    arguments = parser().parse_args()
    warnings.filterwarnings("ignore", module="cleanfid|open_clip|timm|transformers|diffusers")
    try:
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
    study = load_study(arguments.study)
    for name in {*getattr(arguments, "methods", []), getattr(arguments, "method", None)} - {None}:
        load_method(name)
    check_seeds([arguments.seed] if "seed" in arguments else getattr(arguments, "seeds", [0]))
    if isinstance(getattr(arguments, "encoder", None), str):
        EncoderRegisters.from_key(arguments.encoder)
    if arguments.stage == "asset":
        nearest(arguments.name, study.assets, "asset")
    if arguments.stage not in COMPUTE_NOTHING:
        from harness.machine.device import set_up

        gpus = 0 if arguments.stage == "data" else study.job.gpus
        set_up(study.job.threads, gpus, shared=arguments.stage in SHARED)
    return arguments.function(study, arguments)
