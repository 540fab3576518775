"""Networks whose features of images the literature compares samples in, each with the one way in which images reach it.

The same network behind another resize is another extractor: their distances differ, and share no column. What each does is in
harness/evaluation/extractors; a new one is a line here, and where its kind is new, a file and a line in the registry there.
"""

from dataclasses import dataclass
from typing import Literal

from harness.study.sections.pixels import CLIP, HALF, IMAGENET, ImageStatistics
from harness.study.typed import nearest

# how an image becomes a square: torch's bicubic with antialias, neither clamped nor rounded, left alone where it fits; Pillow's bicubic,
# rounded to 8 bits; the same without rounding, clipped to 8 bits' range; TensorFlow 1's bilinear; a centre crop, then Pillow's bicubic
Resize = Literal["torch_bicubic", "pil_bicubic", "pil_bicubic_float", "tf1_bilinear", "crop_pil_bicubic", "own"]
Feature = Literal["pool3", "cls", "spatial_mean", "attn_pool", "image_embeds", "image_embeds_normed"]
Family = Literal["inception", "convnext", "dinov2", "mae", "siglip", "clip"]  # what a judge of the same family as an encoder is circular by


@dataclass(frozen=True)
class ExtractorInfo:
    """`network`: as its library calls it; `side`: of the square that it is fed, in pixels; `width`: features an image.

    `published`: where its weights are; `used_in`: the scores that are defined by it. Of an open_clip folder, its own configuration says
    what is None here, and how images are normalised.
    """

    kind: str
    network: str
    family: Family
    side: int | None
    resize: Resize
    statistics: ImageStatistics
    feature: Feature
    width: int | None
    published: str
    used_in: str


_INCEPTION = ExtractorInfo(
    kind="inception",
    network="inception-v3-compat",
    family="inception",
    side=299,
    resize="tf1_bilinear",
    statistics=ImageStatistics((128 / 255,) * 3, (128 / 255,) * 3),
    feature="pool3",
    width=2048,
    published="torch-fidelity's releases, weights-inception-2015-12-05-6726825d.pth",
    used_in="FID, IS, sFID, FDr6",
)


def _fdr6(network: str, family: Family, side: int, statistics: ImageStatistics, feature: Feature, width: int = 1024) -> ExtractorInfo:
    """arXiv 2604.28190: `TimmReprModel` of Jiawei-Yang/FD-Loss."""
    return ExtractorInfo(
        "timm", network, family, side, "torch_bicubic", statistics, feature, width, f"huggingface.co/timm/{network}", "FDr6"
    )


def _fd_dinov2(resize: Resize, program: str) -> ExtractorInfo:
    """Stein et al. 2023: ViT-L/14 without registers at 224, the CLS token after the final norm."""
    published = "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth"
    network = "vit_large_patch14_dinov2.lvd142m"
    return ExtractorInfo("dinov2", network, "dinov2", 224, resize, IMAGENET, "cls", 1024, published, f"FD-DINOv2, {program}")


EXTRACTORS: dict[str, ExtractorInfo] = {
    "inception": _INCEPTION,
    "convnext_fdr6": _fdr6("convnextv2_base.fcmae_ft_in22k_in1k", "convnext", 224, IMAGENET, "spatial_mean"),
    "dinov2_fdr6": _fdr6("vit_large_patch14_dinov2.lvd142m", "dinov2", 256, IMAGENET, "cls"),
    "mae_fdr6": _fdr6("vit_large_patch16_224.mae", "mae", 224, IMAGENET, "cls"),
    "siglip_fdr6": _fdr6("vit_so400m_patch16_siglip_256.v2_webli", "siglip", 224, HALF, "attn_pool", 1152),
    "clip_fdr6": _fdr6("vit_large_patch14_clip_224.openai", "clip", 256, CLIP, "cls"),
    "dinov2_dgm_eval": _fd_dinov2("pil_bicubic", "dgm-eval"),
    "dinov2_dgm_eval_clean": _fd_dinov2("pil_bicubic_float", "dgm-eval with clean_resize"),
    "dinov2_edm2": _fd_dinov2("torch_bicubic", "EDM2"),
    "dinov2_torch_fidelity": _fd_dinov2("tf1_bilinear", "torch-fidelity"),
    "clip_cmmd": ExtractorInfo(
        kind="clip_vision",
        network="openai/clip-vit-large-patch14-336",
        family="clip",
        side=336,
        resize="crop_pil_bicubic",
        statistics=CLIP,
        feature="image_embeds_normed",
        width=768,
        published="huggingface.co/openai/clip-vit-large-patch14-336",
        used_in="CMMD",
    ),
    "open_clip": ExtractorInfo(
        kind="open_clip",
        network="of the folder",
        family="clip",
        side=None,
        resize="own",
        statistics=CLIP,
        feature="image_embeds",
        width=None,
        published="huggingface.co, as a folder with open_clip_config.json",
        used_in="",
    ),
}


def extractor_info(name: str) -> ExtractorInfo:
    """UserError for a name that is not known."""
    return EXTRACTORS[nearest(name, EXTRACTORS, "extractor")]
