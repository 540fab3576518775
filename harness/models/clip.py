"""A small open_clip model over the words of a study's captions."""

import json
from pathlib import Path

import open_clip
import torch
from torch import Tensor

from harness import artifacts
from harness.config import Clip, UserError


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


def model_config(clip: Clip, image_size: int, tokenizer: WordTokenizer) -> dict:
    """open_clip's `model_cfg`."""
    tower = {"width": clip.width, "layers": clip.depth}
    return {
        "embed_dim": clip.width,
        "vision_cfg": {**tower, "head_width": clip.width // clip.heads, "image_size": image_size, "patch_size": 4},
        "text_cfg": {**tower, "heads": clip.heads, "context_length": tokenizer.context, "vocab_size": len(tokenizer.words) + 2},
    }


def save(folder: Path, model: open_clip.CLIP, config: dict, tokenizer: WordTokenizer) -> None:
    """An open_clip `local-dir:` folder, with the words beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    artifacts.save_tensors(folder / "open_clip_model.safetensors", model.state_dict())
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3}
    artifacts.write_json(folder / "open_clip_config.json", {"model_cfg": config, "preprocess_cfg": preprocess})
    artifacts.write_json(folder / "words.json", {"words": tokenizer.words, "context": tokenizer.context})


def load(folder: Path) -> tuple[open_clip.CLIP, WordTokenizer]:
    artifacts.checked(folder)
    model = open_clip.create_model(f"local-dir:{folder}").eval().requires_grad_(False)
    return model, WordTokenizer(**json.loads((Path(folder) / "words.json").read_text()))
