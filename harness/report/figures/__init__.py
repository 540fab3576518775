"""Stage `figures`: one function a figure, each from files of the results folder, written as PNG and PDF with its data beside it."""

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import pyplot as plt

from harness.report import rows as row_files
from harness.report.figure_specs import figure_names, load_figure, part
from harness.report.figures import (  # noqa: F401 (registers)
    curves,
    denoiser_maps,
    denoisers,
    encoder_maps,
    encoders,
    flows,
    sample_grids,
    scores,
    style,
)
from harness.report.figures.context import Context
from harness.report.figures.registry import FIGURES
from harness.study.study import Study
from harness.study.typed import UserError, nearest


def render_figures(
    study: Study, *, methods: list[str], seeds: list[int], results: Path, out: Path, figures: list[str] | None = None
) -> dict[str, Any]:
    """These figures, or all of the study, into the folder `out`. `results`: of `study`; other studies' are beside it."""
    known = figure_names(study, methods)
    names = known if figures is None else [nearest(name, known, f"figure of study '{study.name}':") for name in figures]
    for name in names:
        if name not in FIGURES:
            raise UserError(f"figure '{name}': reports/figures.yaml has it, but harness/report/figures/ no function of this name; write it")
        with plt.rc_context(style.STYLE):
            style.save_figure(*FIGURES[name](context_of(name, study, methods=methods, seeds=seeds, results=results)), out / name)
    return {"figures": sorted(names)}


def context_of(name: str, study: Study, *, methods: list[str], seeds: list[int], results: Path) -> Context:
    """What the figure of that name is drawn from, where `study` is configured."""
    spec = load_figure(name)
    shown = part(spec, study, methods)
    if shown is None:
        raise UserError(f"figure '{name}': reports/figures.yaml has none of it for studies of the family {study.family}")
    folder = results if shown.study is study else results.parent / shown.study.name
    wanted = "rows" in spec.needs
    rows = row_files.collect(shown.study, shown.methods, seeds, folder, {"steps"} & {*spec.needs}) if wanted else pd.DataFrame()
    return Context(shown.study, shown.methods, seeds, folder, rows, spec)
