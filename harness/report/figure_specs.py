"""What figures there are, from reports/figures.yaml. Read by the Snakefile, so neither matplotlib, pandas nor torch here."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from harness.report.specs import Part, load_table, parts
from harness.results.scores import score_info, scores_of
from harness.study import places
from harness.study.folders import PROJECT
from harness.study.method import load_method, method_names
from harness.study.names import check_name
from harness.study.study import Study, study_names
from harness.study.typed import Strict, Title, UserError, explain, nearest
from harness.study.yaml_file import read_mapping

FILE = PROJECT / "reports" / "figures.yaml"
Need = Literal["rows", "samples", "latents", "data", "maps", "encoder_maps", "steps", "outliers", "registers"]


class FigureSpec(Strict):
    """One figure: the function of the same name in harness/report/figures/. `needs`: kinds of files of the results folder that it reads."""

    title: Title
    caption: str
    study: dict[str, str] | None = None  # by family; None: the configured study
    table: str | None = None  # whose study and methods are shown, in place of `study` and `methods`
    methods: list[str] | None = None  # None: those of the study
    needs: list[Need]
    compares: bool = False  # needs two methods at least
    scores: list[str] = Field(default=[])  # without which there is nothing to draw
    readme: bool = False  # whether the README shows it


@cache
def load_figures(file: Path = FILE) -> dict[str, FigureSpec]:
    """Every figure's spec, by name, in the order of the file. UserError for a file that is none, or names an unknown method or score."""
    specs: dict[str, FigureSpec] = {}
    for name, value in read_mapping(file, "figures").items():
        check_name(name, "figure", str(file))
        try:
            specs[name] = spec = FigureSpec.model_validate(value)
            if spec.table is not None:
                load_table(spec.table)
            for study in (spec.study or {}).values():
                nearest(study, study_names(), "study")
            for method in spec.methods or []:
                load_method(method)
            for score in spec.scores:
                score_info(score)
        except ValidationError as error:
            raise UserError(f"{file}: {name}: {explain(error, FigureSpec)}") from None
        except UserError as error:
            raise UserError(f"{file}: {name}: {error}") from None
    return specs


def load_figure(name: str) -> FigureSpec:
    """One figure's spec; UserError that names the nearest figure for an unknown one."""
    specs = load_figures()
    return specs[nearest(name, specs, "figure")]


def part(spec: FigureSpec, study: Study, methods: list[str]) -> Part | None:
    """The study and methods that a figure shows where `study` is configured, with `methods`; None where its family has no such figure.

    Figures compare seeds, so that published weights are left out where others are trained.
    """
    shown = _part(spec, study, methods)
    trained = [method for method in shown.methods if method not in shown.study.denoiser.released] if shown else []
    return replace(shown, methods=trained) if shown and trained else shown


def _part(spec: FigureSpec, study: Study, methods: list[str]) -> Part | None:
    if spec.table is not None:
        groups = parts(load_table(spec.table), study, methods)
        shown = [method for group in groups if group.study.name == groups[0].study.name for method in group.methods]
        return Part(groups[0].study, list(dict.fromkeys(shown))) if groups else None
    if spec.study is None:
        return Part(study, spec.methods or methods)
    name = spec.study.get(study.family)
    if name is None:
        return None
    of = study if name == study.name else places.study_named(name)
    return Part(of, spec.methods or (methods if of is study else of.methods or method_names()))


def figure_names(study: Study, methods: list[str] | None = None) -> list[str]:
    """The figures that can be drawn where `study` is configured, in the order of the file."""
    methods = methods or study.methods or method_names()
    return [name for name, spec in load_figures().items() if _possible(spec, part(spec, study, methods))]


def _possible(spec: FigureSpec, shown: Part | None) -> bool:
    if shown is None or len(shown.methods) < 1 + spec.compares or not set(spec.scores) <= set(scores_of(shown.study)):
        return False
    study = shown.study
    if spec.compares and set(shown.methods) & study.denoiser.released.keys():  # nothing is paired with published weights
        return False
    searched = {load_method(method).encoder.key for method in shown.methods if load_method(method).encoder.searched}
    has = {
        "latents": study.encoder.has_tokens,  # of a VAE or of pixels there are no token norms
        "encoder_maps": study.encoder.has_tokens,
        "registers": study.search is not None and bool(searched - set(study.search.released_neurons)),
        "steps": bool(study.snapshots),
    }
    return all(has.get(need, True) for need in spec.needs)
