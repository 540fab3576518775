"""What the kinds of CLIP models in a study stand for.

A new CLIP model: a subclass of ClipKind, registered here, and its section in harness/study/sections/evaluation.py.
"""

from harness.evaluation.clip.base import ClipKind
from harness.evaluation.clip.published import PublishedClip
from harness.evaluation.clip.trained import TrainedWordClip
from harness.study.study import Study
from harness.study.typed import UserError

CLIPS: dict[str, type[ClipKind]] = {"trained": TrainedWordClip, "open_clip": PublishedClip}


def clip_of(study: Study) -> ClipKind:
    """UserError for a study without a CLIP score."""
    if study.evaluation.clip is None:
        raise UserError(f"study '{study.name}' has no CLIP model (evaluation.clip is null)")
    return CLIPS[study.evaluation.clip.kind](study)
