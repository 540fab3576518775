"""Stage `judge`: the network whose features FID, IS, KID, precision and recall use."""

from pathlib import Path

from harness.evaluation.judge.registry import judge_of
from harness.study.study import Study


def make_judge(study: Study, *, data: Path | None = None, records: list[Path] = (), state: Path, out: Path) -> dict:
    """Write the weights that `Extractor` reads. To train them takes `data`, to import them the record of the weights."""
    return judge_of(study).make(data=data, records=list(records), state=state, out=out)
