"""RAE with DINOv2 (bytetriper/RAE, `src/stage1/rae.py`): image to whitened latent and back to the image."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator

from harness.machine.device import device
from harness.parity.base import Described, Format
from harness.parity.files import GoldenFile, Tensors
from harness.parity.rae_decoder import DecoderConfig, build
from harness.study.sections.encoder import FAMILIES
from harness.study.sections.pixels import Channels, Pixels
from harness.study.typed import UserError

if TYPE_CHECKING:
    from harness.encoder.tower import VisionEncoder

FAMILY = "dinov2_with_registers"
STATISTICS = FAMILIES[FAMILY].image_statistics


def _known(wanted: Channels) -> AfterValidator:
    def check(value: Channels) -> Channels:
        if value != wanted:
            raise ValueError(f"this encoder's are {wanted}")
        return value

    return AfterValidator(check)


class TowerShape(Described):
    """Sizes of a DINOv2 with registers."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    mlp_ratio: int
    image_size: int
    patch_size: int
    num_channels: Literal[3]
    num_register_tokens: int
    hidden_act: Literal["gelu"]
    layer_norm_eps: Literal[1e-06]
    qkv_bias: Literal[True]
    layerscale_value: float
    use_swiglu_ffn: Literal[False]


class RaeConfig(Described):
    """Encoder, decoder, and what lies between them."""

    encoder: TowerShape
    encoder_input_size: int
    image_mean: Annotated[Channels, _known(STATISTICS.mean)]
    image_std: Annotated[Channels, _known(STATISTICS.std)]
    decoder: DecoderConfig
    latent_eps: Literal[1e-05]


def published_tower(file: GoldenFile, config: RaeConfig) -> "VisionEncoder":
    """The encoder, from a folder with the file's weights under the names of Hugging Face's own, as a published one is read."""
    from transformers import Dinov2WithRegistersConfig  # takes seconds

    from harness.encoder.tower_files import read_pretrained
    from harness.store.tensors import save_tensors

    with TemporaryDirectory() as folder:
        Dinov2WithRegistersConfig(**config.encoder.model_dump()).save_pretrained(folder)
        save_tensors(Path(folder) / "model.safetensors", file.weights("encoder."))
        try:
            return read_pretrained(folder, family=FAMILY, image_size=config.encoder_input_size).to(device())
        except UserError as error:
            raise UserError(str(error).replace(folder, f"{file.path}, encoder")) from None


def outputs(file: GoldenFile, config: RaeConfig) -> Tensors:
    """Of images `in.image` and `in.image_16` (B, 3, H, W) in [0, 1]: what the encoder reads, its hidden states (B, 1 + R + P, C), tokens
    (B, P, C), and latents (B, C, h, w); of the former's latent the decoder's logits (B, P, patch * patch * 3) and image (B, 3, H, W).
    """
    from harness.decoder.pixels import signed
    from harness.encoder.statistics import whitening_of

    encoder, decoder = published_tower(file, config), file.load(build(config.decoder), "decoder.")
    image, small, mean, var = file.take("in.image", "in.image_16", "stat.mean", "stat.var")
    pixels = 2 * image - 1
    tokens, grid = encoder(pixels), config.decoder.grid
    whitening = whitening_of({"mean": mean, "var": var}, (encoder.width, grid, grid), file.path)
    latent = whitening.whiten(encoder.as_latents(tokens))
    raw = whitening.unwhiten(latent)
    decoded = decoder.decode(raw)
    computed = {f"encoder.hidden.{layer}": state for layer, state in enumerate(encoder.all_hidden_states(pixels))}
    return computed | {
        "out.encoder_input": encoder.fed(pixels),
        "out.tokens": tokens,
        "out.latent": latent,
        "out.latent_16": whitening.whiten(encoder.as_latents(encoder(2 * small - 1))),
        "out.logits": decoder.logits(raw.flatten(2).transpose(1, 2)),
        "out.decoded_before_denormalisation": decoded,
        "out.image": (signed(decoded, Pixels.of("normalised", STATISTICS)) + 1) / 2,
    }


FORMAT = Format(RaeConfig, outputs, inputs=("stat.mean", "stat.var"))
