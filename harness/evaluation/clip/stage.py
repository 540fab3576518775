"""Stage `clip`: the open_clip model of the CLIP score."""

from pathlib import Path

from harness.evaluation.clip.base import LoadedClip
from harness.evaluation.clip.registry import clip_of
from harness.store import artifacts
from harness.study.study import Study


def make_clip(study: Study, *, data: Path | None = None, records: list[Path] = (), state: Path, out: Path) -> dict:
    """Write an open_clip folder. To train it takes `data`, to import it the record of the weights."""
    return clip_of(study).make(data=data, records=list(records), state=state, out=out)


def load_clip(study: Study, folder: Path) -> LoadedClip:
    artifacts.checked(folder)
    return clip_of(study).load(folder)
