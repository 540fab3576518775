"""Stages `registers` and `latents`: the register neurons of an encoder variant, and its latents of the data."""

from pathlib import Path

import torch

from harness import artifacts, data
from harness.config import EncoderRegisters, Study
from harness.latents import Moments
from harness.models import encoder as encoders
from harness.models.test_time_registers import TestTimeRegisters, search_registers
from harness.train.encoder import planted

BATCH = 256


def search(study: Study, key: str, *, data_folder: Path, backbone: Path, out: Path) -> dict:
    """Find the register neurons of the encoder variant `key`; JSON with scores per round and, where planted, precision and recall."""
    pixels = data.load(data_folder, "train").pixels()[: study.search.images]
    registers, factor = EncoderRegisters.from_key(key), study.outlier_statistics.factor
    with artifacts.artifact(out, stage="registers", module=__name__, config=study.search, inputs=[data_folder, backbone]) as path:
        rounds, neurons, left = search_registers(encoders.load(backbone), pixels, registers, study.search, factor)
        truth, found = planted(backbone), {(layer, neuron) for layer, listed in neurons.items() for neuron in listed}
        result = {
            "encoder": key,
            "neurons": {str(layer): listed for layer, listed in sorted(neurons.items())},
            "rounds": [
                {
                    "threshold": r.threshold,
                    "outlier_share_before": r.outlier_share,
                    "found": [
                        {"layer": layer, "neuron": neuron, "score": score, "planted": (layer, neuron) in truth}
                        for layer, neuron, score in r.found
                    ],
                }
                for r in rounds
            ],
            "outlier_share_left": left,
            "planted": sorted(truth),
            "precision": len(found & truth) / len(found) if found and truth else None,
            "recall": len(found & truth) / len(truth) if truth else None,
        }
        artifacts.write_json(path, result)
    return result


def load_encoder(backbone: Path, registers: Path | None) -> encoders.VisionEncoder:
    """The encoder of a variant: the backbone, with test-time registers where a neuron list is given and not empty."""
    model = encoders.load(backbone)
    neurons = artifacts.read_json(registers)["neurons"] if registers else {}
    if neurons:  # no outliers found: nothing to move, the encoder stays as it is
        TestTimeRegisters(model, {int(layer): listed for layer, listed in neurons.items()})
    return model


@torch.no_grad()
def make(study: Study, *, data_folder: Path, backbone: Path, registers: Path | None, out: Path) -> dict:
    """Cache the whitened latents of both splits; statistics from the training split only."""
    inputs = [data_folder, backbone, *([registers] if registers else [])]
    with artifacts.artifact(out, stage="latents", module=__name__, config=study.latents, inputs=inputs) as path:
        encoder = load_encoder(backbone, registers)
        moments, tensors = Moments(study.latents.whitening), {}
        for name in ("train", "reference"):
            split = data.load(data_folder, name)
            tokens, norms = [], []
            for batch in split.pixels().split(BATCH):
                tokens.append(encoder(batch).transpose(1, 2).unflatten(2, (encoder.grid, encoder.grid)))
                norms.append(torch.stack([state.norm(dim=-1) for state in encoder.hidden_states(batch)], dim=1))
                if name == "train":
                    moments.add(tokens[-1])
            mean, std = moments.result()
            raw = torch.cat(tokens)
            whitened = (raw - mean) / std
            tensors |= {
                f"{name}.latents": whitened,
                f"{name}.labels": torch.from_numpy(split.labels),
                f"{name}.norms": torch.cat(norms),
                f"{name}.norm.pre_ln": torch.cat(norms)[:, -1],
                f"{name}.norm.post_ln": raw.flatten(2).norm(dim=1),
                f"{name}.norm.whitened": whitened.flatten(2).norm(dim=1),
            }
        artifacts.save_tensors(path, tensors | {"mean": mean, "std": std})
    return {"train": tuple(tensors["train.latents"].shape), "reference": tuple(tensors["reference.latents"].shape)}
