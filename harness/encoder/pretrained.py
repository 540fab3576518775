"""Encoder `pretrained`: a published vision tower, checked against the study's sizes; only what is used of its weights is kept."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.encoder.token_encoder import TokenEncoder
from harness.store import artifacts, assets, foreign
from harness.store.files import emptied
from harness.study.sections.encoder import FAMILIES
from harness.study.sections.pixels import ImageStatistics
from harness.study.typed import UserError

if TYPE_CHECKING:
    from harness.encoder.tower import VisionEncoder


class PretrainedTower(TokenEncoder):
    def make(self, *, backbone: str, data: Path, records: Sequence[Path], state: Path, out: Path) -> dict:
        from harness.encoder.tower_files import read_pretrained, save_tower

        section = self.study.encoder
        record = assets.record_of(records, f"encoder.{backbone}.weights")
        source = assets.locate(record)
        with artifacts.artifact(out, stage="encoder", module=__name__, config=section, inputs=[record]) as folder:
            model = read_pretrained(source, family=section.weights_of(backbone).family, image_size=section.image_size)
            self._check(model, source)
            _check_statistics(source, section.image_statistics(backbone))
            foreign.check_folder(source)
            save_tower(model, emptied(folder))
        return {"encoder": str(source)}

    def _check(self, model: "VisionEncoder", source: Path) -> None:
        """The plan and the denoiser are made from the study's sizes, so the weights must have them."""
        from harness.encoder.test_time_registers import mlp_output_layer

        config = model.tower.config
        sizes = {"width": model.width, "depth": model.depth, "heads": config.num_attention_heads, "patch": config.patch_size}
        sizes["mlp"] = mlp_output_layer(model.layers[0]).in_features
        for field, there in sizes.items():
            wanted = getattr(self.study.encoder, field)
            if there != wanted:
                raise UserError(f"{source}: encoder.{field} is {there} there, {wanted} in the study; is it the right encoder?")

    def extra_tokens(self, backbone: str) -> int:
        return FAMILIES[self.study.encoder.weights_of(backbone).family].extra_tokens


def _check_statistics(source: Path, known: ImageStatistics) -> None:
    """UserError where the folder's own preprocessor normalises images otherwise than the harness does for the family."""
    file = source / "preprocessor_config.json"
    if not file.is_file():
        return
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        there = {name: said[name] for name in ("image_mean", "image_std") if name in said}
    except (ValueError, TypeError):
        raise UserError(f"{file}: not JSON; get it again, or delete it") from None
    for name, wanted in (("image_mean", known.mean), ("image_std", known.std)):
        if there.get(name, list(wanted)) != list(wanted):
            raise UserError(f"{file}: {name} is {there[name]} there, {list(wanted)} for this family of encoders; is it the right encoder?")
