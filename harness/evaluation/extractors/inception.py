"""torch-fidelity's Inception: pool3 and the logits by one pass."""

from typing import ClassVar

from torch import Tensor

from harness.evaluation.extractors.base import FEATURES, ImageExtractor
from harness.evaluation.extractors.weights import Wanted
from harness.evaluation.judge.inception import InceptionExtractor

LAYERS = ("2048", "logits_unbiased")  # torch-fidelity's names; the logits are without the bias, as in TensorFlow's graph
LOGITS = "logits"


class InceptionFeatures(ImageExtractor):
    """`features` (N, 2048), `logits` (N, 1008)."""

    provided: ClassVar[tuple[str, ...]] = (FEATURES, LOGITS)

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return LOGITS if metric == "isc" else FEATURES

    def prepare(self, images: Tensor) -> Tensor:
        """As they are: torch-fidelity's network resizes and scales its input itself."""
        return images

    def embed(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.network(images)


def load(wanted: Wanted) -> InceptionFeatures:
    """UserError that names the first misfit between the weights and the network."""
    tensors, source = wanted.read()
    return InceptionFeatures(wanted, source, InceptionExtractor(wanted.name, list(LAYERS), tensors, source.file))
