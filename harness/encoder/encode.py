"""Stages `encoder`, `registers` and `latents`: an encoder of the study, the register neurons of its variants, its latents of the data."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from harness.data.images import Split
from harness.data.stage import load_data
from harness.encoder.base import Encoder, noise_from
from harness.encoder.latents import token_norms
from harness.encoder.registry import encoder_of, load_encoder
from harness.encoder.statistics import read_statistics
from harness.encoder.trained import planted_neurons
from harness.encoder.whitening import LatentMoments
from harness.machine.device import device
from harness.machine.progress import Progress
from harness.machine.streams import stream
from harness.store import artifacts, assets
from harness.store.files import write_json
from harness.store.tensors import save_tensors
from harness.study.method import EncoderRegisters
from harness.study.sections.encoder import Search
from harness.study.study import Study

if TYPE_CHECKING:
    from harness.encoder.register_search import Round

BATCH = 256
NORM_IMAGES = 10_000  # at most: training images whose token norms are kept, where the latents themselves are not


def make_encoder(
    study: Study, *, backbone: Literal["plain", "trained_registers"], data: Path, records: list[Path] = (), state: Path, out: Path
) -> dict:
    """Stage `encoder`: train it, or take the study's weights: checked against the study's sizes, and only what is used of them."""
    return encoder_of(study).make(backbone=backbone, data=data, records=records, state=state, out=out)


# --------------------------------------------------------------------------------------------------------------- registers


def search_registers(study: Study, *, encoder: str, data: Path, backbone: Path, out: Path) -> dict:
    """Stage `registers`: the register neurons of the encoder variant `encoder`, searched for or as published.

    JSON with scores per round and, where outliers were planted, precision and recall.
    """
    from harness.encoder.register_search import search_rounds  # imports transformers, as the next two do
    from harness.encoder.test_time_registers import released_neurons
    from harness.encoder.tower_files import load_tower

    section, factor = study.search, study.outlier_statistics.factor
    with artifacts.artifact(out, stage="registers", module=__name__, config=section, inputs=[data, backbone]) as path:
        if encoder in section.released_neurons:
            rounds, left = [], None
            neurons = released_neurons(section.released_neurons[encoder], load_tower(backbone))
        else:
            model, images = load_tower(backbone).to(device()), _search_images(load_data(data, "train"), section)
            rounds, neurons, left = search_rounds(model, images, EncoderRegisters.from_key(encoder), section, factor)
        planted = planted_neurons(backbone) if study.outliers == "planted" else set()
        moved = {(layer, neuron) for layer, listed in neurons.items() for neuron in listed}
        result = {
            "encoder": encoder,
            "source": section.released_neurons.get(encoder, "search"),
            "neurons": {str(layer): listed for layer, listed in sorted(neurons.items())},
            "rounds": [_round(one, planted) for one in rounds],
            "outlier_share_left": left,
            "planted": sorted(planted),
            "precision": len(moved & planted) / len(moved) if moved and planted else None,
            "recall": len(moved & planted) / len(planted) if planted else None,
        }
        write_json(path, result)
    return {name: result[name] for name in ("neurons", "source", "outlier_share_left", "precision", "recall")}


def _round(one: "Round", planted: set[tuple[int, int]]) -> dict:
    """A round of search as it is stored; scores layer by layer, of every neuron."""
    return {
        "threshold": one.threshold,
        "outlier_share_before": one.outlier_share,
        "found": [
            {"layer": layer, "neuron": neuron, "score": score, "planted": (layer, neuron) in planted}
            for layer, neuron, score in one.neurons
        ],
        "scores": [[float(f"{score:.4g}") for score in layer] for layer in one.scores],
    }


def _search_images(split: Split, section: Search) -> Callable[[], Iterator[Tensor]]:
    """Batches of the images that are searched over, decoded anew at each pass. Files are sorted by class, so these are spread out."""
    count = min(section.images, len(split))
    rows = np.linspace(0, len(split), count, endpoint=False).astype(int) if split.by_class else np.arange(count)
    return lambda: (split.pixels(part.tolist()).to(device()) for part in torch.from_numpy(rows).split(section.batch))


# ----------------------------------------------------------------------------------------------------------------- latents


def make_latents(
    study: Study, *, encoder: str, data: Path, backbone: Path, registers: Path | None = None, records: list[Path] = (), out: Path
) -> dict:
    """Stage `latents`, of the encoder variant `encoder`: its latents of the held-out images and, cached, of the training images.

    They are whitened by statistics over the training split alone, or by those that the study names for the variant (`records`); then the
    record has `statistics`, what was taken of their file, and `whitened`, mean and standard deviation of the held-out latents under them.
    """
    section, field = study.latents, f"latents.statistics.{encoder}"
    supplied = section.statistics.get(encoder)
    record = [assets.record_of(records, field)] if supplied else []
    inputs = [data, backbone, *([registers] if registers else []), *record]
    facts = {"encoder": artifacts.checked(backbone), **({"registers": artifacts.checked(registers)} if registers else {})}
    facts |= {"classes": classes} if (classes := artifacts.meta(data).get("classes")) else {}
    given, outcome = None, dict[str, object]()
    if supplied:
        shape = (study.channels, *([1, 1] if section.whitening == "channel" else [study.latent_side] * 2))
        source = assets.locate(record[0])
        given, taken = read_statistics(source, shape, supplied.multiplier)
        facts["statistics"] = {"asset": field, "file": source.name, **taken}
    with artifacts.artifact(out, stage="latents", module=__name__, config=section, inputs=inputs, outcome=outcome, **facts) as path:
        encode, moments = load_encoder(study, backbone, registers), LatentMoments(section.whitening)
        split, held_out = load_data(data, "train"), load_data(data, "reference")
        kept, norms = [], []
        count = encoded_images(study, encoder, len(split))
        rows = np.linspace(0, len(split), count, endpoint=False).astype(int)
        every = max(1, math.ceil(count / NORM_IMAGES))  # whole batches; all of them where the latents are cached
        for number, (raw, layers) in enumerate(
            _encoded(encode, split, rows, flip=study.data.flip and not section.cache, subject="training images")
        ):
            if given is None:
                moments.add(raw)
            if section.cache or number % every == 0:
                kept.append(raw.cpu())
                norms.append(layers.cpu() if layers is not None else None)
        whitening = given or moments.result().to(torch.device("cpu"))
        tensors = {"mean": whitening.mean, "std": whitening.std, "train.labels": torch.from_numpy(split.labels)}
        if kept:
            raw = torch.cat(kept)
            whitened = whitening.whiten(raw)
            if section.cache:
                tensors["train.latents"] = whitened
            if norms[0] is not None:
                tensors |= {f"train.norm.{name}": value for name, value in token_norms(torch.cat(norms), raw, whitened).items()}
        batches = _encoded(encode, held_out, np.arange(len(held_out)), flip=False, subject="held-out images")
        raw, layers = zip(*((raw.cpu(), layers.cpu() if layers is not None else None) for raw, layers in batches), strict=True)
        tensors |= {"reference.latents": whitening.whiten(torch.cat(raw)), "reference.labels": torch.from_numpy(held_out.labels)}
        if layers[0] is not None:
            tensors["reference.norms"] = torch.cat(layers)
        if given:
            whitened = tensors["reference.latents"].double()
            outcome["whitened"] = {"mean": whitened.mean().item(), "std": whitened.std().item()}
        save_tensors(path, tensors, flip=study.data.flip, statistics=0 if given else len(rows))
    told = {"statistics": facts["statistics"], **outcome} if given else {"statistics over": len(rows)}
    return {**told, "held out": len(held_out), "latent": study.latent_shape}


def encoded_images(study: Study, encoder: str, images: int) -> int:
    """Of `images` for training, those that stage `latents` encodes: for a cache, for statistics, and for the norms of tokens."""
    section = study.latents
    if section.cache:
        return images
    if encoder in section.statistics:
        return min(images, NORM_IMAGES) if study.encoder.has_tokens else 0
    return min(images, section.images or images) if section.whitening != "none" else 0


def _encoded(encoder: Encoder, split: Split, rows: np.ndarray, *, flip: bool, subject: str) -> Iterator[tuple[Tensor, Tensor | None]]:
    """(raw latents, layer norms) of `rows`, batch by batch; every second image mirrored where training mirrors half of them."""
    progress = Progress(f"encode {subject}", len(rows), "images")
    for first in range(0, len(rows), BATCH):
        batch = rows[first : first + BATCH]
        pixels = split.pixels(batch.tolist()).to(device())
        if flip:
            pixels[1::2] = pixels[1::2].flip(-1)
        yield encoder(pixels, noise_from(stream(0, f"posterior of {subject}", first), len(batch)))
        progress.update(first + len(batch))
