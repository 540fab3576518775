"""Stage `outliers`: L2 norms of patch tokens at every layer of the encoder, and every block and noise level of the denoiser.

An outlier is a patch token whose norm exceeds `factor` times the median over all patch tokens of that layer (and noise level).
Registers are not patch tokens and are left out. As in the released code, the norm is
that of the residual stream: in the encoder before the final norm (TTR/shared/algorithms.py), in the denoiser after each block.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import torch
from pyarrow import parquet
from torch import Tensor

from harness.denoiser.build import load_denoiser
from harness.denoiser.calls import file_of
from harness.denoiser.flow import at_time
from harness.encoder.latents import load_held_out, load_train_norms
from harness.evaluation.outcome import Subject, scores_by, stop_of
from harness.evaluation.outlier_scores import FUNCTIONS, QUANTILES, LayerStatistics, Tokens, TrainingTokens, layer_of, worst
from harness.evaluation.runs import chain, check_run, provenance_of
from harness.machine.device import device
from harness.machine.streams import stream
from harness.results.schema import NONE, Score, ScoreFile
from harness.results.scores import score_info, scores_of
from harness.results.views import plain_view
from harness.store import artifacts
from harness.store.files import write_text
from harness.study.method import load_method
from harness.study.seeds import noise_seed, run_name
from harness.study.study import Study

NUMBERS = ("median", "max", "share", "max_over_median", *(f"q{q:g}" for q in QUANTILES))
LINES = pa.schema(
    [("part", pa.string()), ("layer", pa.int64()), ("t", pa.float64()), ("tokens", pa.int64()), *((name, pa.float64()) for name in NUMBERS)]
)


def noise_of(study: Study, seed: int, images: Iterable[int]) -> Tensor:
    """Noise (images, C, H, W) of held-out images by their place in the reference split; of each from (seed, place) alone."""
    noise = [torch.randn(study.latent_shape, generator=stream(noise_seed(seed), "outliers", image)) for image in images]
    return torch.stack(noise) * study.denoiser.noise_scale


@torch.no_grad()
def denoiser_norms(model: torch.nn.Module, clean: Tensor, noise: Tensor, labels: Tensor, t: float) -> list[Tensor]:
    """Norms (B, P) of the patch tokens after each block, and of the final layer, at noise level t; registers, which come first, cut off."""
    patches, outputs = model.side**2, []
    handles = [
        module.register_forward_hook(lambda _m, _a, out: outputs.append(out[:, -patches:].norm(dim=-1).cpu()))
        for module in (*model.blocks, model.final_layer)
    ]
    times = torch.full((len(clean),), t, device=clean.device)
    model(at_time(clean, noise, times), times, labels)
    for handle in handles:
        handle.remove()
    return outputs


def _in_batches(model: torch.nn.Module, clean: Tensor, noise: Tensor, labels: Tensor, t: float, size: int) -> Iterator[list[Tensor]]:
    for parts in zip(clean.split(size), noise.split(size), labels.split(size), strict=True):
        yield denoiser_norms(model, *(part.to(device()) for part in parts), t)


def measure_outliers(study: Study, *, method: str, seeds: list[int], denoisers: list[Path], latents: Path, out: list[Path]) -> dict:
    """Statistics of every seed of a method: JSON for the table, and parquet of the same name.

    The parquet has a line per layer (-1: embeddings), and per block and noise level.
    Of a denoiser that diverged there are no lines, and its scores say so.
    """
    config, source, rows = study.outlier_statistics, load_held_out(latents), study.outlier_rows
    encoder = []
    if source.layer_norms is not None:
        norms_of = enumerate(source.layer_norms[rows].unbind(dim=1), start=-1)
        encoder = [layer_of("encoder", layer, None, norms, config.factor) for layer, norms in norms_of]
    clean, labels = source.latents[rows], source.labels[rows]
    provenance, hashes, printed = provenance_of(__name__, config, study, method), chain(latents), {}
    tokens = Tokens(len(clean), hashes["latents"], ("encoder", hashes["encoder"]), encoder)
    shared = _scores(study, "encoder tokens", tokens) | filtered(study, method, latents)
    for seed, path, target in zip(seeds, denoisers, out, strict=True):
        check_run(path, method, seed)
        record = {"stage": "outliers", "module": __name__, "inputs": [path, latents]}
        with artifacts.artifact(target, **record) as summary, artifacts.artifact(Path(target).with_suffix(".parquet"), **record) as lines:
            stop, weights = stop_of(path), artifacts.checked(path)
            blocks, output = (
                ([], []) if stop else _layers(study, load_denoiser(study, method, path), clean, labels, noise_of(study, seed, rows))
            )
            parquet.write_table(pa.Table.from_pylist([layer.line for layer in encoder + blocks + output], schema=LINES), lines)
            tokens = Tokens(len(clean), hashes["latents"], ("denoiser", weights), blocks, output, stop)
            scores = shared | _scores(study, "denoiser tokens", tokens)
            file = ScoreFile(
                study=study.name,
                method=method,
                seed=seed,
                **plain_view(study, method)._asdict(),
                sampled=file_of(artifacts.meta(path)) if method in study.denoiser.released else NONE,
                scores={name: scores[name] for name in scores_of(study, "outliers")},
                decoder=NONE,
                denoiser=weights,
                samples=NONE,
                provenance=provenance,
                details={name: place for name, place in places(encoder, blocks).items() if scores[name].value is not None},
                **hashes,
            )
            write_text(summary, file.model_dump_json(indent=2) + "\n")
        printed[run_name(seed)] = {name: score.status if score.value is None else score.value for name, score in file.scores.items()}
    return printed


def _scores(study: Study, of: str, subject: Subject) -> dict[str, Score]:
    return scores_by(FUNCTIONS, [name for name in scores_of(study, "outliers") if score_info(name).of == of], subject)


def _layers(
    study: Study, model: torch.nn.Module, clean: Tensor, labels: Tensor, noise: Tensor
) -> tuple[list[LayerStatistics], list[LayerStatistics]]:
    """Of a denoiser on the latents `clean` and `noise`, each (images, C, H, W): its blocks, and its output, at every noise level."""
    config = study.outlier_statistics
    blocks, outputs = [], []
    for t in config.times:
        *norms, output = (torch.cat(parts) for parts in zip(*_in_batches(model, clean, noise, labels, t, config.batch), strict=True))
        blocks += [layer_of("denoiser", block, t, of_block, config.factor) for block, of_block in enumerate(norms)]
        outputs.append(layer_of("output", len(norms), t, output, config.factor))
    return blocks, outputs


def places(*models: list[LayerStatistics]) -> dict[str, dict]:
    """By score, where the worst is: layer or block, and noise level."""
    columns = {"outlier_share": "share", "max_over_median": "max_over_median"}
    lines = {
        f"{layers[0].line['part']}_{name}": worst(layers, column).line for layers in models if layers for name, column in columns.items()
    }
    return {score: {"layer": line["layer"], "t": line["t"]} for score, line in lines.items()}


def filtered(study: Study, method: str, latents: Path) -> dict[str, Score]:
    """Shares of training tokens that the method's loss mask would leave out at several thresholds of its norm; 0 where it has no mask."""
    if not study.encoder.has_tokens:
        return {}
    mask = load_method(method).loss_mask
    norms = load_train_norms(latents, mask.norm if mask else "pre_ln").double()
    return _scores(study, "training tokens", TrainingTokens(norms, masks=mask is not None))
