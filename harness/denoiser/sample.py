"""Stage `samples`: integrate from seeded noise with the EMA weights and decode. Sample i depends on (seed, i) alone."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.data.classes import check_stated, read_stated
from harness.data.images import finite, to_uint8
from harness.decoder.registry import load_decoder
from harness.denoiser.build import build_shape, load_denoiser, read_published
from harness.denoiser.calls import file_of, in_words, with_times
from harness.denoiser.recipe import recipe_of
from harness.encoder.latents import classes_of
from harness.encoder.whitening import load_whitening
from harness.machine import processes
from harness.machine.device import autocast, device
from harness.machine.progress import Progress
from harness.machine.streams import stream
from harness.results.views import Choice, plain_view
from harness.store import artifacts, assets, shards
from harness.store.files import save_npz
from harness.store.tensors import load_weights
from harness.study.seeds import WORD, noise_seed, recorded, run_name
from harness.study.study import Study
from harness.study.typed import UserError


def sample_noise(seed: int, indices: range, shape: tuple[int, ...], purpose: str = "sample") -> Tensor:
    """(len(indices), *shape) standard normal."""
    return torch.stack([torch.randn(shape, generator=stream(seed, purpose, i)) for i in indices])


def sample_labels(indices: range, classes: int, how: str = "equal", seed: int = 0) -> Tensor:
    """`equal`: classes in turn, so that every class has the same count; `random`: each drawn from (seed, i)."""
    if how == "equal":
        return torch.tensor([i % classes for i in indices])
    return torch.cat([torch.randint(classes, (1,), generator=stream(seed, "label", i)) for i in indices])


def weak_model(study: Study, records: list[Path], latents: Path) -> tuple[nn.Module | None, dict[str, dict]]:
    """The weaker model of autoguidance, from the study's asset, and for the record what was taken of its file.

    UserError where its classes are stated and are not those of `latents`.
    """
    weak = study.sampling.guidance.weak
    if weak is None:
        return None, {}
    if weak.classes:
        listed = assets.locate(assets.record_of(records, "sampling.guidance.weak.classes"))
        check_stated(read_stated(listed), classes_of(latents), listed)
    name = "sampling.guidance.weak.weights"
    path = assets.locate(assets.record_of(records, name))
    tensors, taken = read_published(path, weak, weak.weights.container)
    model = load_weights(build_shape(study, weak), tensors, path)
    return model.eval().requires_grad_(False).to(device()), {"weights": {name: taken}}


def draw_samples(
    study: Study,
    *,
    method: str,
    seeds: list[int],
    denoisers: list[Path],
    decoder: Path,
    latents: Path,
    records: list[Path] = (),
    guidance: Path | None = None,
    steps: bool = False,
    state: Path,
    out: list[Path],
) -> dict:
    """Write `images` (N, H, W, 3) uint8 and `labels` (N,) as npz, seed by seed; beside it those of the further averages that the study
    samples.

    `decoder`: its weights, or the folder of an encoder that decodes itself. `steps`: of the snapshots of the training instead, below
    `step<n>` beside `out`. `guidance`: with the one that was chosen there (stage guidance). A file that is there, as this would make it, is
    left as it is. Shards that are done wait below `state`, so that a run that was killed goes on; processes under torchrun share them. The
    record holds `shards`, their list, and `status`: `diverged` with a `reason` where the denoiser is, or an image is not finite. Where no
    weights or no guidance are to be had for that reason, there are no images. Returns what is printed: nothing but in the first process.
    """
    chosen = [guidance] if guidance else []
    for path in chosen:
        choice = read_choice(study, method, path)
        study = with_guidance(study, choice.scale, choice.interval)
    section, statuses, drawer = study.sampling, {}, SampleDrawer(study, decoder, latents, records)
    views = views_of(study, method, steps=steps, guided=bool(chosen))
    for seed, denoiser, first, (view, place) in ((*run, view) for run in zip(seeds, denoisers, out, strict=True) for view in views):
        weights, file = place(Path(denoiser)), place(Path(first))
        facts = {"config": section, "inputs": [weights, *drawer.inputs, *chosen], "method": method, "seed": recorded(seed)}
        facts |= view | drawer.facts
        outcome: dict = {"processes": processes.count()}
        artifact = artifacts.trained_artifact(file, state=state, stage="samples", module=__name__, outcome=outcome, beside=[], **facts)
        with suppress(artifacts.Finished), processes.entered_by_first(artifact) as (path, folder):
            stop = _stop(*chosen, *[weights] * steps)
            if stop is None:
                if stated := artifacts.meta(weights).get("classes"):  # of a checkpoint from elsewhere (dsr import)
                    check_stated(stated, classes_of(latents), weights)
                model = load_denoiser(study, method, weights)
                about = f"EMA {view['ema']:g}" if method not in study.denoiser.released else WORD
                about += (f", step {view['step']}" if steps else "") + f", {section.guidance.text}" * len(chosen)
                drawer.draw(folder, study, model, noise_seed(seed), f"samples {method}/{run_name(seed)}/{about}")
            if not processes.rank():
                arrays = {"images": np.zeros((0, *[study.data.image_size] * 2, 3), np.uint8), "labels": np.zeros(0, np.int64)}
                if stop is None:
                    arrays, outcome["shards"] = shards.assemble(folder, section.count)
                    outcome["sampled"] = _sampled(study, method, arrays.pop("times"), artifacts.meta(weights), view["ema"])
                    stop = status_of(artifacts.meta(weights), arrays.pop("finite"))
                outcome |= stop
                save_npz(path, arrays)
        if not processes.rank():
            record = artifacts.meta(file)
            statuses[f"{run_name(seed)}/{file.relative_to(Path(first).parent).as_posix()}"] = record.get("reason", record["status"])
    return {} if processes.rank() else {"images": section.count, "nfe": section.nfe, **drawer.facts, **statuses}


def _sampled(study: Study, method: str, times: np.ndarray, denoiser: dict[str, Any], ema: float) -> str:
    """What samples were drawn with, of times (N, calls) and the record of the weights; of published ones the sampler, too."""
    if method in study.denoiser.released:
        return f"{study.sampling.title}: {in_words(times, None, file_of(denoiser))}"
    return in_words(times, denoiser.get("averaged", {}).get(f"{ema:g}"))


def views_of(study: Study, method: str, *, steps: bool, guided: bool) -> list[tuple[dict, Callable[[Path], Path]]]:
    """(facts, where the file is that a given one is of the last step and sampled average) of what is drawn, or scored, in one go.

    `steps`: the snapshots; UserError where the study keeps none. `guided`: the sampled average alone. Otherwise every average that it
    samples. Published weights have one view.
    """
    if method in study.denoiser.released:
        return [({"ema": plain_view(study, method).ema}, lambda path: path)]
    if steps and not study.snapshots:
        raise UserError(f"study '{study.name}' keeps no weights of earlier steps; give it denoiser.snapshots")
    if steps:
        return [({"ema": study.ema, "step": step}, partial(study.snapshot_file, step=step)) for step in study.snapshots]
    return [({"ema": decay}, partial(study.average_file, decay=decay)) for decay in ([study.ema] if guided else study.sampled)]


def read_choice(study: Study, method: str, path: Path) -> Choice:
    """The guidance that was chosen for the method. UserError where it is another study's or method's."""
    choice = Choice.model_validate(artifacts.read_json(path))
    if (choice.study, choice.method) != (study.name, method):
        raise UserError(f"{path}: is of {choice.study}/{choice.method}, not of {study.name}/{method}; run the same command again")
    return choice


def with_guidance(study: Study, scale: float, interval: tuple[float, float], count: int | None = None) -> Study:
    """`study` with another scale and interval of its guidance and, where one is given, count of samples."""
    guidance = study.sampling.guidance.model_copy(update={"scale": scale, "interval": interval})
    sampling = study.sampling.model_copy(update={"guidance": guidance, "count": count or study.sampling.count})
    return study.model_copy(update={"sampling": sampling})


class SampleDrawer:
    """Draws the samples of a study with any of its denoisers. `inputs`: the files that it is made from; `facts`: for the record."""

    def __init__(self, study: Study, decoder: Path, latents: Path, records: list[Path]) -> None:
        used = [assets.record_of(records, name) for name in study.assets if name.startswith("sampling.")]
        self.inputs = [decoder, latents, *used]
        self.whitening, self.decode_raw = load_whitening(latents).to(device()), load_decoder(study, decoder)
        self.weak, self.facts = weak_model(study, records, latents)

    def draw(self, folder: Path, study: Study, model: nn.Module, seed: int, name: str) -> None:
        """Fill `folder` with shards of `study.sampling`."""
        make = partial(_batch, study, model, self.weak, lambda final: self.decode_raw(self.whitening.unwhiten(final)), seed)
        _draw_missing(folder, study, with_times(model, make), name)


def _draw_missing(folder: Path, study: Study, make: Callable[[range], dict[str, np.ndarray]], name: str) -> None:
    """Fill `folder` with the shards that are not there; the processes take them in turn, and leave together."""
    count, batch = study.sampling.count, study.sampling.batch
    wanted = processes.from_first([] if processes.rank() else shards.missing_shards(folder, shards.split(count, batch)))
    done = count - sum(map(len, wanted))
    progress = Progress(name, count, "images", start=done)
    for indices in wanted[processes.rank() :: processes.count()]:
        shards.write(folder, indices, **make(indices))
        done = min(done + len(indices) * processes.count(), count)  # the others are about as far
        progress.update(done)
    processes.wait()


@torch.no_grad()
def _batch(
    study: Study, model: nn.Module, weak: nn.Module | None, decode: Callable[[Tensor], Tensor], seed: int, indices: range
) -> dict[str, np.ndarray]:
    """images (B, H, W, 3) uint8, labels (B,), and whether each image is finite (B,)."""
    section, shape = study.sampling, study.latent_shape
    labels = sample_labels(indices, study.classes, section.labels, seed)
    final = recipe_of(study).sample(
        model,
        labels.to(device()),
        sample_noise(seed, indices, shape).to(device()),
        weak=weak,
        noise_at=lambda step: sample_noise(seed, indices, shape, f"step {step}").to(device()),
    )
    with autocast(section.precision):
        pixels = decode(final)
    kept = finite(pixels)
    pixels = torch.where(kept[:, None, None, None], pixels, -1.0)  # one that is not finite is black, and counted
    images = to_uint8(pixels, section.eight_bit)
    return {"images": images, "labels": labels.numpy(), "finite": kept.cpu().numpy()}


def _stop(*paths: Path) -> dict[str, str] | None:
    """Status and reason of the first of these artifacts that is not ok."""
    records = map(artifacts.meta, paths)
    return next(({key: record[key] for key in ("status", "reason")} for record in records if record["status"] != "ok"), None)


def status_of(denoiser: dict, finite: np.ndarray) -> dict[str, str]:
    """Status and reason of samples, from the record of their denoiser and which of them are finite, (N,) bool."""
    if denoiser.get("status", "ok") != "ok":
        return {key: denoiser[key] for key in ("status", "reason")}
    if not finite.all():
        return {"status": "diverged", "reason": f"{(~finite).sum()} of {len(finite)} images are not finite"}
    return {"status": "ok"}


def load_samples(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(images, labels) of a samples file."""
    artifacts.checked(path)
    with np.load(path, allow_pickle=False) as file:
        return file["images"], file["labels"]
