"""Stage `released`: a method's published weights in place of a training, checked by name and shape, and by what one step of them says."""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from harness.denoiser.build import build_denoiser, read_published
from harness.denoiser.flow import at_time, flow_loss
from harness.encoder.latents import load_held_out
from harness.machine.device import device
from harness.machine.streams import stream
from harness.store import artifacts, assets
from harness.store.tensors import check_weights, load_weights, save_tensors
from harness.study.fits import check_fits
from harness.study.method import method_file
from harness.study.seeds import PUBLISHED, noise_seed, recorded
from harness.study.study import Study
from harness.study.typed import UserError

TIME = 0.5  # of the step: a wrong sign is worst there, and so is data that is read as velocity, or the other way round
IMAGES = 64  # held-out ones
LARGEST, SUSPECT = 1.0, 0.8  # of the loss of who knows the latents' mean and variance alone: refused from there on, told from here on


def take_released(study: Study, *, method: str, records: list[Path], latents: Path, out: Path) -> dict:
    """Write the published weights of `method` to `out`, by their names here, as the only run of the method.

    The record names the file, its sha256, the container that was taken and what was dropped or renamed, and holds the loss of one step on
    held-out latents. UserError for a file that holds more than weights, for weights of another architecture (the first mismatch), and for
    weights that tell no more of these latents than their mean and variance do: names and shapes fit another sign, prediction or latents.
    """
    weights = study.denoiser.released.get(method)
    if weights is None:
        raise UserError(f"study '{study.name}' has no published weights of '{method}': denoiser.released")
    check_fits(study, method)
    record = assets.record_of(records, f"denoiser.released.{method}")
    path = assets.locate(record)
    tensors, taken = read_published(path, study.denoiser, weights.container)
    with torch.device("meta"):  # names and shapes are all that is compared first
        check_weights(build_denoiser(study, method), tensors, path)
    model = load_weights(build_denoiser(study, method), tensors, path).eval().requires_grad_(False).to(device())
    loss, without = one_step(study, model, latents)
    told = {"loss": round(loss, 6), "loss_of_mean_and_variance": round(without, 6)}
    found = f"one step at t = {TIME:g} on {min(IMAGES, len(study.outlier_rows))} held-out latents has a loss of {loss:.3g}"
    if not loss < LARGEST * without:
        raise UserError(
            f"{path}: {found}, and {without:.3g} is what their mean and variance alone give: as study '{study.name}' reads them, the "
            f"weights know nothing of these latents; look at denoiser.released.{method} (convention {weights.convention}, container "
            f"{taken['container']}), at latents.statistics and at the encoder"
        )
    if loss > SUSPECT * without:
        print(
            f"warning: {path}: {found}, not far below what their mean and variance alone give, {without:.3g}: are these the latents that "
            "the weights were trained on?",
            file=sys.stderr,
        )
    facts = {"checkpoint": path.name, "checkpoint_sha256": artifacts.sha256(path), "average": weights.average, **taken, **told}
    making = {"stage": "released", "module": __name__, "config": weights, "inputs": [record, latents], "scripts": [method_file(method)]}
    with artifacts.artifact(out, **making, method=method, seed=recorded(PUBLISHED), status="ok", **facts) as temporary:
        save_tensors(temporary, tensors)
    return {"written": str(out), **taken, **told}


@torch.no_grad()
def one_step(study: Study, model: nn.Module, latents: Path) -> tuple[float, float]:
    """(loss of the velocity that the model predicts at TIME; that of the best guess by each channel's mean and variance).

    Means over IMAGES held-out latents, evenly spaced. That guess is linear in x_t: of a channel of variance V and noise of variance s^2 it
    leaves 4 V s^2 / (V + s^2) at t = 0.5.
    """
    section, source, rows = study.denoiser, load_held_out(latents), study.outlier_rows
    rows = [rows[place * len(rows) // IMAGES] for place in range(IMAGES)] if len(rows) > IMAGES else rows
    clean, labels = source.latents[rows], source.labels[rows]
    noise = torch.stack([torch.randn(study.latent_shape, generator=stream(noise_seed(PUBLISHED), "released", row)) for row in rows])
    losses, size = [], study.outlier_statistics.batch
    for parts in zip(clean.split(size), (noise * section.noise_scale).split(size), labels.split(size), strict=True):
        losses.append(_loss(study, model, *(part.to(device()) for part in parts)))
    variance, scale = clean.var(dim=(0, 2, 3), correction=0), section.noise_scale**2
    return torch.cat(losses).mean().item(), (4 * variance * scale / (variance + scale)).mean().item()


def _loss(study: Study, model: nn.Module, clean: Tensor, noise: Tensor, labels: Tensor) -> Tensor:
    """(B, C, H, W) of a batch."""
    t = torch.full((len(clean),), TIME, device=clean.device)
    output = model(at_time(clean, noise, t), t, labels)
    return flow_loss(clean, noise, t, output.float(), study.denoiser.prediction, study.denoiser.t_min).cpu()
