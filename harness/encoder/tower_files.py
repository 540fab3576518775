"""Vision towers in files: published ones, and those that a study keeps."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, PreTrainedConfig

from harness.encoder.families import FAMILIES, family_name
from harness.encoder.tower import VisionEncoder
from harness.store import artifacts
from harness.store.files import write_json
from harness.store.tensors import load_tensors, save_tensors
from harness.study.typed import UserError, first_line


def read_pretrained(source: str | Path, *, family: str | None = None, image_size: int | None = None) -> VisionEncoder:
    """The frozen encoder of a local folder, or of a name in the hub cache; never the network. Of a whole SiglipModel, its vision tower.

    UserError, in one line: there is no such model; it is of another family than `family`; weights are missing, of another shape or
    unknown to the tower; the tower cannot eat images of `image_size`.
    """
    config = _tower_config(source)
    there = family_name(config)
    if family not in (None, there):
        raise UserError(f"{source}: a {there} encoder, not {family}")
    facts = FAMILIES[there]
    config.update(facts.settings)
    try:
        tower, info = facts.model.from_pretrained(
            source,
            config=config,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that the check below can name them
            attn_implementation="sdpa",
            dtype=torch.float32,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{source}: its weights cannot be read: {first_line(error)}") from None
    for name, have, want in sorted(info["mismatched_keys"]):
        raise UserError(f"{source}: weights of another architecture: '{name}' is {tuple(have)} in the file, {tuple(want)} in the model")
    for name in sorted(info["missing_keys"]):
        raise UserError(f"{source}: weights of another architecture: '{name}' is missing in the file")
    for name in sorted(info["unexpected_keys"]):
        if not name.startswith(facts.left_out):
            raise UserError(f"{source}: weights of another architecture: the model has no '{name}'")
    try:
        return VisionEncoder(tower, image_size=image_size).eval().requires_grad_(False)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def _tower_config(source: str | Path) -> PreTrainedConfig:
    if not Path(source).is_dir() and Path(source).exists():
        raise UserError(f"{source}: a file; an encoder is a folder with config.json and model.safetensors")
    try:
        config = AutoConfig.from_pretrained(source, local_files_only=True)
    except (OSError, ValueError) as error:
        if Path(source).is_dir():
            raise UserError(f"{source}: not a vision encoder: {first_line(error)}") from None
        raise UserError(
            f"{source}: no such encoder, neither a local folder nor in the hub cache; where there is a network, run "
            f"`hf download {source} --local-dir FOLDER`, and give the folder"
        ) from None
    if config.model_type in FAMILIES:  # the tower itself, or as in a whole SiglipModel, a part of the model
        config = getattr(config, "vision_config", config)
    if family_name(config) is None:
        raise UserError(
            f"{source}: a '{config.model_type}' model; the encoders are {', '.join(FAMILIES)} (SigLIP2 of fixed resolution is siglip)"
        )
    return config


def save_tower(model: VisionEncoder, folder: Path) -> None:
    """`save_pretrained` for the tower; beside it learned registers, and an image size that is not the tower's own."""
    model.tower.save_pretrained(folder)
    if model.registers is not None:
        save_tensors(Path(folder) / "registers.safetensors", {"registers": model.registers})
    if model.image_size != model.tower.config.image_size:
        write_json(Path(folder) / "image_size.json", model.image_size)


def load_tower(folder: Path) -> VisionEncoder:
    """The frozen encoder of a folder written by `save_tower`; UserError if it is not what was written."""
    artifacts.checked(folder)
    registers, size = Path(folder) / "registers.safetensors", Path(folder) / "image_size.json"
    model = read_pretrained(folder, image_size=int(size.read_text(encoding="utf-8")) if size.exists() else None)
    if registers.exists():
        tokens = load_tensors(registers, check=False)[0]["registers"]
        model.registers = nn.Parameter(tokens, requires_grad=False)
        model.append_tokens(model.learned)
    return model
