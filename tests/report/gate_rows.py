"""Rows that no run made, for tests of the gate."""

import hashlib

import pandas as pd

from harness.report.rows import typed
from harness.results.schema import Row
from harness.results.scores import score_info

HASHES = dict.fromkeys(("reference", "extractor", "encoder", "latents", "decoder", "denoiser", "samples"), "a" * 64)
MADE = {
    "config": "d" * 16, "code": "e" * 16, "commit": "0123456789ab", "dirty": False, "precision": "float32", "tf32": False, "compile": False,
    "versions": "torch 2.13.0", "device": "a CPU", "schema_version": 4,
}  # fmt: skip
METHODS = ("baseline", "ttr")


FRESH = 100  # the first of the fresh seeds, where they are others than the stored ones


def table(values, first=0, **changes):
    """Rows of {(method, score): values over the seeds `first`, `first` + 1, ...}; None is a run that diverged."""
    lines = []
    for (method, score), of in values.items():
        for seed, value in enumerate(of, first):
            made = {part: hashlib.sha256(f"{part} {method} {seed}".encode()).hexdigest() for part in ("denoiser", "samples")}
            status = {"status": "ok", "reason": ""} if value is not None else {"status": "diverged", "reason": "loss is nan"}
            info = score_info(score)
            row = Row(study="digits", method=method, seed=seed, ema=0.98, step=1500, guidance="none", score=score, value=value, low=None,
                      high=None, how="none: synthetic", n=60, better=info.better, shared=info.shared,
                      registers="b" * 64 if method == "ttr" else "none", **status, **HASHES | made, **MADE)  # fmt: skip
            lines.append(row.model_dump())
    return typed(pd.DataFrame(lines)).assign(**changes)


def draws(rng, seeds, shift=0.0, methods=METHODS):
    """Scores whose noise differs 30-fold between methods and is partly that of the seed, beside what does not vary."""
    values = {}
    for score in ("fid", "is", "recall"):
        common = rng.normal(size=seeds)
        for place, method in enumerate(methods):
            values[method, score] = list(5.0 + shift + 30.0 ** (place / max(1, len(methods) - 1)) * (common + rng.normal(size=seeds)))
    return values | {(method, score): [0.05] * seeds for method in methods for score in ("rfid", "parameters")}
