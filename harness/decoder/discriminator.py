"""The adversarial part of RAE's stage-1 loss: a frozen DINO ViT-S/8 under trainable heads, its augmentation and its losses.

From released files of RAE (github.com/bytetriper/RAE) and DSR (github.com/a-little-hoof/DSR):
- `src/disc/dinodisc.py` (DinoDisc, FrozenDINONoDrop, recipe `S_8`): bilinear resize to 224, ImageNet mean and deviation, GELU by its
  tanh formula, patch tokens after blocks 2, 5, 8 and 11 without the final norm. There are five heads; the first of them reads the last
  block's tokens again. The released code also zeroes the bias of the keys, which no softmax over keys can see.
- the same file (make_block, ResidualBlock, SpectralConv1d, BatchNormLocal): a head is a 1-wide convolution, a residual one over 9
  neighbouring tokens, and one logit per token. `norm_type: bn` has groups of one image, so it is an instance norm.
- `src/disc/diffaug.py` (DiffAug) and `src/disc/gan_loss.py` (hinge_d_loss, vanilla_g_loss).
- DSR `src/train_stage1.py` (calculate_adaptive_weight, main) and `configs/stage1/training/*.yaml`. Loss = L1 + 1.0 LPIPS
  + 0.75 adaptive_weight(L1 + LPIPS, adversarial) adversarial, where L1 is over images in [0, 1] and the others are over [-1, 1];
  LPIPS from epoch 0, discriminator updates from epoch 6, adversarial loss from epoch 8. 16 epochs, batch 512, AdamW 2e-4 with betas
  (0.9, 0.95) and no weight decay for either network, cosine to 2e-5 after one epoch of warm-up from zero, EMA 0.9978, no clipping,
  noise_tau 0.8 (2.0 in the config for SigLIP2-B with test-time registers). The discriminator's schedule counts its own updates.
- there too: an update of the discriminator, one per step, follows the decoder's and sees a fresh reconstruction without latent noise,
  clamped and rounded to 8 bits; the decoder's own adversarial loss sees the noisy one as it is. DiffAug comes last in both.

One file, read from a local path: DINO ViT-S/8, https://dl.fbaipublicfiles.com/dino/dino_deitsmall8_pretrain/dino_deitsmall8_pretrain.pth,
or the copy that RAE's configs name, `discs/dino_vit_small_patch8_224.pth` of huggingface.co/nyu-visionx/RAE-collections.
timm, which open_clip brings along, has the ViT under the same parameter names.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from harness.data.images import to_levels
from harness.store import foreign
from harness.store.tensors import load_weights
from harness.study.sections.decoder import Adversarial

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHIFT = 0.125  # DiffAug's translation, of the image's side


def shape_of(section: Adversarial) -> dict[str, int | list[int]]:
    """Keywords of Discriminator for what a study says."""
    sizes = {"size": section.image_size, "width": section.width, "depth": section.depth}
    return sizes | {"attention_heads": section.heads, "blocks": section.blocks}


def resize(images: Tensor, size: int) -> Tensor:
    """Bilinear, without antialiasing: (B, C, H, W) -> (B, C, size, size).

    As two matrix products: the gradient of `interpolate` has no fast deterministic form on CUDA.
    """
    rows, columns = (F.interpolate(torch.eye(n)[None], size=size, mode="linear")[0].to(images) for n in images.shape[-2:])
    return rows.T @ images @ columns


class Block(nn.Module):
    """Convolution over neighbouring tokens, on a circle, with spectral and instance norm: (B, width, P) -> same."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.conv = spectral_norm(nn.Conv1d(width, width, kernel, padding=kernel // 2, padding_mode="circular"))
        self.norm = nn.InstanceNorm1d(width, eps=1e-6, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, P) -> same."""
        return F.leaky_relu(self.norm(self.conv(x)), 0.2)


class Head(nn.Module):
    """(B, width, P) -> logits (B, P)."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.first, self.residual = Block(width, 1), Block(width, kernel)
        self.logit = spectral_norm(nn.Conv1d(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, P) -> (B, P)."""
        x = self.first(x)
        return self.logit((x + self.residual(x)) / math.sqrt(2)).squeeze(1)


class Discriminator(nn.Module):
    """Only `heads` trains; the ViT stays frozen and in eval mode but passes the gradient on to the images.

    The spectral norms move one power iteration at each forward in train mode: train() for the discriminator's own loss, eval() for the
    decoder's. Their vectors are buffers, so what resumes a run is `heads.state_dict()`, not the parameters alone.
    The ViT is random until `from_file`, for tests at toy sizes.
    """

    def __init__(
        self,
        *,
        size: int = 224,
        patch: int = 8,
        width: int = 384,
        depth: int = 12,
        attention_heads: int = 6,
        blocks: Sequence[int] = (2, 5, 8, 11),
        kernel: int = 9,
    ) -> None:
        super().__init__()
        self.size, self.blocks = size, (depth - 1, *blocks)
        self.backbone = VisionTransformer(
            img_size=size,
            patch_size=patch,
            embed_dim=width,
            depth=depth,
            num_heads=attention_heads,
            num_classes=0,
            act_layer="gelu_tanh",
        ).requires_grad_(False)
        self.heads = nn.ModuleList(Head(width, kernel) for _ in self.blocks)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(3, 1, 1), persistent=False)
        self.train()

    @classmethod
    def from_file(cls, dino: Path | str, named: str | None = None, **shape: int | Sequence[int]) -> Self:
        """With the published ViT; the heads are random. `named`: of several containers, the one that is meant; `shape` as for the class.

        UserError, one line, for a file that is missing, damaged or of another architecture.
        """
        model = cls(**shape)
        tensors, model.taken = foreign.read_container(dino, named)
        load_weights(model.backbone, tensors, dino)
        return model

    def train(self, mode: bool = True) -> Self:
        """The heads alone; the ViT stays in eval mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def features(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [-1, 1] -> for each head (B, width, P)."""
        x = ((resize(images, self.size) + 1) / 2 - self.mean) / self.deviation
        wanted = sorted(set(self.blocks))
        tokens = self.backbone.forward_intermediates(x, indices=wanted, output_fmt="NLC", intermediates_only=True)
        by_block = dict(zip(wanted, tokens, strict=True))
        return [by_block[block].transpose(1, 2) for block in self.blocks]

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1], any H and W -> logits (B, heads * P), high for real images; P = (size / patch)^2."""
        return torch.cat([head(x) for head, x in zip(self.heads, self.features(images), strict=True)], dim=1)


def diff_augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """DiffAug at prob 1 and cutout 0: shift by up to 1/8 of the side (zeros come in), then brightness, saturation, contrast.

    (B, 3, H, W) in [-1, 1] -> same shape, values not clamped. `generator` gives five numbers per image, image after
    image, so that an image's draw does not depend on how many follow it.
    """
    draws = torch.rand(len(images), 5, generator=generator, device=generator.device)
    brightness, saturation, contrast = (draws[:, i].view(-1, 1, 1, 1).to(images) for i in (2, 3, 4))
    height, width = images.shape[-2:]
    most = torch.tensor([round(height * SHIFT), round(width * SHIFT)], device=draws.device)
    starts = (draws[:, :2] * (2 * most + 1)).long().tolist()
    down, across = most.tolist()
    padded = F.pad(images, (across, across, down, down))
    x = torch.stack([image[:, top : top + height, left : left + width] for image, (top, left) in zip(padded, starts, strict=True)])
    x = x + brightness - 0.5
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * (2 * saturation) + grey
    level = x.mean((1, 2, 3), keepdim=True)
    return (x - level) * (contrast + 0.5) + level


def discretise(images: Tensor) -> Tensor:
    """(B, 3, H, W): clamp to [-1, 1] and round to the 256 levels of a stored image; no gradient. For what the discriminator trains on."""
    return to_levels(images.detach()) / 127.5 - 1


def hinge_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """The discriminator's loss, a scalar: half the sum of the two means of max(0, 1 -+ logit)."""
    return 0.5 * (F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean())


def generator_loss(fake_logits: Tensor) -> Tensor:
    """The decoder's adversarial loss, a scalar: minus the mean logit."""
    return -fake_logits.mean()


def adaptive_weight(reconstruction_loss: Tensor, adversarial_loss: Tensor, last_layer_weight: Tensor, max_weight: float = 1e4) -> Tensor:
    """|grad reconstruction| / (|grad adversarial| + 1e-6) at `last_layer_weight` (RAE: `decoder_pred.weight`), at most `max_weight`.

    A scalar without gradient; the graphs of both losses stay. RAE multiplies the adversarial loss by it and by 0.75.
    """
    norms = [torch.autograd.grad(loss, last_layer_weight, retain_graph=True)[0].norm() for loss in (reconstruction_loss, adversarial_loss)]
    return (norms[0] / (norms[1] + 1e-6)).clamp(max=max_weight).detach()
