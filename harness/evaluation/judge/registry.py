"""What the kinds of judges in a study stand for.

A new judge: a subclass of JudgeKind, registered here, and its section in harness/study/sections/evaluation.py.
"""

from harness.evaluation.judge.base import JudgeKind
from harness.evaluation.judge.classifier import TrainedClassifier
from harness.evaluation.judge.inception import PublishedInception
from harness.study.study import Study

JUDGES: dict[str, type[JudgeKind]] = {"trained": TrainedClassifier, "inception": PublishedInception}


def judge_of(study: Study) -> JudgeKind:
    return JUDGES[study.evaluation.judge.kind](study)
