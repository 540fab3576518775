"""What every architecture of a denoiser provides, and what all of them share: sizes and their rules, diffusion registers, first weights.

As in the released code (DSR `src/stage2/models/lightningDiT.py`), but that a register start at or beyond the depth is refused (there,
registers that were never added are stripped).
"""

import math

import torch
from torch import Tensor, nn

from harness.denoiser.layers import LabelEmbedding, Modulation
from harness.denoiser.text import TextEmbedding
from harness.encoder.positions import sincos_1d, sincos_2d
from harness.study.sections.denoiser import Shape
from harness.study.typed import UserError

TABLES = ("pos_embed", ".W")  # ends of the names of tables that are parameters in the released code: positions, Fourier frequencies


def train_tables(model: nn.Module) -> None:
    """Make trained weights of the fixed tables that the released train.py:252 unfreezes; names and first values stay as they are."""
    for name, table in list(model.named_buffers()):
        if name.endswith(TABLES):
            place, _, own = name.rpartition(".")
            module = model.get_submodule(place)
            delattr(module, own)
            module.register_parameter(own, nn.Parameter(table))


def register_positions(width: int, count: int) -> Tensor:
    """(count, width) table for diffusion registers.

    A square grid where `count` is a square, as released; otherwise a line, since registers have no place in the image.
    """
    side = math.isqrt(count)
    if side * side == count:
        return sincos_2d(width, side)
    return sincos_1d(width, torch.arange(count))


def check_insertion(what: str, count: int, start: int, depth: int) -> None:
    """The rules for tokens that join before block `start`. Raises UserError for a negative count or a start outside the depth."""
    if count < 0 or (count and not 0 <= start < depth):
        raise UserError(
            f"{what}: count {count} with start {start} does not fit a denoiser of {depth} blocks; "
            f"take a count of 0 or more and a start from 0 to {depth - 1}"
        )


def check_width(what: str, width: int, heads: int, *, rotary: bool = True) -> None:
    """Raises UserError for a width that the heads, the rotary table or the 2-D position table do not divide."""
    if (width % (4 * heads)) if rotary else (width % heads or width % 4):
        rule = f"of 4 x {heads} heads" if rotary else f"of 4 and of {heads} heads"
        raise UserError(f"{what}: width {width} must be a multiple {rule}; change its width or its number of heads")


class Denoiser(nn.Module):
    """Built with keywords only, those below and its `own`; called as model(x (B, C, H, W), t (B,), y (B,)) -> (B, C, H, W), where t = 0
    is data and t = 1 is noise.

    `registers` learnable tokens, the same for every sample, are prepended before block `register_start`, take part in every later
    block and are dropped before the final layer (released lightningDiT.py:305-317).

    An architecture has `blocks`, whose outputs end with the `side` ** 2 patch tokens (registers, where present, come first), `final_layer`,
    `t_embedder` for times and a LabelEmbedding for labels; where these are prompts, what `text` makes takes its place as `y_embedder`.
    """

    blocks: nn.ModuleList

    @classmethod
    def own(cls, shape: Shape) -> dict[str, object]:
        """Keywords of the constructor that this architecture has beside those of all, from its section."""
        return {}

    @classmethod
    def from_published(cls, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, object]]:
        """(a published file's weights under the names here, without what only its training used; what was dropped and renamed, for the
        record)."""
        return tensors, {}

    @classmethod
    def text(cls, tokens: Tensor, shape: Shape) -> nn.Module:
        """What becomes `y_embedder` where labels are prompts, whose words `tokens` (prompts + 1, L) are; with fresh weights."""
        return TextEmbedding(tokens, shape.width, shape.heads)

    def __init__(self, *, input_size: int, patch_size: int, num_classes: int, depth: int, registers: int, register_start: int) -> None:
        super().__init__()
        check_insertion("diffusion registers", registers, register_start, depth)
        if input_size % patch_size:
            raise UserError(f"denoiser: latent grid {input_size} must be a multiple of the patch size {patch_size}; change one of the two")
        self.num_classes = num_classes
        self.patch_size = patch_size
        self.side = input_size // patch_size
        self.registers = registers
        self.register_start = register_start

    def add_registers(self, width: int, prefix: str = "") -> None:
        """Make `<prefix>register_tokens` (1, registers, width), drawn from N(0, 1), and their fixed position table.

        To be called last in a constructor, so that every other weight is the same with and without registers for one seed.
        """
        self.register_parameter(f"{prefix}register_tokens", nn.Parameter(torch.randn(1, self.registers, width)))
        self.register_buffer(f"{prefix}register_pos_embed", register_positions(width, self.registers)[None])

    def prepend_registers(self, x: Tensor, prefix: str = "") -> Tensor:
        """(B, N, C) -> (B, registers + N, C)."""
        tokens = getattr(self, f"{prefix}register_tokens") + getattr(self, f"{prefix}register_pos_embed")
        of_each = tokens.unsqueeze(1).expand(-1, len(x) // len(tokens), -1, -1).flatten(0, 1)  # one set, or of a stack, one for each seed
        return torch.cat([of_each, x], dim=1)

    def initialise(self, *, xavier: bool = True) -> None:
        """DiT's first weights: Xavier for linear layers (where `xavier`) and patch embeddings, zero for every adaLN and the last
        projection.
        """
        if xavier:
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    nn.init.xavier_uniform_(module.weight)
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight.view(module.weight.shape[0], -1))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, LabelEmbedding):
                nn.init.normal_(module.embedding_table.weight, std=0.02)
        for layer in (self.t_embedder.mlp[0], self.t_embedder.mlp[2]):
            nn.init.normal_(layer.weight, std=0.02)
        modulations = [module[-1] for module in self.modules() if isinstance(module, Modulation)]
        for layer in [*modulations, self.final_layer.linear]:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def unpatchify(self, x: Tensor) -> Tensor:
        """(B, side * side, patch * patch * C) -> (B, C, H, W)."""
        patch, side = self.patch_size, self.side
        x = x.unflatten(2, (patch, patch, -1)).unflatten(1, (side, side))
        return x.permute(0, 5, 1, 3, 2, 4).reshape(x.shape[0], -1, side * patch, side * patch)
