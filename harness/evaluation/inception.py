"""torch-fidelity's Inception as a judge: imported from its published file, never downloaded."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from harness.store import artifacts, foreign
from harness.store.assets import locate
from harness.store.tensors import load_weights, save_tensors
from harness.study.study import Study


def import_inception(study: Study, record: Path, out: Path) -> dict:
    """torch-fidelity's Inception from its published file, strictly checked; returns how many tensors it has."""
    pass

    judge = study.evaluation.judge
    with artifacts.artifact(out, stage="judge", module=__name__, config=judge, inputs=[record]) as path:
        source = locate(record)
        tensors = foreign.read(source)
        model = InceptionExtractor("inception", [str(judge.features)], tensors, source)
        save_tensors(path, model.state_dict())
    return {"tensors": len(tensors)}


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
