"""The image tower of an open_clip folder, which resizes, crops and normalises as its own configuration says; embeddings as they come."""

from dataclasses import replace

import torch
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from PIL import Image
from torch import Tensor, nn

from harness.evaluation.clip.folder import WEIGHTS
from harness.evaluation.clip.published import read_folder
from harness.evaluation.extractors.base import ImageExtractor
from harness.evaluation.extractors.weights import Source, Wanted
from harness.study.sections.pixels import ImageStatistics
from harness.study.typed import UserError


class OpenClipExtractor(ImageExtractor):
    def __init__(self, wanted: Wanted, source: Source, network: nn.Module, preprocess: PreprocessCfg) -> None:
        super().__init__(wanted, source, network)
        self.transform = image_transform_v2(preprocess, is_train=False)

    def prepare(self, images: Tensor) -> Tensor:
        arrays = images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return torch.stack([self.transform(Image.fromarray(image)) for image in arrays]).to(images.device)

    def embed(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return (self.network.encode_image(pixels),)


def load(wanted: Wanted) -> OpenClipExtractor:
    """A name of open_clip's alone does not say how images are normalised, so that it takes a folder, whose configuration does.

    UserError that names the first misfit between the weights and the configuration.
    """
    digest = wanted.check_hash(wanted.file((WEIGHTS,)))
    if not wanted.path.is_dir():
        raise UserError(f"{wanted.path}: a file; extractor '{wanted.name}' needs the folder, which says how to prepare images")
    model, described, container = read_folder(wanted.path, wanted.container)
    size = model.visual.image_size
    preprocess = merge_preprocess_dict(merge_preprocess_dict(PreprocessCfg(), described.preprocess), {"size": size})
    vision = described.config["vision_cfg"]
    tower = str(vision.get("timm_model_name", ""))
    info = replace(
        wanted.info,
        network=tower or f"ViT {vision['width']}/{vision['layers']}",
        family="siglip" if "siglip" in tower else wanted.info.family,
        side=size if isinstance(size, int) else max(size),
        statistics=ImageStatistics(tuple(preprocess["mean"]), tuple(preprocess["std"])),
        width=described.config["embed_dim"],
    )
    source = Source(described.weights, digest, container)
    return OpenClipExtractor(replace(wanted, info=info), source, model, PreprocessCfg(**preprocess))
