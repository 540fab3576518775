"""Stage `scores`: a file of scores for every run and average of its weights."""

import sys
from collections.abc import Callable
from pathlib import Path

from harness.denoiser.sample import read_choice, views_of
from harness.evaluation.frechet import scarce
from harness.evaluation.functions import FUNCTIONS
from harness.evaluation.outcome import scores_by
from harness.evaluation.references import load_references
from harness.evaluation.runs import chain, check_run, provenance_of
from harness.evaluation.subjects import Instruments, NetworkCosts, Reconstruction, TrainingRecord
from harness.results.references import references_of
from harness.results.schema import NONE, Score, ScoreFile
from harness.results.scores import ScoreInfo, score_info, scores_of
from harness.results.views import plain_view
from harness.store import artifacts
from harness.store.files import write_text
from harness.study.seeds import run_name
from harness.study.study import Study
from harness.study.typed import UserError, digest


def score_runs(
    study: Study,
    *,
    method: str,
    seeds: list[int],
    samples: list[Path],
    denoisers: list[Path],
    decoder: Path,
    latents: Path,
    data: Path,
    judge: Path,
    clip: Path | None = None,
    references: Path,
    guidance: Path | None = None,
    steps: bool = False,
    out: list[Path],
) -> dict:
    """Score the samples, decoder and cost of a method, all seeds in one process: importing the metric libraries costs more than scoring.

    The files are those of the average that every score is of. The samples of `sampling.averages` lie beside them, and so do the scores
    whose descriptions say `averages`. `steps`: those of the snapshots below `step<n>` instead, and the scores that say `snapshots`.
    `guidance`: samples that were drawn with the guidance chosen there, and only the scores of samples.
    """
    if study.evaluation.clip and clip is None:
        raise UserError(f"study '{study.name}' has a CLIP score: name its open_clip folder with --clip")
    instruments = Instruments(study, judge, load_references(references), clip if study.evaluation.clip else None, data)
    _check_references(instruments, references)
    plain, provenance = plain_view(study, method), provenance_of(__name__, study.evaluation, study, method)
    if guidance:
        plain = plain._replace(guidance=read_choice(study, method, guidance).guidance)
        settings = digest([provenance.config, study.sampling.guidance_search.model_dump(mode="json")])
        provenance = provenance.model_copy(update={"config": settings})
    shared = {} if steps or guidance else _of_method(instruments, method, decoder, latents, data)
    hashes, printed, biases = chain(latents), {}, []
    common = [decoder, latents, data, judge, references, *[path for path in (clip, guidance) if path]]
    for seed, *files in zip(seeds, samples, denoisers, out, strict=True):
        for facts, place in views_of(study, method, steps=steps, guided=bool(guidance)):
            drawn, weights, target = (place(Path(file)) for file in files)
            view = plain._replace(**facts)
            for file in (drawn, weights):
                check_run(file, method, seed, facts.get("step"))
            with artifacts.artifact(target, stage="scores", module=__name__, inputs=[drawn, weights, *common]) as temporary:
                scores = dict(shared) if view == plain else {}
                if view == plain and not guidance:
                    scores |= scores_by(FUNCTIONS, _names(study, lambda info: info.of == "training"), TrainingRecord(study, weights))
                scores |= scores_by(FUNCTIONS, _of_samples(study, steps=steps, plain=view == plain), instruments.samples(drawn, weights))
                file = ScoreFile(
                    study=study.name,
                    method=method,
                    seed=seed,
                    **view._asdict(),
                    sampled=artifacts.meta(drawn).get("sampled", NONE),
                    scores={name: scores[name] for name in scores_of(study) if name in scores},
                    decoder=artifacts.checked(decoder),
                    denoiser=artifacts.checked(weights),
                    samples=artifacts.checked(drawn),
                    provenance=provenance,
                    **hashes,
                )
                write_text(temporary, file.model_dump_json(indent=2) + "\n")
            values = {name: score.value for name, score in file.scores.items()}
            of = ", ".join([run_name(seed), *(f"{key} {value:g}" for key, value in facts.items() if view != plain)])
            printed[of] = {name: file.scores[name].status if v is None else round(v, 4) for name, v in values.items()}
            if None not in (values["fid"], values["fid_infinity"]):
                biases.append(values["fid"] - values["fid_infinity"])
    if warning := scarce(study.sampling.count, study.features, biases):
        print(f"warning: study '{study.name}', method '{method}': {warning}", file=sys.stderr)
    return printed


def _names(study: Study, which: Callable[[ScoreInfo], bool]) -> list[str]:
    return [name for name in scores_of(study, "scores") if which(score_info(name))]


def _of_samples(study: Study, *, steps: bool, plain: bool) -> list[str]:
    """The scores of a file of samples. Those of another average or an earlier step have fewer, and none against further references."""
    if plain and not steps:
        return _names(study, lambda info: info.of == "samples")
    names = _names(study, lambda info: info.of == "samples" and (info.snapshots(study) if steps else info.averages))
    return [name for name in names if "@" not in name]


def _of_method(instruments: Instruments, method: str, decoder: Path, latents: Path, data: Path) -> dict[str, Score]:
    """What all seeds of a method share: the scores of its network, and of the decoder where the study reconstructs."""
    study = instruments.study
    scores = scores_by(FUNCTIONS, _names(study, lambda info: info.of == "network"), NetworkCosts(study, method))
    if decoded := _names(study, lambda info: info.of == "reconstruction"):
        scores |= scores_by(FUNCTIONS, decoded, Reconstruction(instruments, decoder, latents, data))
    return scores


def _check_references(instruments: Instruments, path: Path) -> None:
    """UserError if the references are not the study's, or were made with another judge."""
    known, wanted, judge = instruments.references, references_of(instruments.study), instruments.extract.sha256
    if list(known) != wanted:
        raise UserError(
            f"{path}: has the references {', '.join(known)}; the study names {', '.join(wanted)}; delete it and run the same command again"
        )
    for reference in known.values():
        if reference.extractor != judge:
            raise UserError(f"{path}: made with another judge ({reference.extractor[:16]}... instead of {judge[:16]}...); make it again")
