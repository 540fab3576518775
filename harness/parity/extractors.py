"""What reaches the networks whose features are compared, and which of their features is meant. The images lie beside, in images.npz.

FDr6: FD-Loss@2f22479 and diffusionbench-evals@01c437f. FD-DINOv2: dgm-eval@74c79f7, edm2@4bf8162, torch-fidelity@5e211a9. CMMD:
cmmd-pytorch@f7673a9. Of pixels (3, H, W) a file has every `step`-th row and column (`grid`), the first row, the last column, and by channel
mean, standard deviation, smallest and largest value.
"""

from itertools import product
from typing import Any

import torch
from torch import Tensor

from harness.machine.device import device
from harness.parity.base import Arguments, Described, Format
from harness.parity.files import GoldenFile, Tensors, read
from harness.study.sections.extractors import EXTRACTORS
from harness.study.typed import nearest

IMAGES = "images.npz"
FDR6 = {info.network: name for name, info in EXTRACTORS.items() if info.used_in == "FDr6"}
DINOV2_PATHS = {  # names in the file -> those of the extractors
    "dgm_eval_default": "dinov2_dgm_eval",
    "dgm_eval_clean": "dinov2_dgm_eval_clean",
    "edm2_pil": "dinov2_dgm_eval",  # EDM2's reference way, which is dgm-eval's
    "edm2_torch": "dinov2_edm2",
    "torch_fidelity": "dinov2_torch_fidelity",
}


class Shape(Arguments):
    """Sizes of a toy of timm's."""

    depth: int | None = None
    embed_dim: int | None = None
    num_heads: int | None = None
    depths: list[int] | None = None
    dims: list[int] | None = None
    num_classes: int = 0
    dynamic_img_size: bool | None = None
    dynamic_img_pad: bool | None = None


class Network(Described):
    """One of timm's networks, its `input` in pixels."""

    timm: str
    input: int
    create_kwargs: Shape


class PixelsFDr6(Described):
    """`models`: the networks; `step`: of the grid, by extractor."""

    models: dict[str, Any]
    step: dict[str, int]


class Pixels(Described):
    grid_step: int


def images_beside(file: GoldenFile) -> Tensors:
    """Images (1, 3, H, W) uint8 by their names."""
    images = read(file.path.with_name(IMAGES)).tensors
    return {name: image.permute(2, 0, 1)[None] for name, image in images.items()}


def fed(images: Tensor, extractor: str) -> Tensor:
    """Images (1, 3, H, W) uint8 -> what the extractor's network is fed of it, (3, side, side)."""
    from harness.evaluation.extractors.resize import prepare  # imports torch-fidelity

    return prepare(images, EXTRACTORS[extractor])[0]


def facts(pixels: Tensor, step: int, name: str) -> Tensors:
    """Of pixels (3, H, W): grid (3, h, w), row0 (3, W), lastcol (3, H), mean_std_min_max (4, 3) in float64."""
    values = pixels.double().flatten(1)
    moments = torch.stack([values.mean(1), values.std(1), values.amin(1), values.amax(1)])
    grid = pixels[:, ::step, ::step]
    return {f"{name}.grid": grid, f"{name}.row0": pixels[:, 0], f"{name}.lastcol": pixels[..., -1], f"{name}.mean_std_min_max": moments}


# -------------------------------------------------------------------------------------------------------------------- FDr6


def features(file: GoldenFile, config: Network) -> Tensors:
    """Of each image the feature (D,), as both programs have it; of ViTs the mean patch token (D,), and four tokens of one image (4, D)."""
    from harness.evaluation.extractors import timm_networks
    from harness.evaluation.extractors.weights import Source, Wanted

    name = FDR6[nearest(config.timm, FDR6, "network of FDr6")]
    wanted = Wanted(name, EXTRACTORS[name], file.path, shape=config.create_kwargs.model_dump(exclude_none=True))
    network = file.load(timm_networks.build(wanted.info, **wanted.shape))
    extractor = timm_networks.TimmExtractor(wanted, Source(file.path, "", ""), network)
    computed: Tensors = {}
    for image, pixels in images_beside(file).items():
        feature = extractor.extract(pixels)["features"][0].to(device())
        computed |= {f"{image}.feature": feature, f"{image}.feature_fdeval": feature}
        tokens = network.forward_features(extractor.prepare(pixels))[0]
        if tokens.dim() == 2:
            computed[f"{image}.mean_patch_token"] = tokens[network.num_prefix_tokens :].mean(0)
            computed[f"{image}.tokens_first3_last"] = tokens[[0, 1, 2, -1]]
    return computed


def pixels_fdr6(file: GoldenFile, config: PixelsFDr6) -> Tensors:
    """Facts of what reaches the six networks, and its shape (4,) as whole numbers."""
    computed: Tensors = {}
    names = {"inception_fdeval": "inception"} | {short: f"{short}_fdr6" for short in config.models}
    for (short, name), (image, pixels) in product(names.items(), images_beside(file).items()):
        reached = fed(pixels, nearest(name, EXTRACTORS, "extractor"))
        computed |= facts(reached, config.step[short], f"{short}.{image}")
        computed[f"{short}.{image}.shape"] = torch.tensor([1, *reached.shape], device=device())
    return computed


FDR6_FORMAT = Format(Network, features)
FDR6_PIXELS_FORMAT = Format(
    PixelsFDr6,
    pixels_fdr6,
    left_out={"inception_fdloss.*": "not compared: FD-Loss scales to 2 x - 1; Inception is fed as torch-fidelity does, (x - 128) / 128"},
)

# ------------------------------------------------------------------------------------------------------- FD-DINOv2 and CMMD


def pixels_dinov2(file: GoldenFile, config: Pixels) -> Tensors:
    """Facts of what reaches DINOv2 by each way, and the largest difference () between two of them."""
    computed: Tensors = {}
    for image, pixels in images_beside(file).items():
        reached = {path: fed(pixels, name) for path, name in DINOV2_PATHS.items()}
        for path, values in reached.items():
            computed |= facts(values, config.grid_step, f"{image}.{path}")
        for (one, first), (other, second) in product(reached.items(), repeat=2):
            computed[f"values.{image}.max_abs_difference.{one}-{other}"] = (first - second).abs().max()
    return computed


DINOV2_FORMAT = Format(Pixels, pixels_dinov2)


def pixels_cmmd(file: GoldenFile, step: int) -> Tensors:
    """Facts of what reaches CLIP when a folder is read, and the whole numbers before their normalisation on the grid (h, w, 3)."""
    from harness.evaluation.extractors.resize import crop_pil_bicubic

    computed: Tensors = {}
    for image, pixels in images_beside(file).items():
        computed |= facts(fed(pixels, "clip_cmmd"), step, f"{image}.dir")
        levels = crop_pil_bicubic(pixels, EXTRACTORS["clip_cmmd"].side or 0)[0]
        computed[f"{image}.dir.pil_uint8_grid"] = levels[:, ::step, ::step].permute(1, 2, 0)
    return computed


CMMD_PIXELS_LEFT_OUT = {
    "*.embed_only.*": "not compared: an array given straight to its `embed`, which reading a folder never does",
    "*.embedding_stub": "not compared: of a stub network; only its length, which is 1, means anything",
}
