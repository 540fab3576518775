"""Rows that no run made, for tests of what is rendered from rows."""

import pandas as pd

from harness.report.rows import typed
from harness.results.schema import Row
from harness.results.scores import SCORES, score_info

FIDS = {"baseline": [1.0, 1.1, 0.9], "masked": [1.05, 1.12, 0.93], "dsr": [0.5, 0.61, 0.41]}
# the methods that the golden tables show, in the order of their rows, whatever else is in baselines/
EIGHT = ["baseline", "masked", "diffusion_registers", "ttr", "recursive_ttr", "dsr", "trained_registers", "dsr_trained"]
HASHES = dict(
    zip(
        ("reference", "extractor", "encoder", "registers", "latents", "decoder", "denoiser", "samples"),
        [letter * 64 for letter in "abcdef01"],
        strict=True,
    )
)
MADE = {
    "config": "d" * 16, "code": "e" * 16, "commit": "0123456789ab", "dirty": False, "precision": "float32", "tf32": False, "compile": False,
    "versions": "torch 2.13.0", "device": "a CPU", "schema_version": 4,
}  # fmt: skip


def synthetic(
    fids=FIDS, seeds=(0, 1, 2), *, study="tiny", scores=tuple(SCORES), ema=0.98, step=12, guidance="none", n=60, failed=None, **changes
):
    """Rows whose every score is a plain function of `fids`: method -> FID of each seed, with an interval within the run of ± 0.02.

    failed: (method, seed, start of score) -> (status, reason).
    """
    rows = []
    for method, values in fids.items():
        for seed in seeds:
            for place, score in enumerate(scores):
                info, fid = score_info(score), values[seed]
                value = (
                    fid - 0.05 if score == "fid_infinity" else fid if score.startswith("fid") else 10.0 + place + (not info.shared) * fid
                )
                outcome = {"value": value, "low": value - 0.02, "high": value + 0.02, "how": "synthetic", "status": "ok", "reason": ""}
                for (which, when, start), (status, reason) in (failed or {}).items():
                    if which == method and when == seed and score.startswith(start):
                        outcome = dict.fromkeys(("value", "low", "high")) | {"how": "none", "status": status, "reason": reason}
                rows.append(
                    Row(study=study, method=method, seed=seed, ema=ema, step=step, guidance=guidance, score=score, n=n,
                        better=info.better, shared=info.shared, **outcome, **HASHES, **MADE).model_dump()
                )  # fmt: skip
    return typed(pd.DataFrame(rows)).assign(**changes)
