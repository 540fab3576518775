"""torch-fidelity's Inception: pool3, the logits, and the features of sFID by one pass."""

from typing import ClassVar

from torch import Tensor

from harness.evaluation.extractors.base import FEATURES, ImageExtractor
from harness.evaluation.extractors.weights import Wanted
from harness.evaluation.judge.inception import InceptionExtractor
from harness.evaluation.spatial import spatial_features

LAYERS = ("2048", "logits_unbiased")  # torch-fidelity's names; the logits are without the bias, as in TensorFlow's graph
LOGITS, SPATIAL = "logits", "spatial"


class InceptionFeatures(ImageExtractor):
    """`features` (N, 2048), `logits` (N, 1008), and of sFID `spatial` (N, 2023), from the first branch of Mixed_6d after its ReLU."""

    provided: ClassVar[tuple[str, ...]] = (FEATURES, LOGITS, SPATIAL)

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return LOGITS if metric == "isc" else FEATURES

    def prepare(self, images: Tensor) -> Tensor:
        """As they are: torch-fidelity's network resizes and scales its input itself."""
        return images

    def embed(self, images: Tensor) -> tuple[Tensor, ...]:
        branch: list[Tensor] = []
        handle = self.network.Mixed_6d.branch1x1.register_forward_hook(lambda _module, _inputs, output: branch.append(output))
        try:
            features, logits = self.network(images)
        finally:
            handle.remove()
        return features, logits, spatial_features(branch[0])


def load(wanted: Wanted) -> InceptionFeatures:
    """UserError that names the first misfit between the weights and the network."""
    tensors, source = wanted.read()
    return InceptionFeatures(wanted, source, InceptionExtractor(wanted.name, list(LAYERS), tensors, source.file))
