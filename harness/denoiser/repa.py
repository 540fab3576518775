"""SiT as trained with representation alignment (sihyun-yu/REPA `models/sit.py`), with diffusion registers."""

import re
from typing import Any

from torch import Tensor

from harness.denoiser.sit import SiT
from harness.study.sections.denoiser import Shape

PROJECTORS = "projectors."
BLOCK, LATE_BLOCK = re.compile(r"blocks\.(\d+)\."), re.compile(r"decoder_blocks\.(\d+)\.")


class REPA(SiT):
    """SiT's network in REPA's convention, which is this code's: t = 0 is data, t = 1 is noise, and the output is the velocity noise - data.

    So its weights have SiT's names and mean the opposite: no loader can tell the two apart, and a study says which it is. There is no
    learned sigma. Raises UserError as SiT does.
    """

    @classmethod
    def own(cls, shape: Shape) -> dict[str, object]:
        """None."""
        return {}

    def __init__(self, **sizes: Any) -> None:
        super().__init__(**sizes, learn_sigma=False)

    @classmethod
    def from_published(cls, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, object]]:
        """Without the projectors, which are for training alone; older files count the blocks after the aligned one anew (REPA `utils.py`,
        load_legacy_checkpoints)."""
        kept = {name: value for name, value in tensors.items() if not name.startswith(PROJECTORS)}
        early = len({found[1] for name in kept if (found := BLOCK.match(name))})
        names = {name: LATE_BLOCK.sub(lambda found: f"blocks.{early + int(found[1])}.", name, count=1) for name in kept}
        dropped, renamed = len(tensors) - len(kept), sum(old != new for old, new in names.items())
        facts = {"dropped": {f"{PROJECTORS}*": dropped}} if dropped else {}
        facts |= {"renamed": {"decoder_blocks.*": renamed}} if renamed else {}
        return {names[name]: value for name, value in kept.items()}, facts

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """Latents (B, C, H, W), times (B,) with 0 = data and 1 = noise, labels (B,) -> velocity noise - data (B, C, H, W)."""
        return self.network(x, t, y)
