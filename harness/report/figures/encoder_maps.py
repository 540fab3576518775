"""Figures of the encoder's tokens (harness.evaluation.maps): their first principal component, and the attention that they receive."""

import numpy as np
from matplotlib.figure import Figure

from harness.report.figures.context import Context
from harness.report.figures.encoders import LAYERS_SHOWN, untrained_variants
from harness.report.figures.flows import attention_panels, tokens_of
from harness.report.figures.map_data import Maps
from harness.report.figures.registry import registered
from harness.report.figures.strips import Strip, draw_strips, framed
from harness.report.figures.style import Data
from harness.study.method import load_method


@registered
def encoder_pca(context: Context) -> tuple[Figure, Data]:
    """First principal component of the encoder's tokens, encoder variant by layer."""
    variants = _variants(context)
    maps_by_variant = {key: _maps_of(context, key) for key in variants}
    strips = [Strip(title, maps_by_variant[key], 0, "components") for key, title in variants.items()]
    depth = context.study.encoder.norm_places - 1  # the first place is that of the embedding
    names = ["embedding", *(f"layer {layer}" for layer in range(depth)), "output"]
    columns = np.unique(np.linspace(0, depth + 1, min(depth + 2, LAYERS_SHOWN)).round().astype(int)).tolist()
    first = maps_by_variant[next(iter(variants))]
    title = f"PCA of the tokens, first component, in the encoder of '{context.study.name}'; {framed(first)}"
    return draw_strips(context, strips, first, title, names, columns)


@registered
def encoder_attention(context: Context) -> tuple[Figure, Data]:
    """Attention that a token receives, by kind of token and layer of each encoder variant, as a multiple of the uniform share."""
    variants = _variants(context)
    maps_by_variant = {key: _maps_of(context, key) for key in variants}
    table = tokens_of(maps_by_variant, "encoder")
    shown = {title.replace("\n", " "): (maps_by_variant[key], table[table["encoder"] == key]) for key, title in variants.items()}
    first = maps_by_variant[next(iter(maps_by_variant))]
    title = (
        f"Attention that tokens receive in the encoder of '{context.study.name}', mean over {len(first.arrays['rows'])} held-out images "
        f"(outlier: it enters the layer with a norm above {first.factor:g}\u00a0×\u00a0the median)"
    )
    return attention_panels(shown, "encoder layer", title), table.drop(columns="t").rename(columns={"block": "layer"})


def _variants(context: Context) -> dict[str, str]:
    """Keys of all encoder variants, with what they are called in a figure."""
    variants = untrained_variants(context.methods)
    if any(load_method(method).encoder.trained for method in context.methods):
        variants["trained_registers"] = "trained registers"
    return variants


def _maps_of(context: Context, key: str) -> Maps:
    with np.load(context.encoder_maps(key), allow_pickle=False) as file:
        arrays = {name: file[name] if name == "rows" else file[name][None] for name in file}  # one noise level: none
    return Maps(arrays | {"times": np.zeros(1)}, "", context.study.outlier_statistics.factor)
