"""Stages `judge` and `clip`: the two models that score samples, trained for an embedded study or imported from a user's files."""

import shutil
from pathlib import Path

import torch
import torch.nn.functional as F

from harness.data import stage as data
from harness.evaluation.judge import Judge
from harness.machine.device import device, seed_initialisation
from harness.store import artifacts, foreign
from harness.store.assets import locate
from harness.study.sections import TrainedClip, TrainedJudge
from harness.study.study import Study
from harness.study.typed import UserError
from harness.training.loop import batch_indices, fit

SEED = 0  # part of the protocol, not of a run


def make_judge(study: Study, *, data_folder: Path | None, state: Path, out: Path, assets: Path | None = None) -> dict:
    """Write the weights that `Extractor` reads. To train them takes `data_folder`, to import them `assets`, the folder of records."""
    if isinstance(study.evaluation.judge, TrainedJudge):
        return train_judge(study, data_folder=data_folder, state=state, out=out)
    return import_inception(study, _record(assets, "evaluation.judge.weights"), out)


def make_clip(study: Study, *, data_folder: Path | None, state: Path, out: Path, assets: Path | None = None) -> dict:
    """Write an open_clip folder. To train it takes `data_folder`, to import it `assets`, the folder of records."""
    from harness.evaluation import clip as clips

    config = study.evaluation.clip
    if config is None:
        raise UserError(f"study '{study.name}' has no CLIP model (evaluation.clip is null)")
    if isinstance(config, TrainedClip):
        return train_clip(study, data_folder=data_folder, state=state, out=out)
    record = _record(assets, "evaluation.clip.weights")
    with artifacts.artifact(out, stage="clip", module=__name__, config=config, inputs=[record]) as folder:
        shutil.rmtree(folder, ignore_errors=True)
        return clips.import_published(config, locate(record), folder)


def _record(assets: Path | None, field: str) -> Path:
    return Path(assets or ".") / f"{field}.json"


def import_inception(study: Study, record: Path, out: Path) -> dict:
    """torch-fidelity's Inception from its published file, strictly checked; returns how many tensors it has."""
    from harness.evaluation.features import InceptionExtractor

    judge = study.evaluation.judge
    with artifacts.artifact(out, stage="judge", module=__name__, config=judge, inputs=[record]) as path:
        source = locate(record)
        tensors = foreign.read(source)
        model = InceptionExtractor("inception", [str(judge.features)], tensors, source)
        artifacts.save_tensors(path, model.state_dict())
    return {"tensors": len(tensors)}


def build(study: Study) -> Judge:
    return Judge(study.evaluation.judge.width, study.classes, study.data.image_size)


def train_judge(study: Study, *, data_folder: Path, state: Path, out: Path) -> dict:
    """Write the judge's weights; returns its accuracy on the reference split, which it never saw."""
    config = study.evaluation.judge
    split, held_out = data.load(data_folder, "train"), data.load(data_folder, "reference")
    pixels, labels = split.pixels().to(device()), torch.from_numpy(split.labels).to(device())
    with artifacts.trained_artifact(out, state=state, stage="judge", module=__name__, config=config, inputs=[data_folder]) as (
        path,
        checkpoints,
    ):
        seed_initialisation(SEED)
        judge = build(study).to(device())

        def loss(step: int, _generator: torch.Generator) -> torch.Tensor:
            rows = batch_indices(SEED, step, len(split), config.training.batch)
            return F.cross_entropy(judge(pixels[rows])[1], labels[rows])

        fit(judge, loss, config.training, images=len(split), name="judge", seed=SEED, state=checkpoints)
        judge.calibrate(pixels)
        artifacts.save_tensors(path, judge.state_dict())
    with torch.no_grad():
        correct = judge(held_out.pixels().to(device()))[1].argmax(1).cpu().numpy() == held_out.labels
    return {"accuracy on held-out images": float(correct.mean())}


def load_judge(study: Study, path: Path) -> Judge:
    tensors, _ = artifacts.load_tensors(path)
    return artifacts.load_weights(build(study), tensors, path).eval().requires_grad_(False)


def train_clip(study: Study, *, data_folder: Path, state: Path, out: Path) -> dict:
    """Write an open_clip folder; returns how often an unseen image is nearest to its own caption."""
    import open_clip

    from harness.evaluation import clip as clips

    config = study.evaluation.clip
    split, held_out = data.load(data_folder, "train"), data.load(data_folder, "reference")
    captions, wanted = (data.captions(study.data, part.labels) for part in (split, held_out))
    tokenizer = clips.WordTokenizer.of(captions)
    pixels, tokens = split.pixels().to(device()), tokenizer(captions).to(device())
    with artifacts.trained_artifact(out, state=state, stage="clip", module=__name__, config=config, inputs=[data_folder]) as (
        folder,
        checkpoints,
    ):
        seed_initialisation(SEED)
        model_config = clips.model_config(config, study.data.image_size, tokenizer)
        model = open_clip.CLIP(**model_config).to(device())

        def loss(step: int, _generator: torch.Generator) -> torch.Tensor:
            rows = batch_indices(SEED, step, len(split), config.training.batch)
            image, text, scale = model(pixels[rows], tokens[rows])
            same = (tokens[rows][:, None] == tokens[rows][None]).all(-1).float()  # equal captions are all right answers
            target, logits = same / same.sum(1, keepdim=True), scale * image @ text.T
            return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2

        fit(model, loss, config.training, images=len(split), name="clip", seed=SEED, state=checkpoints)
        shutil.rmtree(folder, ignore_errors=True)
        clips.save(folder, model, model_config, tokenizer)
    kinds = sorted(set(wanted))
    with torch.no_grad():
        images, texts = held_out.pixels().to(device()), tokenizer(kinds).to(device())
        similarity = model.encode_image(images, normalize=True) @ model.encode_text(texts, normalize=True).T
    right = [kinds[i] == caption for i, caption in zip(similarity.argmax(1).tolist(), wanted, strict=True)]
    return {"nearest caption is the right one": sum(right) / len(right)}
