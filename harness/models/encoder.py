"""Vision encoders from transformers, as token extractors: images -> patch tokens, with or without registers."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import SiglipVisionConfig, SiglipVisionModel
from transformers.utils import logging as transformers_logging

from harness import artifacts
from harness.config import Encoder, UserError

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()


class VisionEncoder(nn.Module):
    """A transformers vision tower whose final norm has no affine part (released `siglip2.py:14-19`).

    Extra tokens follow the patches through every layer and are dropped from what comes out: learned ones here (`registers`),
    or zeros appended by harness.models.test_time_registers.
    """

    def __init__(self, tower: nn.Module, registers: int = 0) -> None:
        super().__init__()
        self.tower = tower
        self.final_norm.weight.requires_grad_(False).fill_(1.0)
        self.final_norm.bias.requires_grad_(False).zero_()
        self.registers = nn.Parameter(0.02 * torch.randn(registers, self.width)) if registers else None
        if registers:
            self.append_tokens(lambda: self.registers)

    @property
    def width(self) -> int:
        return self.tower.config.hidden_size

    @property
    def grid(self) -> int:
        return self.tower.config.image_size // self.tower.config.patch_size

    @property
    def final_norm(self) -> nn.LayerNorm:
        return self.tower.post_layernorm

    @property
    def layers(self) -> nn.ModuleList:
        return self.tower.encoder.layers

    def append_tokens(self, tokens: Callable[[], Tensor]) -> torch.utils.hooks.RemovableHandle:
        """Append `tokens()` (R, C) to every sequence of patch embeddings."""

        def append(_module: nn.Module, _inputs: tuple, embeddings: Tensor) -> Tensor:
            return torch.cat([embeddings, tokens().expand(len(embeddings), -1, -1)], dim=1)

        return self.tower.embeddings.register_forward_hook(append)

    def all_hidden_states(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """depth + 1 tensors (B, P + extra tokens, C): embeddings, then the residual stream after each layer, before the final norm."""
        return self.tower(pixel_values=pixels, output_hidden_states=True).hidden_states

    def hidden_states(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """As `all_hidden_states`, patch tokens only: (B, P, C)."""
        return tuple(state[:, : self.grid**2] for state in self.all_hidden_states(pixels))

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, P, C) patch tokens after the affine-free final norm."""
        return self.tower(pixel_values=pixels).last_hidden_state[:, : self.grid**2]


def build(encoder: Encoder, image_size: int, registers: int) -> VisionEncoder:
    """A SigLIP tower with random weights."""
    config = SiglipVisionConfig(
        hidden_size=encoder.width,
        intermediate_size=encoder.mlp,
        num_hidden_layers=encoder.depth,
        num_attention_heads=encoder.heads,
        image_size=image_size,
        patch_size=encoder.patch,
        vision_use_head=False,
        attn_implementation="sdpa",
    )
    return VisionEncoder(SiglipVisionModel(config), registers)


def save(model: VisionEncoder, folder: Path) -> None:
    """`save_pretrained` for the tower; learned registers beside it."""
    model.tower.save_pretrained(folder)
    if model.registers is not None:
        artifacts.save_tensors(Path(folder) / "registers.safetensors", {"registers": model.registers})


def load(folder: Path) -> VisionEncoder:
    """The frozen encoder of a folder written by `save`, or of any local SigLIP vision tower."""
    artifacts.checked(folder)
    try:
        tower = SiglipVisionModel.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{folder}: not a SigLIP vision tower: {str(error).splitlines()[0]}") from None
    extra = Path(folder) / "registers.safetensors"
    tokens = artifacts.load_tensors(extra, check=False)[0]["registers"] if extra.exists() else torch.empty(0)
    model = VisionEncoder(tower, len(tokens))
    if len(tokens):
        model.registers.data.copy_(tokens)
    return model.eval().requires_grad_(False)
