"""The judge `inception`: torch-fidelity's port of the TensorFlow Inception, imported from its published file, never downloaded."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from harness.evaluation.judge.base import JudgeKind
from harness.store import artifacts, foreign
from harness.store.assets import locate, record_of
from harness.store.tensors import load_tensors, load_weights, save_tensors
from harness.training.network import Network

SIDE = 299  # pixels that it is fed


class InceptionExtractor(FeatureExtractorInceptionV3):
    """torch-fidelity's Inception with `tensors`, strictly checked; `weights` is the file they come from, for messages.

    The constructor it inherits downloads or unpickles weights: it gets an empty pickle.
    """

    def __init__(self, name: str, features_list: list[str], tensors: dict[str, Tensor], weights: Path, **_options: object) -> None:
        empty = io.BytesIO()
        torch.save({}, empty)
        empty.seek(0)
        super().__init__(name, features_list, feature_extractor_weights_path=empty)
        counters = {key: value for key, value in self.state_dict().items() if key.endswith(".num_batches_tracked")}
        load_weights(self, counters | tensors, weights)  # the published file has no counters, and nothing reads them

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> object:
        return super().load_state_dict(state_dict, strict=strict and bool(state_dict), assign=assign)


class PublishedInception(JudgeKind):
    def make(self, *, data: Path | None, records: list[Path], state: Path, out: Path) -> dict:
        """The published file, strictly checked; returns how many tensors it has."""
        record = record_of(records, "evaluation.judge.weights")
        source, facts = locate(record), {"config": self.section, "inputs": [record]}
        tensors, taken = foreign.read_container(source, self.section.weights.container)
        with artifacts.artifact(out, stage="judge", module=__name__, **facts, **taken) as path:
            model = InceptionExtractor("inception", [self.layers["features"]], tensors, source)
            save_tensors(path, model.state_dict())
        return {"tensors": len(tensors), **taken}

    @property
    def layers(self) -> dict[str, str]:
        """The logits are without the bias, as in TensorFlow's graph."""
        return {"features": str(self.section.features), "logits": "logits_unbiased"}

    def extractor(self, weights: Path) -> InceptionExtractor:
        return InceptionExtractor("inception", list(self.layers.values()), load_tensors(weights, check=False)[0], weights)

    def network(self) -> Network:
        """torchvision's, which has the same layers."""
        from torchvision.models import inception_v3

        return Network(lambda: inception_v3(aux_logits=False, init_weights=False), (1, 3, SIDE, SIDE))
