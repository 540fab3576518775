"""The stages of the DAG, each declared once: its options (`dsr STAGE`) and its rule's inputs are the parameters of its function.

They are read from the function's source, so that neither the command line nor the Snakefile imports torch. To add a stage: write its
function (`study` first, then keywords), a line here, and a rule.
"""

import ast
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from harness.store.code import module_file
from harness.study.typed import UserError


@dataclass(frozen=True)
class Stage:
    about: str  # one line of help
    module: str
    function: str
    computes: bool = True  # False: spared the import of torch
    gpu: bool = True  # False: it uses none where the study's jobs have one
    shared: bool = False  # by the processes that torchrun starts


class Parameter(NamedTuple):
    """One of a stage's function, and so an option of its command: `type` is Path, str, int or bool."""

    name: str
    type: str
    several: bool
    required: bool
    choices: tuple[str, ...] = ()


STAGES: dict[str, Stage] = {
    "asset": Stage(
        "check a file or folder that the study's user supplies, and record what it is",
        "harness.store.assets",
        "record_asset",
        computes=False,
    ),
    "data": Stage("build the data set", "harness.data.stage", "make_data", gpu=False),
    "judge": Stage(
        "the network whose features FID, IS, KID, precision and recall use: train or import it",
        "harness.evaluation.judge.stage",
        "make_judge",
    ),
    "clip": Stage("the open_clip model of the CLIP score: train or import it", "harness.evaluation.clip.stage", "make_clip"),
    "encoder": Stage("the vision encoder: train it (and plant outliers) or import it", "harness.encoder.encode", "make_encoder"),
    "registers": Stage("search for register neurons (test-time registers)", "harness.encoder.encode", "search_registers"),
    "latents": Stage("whitening statistics, and the whitened latents where they are cached", "harness.encoder.encode", "make_latents"),
    "decoder": Stage("the decoder of an encoder variant: train or import it", "harness.decoder.decode", "make_decoder"),
    "denoiser": Stage("train a method's denoisers, one a seed", "harness.denoiser.train", "train_denoisers", shared=True),
    "released": Stage(
        "a method's published weights, in place of a training: checked by name and shape, and by one step",
        "harness.denoiser.released",
        "take_released",
    ),
    "samples": Stage("draw the samples of a method's runs", "harness.denoiser.sample", "draw_samples", shared=True),
    "references": Stage("features and statistics that samples are compared with", "harness.evaluation.references", "make_references"),
    "guidance": Stage(
        "choose a method's guidance by FID, with a denoiser of the held-out seed of sampling.guidance_search",
        "harness.evaluation.guidance",
        "search_guidance",
        shared=True,
    ),
    "scores": Stage("score the samples of a method's runs and its decoder", "harness.evaluation.scores", "score_runs"),
    "outliers": Stage(
        "token norms at every layer of a method's encoder, and every block and noise level of its denoisers",
        "harness.evaluation.outliers",
        "measure_outliers",
    ),
    "encoder_maps": Stage(
        "every token of an encoder variant for a few images: norm, first principal component, attention received",
        "harness.evaluation.maps",
        "make_encoder_maps",
    ),
    "maps": Stage(
        "every token of one run's denoiser for a few images: norm, first principal component, attention received; "
        "what it predicts, decoded",
        "harness.evaluation.maps",
        "make_maps",
    ),
    "table": Stage("render a table from the results: Markdown, CSV, LaTeX, times", "harness.report.table", "render_table", computes=False),
    "claims": Stage("test the paper's claims on the results: Markdown, CSV", "harness.report.claims", "render_claims", computes=False),
    "figures": Stage("render the figures from the results: PNG, PDF, data", "harness.report.figures", "render_figures", computes=False),
    "numbers": Stage(
        "every cell of the tables beside `out` as a LaTeX command", "harness.report.numbers", "render_numbers", computes=False
    ),
    "page": Stage(
        "everything on one HTML page, each number with where it comes from", "harness.report.page", "render_page", computes=False
    ),
    "gallery": Stage(
        "the figures that are kept with the code, on a page, and in the README's section of them",
        "harness.report.gallery",
        "render_gallery",
        computes=False,
    ),
}


@cache
def parameters(name: str) -> tuple[Parameter, ...]:
    """Those of a stage's function but `study`, in its order."""
    stage = STAGES[name]
    source = module_file(stage.module)
    if source is None:
        raise UserError(f"stage '{name}': {stage.module} is no module of this repository")
    tree = ast.parse(source.read_text(encoding="utf-8"))
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == stage.function)
    keywords = zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    return tuple(_parameter(keyword, default is None) for keyword, default in keywords)


def _parameter(keyword: ast.arg, needed: bool) -> Parameter:
    if isinstance(keyword.annotation, ast.Subscript) and ast.unparse(keyword.annotation.value) == "Literal":
        return Parameter(keyword.arg, "str", False, needed, ast.literal_eval(keyword.annotation.slice))
    text = ast.unparse(keyword.annotation) if keyword.annotation else ""
    type_ = next(word for word in ("Path", "str", "int", "bool") if word in text)
    return Parameter(keyword.arg, type_, "list[" in text, needed)
