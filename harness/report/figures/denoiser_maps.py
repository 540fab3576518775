"""Figures of the denoiser's tokens as maps: norms and first principal components (harness.evaluation.maps) of one held-out image.

The image is that with most outliers in the baseline, over all blocks and noise levels; the run is that of the first seed.
"""

from typing import Literal

from matplotlib.figure import Figure

from harness.report.figures.context import Context
from harness.report.figures.map_data import Maps, block_names, blocks_shown, four, maps_of
from harness.report.figures.registry import registered
from harness.report.figures.strips import Strip, draw_strips, framed
from harness.report.figures.style import Data, title_of


@registered
def denoiser_norms(context: Context) -> tuple[Figure, Data]:
    """Norms of the baseline's tokens, noise level by block."""
    return _by_level(context, "norms", "Token norms")


@registered
def denoiser_pca(context: Context) -> tuple[Figure, Data]:
    """First principal component of the baseline's tokens, noise level by block."""
    return _by_level(context, "components", "PCA of the tokens, first component,")


@registered
def denoiser_norms_by_method(context: Context) -> tuple[Figure, Data]:
    """Norms of the tokens, method by block, at one noise level."""
    return _by_method(context, four(context.methods), ["norms"], "Token norms")


@registered
def denoiser_pca_by_method(context: Context) -> tuple[Figure, Data]:
    """First principal component of the tokens, method by block, at one noise level."""
    return _by_method(context, four(context.methods), ["components"], "PCA of the tokens, first component,")


@registered
def trained_registers_maps(context: Context) -> tuple[Figure, Data]:
    """Norms and first principal component without and with an encoder that was trained with registers."""
    return _by_method(context, context.methods, ["norms", "components"], "Without and with trained encoder registers: token norms and PCA")


def _of_denoiser(context: Context, strips: list[Strip], chosen_in: Maps, title: str) -> tuple[Figure, Data]:
    blocks = next((len(strip.values) - 1 for strip in strips if not strip.maps.why), context.study.denoiser.depth)
    return draw_strips(context, strips, chosen_in, title, block_names(context.study, blocks), blocks_shown(context.study, blocks))


def _by_level(context: Context, kind: Literal["norms", "components"], subject: str) -> tuple[Figure, Data]:
    method = context.methods[0]
    maps = maps_of(context, method)
    strips = [Strip(f"t = {t:g}", maps, level, kind) for level, t in enumerate(maps.arrays["times"])]
    title = f"{subject} in the denoiser of '{context.study.name}', {title_of(method)}, by noise level; {framed(maps)}"
    return _of_denoiser(context, strips, maps, title)


def _by_method(context: Context, methods: list[str], kinds: list[Literal["norms", "components"]], subject: str) -> tuple[Figure, Data]:
    maps_by_method = {method: maps_of(context, method) for method in methods}
    strips = [Strip(title_of(method), maps, maps.level, kind) for kind in kinds for method, maps in maps_by_method.items()]
    first = maps_by_method[methods[0]]
    title = f"{subject} in the denoiser of '{context.study.name}' at t\u00a0=\u00a0{first.arrays['times'][first.level]:g}; {framed(first)}"
    return _of_denoiser(context, strips, first, title)
