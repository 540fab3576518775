"""Stage `figures`: one function a figure, each from files of the results folder, written as PNG and PDF with its data beside it.

A figure function takes a Context and returns the figure and what it shows, as a table (saved as CSV) or arrays (NPZ).
"""

from collections.abc import Callable
from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from harness.report import rows as row_files
from harness.report.figure_specs import figure_names, load_figure, part
from harness.report.figures import curves, denoisers, encoder_maps, encoders, flows, grids, maps, scores, style
from harness.report.figures.context import Context
from harness.study.study import Study
from harness.study.typed import nearest

FIGURES: dict[str, Callable[[Context], tuple[Figure, style.Data]]] = {
    function.__name__: function
    for function in (
        grids.samples,
        grids.largest_difference,
        grids.prompt_differences,
        encoders.encoder_norms,
        encoder_maps.encoder_pca,
        encoder_maps.encoder_attention,
        encoders.register_neurons,
        encoders.masking_norms,
        denoisers.denoiser_outliers,
        maps.denoiser_norms,
        maps.denoiser_norms_by_method,
        maps.denoiser_pca,
        maps.denoiser_pca_by_method,
        maps.trained_registers_maps,
        flows.attention,
        flows.norm_flow,
        scores.fid,
        scores.intervals,
        scores.ablation,
        curves.fid_steps,
        curves.geneval_steps,
        curves.clip_steps,
        curves.fid_ema,
    )
}


def render_figures(study: Study, *, methods: list[str], seeds: list[int], results: Path, out: Path, figure: str | None = None) -> dict:
    """The figure of that name, or every figure of the study, into the folder `out`. `results`: of `study`; other studies' are beside it."""
    known = figure_names(study, methods)
    names = known if figure is None else [nearest(figure, known, f"figure of study '{study.name}':")]
    for name in names:
        with plt.rc_context(style.STYLE):
            style.save(*FIGURES[name](context_of(name, study, methods=methods, seeds=seeds, results=results)), out / name)
    return {"figures": sorted(names)}


def context_of(name: str, study: Study, *, methods: list[str], seeds: list[int], results: Path) -> Context:
    """What the figure of that name is drawn from, where `study` is configured."""
    spec = load_figure(name)
    shown = part(spec, study, methods)
    folder = results if shown.study is study else results.parent / shown.study.name
    rows = row_files.collect(shown.study, shown.methods, seeds, folder, {"steps"} & {*spec.needs}) if "rows" in spec.needs else None
    return Context(shown.study, shown.methods, seeds, folder, rows, spec)
