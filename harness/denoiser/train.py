"""Stage `denoiser`: train one method's denoisers."""

from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from harness.data.stage import load_data
from harness.denoiser.build import build_denoiser
from harness.denoiser.loss import loss_of, parts_of
from harness.denoiser.stack import stacked_descent, stacks
from harness.encoder.latents import Batches
from harness.encoder.registry import load_encoder
from harness.machine import processes
from harness.machine.device import device
from harness.machine.streams import seed_initialisation
from harness.results.outlier_rule import share_above
from harness.store import artifacts
from harness.store.tensors import save_tensors
from harness.study.method import LossMask, load_method, method_file
from harness.study.study import Study
from harness.study.typed import UserError
from harness.training.loop import Descent, Diverged, Run, by_itself, fit_together
from harness.training.snapshots import Snapshots, load_snapshot


def train_denoisers(
    study: Study,
    *,
    method: str,
    seeds: list[int],
    latents: Path,
    data: Path | None = None,
    backbone: Path | None = None,
    registers: Path | None = None,
    state: Path,
    out: list[Path],
) -> dict:
    """Write each seed's weights of every EMA decay: the sampled one's to `out`, the others beside it, and its snapshots to `step<n>/`.

    A seed whose files are there, as this would make them, is left as it is. On one thread of a CPU the seeds are trained as a stack, where
    the denoiser has that form; else one after the other.
    The record beside the files holds the share of tokens that a loss mask filtered, the loss curve, and `status`: a training that diverged
    ends with the weights it had, `diverged` and a `reason`; snapshots that it did not reach say the same and hold no weights. Returns what
    is printed: nothing but in the first process. Processes under torchrun share the batches. Data, backbone and registers are read only
    where the study does not cache its latents.
    """
    config, mask = study.denoiser, load_method(method).loss_mask
    if method in config.released:
        raise UserError(f"study '{study.name}': the weights of '{method}' are published (denoiser.released); none are trained")
    if config.given_states:
        raise UserError(f"study '{study.name}': its denoiser's states come with imported weights (dsr import --states); none is trained")
    images = {}
    if not study.latents.cache:
        images = {"split": load_data(data, "train"), "encoder": load_encoder(study, backbone, registers)}
    read = Batches(latents, seed=seeds[0], batch=config.training.batch, **images)
    limit, filtered = _filter_of(study, method, mask, read)
    inputs = [p for p in (latents, data, backbone, registers) if p is not None]
    making = {"stage": "denoiser", "module": __name__, "scripts": [method_file(method)], "config": config, "inputs": inputs}
    making |= {"method": method, **filtered}
    with ExitStack() as entered:
        runs, files, of_runs = [], [], []
        for seed, path in zip(seeds, map(Path, out), strict=True):
            outcome: dict = {"status": "ok", "processes": processes.count()}
            facts = making | {"seed": seed}
            artifact = artifacts.trained_artifact(path, state=state, outcome=outcome, beside=_beside(study, path), **facts)
            try:
                temporary, checkpoints = entered.enter_context(processes.entered_by_first(artifact))
            except artifacts.Finished:
                continue
            seed_initialisation(seed)
            model = build_denoiser(study, method).to(device())
            snapshots = Snapshots(study.snapshots, config.ema.index(study.ema))
            runs.append(Run(model, f"denoiser {method}/seed{seed}", seed, checkpoints, snapshots, outcome))
            files.append((path, temporary, facts))
            of_runs.append(read.of_seed(seed))
        kept = _fit(study, runs, of_runs, mask, limit)
        for run, weights, (path, temporary, facts) in zip(runs, kept, files, strict=True):
            if not processes.rank():
                _write(study, run, weights, path, temporary, facts)
    if processes.rank():
        return {}
    records = {f"seed{seed}": artifacts.meta(path) for seed, path in zip(seeds, out, strict=True)}
    shown = ("status", "reason", "skipped_steps")
    printed = {name: {key: record[key] for key in shown if key in record} for name, record in records.items()}
    return {"filtered_share": filtered["filtered_share"], **printed, "steps": study.steps, "ema": config.ema}


def _filter_of(study: Study, method: str, mask: LossMask | None, batches: Batches) -> tuple[float, dict]:
    """The norm above which the method's loss mask leaves a token out, and what the record says of it."""
    if not mask:
        return float("inf"), {"filtered_share": 0.0}
    if not batches.norms:
        raise UserError(f"method '{method}': its loss mask needs the token norms of a ViT encoder; study '{study.name}' has none")
    limit = batches.threshold(mask, study.outlier_statistics.factor)
    share = share_above(batches.norms[mask.norm], limit)
    if share == 1:
        raise UserError(f"method '{method}': the loss mask filters every token; look at the norm it thresholds ({mask.norm})")
    return limit, {"filtered_share": share, "loss_mask": {**mask.model_dump(), "limit": float(limit)}}


def _fit(study: Study, runs: list[Run], batches: list[Batches], mask: LossMask | None, limit: float) -> list[list[dict[str, Tensor]]]:
    """The weights of each run for each EMA decay; those of one that diverged are the ones it had, and its outcome says so."""
    config = study.denoiser
    if not runs:
        return []

    def descent_of(numbers: list[int]) -> Descent:
        if stacked:
            parts = [parts_of(study, mask, limit, batches[number]) for number in numbers]
            return stacked_descent([runs[number].model for number in numbers], parts)
        (number,) = numbers
        model = runs[number].model
        denoise = torch.compile(model) if config.training.compile else model
        return by_itself(model, loss_of(study, mask, limit, batches[number], denoise))

    stacked = stacks(runs[0].model, config.training, len(batches[0]))
    how = {"images": len(batches[0]), "ema": config.ema, "ema_warm_up": config.ema_warm_up, "alone": not stacked}
    kept = []
    for run, result in zip(runs, fit_together(runs, descent_of, config.training, **how), strict=True):
        if isinstance(result, Diverged):
            run.outcome |= {"status": "diverged", "reason": result.reason}
        kept.append(result.kept if isinstance(result, Diverged) else result)
    return kept


def _beside(study: Study, path: Path) -> list[Path]:
    """What a run writes beside its weights."""
    averages = [study.average_file(path, decay) for decay in study.denoiser.ema if decay != study.ema]
    return averages + [study.snapshot_file(path, step) for step in study.snapshots]


def _write(study: Study, run: Run, averages: list[dict[str, Tensor]], path: Path, temporary: Path, facts: dict) -> None:
    """A run's files; `temporary` is what becomes `path`."""
    decays = study.denoiser.ema
    for step in study.snapshots:
        weights = load_snapshot(run.state, step)
        known = {"status": "ok"} if weights else {key: run.outcome[key] for key in ("status", "reason")}
        known |= {"processes": processes.count()}
        with artifacts.artifact(study.snapshot_file(path, step), outcome=known, **facts, step=step) as file:
            save_tensors(file, weights or {})
    for decay, weights in zip(decays, averages, strict=True):
        if decay != study.ema:
            with artifacts.artifact(study.average_file(path, decay), outcome=run.outcome, **facts, ema=decay) as file:
                save_tensors(file, weights)
    save_tensors(temporary, averages[decays.index(study.ema)])
