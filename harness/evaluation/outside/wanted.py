"""Which scores samples from outside can have, by what comes with them, and why not the others."""

from collections.abc import Mapping
from dataclasses import dataclass

from harness.evaluation.frechet import BLOCKS, LEAST
from harness.evaluation.inception_score import SPLITS
from harness.evaluation.outside.judges import Judge
from harness.evaluation.reference_statistics import ReferenceStatistics
from harness.results.scores import CLEAN_FID_WIDEST, REFERENCES, SCORES, score_info
from harness.study.typed import UserError, nearest

OF_STATISTICS = ("fid", "fid_infinity", "fid_clean")  # what mu and sigma are enough for; other comparisons need the reference's images
OF_LOGITS = ("is", "is_unsplit", "accuracy")
OF_PROMPTS = "geneval"  # of drawn shapes, which nobody else's samples are
KNOWN = [name for name, info in SCORES.items() if info.of == "samples" and not name.startswith(OF_PROMPTS)]
EXTRA = "fid_infinity"  # takes more samples than the others: left out, not refused, where it was not asked for


@dataclass(frozen=True)
class Given:
    """What there is to score by; `n` samples."""

    n: int
    judge: Judge
    references: Mapping[str, ReferenceStatistics]
    labels: bool
    clip: bool
    captions: bool


def wanted(names: list[str] | None, given: Given) -> tuple[list[str], dict[str, str]]:
    """(Scores, with those at further references; why each of the others is left out). `names`: None for all that can be had.

    UserError for a named one that cannot, or for too few images.
    """
    for name in names or ():
        if nearest(name, SCORES, "score") not in KNOWN:
            raise UserError(f"--scores {name}: is of {score_info(name).of}, not of samples from elsewhere; known: {', '.join(KNOWN)}")
    chosen, left = [], {}
    for name in KNOWN:
        if names is not None and name not in names:
            continue
        why = lacks(name, given)
        if why and names is not None:
            raise UserError(f"--scores {name}: {why}")
        few = "" if why else too_few(name, given)
        if few and (names is not None or name != EXTRA):
            raise UserError(f"{score_info(name).title} {few}; give more, or name other scores with --scores: {', '.join(KNOWN)}")
        if why or few:
            left[name] = why or few
            continue
        further = [*given.references][1:] if SCORES[name].places is REFERENCES else []
        chosen += [name, *(f"{name}@{place}" for place in further)]
    if not chosen:
        raise UserError(f"nothing can be measured: {'; '.join(f'{name}: {why}' for name, why in left.items())}")
    return chosen, left


def lacks(name: str, given: Given) -> str:
    """What a score needs and has not; empty where it has all."""
    info, judge, references = SCORES[name], given.judge, given.references
    lacking = {
        "compares with a reference: give --reference": info.compared and not references,
        "compares with the reference's images, and it is statistics alone": (
            info.compared and name not in OF_STATISTICS and not all(one.n for one in references.values())
        ),
        f"takes too long above {CLEAN_FID_WIDEST} features": name == "fid_clean" and judge.width > CLEAN_FID_WIDEST,
        "needs a judge that classifies, such as inception": name in OF_LOGITS and not judge.has_logits,
        "looks with a CLIP model: give --clip": info.seen_by == "clip" and not given.clip,
        "compares with captions: give --captions": info.seen_by == "clip" and not given.captions,
        "needs a judge whose classes are the samples' labels: --judge study:NAME of a trained one": name == "accuracy"
        and not judge.classes,
        "needs the labels that the samples were drawn with: give --labels": name == "accuracy" and not given.labels,
    }
    return next((why for why, is_so in lacking.items() if is_so), "")


def too_few(name: str, given: Given) -> str:
    """Why there are too few images for a score; empty where there are enough. Known before any network has run."""
    protocol, width = given.judge.protocol, given.judge.width
    least, reference = {
        "fid": (width + 1, 0),
        "fid_clean": (width + 1, 0),
        EXTRA: (max(LEAST * width, 2 * BLOCKS), 0),
        "is": (SPLITS, 0),
        "kid": (protocol.kid_subset, protocol.kid_subset),
        "precision": (protocol.neighbours + 1, protocol.neighbours + 1),
        "recall": (protocol.neighbours + 1, protocol.neighbours + 1),
    }.get(name, (1, 0))
    if given.n < least:
        return f"needs {least} samples or more, there are {given.n}"
    for one in given.references.values() if reference else ():
        if one.n < reference:
            return f"needs {reference} images of the reference or more, there are {one.n}"
    return ""
