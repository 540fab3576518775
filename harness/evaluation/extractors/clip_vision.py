"""CLIP's image tower with its projection, of transformers: the embeddings of CMMD.

Jayasumana et al. 2024; cmmd-pytorch `embedding.py` (github.com/sayakpaul/cmmd-pytorch).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from harness.evaluation.extractors.base import ImageExtractor
from harness.evaluation.extractors.weights import Wanted, without
from harness.store.foreign import COUNTED
from harness.store.tensors import load_weights
from harness.study.typed import UserError

# of openai/clip-vit-large-patch14-336, as transformers calls them
SHAPE: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
TEXT = ("text_model.", "text_projection.", "logit_scale")  # of a whole CLIPModel


class ClipVisionExtractor(ImageExtractor):
    def embed(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Of unit length."""
        embedded = self.network(pixel_values=pixels).image_embeds.float()
        return (embedded / embedded.norm(dim=-1, keepdim=True),)


def build(**shape: Any) -> nn.Module:
    """transformers' network with random weights; `shape`: fields of its configuration in place of the published ones."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection  # takes seconds

    return CLIPVisionModelWithProjection(CLIPVisionConfig(**SHAPE | shape)).eval()


def load(wanted: Wanted) -> ClipVisionExtractor:
    """UserError that names the first misfit between the weights, or the configuration beside them, and the network."""
    tensors, source = wanted.read()
    _check_config(source.file.with_name("config.json"), SHAPE | dict(wanted.shape))
    tensors = {key: value for key, value in without(tensors, *TEXT).items() if not key.endswith(COUNTED)}
    return ClipVisionExtractor(wanted, source, load_weights(build(**wanted.shape), tensors, source.file))


def _check_config(config: Path, shape: Mapping[str, Any]) -> None:
    """Heads and the activation leave no trace in names and sizes."""
    if not config.is_file():
        return
    try:
        said = json.loads(config.read_text(encoding="utf-8"))
        said = said.get("vision_config", said)
        there = {field: said[field] for field in ("num_attention_heads", "hidden_act", "layer_norm_eps") if field in said}
    except (OSError, ValueError, TypeError, AttributeError):
        return  # not transformers'
    for field, value in there.items():
        if value != shape[field]:
            raise UserError(f"{config}: {field} is {value} there, {shape[field]} in the network; is it the right one?")
