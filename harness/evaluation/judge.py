"""The judge of the embedded studies: a small classifier whose features take the place of Inception's."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.data.stage import load_data
from harness.evaluation.inception import import_inception
from harness.machine.device import device
from harness.machine.streams import seed_initialisation
from harness.store import artifacts
from harness.store.assets import record_of
from harness.store.tensors import load_tensors, load_weights, save_tensors
from harness.study.sections.evaluation import TrainedJudge
from harness.study.study import Study
from harness.training.loop import fit
from harness.training.order import batch_indices


class Judge(nn.Module):
    """(B, 3, H, W) in [-1, 1] -> features (B, width) and logits (B, classes).

    Features are standardised by `calibrate`, so that distances in them have a scale: each varies by 1 over real images.
    """

    def __init__(self, width: int, classes: int, image_size: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.GELU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.GELU(), nn.MaxPool2d(2)
        )  # fmt: skip
        self.features = nn.Linear(32 * (image_size // 4) ** 2, width)
        self.logits = nn.Linear(width, classes)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(self.convolutions(pixels).flatten(1))
        return (features - self.mean) / self.std, self.logits(F.gelu(features))

    @torch.no_grad()
    def calibrate(self, pixels: Tensor) -> None:
        features, _ = self(pixels)
        self.std.copy_(features.std(0))
        self.mean.copy_(features.mean(0))


SEED = 0  # part of the protocol, not of a run


def make_judge(study: Study, *, data: Path | None = None, records: list[Path] = (), state: Path, out: Path) -> dict:
    """Write the weights that `Extractor` reads. To train them takes `data`, to import them the record of the weights."""
    if isinstance(study.evaluation.judge, TrainedJudge):
        return train_judge(study, data=data, state=state, out=out)
    return import_inception(study, record_of(records, "evaluation.judge.weights"), out)


def build(study: Study) -> Judge:
    return Judge(study.evaluation.judge.width, study.classes, study.data.image_size)


def train_judge(study: Study, *, data: Path, state: Path, out: Path) -> dict:
    """Write the judge's weights; returns its accuracy on the reference split, which it never saw."""
    config = study.evaluation.judge
    split, held_out = load_data(data, "train"), load_data(data, "reference")
    pixels, labels = split.pixels().to(device()), torch.from_numpy(split.labels).to(device())
    with artifacts.trained_artifact(out, state=state, stage="judge", module=__name__, config=config, inputs=[data]) as (
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
        save_tensors(path, judge.state_dict())
    with torch.no_grad():
        correct = judge(held_out.pixels().to(device()))[1].argmax(1).cpu().numpy() == held_out.labels
    return {"accuracy on held-out images": float(correct.mean())}


def load_judge(study: Study, path: Path) -> Judge:
    tensors, _ = load_tensors(path)
    return load_weights(build(study), tensors, path).eval().requires_grad_(False)
