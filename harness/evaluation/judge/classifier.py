"""The judge `trained`: a small classifier trained in the DAG, whose features take the place of Inception's."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from harness.data.stage import load_data
from harness.evaluation.judge.base import JudgeKind
from harness.machine.device import device
from harness.machine.streams import seed_initialisation
from harness.store import artifacts
from harness.store.tensors import load_tensors, load_weights, save_tensors
from harness.training.loop import fit
from harness.training.network import Network
from harness.training.order import batch_indices

SEED = 0  # part of the protocol, not of a run


class Pooling(nn.MaxPool2d):
    """The maximum of 2 x 2 pixels; without gradients of slices: the same values, on a CPU in a fraction of the time."""

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H // 2, W // 2)."""
        if torch.is_grad_enabled():
            return super().forward(x)
        high, wide = x.shape[-2] // 2 * 2, x.shape[-1] // 2 * 2
        rows = torch.maximum(x[..., :high:2, :], x[..., 1:high:2, :])
        return torch.maximum(rows[..., :wide:2], rows[..., 1:wide:2])


class Classifier(nn.Module):
    """(B, 3, H, W) in [-1, 1] -> features (B, width) and logits (B, classes).

    Features are standardised by `calibrate`, so that distances in them have a scale: each varies by 1 over real images.
    """

    def __init__(self, width: int, classes: int, image_size: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.GELU(), Pooling(), nn.Conv2d(16, 32, 3, padding=1), nn.GELU(), Pooling()
        )  # fmt: skip
        self.features = nn.Linear(32 * (image_size // 4) ** 2, width)
        self.logits = nn.Linear(width, classes)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in [-1, 1] -> features (B, width), standardised once calibrated, and logits (B, classes)."""
        features = self.features(self.convolutions(pixels).flatten(1))
        return (features - self.mean) / self.std, self.logits(F.gelu(features))

    @torch.no_grad()
    def calibrate(self, pixels: Tensor) -> None:
        """Standardise the features of pixels (N, 3, H, W) in [-1, 1], the training images."""
        features, _ = self(pixels)
        self.std.copy_(features.std(0))
        self.mean.copy_(features.mean(0))


class ClassifierExtractor(FeatureExtractorBase):
    """torch-fidelity extractor around a classifier: `features` (N, width) for FID, KID and PRC, `logits` (N, classes) for IS."""

    def __init__(self, layers: list[str], classifier: Classifier) -> None:
        super().__init__("classifier", layers)
        self.classifier = classifier

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return ("features", "logits")

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return "logits" if metric == "isc" else "features"

    @staticmethod
    def can_be_compiled() -> bool:
        return False

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(N, 3, H, W) uint8."""
        outputs = dict(zip(self.get_provided_features_list(), self.classifier(images.float().div(127.5).sub(1)), strict=True))
        return tuple(outputs[name] for name in self.features_list)


class TrainedClassifier(JudgeKind):
    @property
    def layers(self) -> dict[str, str]:
        return {"features": "features", "logits": "logits"}

    def make(self, *, data: Path | None, records: list[Path], state: Path, out: Path) -> dict:
        """Returns the accuracy on the reference split, which the judge never saw."""
        section = self.section
        split, held_out = load_data(data, "train"), load_data(data, "reference")
        pixels, labels = split.pixels().to(device()), torch.from_numpy(split.labels).to(device())
        artifact = artifacts.trained_artifact(out, state=state, stage="judge", module=__name__, config=section, inputs=[data])
        with artifact as (path, checkpoints):
            seed_initialisation(SEED)
            classifier = self.build().to(device())

            def loss(step: int, _generator: torch.Generator) -> Tensor:
                rows = batch_indices(SEED, step, len(split), section.training.batch)
                return F.cross_entropy(classifier(pixels[rows])[1], labels[rows])

            fit(classifier, loss, section.training, images=len(split), name="judge", seed=SEED, state=checkpoints)
            classifier.calibrate(pixels)
            save_tensors(path, classifier.state_dict())
        with torch.no_grad():
            correct = classifier(held_out.pixels().to(device()))[1].argmax(1).cpu().numpy() == held_out.labels
        return {"accuracy on held-out images": float(correct.mean())}

    def build(self) -> Classifier:
        return Classifier(self.section.width, self.study.classes, self.study.data.image_size)

    def network(self) -> Network:
        size = self.study.data.image_size
        return Network(self.build, (1, 3, size, size))

    def extractor(self, weights: Path) -> ClassifierExtractor:
        tensors, _ = load_tensors(weights)
        return ClassifierExtractor(list(self.layers.values()), load_weights(self.build(), tensors, weights))
