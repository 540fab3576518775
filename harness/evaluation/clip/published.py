"""The CLIP model `open_clip`: a published one, from a file of weights or an open_clip folder."""

import json
import shutil
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor, nn

from harness.evaluation.clip.base import ClipKind, LoadedClip
from harness.evaluation.clip.folder import CONFIG, WEIGHTS, load_folder, network_of, save_folder
from harness.store import artifacts, foreign
from harness.store.assets import locate, record_of
from harness.store.tensors import load_weights
from harness.study.sections.evaluation import LOCAL, OpenClip
from harness.study.typed import UserError, first_line, nearest
from harness.training.network import Network

VOCABULARY, CONTEXT = 49408, 77  # of CLIP's tokenizer
OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")  # numbers that only OpenAI's own files have


class PublishedClip(ClipKind):
    def make(self, *, data: Path | None, records: list[Path], state: Path, out: Path) -> dict:
        record = record_of(records, "evaluation.clip.weights")
        outcome: dict[str, object] = {}
        artifact = artifacts.artifact(out, stage="clip", module=__name__, config=self.section, inputs=[record], outcome=outcome)
        with artifact as folder:
            shutil.rmtree(folder, ignore_errors=True)
            facts = import_published(self.section, locate(record), folder)
            outcome |= {name: facts[name] for name in ("container", "other_containers")}
        return facts

    def load(self, folder: Path) -> LoadedClip:
        return load_published(folder)

    def network(self) -> Network | None:
        config = open_clip.get_model_config(self.section.model)
        return network_of(config) if config else None


def load_published(folder: Path) -> LoadedClip:
    """The model resizes, crops and normalises as the folder's configuration says."""
    model, text = load_folder(folder), json.loads((folder / CONFIG).read_text(encoding="utf-8"))["model_cfg"]["text_cfg"]
    transform = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)

    def preprocess(images: np.ndarray) -> Tensor:
        return torch.stack([transform(Image.fromarray(image)) for image in images])

    return LoadedClip(model, open_clip.SimpleTokenizer(context_length=text.get("context_length", CONTEXT)), preprocess)


def import_published(section: OpenClip, source: Path, out: Path) -> dict:
    """Write a published model into the folder `out`, in float32 and strictly checked against its architecture; returns its facts.

    `source` is a state dict (.safetensors, or .pt read without unpickling objects), or for model `local-dir` an open_clip folder.
    """
    described = _folder(source) if section.model == LOCAL else _named(section.model, source)
    text = described.config.get("text_cfg", {})
    if "hf_tokenizer_name" in text or text.get("vocab_size", VOCABULARY) != VOCABULARY:
        raise UserError(
            f"{source}: model {section.model} has a tokenizer of its own, which is not in this file; take one with CLIP's tokenizer"
        )
    model, taken = _built(described, section.model, section.weights.container)
    save_folder(out, model, described.config, described.preprocess)
    parameters = sum(p.numel() for p in model.parameters())
    return {"model": section.model, "parameters": parameters, "quick_gelu": bool(described.config.get("quick_gelu")), **taken}


class Described(NamedTuple):
    """open_clip's `model_cfg` and `preprocess_cfg`, and the file of weights."""

    config: dict
    preprocess: dict
    weights: Path


def read_folder(source: Path, container: str | None = None) -> tuple[nn.Module, Described, str]:
    """The model of an open_clip folder, in float32 and strictly checked against its configuration; what describes it, and the container."""
    described = _folder(source)
    model, taken = _built(described, LOCAL, container)
    return model, described, str(taken["container"])


def _built(described: Described, name: str, container: str | None) -> tuple[nn.Module, dict[str, object]]:
    """The model with its weights, and what was taken of their file."""
    config, _, weights = described
    if "hf_model_name" in config.get("text_cfg", {}):
        raise UserError(f"{weights}: model {name} has a text tower of transformers', whose configuration is not in this file")
    tensors, taken = _state_dict(weights, container)
    if any(key in tensors for key in OPENAI_EXTRAS):
        tensors = {key: value for key, value in tensors.items() if key not in OPENAI_EXTRAS}
        if not config.get("quick_gelu"):
            raise UserError(f"{weights}: OpenAI's weights need QuickGELU; take the model whose name ends in -quickgelu")
    vision = {**config["vision_cfg"], **({"timm_model_pretrained": False} if "timm_model_name" in config["vision_cfg"] else {})}
    kind = open_clip.CustomTextCLIP if config.get("custom_text") else open_clip.CLIP
    try:
        model = kind(**{key: value for key, value in config.items() if key != "custom_text"} | {"vision_cfg": vision})
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{weights}: open_clip cannot build the model {name} ({first_line(error)})") from None
    own = model.state_dict()
    load_weights(
        model, {key: _like(value.float() if value.is_floating_point() else value, own.get(key)) for key, value in tensors.items()}, weights
    )
    return model, taken


def _like(value: Tensor, own: Tensor | None) -> Tensor:
    """The temperature is () in some files and (1,) in others."""
    return value.reshape(own.shape) if own is not None and own.numel() == value.numel() == 1 else value


def _named(name: str, source: Path) -> Described:
    """Configuration by open_clip's name, CLIP's usual pre-processing, and the file of weights."""
    if source.is_dir():
        raise UserError(
            f"{source}: a folder; set evaluation.clip.model to {LOCAL} to take its own configuration, or name a file of weights"
        )
    config = open_clip.get_model_config(nearest(name, open_clip.list_models(), "open_clip model"))
    return Described(config, {"size": config["vision_cfg"]["image_size"], **_defaults()}, source)


def _folder(source: Path) -> Described:
    """Configuration, pre-processing and weights of an open_clip folder."""
    if not source.is_dir():
        raise UserError(f"{source}: not a folder; name the architecture in evaluation.clip.model, as open_clip calls it, to use a file")
    try:
        written = json.loads((source / CONFIG).read_text(encoding="utf-8"))
        config, preprocess = written["model_cfg"], written.get("preprocess_cfg", {})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{source}: no readable {CONFIG} with model_cfg ({type(error).__name__}: {error})") from None
    weights = source / WEIGHTS
    if not weights.is_file():
        raise UserError(f"{source}: has no {WEIGHTS}")
    return Described(config, {**_defaults(), **preprocess}, weights)


def _defaults() -> dict:
    return {key: value for key, value in asdict(PreprocessCfg()).items() if key in ("mean", "std", "interpolation", "resize_mode")}


def _state_dict(path: Path, container: str | None) -> tuple[dict[str, Tensor], dict[str, object]]:
    """The tensors of a checkpoint, and what was taken of it. A TorchScript archive is refused: it is code."""
    if zipfile.is_zipfile(path) and any(name.endswith("/constants.pkl") for name in zipfile.ZipFile(path).namelist()):
        raise UserError(
            f"{path}: a TorchScript archive, which is code, not weights; take {WEIGHTS} of the same model from open_clip's hub "
            "(OpenAI's ViT-L/14: timm/vit_large_patch14_clip_224.openai) and the model whose name ends in -quickgelu"
        )
    return foreign.read_container(path, container)
