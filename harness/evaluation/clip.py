"""open_clip models: a small one over the words of a study's captions, or a published one from a file or folder."""

import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor

from harness.data.captions import captions
from harness.data.images import to_pixels
from harness.data.stage import load_data
from harness.evaluation.judge import SEED
from harness.machine.device import device
from harness.machine.streams import seed_initialisation
from harness.store import artifacts, foreign
from harness.store.assets import locate, record_of
from harness.store.files import write_json
from harness.store.tensors import load_weights, save_tensors
from harness.study.sections.evaluation import OpenClip, TrainedClip
from harness.study.study import Study
from harness.study.typed import UserError, nearest
from harness.training.loop import fit
from harness.training.order import batch_indices

WEIGHTS, CONFIG, WORDS = "open_clip_model.safetensors", "open_clip_config.json", "words.json"
LOCAL = "local-dir"  # name of a model whose asset is a folder with its own configuration
VOCABULARY = 49408  # of CLIP's tokenizer
OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")  # numbers that only OpenAI's own files have

Tokenizer = Callable[[list[str]], Tensor]  # N captions -> (N, context) ids
Preprocess = Callable[[np.ndarray], Tensor]  # (N, H, W, 3) uint8 -> (N, 3, S, S)


class WordTokenizer:
    """Captions -> (N, context) ids: 0 pads, words count from 1, the end token is the largest id (open_clip pools there)."""

    def __init__(self, words: list[str], context: int) -> None:
        self.words, self.context = words, context
        self.ids = {word: i for i, word in enumerate(words, start=1)}

    @classmethod
    def of(cls, captions: list[str]) -> "WordTokenizer":
        return cls(sorted({word for c in captions for word in c.split()}), 1 + max(len(c.split()) for c in captions))

    def __call__(self, captions: list[str]) -> Tensor:
        ids = torch.zeros(len(captions), self.context, dtype=torch.long)
        for row, caption in enumerate(captions):
            try:
                words = [self.ids[word] for word in caption.split()][: self.context - 1]
            except KeyError as error:
                raise UserError(f"caption '{caption}': the CLIP model was not trained on the word {error}") from None
            ids[row, : len(words) + 1] = torch.tensor([*words, len(self.words) + 1])
        return ids


