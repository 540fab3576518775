"""The CLIP model `trained`: a small one over the words of a study's captions, trained in the DAG."""

import json
import shutil
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.data.captions import captions, image_texts
from harness.data.images import to_pixels
from harness.data.stage import load_data
from harness.evaluation.clip.base import ClipKind, LoadedClip
from harness.evaluation.clip.folder import load_folder, network_of, save_folder
from harness.machine.device import device
from harness.machine.streams import seed_initialisation
from harness.store import artifacts
from harness.store.files import write_json
from harness.study.sections.evaluation import TrainedClip
from harness.study.typed import UserError
from harness.training.loop import fit
from harness.training.network import Network
from harness.training.order import batch_indices

SEED = 0  # part of the protocol, not of a run
WORDS = "words.json"


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
                raise UserError(
                    f"caption '{caption}': the CLIP model was not trained on the word {error}, which no training image has"
                ) from None
            ids[row, : len(words) + 1] = torch.tensor([*words, len(self.words) + 1])
        return ids


def model_config(section: TrainedClip, image_size: int, tokenizer: WordTokenizer) -> dict:
    """open_clip's `model_cfg` of the small model."""
    tower = {"width": section.width, "layers": section.depth}
    return {
        "embed_dim": section.width,
        "vision_cfg": {**tower, "head_width": section.width // section.heads, "image_size": image_size, "patch_size": 4},
        "text_cfg": {**tower, "heads": section.heads, "context_length": tokenizer.context, "vocab_size": len(tokenizer.words) + 2},
    }


class TrainedWordClip(ClipKind):
    def make(self, *, data: Path | None, records: list[Path], state: Path, out: Path) -> dict:
        """Write an open_clip folder with the words beside it; returns how often an unseen image is nearest to its own caption."""
        section, image_size = self.section, self.study.data.image_size
        split, held_out = load_data(data, "train"), load_data(data, "reference")
        texts, wanted = (image_texts(self.study.data, part, data) for part in (split, held_out))
        tokenizer = WordTokenizer.of(texts)
        names = sorted(set(wanted))
        heard = tokenizer(names)  # before the training: one of them may have a new word
        pixels, tokens = split.pixels().to(device()), tokenizer(texts).to(device())
        artifact = artifacts.trained_artifact(out, state=state, stage="clip", module=__name__, config=section, inputs=[data])
        with artifact as (folder, checkpoints):
            seed_initialisation(SEED)
            config = model_config(section, image_size, tokenizer)
            model = open_clip.CLIP(**config).to(device())

            def loss(step: int, _generator: torch.Generator) -> Tensor:
                rows = batch_indices(SEED, step, len(split), section.training.batch)
                image, text, scale = model(pixels[rows], tokens[rows])
                same = (tokens[rows][:, None] == tokens[rows][None]).all(-1).float()  # equal captions are all right answers
                target, logits = same / same.sum(1, keepdim=True), scale * image @ text.T
                return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2

            fit(model, loss, section.training, images=len(split), name="clip", seed=SEED, state=checkpoints)
            shutil.rmtree(folder, ignore_errors=True)
            save_folder(folder, model, config, {"mean": [0.5] * 3, "std": [0.5] * 3})
            write_json(folder / WORDS, {"words": tokenizer.words, "context": tokenizer.context})
        with torch.no_grad():
            images, words = held_out.pixels().to(device()), heard.to(device())
            similarity = model.encode_image(images, normalize=True) @ model.encode_text(words, normalize=True).T
        right = [names[i] == caption for i, caption in zip(similarity.argmax(1).tolist(), wanted, strict=True)]
        return {"nearest caption is the right one": sum(right) / len(right)}

    def load(self, folder: Path) -> LoadedClip:
        """The model takes pixels in [-1, 1]."""
        return LoadedClip(load_folder(folder), WordTokenizer(**json.loads((folder / WORDS).read_text(encoding="utf-8"))), to_pixels)

    def network(self) -> Network:
        data = self.study.data
        return network_of(model_config(self.section, data.image_size, WordTokenizer.of(captions(data, range(data.classes)))))
