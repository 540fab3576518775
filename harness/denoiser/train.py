"""Stage `denoiser`: train one method's denoiser."""

from contextlib import suppress
from pathlib import Path

import torch

from harness.data.stage import load_data
from harness.denoiser.build import build_denoiser
from harness.denoiser.loss import loss_of
from harness.encoder.latents import Batches
from harness.encoder.registry import load_encoder
from harness.machine import processes
from harness.machine.device import device
from harness.machine.streams import seed_initialisation
from harness.results.outlier_rule import share_above
from harness.store import artifacts
from harness.store.tensors import save_tensors
from harness.study.method import load_method, method_file
from harness.study.study import Study
from harness.study.typed import UserError
from harness.training.loop import Diverged, fit
from harness.training.snapshots import Snapshots, load_snapshot


def train_denoiser(
    study: Study,
    *,
    method: str,
    seed: int,
    latents: Path,
    data: Path | None = None,
    backbone: Path | None = None,
    registers: Path | None = None,
    state: Path,
    out: Path,
) -> dict:
    """Write the weights of every EMA decay: the sampled one's to `out`, the others beside it, and its snapshots to `step<n>/`.

    The record beside them holds the share of tokens that a loss mask filtered, the loss curve, and `status`: a training that diverged ends
    with the weights it had, `diverged` and a `reason`; snapshots that it did not reach say the same and hold no weights. Returns what is
    printed: nothing but in the first process. Processes under torchrun share the batches. Data, backbone and registers are read only where
    the study does not cache its latents.
    """
    config, mask = study.denoiser, load_method(method).loss_mask
    if config.given_states:
        raise UserError(f"study '{study.name}': its denoiser's states come with imported weights (dsr import --states); none is trained")
    facts = {"method": method, "seed": seed}
    images = {}
    if not study.latents.cache:
        images = {"split": load_data(data, "train"), "encoder": load_encoder(study, backbone, registers)}
    batches = Batches(latents, seed=seed, batch=config.training.batch, **images)
    limit, facts["filtered_share"] = float("inf"), 0.0
    if mask:
        if not batches.norms:
            raise UserError(f"method '{method}': its loss mask needs the token norms of a ViT encoder; study '{study.name}' has none")
        limit = batches.threshold(mask, study.outlier_statistics.factor)
        facts["filtered_share"] = share_above(batches.norms[mask.norm], limit)
        facts["loss_mask"] = {**mask.model_dump(), "limit": float(limit)}
    if facts["filtered_share"] == 1:
        raise UserError(f"method '{method}': the loss mask filters every token; look at the norm it thresholds ({mask.norm})")
    inputs = [p for p in (latents, data, backbone, registers) if p is not None]
    making = {"stage": "denoiser", "module": __name__, "scripts": [method_file(method)], "config": config, "inputs": inputs, **facts}
    outcome: dict = {"status": "ok", "processes": processes.count()}
    artifact = artifacts.trained_artifact(out, state=state, outcome=outcome, **making)
    with suppress(artifacts.Finished), processes.entered_by_first(artifact) as (path, checkpoints):
        seed_initialisation(seed)
        model = build_denoiser(study, method).to(device())
        denoise = torch.compile(model) if config.training.compile else model
        try:
            averages = fit(
                model,
                loss_of(study, mask, limit, batches, denoise),
                config.training,
                images=len(batches),
                name=f"denoiser {method}/seed{seed}",
                seed=seed,
                state=checkpoints,
                ema=config.ema,
                ema_warm_up=config.ema_warm_up,
                snapshots=Snapshots(study.snapshots, config.ema.index(study.ema)),
                outcome=outcome,
            )
        except Diverged as error:
            averages = error.kept
            outcome |= {"status": "diverged", "reason": error.reason}
        if not processes.rank():
            for step in study.snapshots:
                weights = load_snapshot(checkpoints, step)
                known = {"status": "ok"} if weights else {key: outcome[key] for key in ("status", "reason")}
                known |= {"processes": processes.count()}
                with artifacts.artifact(study.snapshot_file(Path(out), step), outcome=known, **making, step=step) as file:
                    save_tensors(file, weights or {})
            for decay, weights in zip(config.ema, averages, strict=True):
                if decay != study.ema:
                    with artifacts.artifact(study.average_file(Path(out), decay), outcome=outcome, **making, ema=decay) as file:
                        save_tensors(file, weights)
            save_tensors(path, averages[config.ema.index(study.ema)])
    if processes.rank():
        return {}
    record = artifacts.meta(out)
    printed = {key: record[key] for key in ("filtered_share", "status", "reason", "skipped_steps") if key in record}
    return printed | {"steps": study.steps, "ema": config.ema}
