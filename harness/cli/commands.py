"""Commands beside the stages: before a run (`dsr init`, `plan`, `models`, `fetch`, `parity`, `import`, `benchmark`, `compute`), on what it
gave (`check`, `calibrate`, `trace`, `export`, `verify`), or on anyone's samples (`measure`). Each parses, calls one function and prints.
"""

import argparse
import json
import sys
from pathlib import Path

from harness.cli.adding import Add, add_assets, at_least
from harness.cli.measure import add_measure
from harness.cli.published import add_published
from harness.store.files import write_text
from harness.study.method import load_method
from harness.study.seeds import seed
from harness.study.study import load_study, parse_study
from harness.study.typed import UserError, merge

COMMANDS = (
    "init", "plan", "models", "fetch", "parity", "import", "benchmark", "compute", "measure", "check", "calibrate", "trace", "export",
    "verify",
)  # fmt: skip
OF_A_STUDY = ("study", "method", "steps", "precision", "compile", "batch", "micro_batch", "peak_tflops")  # options of `dsr benchmark`


def init(a: argparse.Namespace) -> int:
    from harness.commands.init import lay_down

    names = lay_down(a.folder)
    print(f"{len(names)} files in {a.folder}: methods in baselines/, tables, figures and claims in reports/; run there: snakemake -n")
    return 0


def plan(a: argparse.Namespace) -> int:
    from harness.plan import plan as plan_of

    study = load_study(a.name)
    seeds = len(study.seeds) if a.seeds is None else a.seeds
    settings = {"assets": a.assets, "utilisation": a.utilisation, "peak_tflops": a.peak_tflops, "check": a.check}
    print(plan_of(study, methods=a.methods, seeds=seeds, **settings))
    return 0


def parity(a: argparse.Namespace) -> int:
    from harness.machine.device import set_up
    from harness.parity.report import parity_report

    set_up(threads=1, gpus=int(a.gpu))
    text, agrees = parity_report(a.files)
    print(text)
    return 0 if agrees else 1


def import_(a: argparse.Namespace) -> int:
    from harness.commands.import_checkpoint import import_checkpoint

    options = {name: getattr(a, name) for name in ("method", "part", "container", "classes", "states", "out")}
    print(json.dumps(import_checkpoint(a.checkpoint, load_study(a.study), **options)))
    return 0


def benchmark(a: argparse.Namespace) -> int:
    given = [f"--{name.replace('_', '-')}" for name in OF_A_STUDY if getattr(a, name) is not None]
    if a.peers:
        if given:
            raise UserError(f"benchmark: {given[0]} is of a study's denoiser, --peers measures none; leave one of them out")
        return _peers(a)
    if a.rows is not None or a.threads is not None:
        raise UserError("benchmark: --rows and --threads go with --peers; a study says its own job.threads")
    if a.study is None or a.out is None:
        raise UserError("benchmark: give --study NAME and --out PATH, or --peers")
    from harness.commands.benchmark import append
    from harness.commands.benchmark import benchmark as measure
    from harness.machine.device import set_up

    method = a.method or "dsr"
    load_method(method)
    study = load_study(a.study)
    training = {"precision": a.precision, "compile": a.compile, "batch": a.batch, "micro_batch": a.micro_batch}
    changes = {"denoiser": {"training": {key: value for key, value in training.items() if value is not None}}}
    study = parse_study(study.name, merge(study.model_dump(exclude={"name"}), changes))
    set_up(study.job.threads, study.job.gpus)
    line = measure(study, method, steps=a.steps or 10, peak_tflops=a.peak_tflops)
    append(line, a.out)
    print(json.dumps(line))
    return 0


def _peers(a: argparse.Namespace) -> int:
    from harness.commands.peers.command import PAGE, ROUNDS, facts, measure, render
    from harness.machine.device import set_up

    set_up(a.threads or 1)
    text = render(measure(a.rows, ROUNDS), facts())
    write_text(a.out or PAGE, text)
    print(text, end="")
    return 0


def compute(a: argparse.Namespace) -> int:
    from harness.plan import compute_table
    from harness.workflow.data_files import SIZED

    write_text(a.out, compute_table(SIZED))
    return 0


def check(a: argparse.Namespace) -> int:
    from harness.report.gate.command import run_gate

    paths = {"against": a.against, "rows": a.rows, "results": a.results}
    text, code = run_gate(a.study, **paths, methods=a.methods, power=a.power, renew=a.update, everything=a.all)
    print(text)
    return code


