"""What the gate compares besides scores over seeds: data, register neurons, and the parts that all runs share."""

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from harness.report.gate.lines import EVERY, GateLine, NeuronLists
from harness.results.scores import of_outliers

SHARED_PARTS = {"extractor": "judge", "encoder": "encoder", "latents": "latents", "decoder": "decoder"}


def data_lines(fresh: pd.DataFrame, stored: pd.DataFrame) -> Iterator[GateLine]:
    """A line for each data set that samples are compared with."""
    before, after = (_of_samples(rows).groupby("score", sort=False)["reference"].first() for rows in (stored, fresh))
    scores: dict[tuple[str, str], list[str]] = {}
    for score in before.index.intersection(after.index):
        scores.setdefault((before[score], after[score]), []).append(score)
    for (old, new), of in scores.items():
        why = f"must be equal: {old[:12]} before, {new[:12]} now, for {', '.join(of)}"
        yield (
            GateLine(EVERY, "data compared with", verdict="identical")
            if old == new
            else GateLine(EVERY, "data compared with", verdict="difference", why=why)
        )


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
