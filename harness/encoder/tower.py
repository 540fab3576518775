"""Vision encoders from transformers, as token extractors: images -> patch tokens, with or without registers."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers.utils import logging as transformers_logging

from harness.encoder.families import FAMILIES, family_name
from harness.study.sections import encoder as sections
from harness.study.sections.pixels import HALF
from harness.study.typed import UserError

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()


class VisionEncoder(nn.Module):
    """A transformers vision tower whose final norm has no affine part (released `siglip2.py:14-19`, `dinov2_no_reg.py:24-27`).

    The tokens of an image are `prefix` leading ones (CLS, and the registers that DINOv2 was trained with), `patches` patches, and
    extra ones that follow them through every layer: learned ones here (`registers`), or the zeros of
    harness.encoder.test_time_registers. Only patches come out.
    """

    def __init__(self, tower: nn.Module, registers: int = 0, image_size: int | None = None) -> None:
        """`image_size`: what the tower eats, where it is not its configuration's."""
        super().__init__()
        self.tower = tower
        self.family = FAMILIES[family_name(tower.config)]
        statistics = sections.FAMILIES[family_name(tower.config)].image_statistics
        self.image_size = image_size or tower.config.image_size
        if self.image_size != tower.config.image_size and not self.family.any_size:
            raise UserError(f"this {type(tower).__name__} is made for images of {tower.config.image_size} pixels, not of {self.image_size}")
        if self.image_size % tower.config.patch_size:
            raise UserError(f"patches of {tower.config.patch_size} pixels do not fill an image of {self.image_size} pixels")
        self.final_norm.weight.requires_grad_(False).fill_(1.0)
        self.final_norm.bias.requires_grad_(False).zero_()
        self.normalises = statistics != HALF
        if self.normalises:  # of pixels in [-1, 1]
            self.register_buffer("mean", 2 * torch.tensor(statistics.mean).view(3, 1, 1) - 1, persistent=False)
            self.register_buffer("std", 2 * torch.tensor(statistics.std).view(3, 1, 1), persistent=False)
        self.extra: OrderedDict[int, Callable[[], Tensor]] = OrderedDict()
        tower.embeddings.register_forward_hook(self._append)
        self.registers = nn.Parameter(0.02 * torch.randn(registers, self.width)) if registers else None
        if registers:
            self.append_tokens(self.learned)

    @property
    def width(self) -> int:
        """C, channels of a token."""
        return self.tower.config.hidden_size

    @property
    def depth(self) -> int:
        """Layers."""
        return len(self.layers)

    @property
    def side(self) -> int:
        """Of the image, in patches."""
        return self.image_size // self.tower.config.patch_size

    @property
    def patches(self) -> int:
        """P, patch tokens of an image."""
        return self.side**2

    @property
    def prefix(self) -> int:
        """Leading tokens that are no patches: none, CLS, or CLS and trained registers (released `dinov2.py:31-32`)."""
        return self.family.cls_tokens + getattr(self.tower.config, "num_register_tokens", 0)

    @property
    def final_norm(self) -> nn.LayerNorm:
        """After the last layer, without its affine part."""
        return self.tower.get_submodule(self.family.final_norm)

    @property
    def layers(self) -> nn.ModuleList:
        """In the order in which tokens pass them; UserError where this version of transformers keeps them elsewhere."""
        for name in self.family.layers:
            with suppress(AttributeError):
                return self.tower.get_submodule(name)
        names = " or ".join(self.family.layers)
        raise UserError(f"{type(self.tower).__name__} keeps its layers elsewhere than in {names}: another version of transformers?")

    def append_tokens(self, tokens: Callable[[], Tensor]) -> RemovableHandle:
        """Append `tokens()` (R, C) to every sequence of embeddings, after the patches and what was appended before."""
        handle = RemovableHandle(self.extra)
        self.extra[handle.id] = tokens
        return handle

    def learned(self) -> Tensor:
        """(R, C)."""
        return self.registers

    def _append(self, _module: nn.Module, _inputs: tuple, embeddings: Tensor) -> Tensor:
        for tokens in self.extra.values():
            embeddings = torch.cat([embeddings, tokens().expand(len(embeddings), -1, -1)], dim=1)
        return embeddings

    def fed(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> what the tower reads, (B, 3, image_size, image_size).

        Resized as released `rae.py:138-139` does it (bicubic, no antialiasing), then the tower's own normalisation.
        """
        if pixels.shape[-2:] != (self.image_size, self.image_size):
            pixels = F.interpolate(pixels, size=(self.image_size, self.image_size), mode="bicubic", align_corners=False)
        return (pixels - self.mean) / self.std if self.normalises else pixels

    def states(self, pixels: Tensor, layers: int | None = None) -> Iterator[Tensor]:
        """Yield the residual stream (B, prefix + P + extra tokens, C): the embeddings, then after each of the first `layers` layers.

        UserError if the tower makes another number of tokens than its configuration says.
        """
        state = self.tower.embeddings(self.fed(pixels))
        self._check(state)
        yield state
        for layer in self.layers[:layers]:
            state = layer(state, attention_mask=None)
            self._check(state)
            yield state

    def _check(self, state: Tensor) -> None:
        extra = sum(len(tokens()) for tokens in self.extra.values())
        if state.shape[1] != self.prefix + self.patches + extra:
            raise UserError(
                f"{type(self.tower).__name__} made {state.shape[1]} tokens of an image of {self.image_size} pixels; its configuration says "
                f"{self.prefix} + {self.patches} patches + {extra} extra"
            )

    def of_patches(self, tokens: Tensor) -> Tensor:
        """(B, all tokens, ...) -> (B, P, ...)."""
        return tokens[:, self.prefix : self.prefix + self.patches]

    def of_registers(self, tokens: Tensor) -> Tensor:
        """(B, all tokens, ...) -> (B, R, ...): registers that the tower was trained with, then those after the patches."""
        return torch.cat([tokens[:, self.family.cls_tokens : self.prefix], tokens[:, self.prefix + self.patches :]], dim=1)

    def of_context(self, tokens: Tensor) -> Tensor:
        """(B, all tokens, ...) -> (B, 1 or 0, ...): CLS, where there is one."""
        return tokens[:, : self.family.cls_tokens]

    def all_hidden_states(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """depth + 1 tensors (B, prefix + P + extra tokens, C): embeddings, then the residual stream after each layer; no final norm."""
        return tuple(self.states(pixels))

    def hidden_states(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """As `all_hidden_states`, patch tokens only: (B, P, C)."""
        return tuple(self.of_patches(state) for state in self.states(pixels))

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1], any H = W -> (B, P, C) patch tokens after the affine-free final norm."""
        for state in self.states(pixels):
            last = state
        return self.of_patches(self.final_norm(last))

    def as_latents(self, tokens: Tensor) -> Tensor:
        """(B, P, C) -> (B, C, side, side)."""
        return tokens.transpose(1, 2).unflatten(2, (self.side, self.side))

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """`forward`, and the norms (B, depth + 1, P) of the residual stream at each of `hidden_states`, in one pass."""
        norms = []
        for state in self.states(pixels):
            last = state
            norms.append(self.of_patches(state).norm(dim=-1))
        return self.of_patches(self.final_norm(last)), torch.stack(norms, dim=1)


def submodule(layer: nn.Module, *endings: str) -> nn.Module:
    """The first module of `layer` whose name has one of these endings, wherever this version of transformers keeps it."""
    for name, module in layer.named_modules():
        if name.endswith(endings):
            return module
    raise UserError(f"{type(layer).__name__} has no '{endings[0]}', which registers and maps need: another version of transformers?")


def build_tower(
    family: str, *, width: int, depth: int, heads: int, mlp: int, patch: int, image_size: int, registers: int = 0
) -> VisionEncoder:
    """A tower of one of FAMILIES with random weights; under `torch.device("meta")`, one with shapes only.

    `registers`: leading ones of the tower for a family that is trained with them, learned ones after the patches for the others.
    """
    facts = FAMILIES[family]
    own, learned = ({"num_register_tokens": registers}, 0) if facts.trained_with_registers else ({}, registers)
    config = facts.model.config_class(
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        image_size=image_size,
        patch_size=patch,
        attn_implementation="sdpa",
        **facts.mlp(width, mlp),
        **facts.settings,
        **own,
    )
    return VisionEncoder(facts.model(config), learned)