def calibrate(a: argparse.Namespace) -> int:
    from harness.report.calibrate import run_calibrate

    print(run_calibrate(a.study, against=a.against, seeds=a.seeds, redraws=a.redraws, spec=a.claims))
    return 0


def trace(a: argparse.Namespace) -> int:
    from harness.report.trace import trace_score

    text, problems = trace_score(
        a.csv, method=a.method, score=a.score, study=a.study, seed=a.seed, ema=a.ema, step=a.step, guided=a.guided, results=a.results
    )
    print(text)
    if problems:
        print(f"error: the chain does not fit, {len(problems)} times; first: {problems[0]}", file=sys.stderr)
    return 1 if problems else 0


def export(a: argparse.Namespace) -> int:
    from harness.report.archive import export_study

    study = load_study(a.name)
    folders = {"reports": Path("reports") / study.name, "results": Path("results") / study.name}
    print(json.dumps(export_study(study, **folders, out=a.out)))
    return 0


def verify(a: argparse.Namespace) -> int:
    from harness.report.archive import verify_export

    text, problems = verify_export(a.file)
    print(text)
    return 1 if problems else 0


def add_commands(add: Add) -> None:
    _before_a_run(add)
    add_measure(add)
    _on_results(add)


def _before_a_run(add: Add) -> None:
    sub = add("init", init, "lay down a project: Snakefile, profile, methods, specifications of tables, figures and claims")
    sub.add_argument("folder", type=Path, metavar="FOLDER", help="a new folder, or one that has none of these files")
    sub = add("plan", plan, "what a study would run: parameters, FLOPs, GPU-hours, disk, and every asset with where to put it")
    sub.add_argument("name", metavar="STUDY", help="a file in harness/studies/, without .yaml")
    sub.add_argument("--seeds", type=int, metavar="N", help="number of seeds; default: the study's own")
    sub.add_argument("--methods", nargs="+", metavar="NAME", help="methods, in the order of the rows")
    add_assets(sub)
    sub.add_argument("--utilisation", type=float, default=0.25, help="share of the peak that jobs reach (default: 0.25)")
    sub.add_argument("--peak-tflops", type=float, help="peak of the accelerator; default: an H100's, by precision")
    sub.add_argument("--check", action="store_true", help="hash every file whose sha256 is known, however large")
    add_published(add)
    told = "outputs of the originals' code beside this one's; exit code 1 for a file above a relative error of 1e-5, or that is none"
    sub = add("parity", parity, told)
    sub.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="safetensors, or npz without pickles, with weights, inputs and outputs"
    )
    sub.add_argument("--gpu", action="store_true", help="compute on a GPU, in float32 without TF32")
    sub = add("import", import_, "check a released .pt or .safetensors against a study's model and write it as safetensors")
    sub.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="weights only; nothing in the file is executed")
    sub.add_argument("--study", required=True, metavar="NAME", help="the study whose model the weights must fit")
    sub.add_argument("--method", default="baseline", metavar="NAME", help="for a denoiser: whose registers it has (default: baseline)")
    sub.add_argument("--classes", type=Path, metavar="PATH", help="of a denoiser: its classes in the order of its labels, a name a line")
    sub.add_argument("--states", type=Path, metavar="PATH", help="of a denoiser that reads a text encoder's states: those of the prompts")
    sub.add_argument("--part", choices=["denoiser", "decoder"], default="denoiser", help="which of the study's models it is")
    sub.add_argument("--container", metavar="NAME", help="which of the file's sets of weights (default: its average, or the only one)")
    sub.add_argument("--out", required=True, type=Path, metavar="PATH", help="safetensors to write")
    sub = add(
        "benchmark",
        benchmark,
        "speed and memory of a study's denoiser on this machine, a line of a CSV; or --peers: this harness beside others, a page",
    )
    sub.add_argument("--study", metavar="NAME", help="whose denoiser, recipe and sampler; needed without --peers")
    sub.add_argument("--method", metavar="NAME", help="whose registers (default: dsr)")
    sub.add_argument("--steps", type=at_least(1), help="training steps that are timed (default: 10)")
    sub.add_argument("--precision", choices=["fp32", "bf16"], help="of training; default: the study's")
    sub.add_argument("--compile", action=argparse.BooleanOptionalAction, help="default: the study's")
    sub.add_argument("--batch", type=int, help="default: the study's")
    sub.add_argument("--micro-batch", type=int, help="default: the study's")
    sub.add_argument("--peak-tflops", type=float, help="that utilisation is a share of; default: an H100's, by precision")
    sub.add_argument(
        "--out", type=Path, metavar="PATH", help="CSV to add the line to; with --peers the page (default: reports/reference/benchmarks.md)"
    )
    sub.add_argument(
        "--peers", action="store_true", help="measure this harness beside its peers instead; takes --rows, --threads, --out alone"
    )
    sub.add_argument("--rows", nargs="+", metavar="NAME", help="with --peers: these rows alone (default: all)")
    sub.add_argument("--threads", type=at_least(1), metavar="N", help="with --peers: of both sides (default: 1, as a job of digits has)")
    sub = add("compute", compute, "render the compute table of the paper-scale studies")
    sub.add_argument("--out", required=True, type=Path, metavar="PATH", help="Markdown to write")


