"""Stage `scores`: a file of scores for every run and average of its weights."""

import sys
from pathlib import Path

from harness.denoiser.sample import read_choice, views_of
from harness.evaluation.features import Extractor
from harness.evaluation.frechet import scarce
from harness.evaluation.made import chain, check_run, made
from harness.evaluation.reference_statistics import ReferenceStatistics
from harness.evaluation.references import load_references
from harness.evaluation.scorer import Scorer
from harness.results.schema import ScoreFile, plain_view
from harness.results.scores import references_of, scores_of
from harness.store import artifacts
from harness.store.files import write_text
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

    The files are those of the average that every score is of. The samples of `sampling.averages` lie beside them, and so do their scores:
    FID and FID-infinity. `steps`: those of the snapshots below `step<n>` instead, FID and FID-infinity and the scores of prompts.
    `guidance`: samples that were drawn with the guidance chosen there, and only the scores of samples.
    """
    extract, known = Extractor(study, judge), load_references(references)
    _check_references(study, known, extract, references)
    if study.evaluation.clip and clip is None:
        raise UserError(f"study '{study.name}' has a CLIP score: name its open_clip folder with --clip")
    scorer = Scorer(study, extract, known, clip if study.evaluation.clip else None)
    plain, making = plain_view(study), made(__name__, study.evaluation, study)
    if guidance:
        plain = plain._replace(guidance=read_choice(study, method, guidance).guidance)
        making = making.model_copy(update={"config": digest([making.config, study.sampling.guidance_search.model_dump(mode="json")])})
    shared = {} if steps or guidance else scorer.of_decoder(decoder, latents, data) | scorer.of_network(method)
    hashes, printed, biases = chain(latents), {}, []
    common = [decoder, latents, data, judge, references, *[path for path in (clip, guidance) if path]]
    for seed, *files in zip(seeds, samples, denoisers, out, strict=True):
        for facts, place in views_of(study, steps=steps, guided=bool(guidance)):
            drawn, weights, target = (place(Path(file)) for file in files)
            view = plain._replace(**facts)
            for file in (drawn, weights):
                check_run(file, method, seed, facts.get("step"))
            with artifacts.artifact(target, stage="scores", module=__name__, inputs=[drawn, weights, *common]) as temporary:
                if steps:
                    found = scorer.of_snapshot(drawn, weights)
                elif view == plain:
                    found = scorer.of_samples(drawn, weights) | ({} if guidance else scorer.of_training(weights) | shared)
                else:
                    found = scorer.of_average(drawn, weights)
                file = ScoreFile(
                    study=study.name,
                    method=method,
                    seed=seed,
                    **view._asdict(),
                    scores={name: found[name] for name in scores_of(study) if name in found},
                    decoder=artifacts.checked(decoder),
                    denoiser=artifacts.checked(weights),
                    samples=artifacts.checked(drawn),
                    made=making,
                    **hashes,
                )
                write_text(temporary, file.model_dump_json(indent=2) + "\n")
            values = {name: score.value for name, score in file.scores.items()}
            of = ", ".join([f"seed{seed}", *(f"{key} {value:g}" for key, value in facts.items() if view != plain)])
            printed[of] = {name: file.scores[name].status if v is None else round(v, 4) for name, v in values.items()}
            if None not in (values["fid"], values["fid_infinity"]):
                biases.append(values["fid"] - values["fid_infinity"])
    if warning := scarce(study.sampling.count, study.features, biases):
        print(f"warning: study '{study.name}', method '{method}': {warning}", file=sys.stderr)
    return printed


def _check_references(study: Study, known: dict[str, ReferenceStatistics], extract: Extractor, path: Path) -> None:
    """UserError if the references are not the study's, or were made with another judge."""
    if list(known) != references_of(study):
        raise UserError(
            f"{path}: has the references {', '.join(known)}; the study names {', '.join(references_of(study))}; delete it and run the same command again"
        )
    for reference in known.values():
        if reference.extractor != extract.sha256:
            raise UserError(
                f"{path}: made with another judge ({reference.extractor[:16]}... instead of {extract.sha256[:16]}...); make it again"
            )
