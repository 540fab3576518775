"""Stage `guidance`: which guidance a method is sampled with, chosen by FID with a denoiser of a seed that is scored nowhere."""

import shutil
from contextlib import suppress
from pathlib import Path

from torch import nn

from harness.denoiser.build import load_denoiser
from harness.denoiser.sample import SampleDrawer, status_of, with_guidance
from harness.evaluation.features import Extractor
from harness.evaluation.fid import fid
from harness.evaluation.outcome import About, Measured, attempt, stop_of, without
from harness.evaluation.references import load_references
from harness.evaluation.runs import check_run
from harness.machine import processes
from harness.results.views import Candidate, Choice, chosen_text
from harness.store import artifacts, shards
from harness.store.files import write_text
from harness.study.study import Study
from harness.study.typed import UserError


def search_guidance(
    study: Study,
    *,
    method: str,
    denoiser: Path,
    decoder: Path,
    latents: Path,
    judge: Path,
    references: Path,
    records: list[Path] = (),
    state: Path,
    out: Path,
) -> dict:
    """Write the FID of every (scale, interval) of `sampling.guidance_search`, all from the same noise, and the one of the lowest (Choice).

    No guidance is the first of them, and wins a tie. `denoiser`: trained with the seed of the search. FID is that against the study's first
    reference. Candidates that are done wait below `state`; processes under torchrun draw together. Returns what is printed: nothing but in
    the first process.
    """
    section = study.sampling.guidance_search
    if section is None:
        raise UserError(f"study '{study.name}' searches for no guidance; give it sampling.guidance_search")
    check_run(denoiser, method, section.seed)
    drawer, judged = SampleDrawer(study, decoder, latents, records), _Judged(study, judge, references)
    facts = {
        "config": study.sampling,
        "inputs": [denoiser, *drawer.inputs, judge, references],
        "method": method,
        "seed": section.seed,
    }
    outcome: dict = {"processes": processes.count()}
    artifact = artifacts.trained_artifact(out, state=state, stage="guidance", module=__name__, outcome=outcome, **facts)
    with suppress(artifacts.Finished), processes.entered_by_first(artifact) as (path, folder):
        stop = stop_of(denoiser)
        model = None if stop else load_denoiser(study, method, denoiser)
        tried = []
        for place, (scale, interval) in enumerate(section.candidates):
            one = Candidate(scale=scale, interval=interval, fid=None, reason=stop.reason if stop else "")
            if model is not None:
                one = _try(study, one, model, denoiser, drawer, judged, folder / f"candidate{place}", f"guidance {method}")
            tried.append(one)
        if not processes.rank():
            scored = [one for one in tried if one.fid is not None]
            best = min(scored or tried, key=lambda one: one.fid or 0.0)
            status = {"status": stop.status if stop else "ok" if scored else "failed", "reason": "" if scored else best.reason}
            choice = Choice(
                study=study.name,
                method=method,
                seed=section.seed,
                n=section.count,
                reference=judged.about.reference,
                extractor=judged.about.extractor,
                denoiser=artifacts.checked(denoiser),
                candidates=tried,
                scale=best.scale,
                interval=best.interval,
                guidance=chosen_text(study.sampling.guidance, best.scale, best.interval, section.seed),
                **status,
            )
            outcome |= status
            write_text(path, choice.model_dump_json(indent=2) + "\n")
    if processes.rank():
        return {}
    choice = Choice.model_validate(artifacts.read_json(out))
    return {"guidance": choice.guidance, "fid": {f"{one.scale:g} for t in {list(one.interval)}": one.fid for one in choice.candidates}}


class _Judged:
    """FID of images against the study's first reference."""

    def __init__(self, study: Study, judge: Path, references: Path) -> None:
        self.extract, self.reference = Extractor(study, judge), next(iter(load_references(references).values()))
        self.about = About(study.sampling.guidance_search.count, self.reference.sha256, self.extract.sha256)

    def __call__(self, candidate: Candidate, images: object) -> Candidate:
        def compute() -> Measured:
            return without(fid(self.extract(images)["features"], self.reference)["fid"], "one of many candidates")

        score = attempt(compute, self.about)
        return candidate.model_copy(update={"fid": score.value, "reason": score.reason})


def _try(
    study: Study, candidate: Candidate, model: nn.Module, denoiser: Path, drawer: SampleDrawer, judged: _Judged, folder: Path, name: str
) -> Candidate:
    """`candidate` with its FID; drawn, unless a run that was killed left it in `folder`. Of the first process alone."""
    done = folder.with_suffix(".json")
    with suppress(UserError):
        candidate = Candidate.model_validate(artifacts.read_json(done)) if not processes.rank() else candidate
    if processes.from_first(candidate.fid is None and not candidate.reason):
        search = study.sampling.guidance_search
        changed = with_guidance(study, candidate.scale, candidate.interval, search.count)
        drawer.draw(folder, changed, model, search.seed, f"{name}: {changed.sampling.guidance.text}")
        if not processes.rank():
            arrays, _ = shards.assemble(folder, search.count)
            status = status_of(artifacts.meta(denoiser), arrays["finite"])
            lost = status["status"] != "ok"
            candidate = candidate.model_copy(update={"reason": status["reason"]}) if lost else judged(candidate, arrays["images"])
            with artifacts.artifact(done, stage="candidate", module=__name__) as path:
                write_text(path, candidate.model_dump_json() + "\n")
            shutil.rmtree(folder)
    return candidate