def _on_results(add: Add) -> None:
    sub = add("check", check, "compare fresh rows with stored ones: exit code 0 no difference found, 1 a difference, 2 cannot decide")
    sub.add_argument("--study", default="digits", metavar="NAME", help="whose rows (default: digits)")
    sub.add_argument("--against", type=Path, metavar="PATH", help="stored rows (default: reports/reference/<study>.csv)")
    sub.add_argument("--rows", type=Path, metavar="PATH", help="fresh rows (default: reports/<study>/table1.csv)")
    sub.add_argument("--results", type=Path, metavar="PATH", help="results that they are from, for neuron lists (default: results/<study>)")
    sub.add_argument("--methods", nargs="+", metavar="NAME", help="compare these alone (default: all; a stored one without rows is gone)")
    sub.add_argument("--all", action="store_true", help="print every line, not only what differs, moved or cannot be tested")
    sub.add_argument("--update", action="store_true", help="store the fresh rows instead, and say what changed")
    sub.add_argument(
        "--power", type=int, nargs="?", const=3, metavar="N", help="say instead what N fresh seeds would find (default: 3), of every score"
    )
    told = "error rates, powers and coverages of check, claims and intervals, by simulation from a study's own rows"
    sub = add("calibrate", calibrate, told)
    sub.add_argument("--study", default="digits", metavar="NAME", help="whose rows (default: digits)")
    sub.add_argument("--against", type=Path, metavar="PATH", help="rows (default: reports/<study>/table1.csv)")
    sub.add_argument("--seeds", type=int, nargs="+", metavar="SEED", help="rows of these seeds alone (default: all)")
    sub.add_argument(
        "--redraws",
        type=at_least(2, ", for a Monte Carlo error"),
        default=100,
        metavar="N",
        help="simulated comparisons of each figure (default: 100)",
    )
    sub.add_argument("--claims", type=Path, default=Path("reports/claims.yaml"), metavar="PATH", help="default: reports/claims.yaml")
    sub = add("trace", trace, "follow a score back to the data and verify every hash on the way; exit code 1 if one does not fit")
    sub.add_argument("csv", type=Path, metavar="CSV", help="rows, such as reports/digits/table1.csv")
    sub.add_argument("--method", required=True, metavar="NAME", help="a method of the table")
    sub.add_argument("--score", required=True, metavar="NAME", help="a score of the table, such as fid")
    sub.add_argument("--seed", type=seed, help="one seed, or `published` (default: all)")
    sub.add_argument("--study", metavar="NAME", help="whose rows, of a table of several studies (default: that of the first row)")
    sub.add_argument("--ema", type=float, help="EMA decay (default: the one that every score is of)")
    sub.add_argument("--step", type=int, help="training step of the weights (default: the last)")
    sub.add_argument("--guided", action="store_true", help="with the guidance that was searched for")
    sub.add_argument("--results", type=Path, metavar="PATH", help="results that the rows are from (default: results/<study>)")
    sub = add("export", export, "rows, tables, figures, configuration, hashes and environment of a study in one zip")
    sub.add_argument("name", metavar="STUDY", help="a study whose table, claims and page are rendered")
    sub.add_argument("out", type=Path, metavar="ZIP", help="file to write")
    sub = add("verify", verify, "check the hashes of an exported zip and render its table and claims anew; exit code 1 if they differ")
    sub.add_argument("file", type=Path, metavar="ZIP", help="file that dsr export wrote")
