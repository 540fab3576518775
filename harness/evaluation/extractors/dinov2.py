"""The network of FD-DINOv2: DINOv2 ViT-L/14 at 224, as Meta's hub entry `dinov2_vitl14` runs it (github.com/facebookresearch/dinov2).

It is timm's, but for the positions: `dinov2/models/vision_transformer.py` (interpolate_pos_encoding) stretches the table of 37 x 37 to
16 x 16 by bicubic without antialias, at a scale of 16.1 / 37; timm has antialias and the scale of 16 / 37, and so other features.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.evaluation.extractors.timm_networks import TimmExtractor, build, check_config
from harness.evaluation.extractors.weights import Wanted, without
from harness.store.tensors import check_weights, load_weights

OFFSET = 0.1  # the original's, added to the number of patches a side
TRAINED_AT = 518  # pixels
UNUSED = "mask_token"  # of Meta's own file
POSITIONS = "pos_embed"


def load(wanted: Wanted) -> TimmExtractor:
    """From Meta's own file or timm's. UserError that names the first misfit between the weights and the network."""
    tensors, source = wanted.read()
    check_config(source.file, wanted.info.network)
    tensors = without(tensors, UNUSED)
    with torch.device("meta"):
        published = build(wanted.info, **{"img_size": TRAINED_AT, **wanted.shape})
    check_weights(published, tensors, source.file)
    network = build(wanted.info, **{**wanted.shape, "img_size": wanted.info.side, "dynamic_img_size": False})
    tensors = tensors | {POSITIONS: resampled(tensors[POSITIONS], network.patch_embed.grid_size[0])}
    return TimmExtractor(wanted, source, load_weights(network, tensors, source.file))


def resampled(positions: Tensor, grid: int) -> Tensor:
    """Positions (1, 1 + n * n, D) of CLS and a square of patches -> (1, 1 + grid * grid, D)."""
    own, patches = positions[:, :1], positions[:, 1:]
    side = round(patches.shape[1] ** 0.5)
    if side == grid:
        return positions
    square = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = (grid + OFFSET) / side
    stretched = F.interpolate(square, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([own, stretched.permute(0, 2, 3, 1).reshape(1, grid * grid, -1)], dim=1)
