"""Encoder `pretrained`: a published vision tower, checked against the study's sizes; only what is used of its weights is kept."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.encoder.token_encoder import TokenEncoder
from harness.store import artifacts, assets, foreign
from harness.store.files import emptied
from harness.study.sections.encoder import FAMILIES, Pretrained
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
            model = read_pretrained(source, family=self._weights(backbone).family, image_size=section.image_size)
            self._check(model, source)
            foreign.check_folder(source)
            save_tower(model, emptied(folder))
        return {"encoder": str(source)}

    def _weights(self, backbone: str) -> Pretrained:
        return {"plain": self.study.encoder.plain, "trained_registers": self.study.encoder.trained_registers}[backbone]

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
        return FAMILIES[self._weights(backbone).family]
