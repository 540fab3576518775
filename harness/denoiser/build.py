"""The denoisers of a study: built with fresh weights, or loaded."""

from pathlib import Path

import torch
from torch import Tensor, nn

from harness.data.captions import token_table
from harness.denoiser.base import train_tables
from harness.denoiser.registry import architecture_of
from harness.machine.device import device
from harness.store import foreign
from harness.store.tensors import load_tensors, load_weights
from harness.study.method import denoiser_hook, load_method
from harness.study.sections.denoiser import Shape
from harness.study.study import Study
from harness.study.typed import UserError


def build_denoiser(study: Study, method: str) -> nn.Module:
    """The method's denoiser with fresh weights from the global generator."""
    registers = load_method(method).registers(study.denoiser.registers)
    count, start = (registers.count, registers.start) if registers else (0, 0)
    model = build_shape(study, study.denoiser, registers=count, register_start=start)
    if study.denoiser.frozen == "released":
        train_tables(model)
    hook = denoiser_hook(method)
    if hook is None:
        return model
    try:
        changed = hook(model)
    except Exception as error:
        raise UserError(f"baselines/{method}.py: modify_denoiser failed: {type(error).__name__}: {error}") from None
    if not isinstance(changed, nn.Module):
        raise UserError(f"baselines/{method}.py: modify_denoiser must return the model, got {type(changed).__name__}")
    return changed


def build_shape(study: Study, shape: Shape, *, registers: int = 0, register_start: int = 0) -> nn.Module:
    """A denoiser of `shape` for the study's latents and classes; where these are prompts, it reads their words."""
    architecture, text = architecture_of(shape), None
    if study.data.prompts:  # before all other weights, so that these are the same for every method
        text = architecture.text(torch.from_numpy(token_table(study.data)), shape)
    model = architecture(
        input_size=study.latent_side,
        in_channels=study.channels,
        hidden_size=shape.width,
        depth=shape.depth,
        num_heads=shape.heads,
        num_classes=study.classes,
        patch_size=shape.patch,
        mlp_ratio=shape.mlp_ratio,
        registers=registers,
        register_start=register_start,
        **architecture.own(shape),
    )
    if text is not None:
        model.y_embedder = text
    return model


def read_published(path: Path, shape: Shape, container: str | None = None) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Weights of a denoiser from elsewhere, by their names here, and what to print and to record: the container that was taken, what was
    dropped and renamed. UserError as `foreign.read_container`."""
    tensors, taken = foreign.read_container(path, container)
    tensors, changed = architecture_of(shape).from_published(tensors)
    return tensors, taken | changed


def load_denoiser(study: Study, method: str, path: Path) -> nn.Module:
    """The trained denoiser, frozen, on the device."""
    tensors, _ = load_tensors(path)
    return load_weights(build_denoiser(study, method), tensors, path).eval().requires_grad_(False).to(device())
