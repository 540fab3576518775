"""What each network of a study costs, counted once each on the `meta` device (harness.evaluation.cost)."""

import math
from functools import cache, cached_property

import torch
from torch import Tensor, nn

from harness.decoder.vit import Layer
from harness.evaluation import cost
from harness.evaluation.cost import Price
from harness.study.method import EncoderRegisters, denoiser_hook, load_method
from harness.study.sections.encoder import PixelEncoder, TrainedEncoder, TrainedVae, VaeEncoder
from harness.study.study import Study

EXTRA_TOKENS = {"siglip": 0, "dinov2": 1, "dinov2_with_registers": 5}  # CLS, and the four registers of the published weights


class VisionTower(nn.Module):
    """The matrices of SigLIP and DINOv2, `extra` tokens beside the patches: pixels (B, 3, H, W) -> (B, patches + extra, width).

    For counting alone: importing transformers takes longer than the rest of a plan.
    """

    def __init__(self, *, width: int, depth: int, heads: int, mlp: int, patch: int, patches: int, extra: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.positions = nn.Parameter(torch.empty(1, patches, width))
        self.extra = nn.Parameter(torch.empty(1, extra, width))
        self.layers = nn.Sequential(*(Layer(width, heads, mlp, 1e-6) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)

    def forward(self, pixels: Tensor) -> Tensor:
        tokens = self.patches(pixels).flatten(2).transpose(1, 2) + self.positions
        return self.norm(self.layers(torch.cat([tokens, self.extra.expand(len(tokens), -1, -1)], dim=1)))


class Networks:
    """The networks of a study, priced."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.encoders: dict[str, Price] = {}
        self.denoisers: dict[object, Price] = {}
        self.kept: dict[object, int] = {}
        self.size = study.data.image_size

    def encoder(self, variant: str) -> Price:
        if variant not in self.encoders:
            self.encoders[variant] = self._encoder(EncoderRegisters.from_key(variant))
        return self.encoders[variant]

    def _encoder(self, wanted: EncoderRegisters) -> Price:
        section = self.study.encoder
        if isinstance(section, PixelEncoder):
            return Price(0, 0, 0, 0)
        if isinstance(section, VaeEncoder | TrainedVae):
            return cost.price(self._vae, 1, 3, self.size, self.size, run=lambda model, x: model.encode(x))
        trained = wanted.trained
        extra = int(wanted.searched)
        if isinstance(section, TrainedEncoder):
            extra += section.trained_registers if trained else 0
        else:
            extra += EXTRA_TOKENS[(section.trained_registers if trained else section.plain).family]
        return _tower(section.width, section.depth, section.heads, section.mlp, section.patch, self.study.grid, extra)

    def _vae(self) -> nn.Module:
        """The study's own, or Stable Diffusion's AutoencoderKL, whose widths double twice."""
        if isinstance(self.study.encoder, TrainedVae):
            from harness.encoder.vae import build

            return build(self.study.encoder)
        from diffusers import AutoencoderKL

        levels = round(math.log2(self.study.encoder.downsampling)) + 1
        return AutoencoderKL(
            block_out_channels=tuple(128 * 2 ** min(level, 2) for level in range(levels)),
            layers_per_block=2,
            latent_channels=self.study.encoder.channels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
        )

    @cached_property
    def decoder(self) -> Price:
        if isinstance(self.study.encoder, PixelEncoder):
            return Price(0, 0, 0, 0)
        if isinstance(self.study.encoder, VaeEncoder | TrainedVae):
            return cost.price(self._vae, 1, *self.study.latent_shape, run=lambda model, x: model.decode(x))
        from harness.decoder import train as decoders

        return cost.price(lambda: decoders.build_decoder(self.study), 1, self.study.grid**2, self.study.channels)

    @cached_property
    def judge(self) -> Price:
        from harness.evaluation.judge.registry import judge_of

        judge = judge_of(self.study)
        return cost.price(judge.network, 1, 3, judge.side, judge.side)

    @cached_property
    def clip(self) -> Price | None:
        """An image through the image tower; parameters of both towers. None without a CLIP score, or for a model that only its file describes."""
        if self.study.evaluation.clip is None:
            return None
        import open_clip

        from harness.evaluation.clip.registry import clip_of

        config = clip_of(self.study).config()
        if config is None:
            return None
        side = config["vision_cfg"]["image_size"]
        return cost.price(lambda: open_clip.CLIP(**config), 1, 3, side, side, run=lambda model, x: model.encode_image(x))

    def _key(self, method: str) -> object:
        """The same for methods whose denoisers cost the same."""
        return method if denoiser_hook(method) else load_method(method).registers(self.study.denoiser.registers)

    def denoiser(self, method: str) -> Price:
        key = self._key(method)
        if key not in self.denoisers:
            self.denoisers[key] = cost.method_price(self.study, method)
        return self.denoisers[key]

    def kept_for_backward(self, method: str) -> int:
        """Bytes an image, of the method's denoiser."""
        key = self._key(method)
        if key not in self.kept:
            from harness.denoiser.build import build_denoiser

            self.kept[key] = cost.kept_for_backward(self.study, lambda: build_denoiser(self.study, method))
        return self.kept[key]

    @cached_property
    def weak(self) -> Price:
        """The denoiser that guides away from itself."""
        from harness.denoiser.build import build_shape

        return cost.denoiser_price(self.study, lambda: build_shape(self.study, self.study.sampling.guidance.weak))

    @cached_property
    def perceptual(self) -> int:
        """FLOPs of comparing two images."""
        from harness.decoder.perceptual import Perceptual

        widths = self.study.decoder.perceptual.widths
        return cost.price(lambda: Perceptual(widths), 1, 3, self.size, self.size, run=lambda model, x: model(x, x)).flops

    @cached_property
    def discriminator(self) -> Price:
        from harness.decoder.discriminator import Discriminator

        section = self.study.decoder.adversarial
        shape = {"size": section.image_size, "width": section.width, "depth": section.depth, "blocks": section.blocks}
        return cost.price(lambda: Discriminator(**shape, attention_heads=section.heads), 1, 3, self.size, self.size)


@cache
def _tower(width: int, depth: int, heads: int, mlp: int, patch: int, grid: int, extra: int) -> Price:
    shape = {"width": width, "depth": depth, "heads": heads, "mlp": mlp, "patch": patch}
    return cost.price(lambda: VisionTower(**shape, patches=grid**2, extra=extra), 1, 3, grid * patch, grid * patch)
