"""RAE's ViT decoder, tokens to image."""

from typing import TYPE_CHECKING, Literal

from harness.parity.base import Described, Format
from harness.parity.files import GoldenFile, Tensors

if TYPE_CHECKING:
    from harness.decoder.vit import ViTDecoder


class DecoderConfig(Described):
    """RAE's ViT decoder."""

    encoder_hidden_size: int
    decoder_hidden_size: int
    decoder_num_hidden_layers: int
    decoder_num_attention_heads: int
    decoder_intermediate_size: int
    patch_size: int
    grid: int
    layer_norm_eps: float = 1e-12
    hidden_act: Literal["gelu"] = "gelu"


def build(config: DecoderConfig) -> "ViTDecoder":
    """Of a file's sizes, with random weights."""
    from harness.decoder.vit import ViTDecoder

    return ViTDecoder(
        channels=config.encoder_hidden_size,
        side=config.grid,
        patch=config.patch_size,
        width=config.decoder_hidden_size,
        depth=config.decoder_num_hidden_layers,
        heads=config.decoder_num_attention_heads,
        mlp=config.decoder_intermediate_size,
        eps=config.layer_norm_eps,
    )


def outputs(file: GoldenFile, config: DecoderConfig) -> Tensors:
    """Of tokens `in.tokens` (B, N, C): `out.logits` (B, N, patch * patch * 3) and `out.image` (B, 3, H, W)."""
    model = file.load(build(config))
    (tokens,) = file.take("in.tokens")
    return {"out.logits": model.logits(tokens), "out.image": model(tokens)}


FORMAT = Format(DecoderConfig, outputs)