def model_config(clip: TrainedClip, image_size: int, tokenizer: WordTokenizer) -> dict:
    """open_clip's `model_cfg` of the small model."""
    tower = {"width": clip.width, "layers": clip.depth}
    return {
        "embed_dim": clip.width,
        "vision_cfg": {**tower, "head_width": clip.width // clip.heads, "image_size": image_size, "patch_size": 4},
        "text_cfg": {**tower, "heads": clip.heads, "context_length": tokenizer.context, "vocab_size": len(tokenizer.words) + 2},
    }


def save(folder: Path, model: torch.nn.Module, config: dict, tokenizer: WordTokenizer | None, preprocess: dict | None = None) -> None:
    """An open_clip `local-dir:` folder, with the words of a small model beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / WEIGHTS, model.state_dict())
    preprocess = preprocess or {"mean": [0.5] * 3, "std": [0.5] * 3}
    write_json(folder / CONFIG, {"model_cfg": config, "preprocess_cfg": preprocess})
    if tokenizer:
        write_json(folder / WORDS, {"words": tokenizer.words, "context": tokenizer.context})


def load(folder: Path) -> tuple[torch.nn.Module, Tokenizer, Preprocess]:
    """The model on the device of the run, its tokenizer, and what turns images into its input.

    A small model takes pixels in [-1, 1]; a published one resizes, crops and normalises as the folder's configuration says.
    """
    artifacts.checked(folder)
    model = open_clip.create_model(f"local-dir:{folder}").to(device()).eval().requires_grad_(False)
    words = Path(folder) / WORDS
    if words.is_file():
        return model, WordTokenizer(**json.loads(words.read_text())), to_pixels
    text = json.loads((Path(folder) / CONFIG).read_text())["model_cfg"]["text_cfg"]
    transform = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)

    def preprocess(images: np.ndarray) -> Tensor:
        return torch.stack([transform(Image.fromarray(image)) for image in images])

    return model, open_clip.SimpleTokenizer(context_length=text.get("context_length", 77)), preprocess


# ------------------------------------------------------------------------------------------------------- published models


def import_published(clip: OpenClip, source: Path, out: Path) -> dict:
    """Write a published model into the folder `out`, in float32 and strictly checked against its architecture; returns its facts.

    `source` is a state dict (.safetensors, or .pt read without unpickling objects), or for model `local-dir` an open_clip folder.
    """
    config, preprocess, weights = _folder(source) if clip.model == LOCAL else _named(clip.model, source)
    text = config.get("text_cfg", {})
    if "hf_tokenizer_name" in text or "hf_model_name" in text or text.get("vocab_size", VOCABULARY) != VOCABULARY:
        raise UserError(
            f"{source}: model {clip.model} has a tokenizer of its own, which is not in this file; take one with CLIP's tokenizer"
        )
    tensors = _state_dict(weights)
    if any(key in tensors for key in OPENAI_EXTRAS):
        tensors = {key: value for key, value in tensors.items() if key not in OPENAI_EXTRAS}
        if not config.get("quick_gelu"):
            raise UserError(f"{weights}: OpenAI's weights need QuickGELU; set evaluation.clip.model to the name that ends in -quickgelu")
    kind = open_clip.CustomTextCLIP if config.get("custom_text") else open_clip.CLIP
    try:
        model = kind(**{key: value for key, value in config.items() if key != "custom_text"})
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{source}: open_clip cannot build the model {clip.model} ({str(error).splitlines()[0]})") from None
    own = model.state_dict()
    load_weights(model, {key: _like(value.float(), own.get(key)) for key, value in tensors.items()}, weights)
    save(out, model, config, None, preprocess)
    return {"model": clip.model, "parameters": sum(p.numel() for p in model.parameters()), "quick_gelu": bool(config.get("quick_gelu"))}


def _like(found: Tensor, own: Tensor | None) -> Tensor:
    """The temperature is () in some files and (1,) in others."""
    return found.reshape(own.shape) if own is not None and own.numel() == found.numel() == 1 else found


def _named(name: str, source: Path) -> tuple[dict, dict, Path]:
    """Configuration by open_clip's name, CLIP's usual pre-processing, and the file of weights."""
    if source.is_dir():
        raise UserError(
            f"{source}: a folder; set evaluation.clip.model to {LOCAL} to take its own configuration, or name a file of weights"
        )
    config = open_clip.get_model_config(nearest(name, open_clip.list_models(), "open_clip model"))
    return config, {"size": config["vision_cfg"]["image_size"], **_defaults()}, source


def _folder(source: Path) -> tuple[dict, dict, Path]:
    """Configuration, pre-processing and weights of an open_clip folder."""
    if not source.is_dir():
        raise UserError(f"{source}: not a folder; name the architecture in evaluation.clip.model, as open_clip calls it, to use a file")
    try:
        found = json.loads((source / CONFIG).read_text())
        config, preprocess = found["model_cfg"], found.get("preprocess_cfg", {})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{source}: no readable {CONFIG} with model_cfg ({type(error).__name__}: {error})") from None
    weights = source / WEIGHTS
    if not weights.is_file():
        raise UserError(f"{source}: has no {WEIGHTS}")
    return config, {**_defaults(), **preprocess}, weights


def _defaults() -> dict:
    return {key: value for key, value in asdict(PreprocessCfg()).items() if key in ("mean", "std", "interpolation", "resize_mode")}


def _state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint. A TorchScript archive is refused: it is code."""
    if zipfile.is_zipfile(path) and any(name.endswith("/constants.pkl") for name in zipfile.ZipFile(path).namelist()):
        raise UserError(
            f"{path}: a TorchScript archive, which is code, not weights; take {WEIGHTS} of the same model from open_clip's hub "
            "(OpenAI's ViT-L/14: timm/vit_large_patch14_clip_224.openai) and set evaluation.clip.model to its name with -quickgelu"
        )
    return foreign.read(path)


def make_clip(study: Study, *, data: Path | None = None, records: list[Path] = (), state: Path, out: Path) -> dict:
    """Write an open_clip folder. To train it takes `data`, to import it the record of the weights."""
    config = study.evaluation.clip
    if config is None:
        raise UserError(f"study '{study.name}' has no CLIP model (evaluation.clip is null)")
    if isinstance(config, TrainedClip):
        return train_clip(study, data=data, state=state, out=out)
    record = record_of(records, "evaluation.clip.weights")
    with artifacts.artifact(out, stage="clip", module=__name__, config=config, inputs=[record]) as folder:
        shutil.rmtree(folder, ignore_errors=True)
        return import_published(config, locate(record), folder)


def train_clip(study: Study, *, data: Path, state: Path, out: Path) -> dict:
    """Write an open_clip folder; returns how often an unseen image is nearest to its own caption."""
    import open_clip

    config = study.evaluation.clip
    split, held_out = load_data(data, "train"), load_data(data, "reference")
    texts, wanted = (captions(study.data, part.labels) for part in (split, held_out))
    tokenizer = WordTokenizer.of(texts)
    pixels, tokens = split.pixels().to(device()), tokenizer(texts).to(device())
    with artifacts.trained_artifact(out, state=state, stage="clip", module=__name__, config=config, inputs=[data]) as (
        folder,
        checkpoints,
    ):
        seed_initialisation(SEED)
        sizes = model_config(config, study.data.image_size, tokenizer)
        model = open_clip.CLIP(**sizes).to(device())

        def loss(step: int, _generator: torch.Generator) -> torch.Tensor:
            rows = batch_indices(SEED, step, len(split), config.training.batch)
            image, text, scale = model(pixels[rows], tokens[rows])
            same = (tokens[rows][:, None] == tokens[rows][None]).all(-1).float()  # equal captions are all right answers
            target, logits = same / same.sum(1, keepdim=True), scale * image @ text.T
            return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2

        fit(model, loss, config.training, images=len(split), name="clip", seed=SEED, state=checkpoints)
        shutil.rmtree(folder, ignore_errors=True)
        save(folder, model, sizes, tokenizer)
    kinds = sorted(set(wanted))
    with torch.no_grad():
        images, words = held_out.pixels().to(device()), tokenizer(kinds).to(device())
        similarity = model.encode_image(images, normalize=True) @ model.encode_text(words, normalize=True).T
    right = [kinds[i] == caption for i, caption in zip(similarity.argmax(1).tolist(), wanted, strict=True)]
    return {"nearest caption is the right one": sum(right) / len(right)}
