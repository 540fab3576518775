"""Encoder `trained`: a small vision tower, trained with or without registers; outliers are planted into the one without."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from harness.data.stage import load_data
from harness.encoder.token_encoder import TokenEncoder
from harness.machine.streams import seed_initialisation, stream
from harness.store import artifacts
from harness.store.files import emptied, write_json
from harness.study.typed import UserError
from harness.training.loop import fit
from harness.training.order import batch_indices

if TYPE_CHECKING:
    from harness.encoder.tower import VisionEncoder

PLANTED = "planted.json"
SEED = 0  # the encoder is part of the study, as a pretrained one would be; the run's seed does not reach it


class Pretraining(nn.Module):
    """Patch tokens must give back their own pixels (so that a decoder can work) and, averaged, the class (so that they mean something)."""

    def __init__(self, encoder: "VisionEncoder", patch: int, classes: int, label_weight: float) -> None:
        super().__init__()
        self.encoder, self.patch, self.label_weight = encoder, patch, label_weight
        self.pixels = nn.Linear(encoder.width, 3 * patch**2)
        self.classes = nn.Linear(encoder.width, classes)

    def forward(self, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) in [-1, 1], labels (B,) -> the loss, a scalar."""
        tokens = self.encoder(pixels)
        patches = F.unfold(pixels, self.patch, stride=self.patch).transpose(1, 2)
        right = F.cross_entropy(self.classes(tokens.mean(1)), labels)
        return F.mse_loss(self.pixels(tokens), patches) + self.label_weight * right


class TrainedTower(TokenEncoder):
    def make(self, *, backbone: str, data: Path, records: Sequence[Path], state: Path, out: Path) -> dict:
        """`planted.json` in the folder lists what was planted."""
        from harness.encoder.planting import plant
        from harness.encoder.tower_files import save_tower

        study, section, registers = self.study, self.study.encoder, backbone == "trained_registers"
        split = load_data(data, "train")
        pixels, labels = split.pixels(), torch.from_numpy(split.labels)
        name = f"encoder {'with' if registers else 'without'} registers"
        facts = {"registers": registers, "outliers": study.outliers, "populations": [p.model_dump() for p in study.planted]}
        with artifacts.trained_artifact(out, state=state, stage="encoder", module=__name__, config=section, inputs=[data], **facts) as (
            folder,
            checkpoints,
        ):
            seed_initialisation(SEED)
            model = self.build(registers=registers)
            pretraining = Pretraining(model, section.patch, study.classes, section.label_weight)

            def loss(step: int, _generator: torch.Generator) -> torch.Tensor:
                rows = batch_indices(SEED, step, len(split), section.training.batch)
                return pretraining(pixels[rows], labels[rows])

            fit(pretraining, loss, section.training, images=len(split), name=name, seed=SEED, state=checkpoints)
            planted = []
            if study.outliers == "planted" and not registers:
                planted = plant(model, pixels, study.planted, stream(SEED, "planting"))
                for record in planted:
                    print(
                        f"planted: layer {record['layer']}, neurons {record['neurons']}, "
                        f"on {record['share']:.1%} of tokens, {record['strength']}x median"
                    )
            save_tower(model, emptied(folder))
            write_json(folder / PLANTED, planted)
        return {"planted": planted}

    def build(self, *, registers: bool) -> "VisionEncoder":
        """The SigLIP tower with random weights, without or with learned registers."""
        from harness.encoder.tower import build_tower

        section = self.study.encoder
        shape = {"width": section.width, "depth": section.depth, "heads": section.heads, "mlp": section.mlp, "patch": section.patch}
        return build_tower(
            "siglip", **shape, image_size=self.study.data.image_size, registers=section.trained_registers if registers else 0
        )

    def extra_tokens(self, backbone: str) -> int:
        return self.study.encoder.trained_registers if backbone == "trained_registers" else 0


def planted_neurons(folder: Path) -> set[tuple[int, int]]:
    """The (layer, neuron) pairs that were planted into an encoder folder."""
    try:
        records = json.loads((Path(folder) / PLANTED).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder}: no planted.json; run the encoder stage again") from None
    return {(record["layer"], neuron) for record in records for neuron in record["neurons"]}
