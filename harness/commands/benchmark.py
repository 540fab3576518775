"""`dsr benchmark`: speed and memory of a study's denoiser on this machine, in training and in sampling, on random latents."""

import csv
import io
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from harness.denoiser.build import build_denoiser
from harness.denoiser.loss import loss_of
from harness.denoiser.recipe import recipe_of
from harness.encoder.latents import Batch
from harness.evaluation.cost import cost_scores
from harness.machine.device import allow_tf32, device, device_name
from harness.machine.streams import seed_initialisation, stream
from harness.plan.model import PEAKS
from harness.store.files import write_text
from harness.study.method import load_method
from harness.study.study import Study
from harness.training.loop import fit

WARM_UP = 3  # steps before the clock starts: compilation, allocation


def benchmark(study: Study, method: str, *, steps: int, peak_tflops: float | None) -> dict[str, object]:
    """One line: images per second and model FLOP utilisation of training (whole steps: micro-batches, optimiser, averages) and of sampling.

    Utilisation is 3 x forward FLOPs x images per second over the peak (None: an H100's in the precision of the training, and of the
    sampling); sampling counts forward FLOPs x NFE.
    """
    price, training, sampling = cost_scores(study, method), study.denoiser.training, study.sampling
    seed_initialisation(0)
    model = build_denoiser(study, method).to(device())
    denoise = torch.compile(model) if training.compile else model
    seconds, memory = _training(study, method, model, denoise, steps)
    images = training.batch / seconds
    model.eval().requires_grad_(False)
    sample_seconds, sample_memory = _sampling(study, denoise)
    nfe, flops = sampling.nfe, price["gflops"] * 1e9
    registers = load_method(method).registers(study.denoiser.registers)
    train_peak, sample_peak = (peak_tflops or PEAKS[precision] for precision in (training.arithmetic, sampling.precision))
    return {
        "study": study.name,
        "method": method,
        "registers": f"{registers.count}@{registers.start}" if registers else "none",
        "device": device_name(),
        "torch": torch.__version__,
        "precision": training.precision,
        "tf32": training.tf32,
        "compile": training.compile,
        "batch": training.batch,
        "micro_batch": training.micro_batch or training.batch,
        "gflops_forward": round(price["gflops"], 4),
        "step_seconds": round(seconds, 4),
        "train_images_per_second": round(images, 1),
        "train_mfu": round(3 * flops * images / (train_peak * 1e12), 4),
        "train_peak_tflops": train_peak,
        "train_peak_memory_gib": memory,
        "sample_precision": sampling.precision,
        "sample_batch": sampling.batch,
        "nfe": nfe,
        "samples_per_second": round(sampling.batch / sample_seconds, 2),
        "sample_mfu": round(flops * nfe * sampling.batch / sample_seconds / (sample_peak * 1e12), 4),
        "sample_peak_tflops": sample_peak,
        "sample_peak_memory_gib": sample_memory,
    }


def _training(study: Study, method: str, model: torch.nn.Module, denoise: torch.nn.Module, steps: int) -> tuple[float, float | None]:
    """Seconds of a step, without the checkpoints, whose share of a long training is limited; the peak of GPU memory in GiB."""
    config = study.denoiser.training.model_copy(update={"steps": WARM_UP + steps, "epochs": None})
    generator = stream(0, "benchmark")
    latents = torch.randn((config.batch, *study.latent_shape), generator=generator).to(device())
    labels = torch.randint(study.classes, (config.batch,), generator=generator).to(device())
    loss, began = loss_of(study, None, float("inf"), lambda _step: Batch(latents, labels, {}, None), denoise), 0.0
    _reset_memory()

    def timed(step: int, generator: torch.Generator) -> Iterator[Tensor]:
        nonlocal began
        if step == WARM_UP:
            _wait()
            began = time.perf_counter()
        yield from loss(step, generator)

    decays, warm_up = study.denoiser.ema, study.denoiser.ema_warm_up
    fit(model, timed, config, images=config.batch, name=f"benchmark {method}", seed=0, state=None, ema=decays, ema_warm_up=warm_up)
    _wait()
    return (time.perf_counter() - began) / steps, _memory()


@torch.no_grad()
def _sampling(study: Study, denoise: torch.nn.Module) -> tuple[float, float | None]:
    """Seconds of one batch of samples, without decoding; the peak of GPU memory in GiB."""
    section = study.sampling
    labels = torch.arange(section.batch, device=device()) % study.classes
    noise = torch.randn((section.batch, *study.latent_shape), generator=stream(0, "benchmark")).to(device())
    recipe = recipe_of(study)
    allow_tf32(False)

    def draw(times: Tensor) -> None:
        recipe.sample(denoise, labels, noise, noise_at=lambda _step: noise, times=times)
        _wait()

    draw(recipe.times()[:3])
    _reset_memory()
    began = time.perf_counter()
    draw(recipe.times())
    return time.perf_counter() - began, _memory()


def _wait() -> None:
    if device().type == "cuda":
        torch.cuda.synchronize()


def _reset_memory() -> None:
    if device().type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _memory() -> float | None:
    return round(torch.cuda.max_memory_allocated() / 2**30, 2) if device().type == "cuda" else None


def append(line: dict[str, object], out: Path) -> None:
    """Add a line to the CSV `out`, which is made where there is none."""
    old = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines())) if out.exists() else []
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(line), lineterminator="\n")
    writer.writeheader()
    writer.writerows([*old, line])
    write_text(out, text.getvalue())
