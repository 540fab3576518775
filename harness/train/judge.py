"""Stages `judge` and `clip`: train the two models that score the samples of an embedded study."""

import shutil
from pathlib import Path

import torch
import torch.nn.functional as F

from harness import artifacts, data
from harness.config import Study
from harness.models.judge import Judge
from harness.runtime import seed_initialisation
from harness.train.loop import batch_indices, fit

SEED = 0  # part of the protocol, not of a run


def build(study: Study) -> Judge:
    return Judge(study.evaluation.judge.width, len(data.WORDS), study.data.image_size)


def train_judge(study: Study, *, data_folder: Path, state: Path, out: Path) -> dict:
    """Write the judge's weights; returns its accuracy on the reference split, which it never saw."""
    config = study.evaluation.judge
    split, held_out = data.load(data_folder, "train"), data.load(data_folder, "reference")
    pixels, labels = split.pixels(), torch.from_numpy(split.labels)
    with artifacts.trained_artifact(out, state=state, stage="judge", module=__name__, config=config, inputs=[data_folder]) as (
        path,
        checkpoints,
    ):
        seed_initialisation(SEED)
        judge = build(study)

        def loss(step: int, _generator: torch.Generator) -> torch.Tensor:
            rows = batch_indices(SEED, step, len(split), config.training.batch)
            return F.cross_entropy(judge(pixels[rows])[1], labels[rows])

        fit(judge, loss, config.training, name="judge", seed=SEED, state=checkpoints)
        judge.calibrate(pixels)
        artifacts.save_tensors(path, judge.state_dict())
    with torch.no_grad():
        correct = judge(held_out.pixels())[1].argmax(1).numpy() == held_out.labels
    return {"accuracy on held-out images": float(correct.mean())}


def load_judge(study: Study, path: Path) -> Judge:
    tensors, _ = artifacts.load_tensors(path)
    return artifacts.load_weights(build(study), tensors, path).eval().requires_grad_(False)


def train_clip(study: Study, *, data_folder: Path, state: Path, out: Path) -> dict:
    """Write an open_clip folder; returns how often an unseen image is nearest to its own caption."""
    import open_clip

    from harness.models import clip as clips

    config = study.evaluation.clip
    split, held_out = data.load(data_folder, "train"), data.load(data_folder, "reference")
    tokenizer = clips.WordTokenizer.of(split.captions)
    pixels, tokens = split.pixels(), tokenizer(split.captions)
    with artifacts.trained_artifact(out, state=state, stage="clip", module=__name__, config=config, inputs=[data_folder]) as (
        folder,
        checkpoints,
    ):
        seed_initialisation(SEED)
        model_config = clips.model_config(config, study.data.image_size, tokenizer)
        model = open_clip.CLIP(**model_config)

        def loss(step: int, _generator: torch.Generator) -> torch.Tensor:
            rows = batch_indices(SEED, step, len(split), config.training.batch)
            image, text, scale = model(pixels[rows], tokens[rows])
            same = (tokens[rows][:, None] == tokens[rows][None]).all(-1).float()  # equal captions are all right answers
            target, logits = same / same.sum(1, keepdim=True), scale * image @ text.T
            return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2

        fit(model, loss, config.training, name="clip", seed=SEED, state=checkpoints)
        shutil.rmtree(folder, ignore_errors=True)
        clips.save(folder, model, model_config, tokenizer)
    captions = sorted(set(held_out.captions))
    with torch.no_grad():
        similarity = model.encode_image(held_out.pixels(), normalize=True) @ model.encode_text(tokenizer(captions), normalize=True).T
    right = [captions[i] == caption for i, caption in zip(similarity.argmax(1).tolist(), held_out.captions, strict=True)]
    return {"nearest caption is the right one": sum(right) / len(right)}
