"""What the gate compares besides scores over seeds: data, register neurons, and the parts that all runs share."""

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from harness.report.gate.lines import EVERY, GateLine, NeuronLists
from harness.results.schema import NONE
from harness.results.scores import of_outliers
from harness.results.views import View

SHARED_PARTS = {"extractor": "judge", "encoder": "encoder", "latents": "latents", "decoder": "decoder"}


def data_lines(fresh: pd.DataFrame, stored: pd.DataFrame) -> Iterator[GateLine]:
    """A line for each data set that samples are compared with: its source, and the images that were read of it."""
    before, after = (_compared(rows).groupby("score", sort=False)[["reference", "content"]].first() for rows in (stored, fresh))
    scores: dict[tuple[str, ...], list[str]] = {}
    for score in before.index.intersection(after.index):
        scores.setdefault((*before.loc[score], *after.loc[score]), []).append(score)
    for (old, old_images, new, new_images), of in scores.items():
        line = GateLine(EVERY, "data compared with")
        if old != new:
            yield replace(line, verdict="difference", why=f"must be equal: {old[:12]} before, {new[:12]} now, for {', '.join(of)}")
        elif old_images == new_images:
            yield replace(line, verdict="identical")
        elif NONE in (old_images, new_images):
            yield replace(
                line, verdict="note", why="the same file; of which images of it, only rows from version 4 on say: renew with --update"
            )
        else:
            why = f"other images of the same data: {old_images[:12]} before, {new_images[:12]} now, for {', '.join(of)}"
            yield replace(line, verdict="difference", why=why)


def sampled_lines(fresh: pd.DataFrame, stored: pd.DataFrame) -> Iterator[GateLine]:
    """A line for each method and view: what its samples were drawn with, as the network saw it; none where a side does not say."""
    before, after = (_sampled(rows) for rows in (stored, fresh))
    for key in before.index.intersection(after.index):
        ema, step, guidance, method = key
        line = GateLine(method, "sampled with", View(ema, step, guidance))
        old, new = before[key], after[key]
        yield (
            replace(line, verdict="identical")
            if old == new
            else replace(line, verdict="difference", why=f"must be equal: {old} before, {new} now")
        )


def _sampled(rows: pd.DataFrame) -> pd.Series:
    told = rows[(rows["status"] == "ok") & (rows["sampled"] != NONE)]
    return told.groupby([*View._fields, "method"], sort=False)["sampled"].first()


def neuron_lines(fresh: pd.DataFrame, stored: pd.DataFrame, fresh_neurons: NeuronLists, stored_neurons: NeuronLists) -> Iterator[GateLine]:
    """A line a method: the neuron lists of one and the same encoder must be equal; those of one that was trained anew need not be."""
    before, after = (rows.groupby("method", sort=False)["encoder"].first() for rows in (stored, fresh))
    for method in (method for method in stored_neurons if method in before and method in after):
        line = GateLine(method, "register neurons")
        change = f"{_listed(stored_neurons[method])} before, {_listed(fresh_neurons.get(method, {}))} now"
        if stored_neurons[method] == fresh_neurons.get(method):
            yield replace(line, verdict="identical")
        elif before[method] == after[method]:
            yield replace(line, verdict="difference", why=f"must be equal for the same encoder: {change}")
        else:
            yield replace(line, verdict="note", why=f"{change}; the encoder is another one")


def _listed(neurons: dict[str, list[int]]) -> str:
    return "; ".join(f"layer {layer}: {', '.join(map(str, listed))}" for layer, listed in neurons.items()) or "none"


def _compared(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows that were measured against something."""
    return _of_samples(rows[(rows["status"] == "ok") & (rows["reference"] != NONE)])


def _of_samples(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[~rows["score"].map(of_outliers).astype(bool)]


def shared_part_remarks(fresh: pd.DataFrame, stored: pd.DataFrame) -> Iterator[str]:
    """A remark where the runs' shared parts are not the stored ones, which no spread over seeds covers."""
    before, after = (_of_samples(rows).groupby("method")[list(SHARED_PARTS)].first() for rows in (stored, fresh))
    methods = before.index.intersection(after.index)
    other = [name for part, name in SHARED_PARTS.items() if (before.loc[methods, part] != after.loc[methods, part]).any()]
    if other:
        yield (
            f"Not the stored bits: {', '.join(other)} (another machine, or changed code). Each is one draw, which the spread over seeds "
            "does not hold: the rate is not guaranteed, and a difference may be theirs."
        )
