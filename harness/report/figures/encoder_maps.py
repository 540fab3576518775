"""Figure of the encoder's tokens as maps of their first principal component (harness.evaluate.maps)."""

import numpy as np
from matplotlib.figure import Figure

from harness import artifacts
from harness.config import load_method
from harness.report.figures.context import Context
from harness.report.figures.encoders import LAYERS_SHOWN, untrained_variants
from harness.report.figures.maps import Maps, Strip, framed, grid_of
from harness.report.figures.style import Data


def encoder_pca(context: Context) -> tuple[Figure, Data]:
    """First principal component of the encoder's tokens, encoder variant by layer."""
    variants = untrained_variants(context.methods)
    if any(load_method(method).encoder.kind == "trained" for method in context.methods):
        variants["trained_registers"] = "trained registers"
    found = {key: _maps_of(context, key) for key in variants}
    strips = [Strip(title, found[key], 0, "components") for key, title in variants.items()]
    depth = context.study.encoder.depth
    names = ["embedding", *(f"layer {layer}" for layer in range(depth)), "output"]
    columns = np.unique(np.linspace(0, depth + 1, min(depth + 2, LAYERS_SHOWN)).round().astype(int)).tolist()
    first = found[next(iter(variants))]
    title = f"PCA of the tokens, first component, in the encoder of '{context.study.name}'; {framed(first)}"
    return grid_of(context, strips, first, title, names, columns)


def _maps_of(context: Context, key: str) -> Maps:
    path = context.latents(key).with_name("maps.npz")
    artifacts.checked(path)
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] if name == "rows" else file[name][None] for name in file}  # one noise level: none
    return Maps(arrays | {"times": np.zeros(1)}, "", context.study.outlier_statistics.factor)
