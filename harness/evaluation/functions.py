"""The functions of stage `scores`, each under the name of its description (harness/results/scores.py): a subject in, an outcome out.

A new score: its description there, and its function here, which asks the subject that the description's `of` names
(harness/evaluation/subjects.py).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from harness.evaluation.accuracy import accuracy
from harness.evaluation.bootstrap import by_resampling, means
from harness.evaluation.frechet import reference_bias, too_few
from harness.evaluation.geneval import checker_accuracy
from harness.evaluation.inception_score import inception_score
from harness.evaluation.kid import kid
from harness.evaluation.outcome import Measured, Outcome, Stop, finite, without
from harness.evaluation.reconstruction import psnr, rfid
from harness.evaluation.subjects import SampleSet, ScoredSamples
from harness.results.scores import CAPTIONED, REFERENCE_BIAS, TRAINED_ON


def fid(seen: SampleSet) -> Measured:
    """Beside the reference."""
    score = seen.frechet.with_interval(seen.distances["fid"])
    return replace(score, how=f"{score.how}{TRAINED_ON}{seen.trained_on}") if seen.trained_on else score


def fid_infinity(seen: SampleSet) -> Outcome:
    """No value where FID has none."""
    plain, few = finite(fid(seen)), too_few(seen.n, seen.features.shape[1])
    if isinstance(plain, Stop):
        return plain
    if few:
        return Stop("skipped", few)
    measured, bias = seen.frechet.infinity(), reference_bias(seen.frechet)
    return measured if bias is None else replace(measured, how=f"{measured.how}{REFERENCE_BIAS}{bias:.3g} ({seen.reference.n} images)")


def clip_score(seen: SampleSet) -> Measured:
    """Mean over the samples."""
    score = by_resampling(seen.clip_scores.mean().item(), means("clip_score", seen.clip_scores, seen.resamples))
    return replace(score, how=f"{score.how}{CAPTIONED}{seen.caption_source}") if seen.caption_source else score


def of_prompts(name: str) -> Callable[[ScoredSamples], Measured]:
    """One of GenEval's scores, which come together."""
    return lambda seen: seen.geneval[name]


FUNCTIONS: dict[str, Callable[[Any], Outcome]] = {
    "fid": fid,
    "fid_infinity": fid_infinity,
    "fid_clean": lambda seen: seen.frechet.with_interval(seen.distances["fid_clean"]),
    "is": lambda seen: inception_score(seen.logits, seen.resamples),
    "is_unsplit": lambda seen: inception_score(seen.logits, seen.resamples, splits=1),
    "kid": lambda seen: kid(seen.features, seen.reference.features, seen.settings),
    "precision": lambda seen: seen.neighbours["precision"],
    "recall": lambda seen: seen.neighbours["recall"],
    "clip_score": clip_score,
    "accuracy": lambda seen: accuracy(seen.logits, seen.labels),
    "geneval": of_prompts("geneval"),
    "geneval_single": of_prompts("geneval_single"),
    "geneval_two": of_prompts("geneval_two"),
    "geneval_counting": of_prompts("geneval_counting"),
    "geneval_colours": of_prompts("geneval_colours"),
    "geneval_position": of_prompts("geneval_position"),
    "geneval_attribution": of_prompts("geneval_attribution"),
    "geneval_seen": of_prompts("geneval_seen"),
    "geneval_unseen": of_prompts("geneval_unseen"),
    "checker_accuracy": lambda decoded: checker_accuracy(decoded.truth, decoded.scenes),
    "checker_accuracy_reconstructed": lambda decoded: checker_accuracy(decoded.images, decoded.scenes),
    "rfid": lambda decoded: rfid(decoded.features, decoded.reference, decoded.resamples),
    "psnr": lambda decoded: psnr(decoded.images, decoded.truth, decoded.resamples),
    "filtered_share": lambda training: without(training.filtered_share, "exact"),
    "parameters": lambda network: without(network.costs["parameters"], "exact"),
    "gflops": lambda network: without(network.costs["gflops"], "exact"),
}
