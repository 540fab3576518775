"""Stage `encoder`: train a small vision tower, with or without registers, and plant outliers into the one without."""

import json
import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from harness.data.stage import load_data
from harness.encoder import tower as encoders
from harness.encoder.planting import plant
from harness.machine.streams import seed_initialisation, stream
from harness.store import artifacts
from harness.store.files import write_json
from harness.study.study import Study
from harness.study.typed import UserError
from harness.training.loop import fit
from harness.training.order import batch_indices

SEED = 0  # the encoder is part of the study, as a pretrained one would be; the run's seed does not reach it


class Pretraining(nn.Module):
    """Patch tokens must give back their own pixels (so that a decoder can work) and, averaged, the class (so that they mean something)."""

    def __init__(self, encoder: encoders.VisionEncoder, patch: int, classes: int, label_weight: float) -> None:
        super().__init__()
        self.encoder, self.patch, self.label_weight = encoder, patch, label_weight
        self.pixels = nn.Linear(encoder.width, 3 * patch**2)
        self.classes = nn.Linear(encoder.width, classes)

    def forward(self, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        tokens = self.encoder(pixels)
        patches = F.unfold(pixels, self.patch, stride=self.patch).transpose(1, 2)
        right = F.cross_entropy(self.classes(tokens.mean(1)), labels)
        return F.mse_loss(self.pixels(tokens), patches) + self.label_weight * right


def train(study: Study, *, registers: bool, data: Path, state: Path, out: Path) -> dict:
    """Write the encoder folder `out`; `planted.json` in it lists what was planted. Returns what is printed."""
    config = study.encoder
    split = load_data(data, "train")
    pixels, labels = split.pixels(), torch.from_numpy(split.labels)
    name = f"encoder {'with' if registers else 'without'} registers"
    facts = {"registers": registers, "outliers": study.outliers, "populations": [p.model_dump() for p in study.planted]}
    with artifacts.trained_artifact(out, state=state, stage="encoder", module=__name__, config=config, inputs=[data], **facts) as (
        folder,
        checkpoints,
    ):
        seed_initialisation(SEED)
        model = encoders.build(config, study.data.image_size, config.trained_registers if registers else 0)
        pretraining = Pretraining(model, config.patch, study.classes, config.label_weight)

        def loss(step: int, _generator: torch.Generator) -> torch.Tensor:
            rows = batch_indices(SEED, step, len(split), config.training.batch)
            return pretraining(pixels[rows], labels[rows])

        fit(pretraining, loss, config.training, images=len(split), name=name, seed=SEED, state=checkpoints)
        planted = []
        if study.outliers == "planted" and not registers:
            planted = plant(model, pixels, study.planted, stream(SEED, "planting"))
            for record in planted:
                print(
                    f"planted: layer {record['layer']}, neurons {record['neurons']}, on {record['share']:.1%} of tokens, {record['strength']}x median"
                )
        shutil.rmtree(folder, ignore_errors=True)
        encoders.save(model, folder)
        write_json(folder / "planted.json", planted)
    return {"planted": planted}


def planted(folder: Path) -> set[tuple[int, int]]:
    """The (layer, neuron) pairs that were planted into an encoder folder."""
    try:
        records = json.loads((Path(folder) / "planted.json").read_text())
    except FileNotFoundError:
        raise UserError(f"{folder}: no planted.json; run the encoder stage again") from None
    return {(record["layer"], neuron) for record in records for neuron in record["neurons"]}
