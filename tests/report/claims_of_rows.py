"""Claims judged on rows that a test writes."""

import numpy as np
import pandas as pd
from conftest import tiny_values

from harness.report.hypotheses import Claims, load_claims
from harness.report.verdicts import judge
from harness.study import typed as config
from harness.study.study import parse_study

SPEC = config.ROOT / "reports" / "claims.yaml"
STUDY = parse_study("tiny", tiny_values())
DECLARED = load_claims(SPEC)
TESTED = [  # one condition of every kind that is a test over seeds, each with methods of its own
    {"kind": "lower", "method": "dsr", "against": "baseline", "score": "fid"},
    {"kind": "higher", "method": "ttr", "against": "baseline", "score": "is"},
    {"kind": "not_lower", "method": "masked", "against": "baseline", "score": "kid", "margin": 0.1},
    {"kind": "above", "method": "baseline", "score": "denoiser_noise_fall", "value": 2.0},
]


def spec(*conditions, **fields):
    """A claim for each condition, or for each list of conditions."""
    lists = [c if isinstance(c, list) else [c] for c in conditions]
    return Claims(
        title="Claims",
        claims=[{"id": f"c{i}", "text": f"Claim {i}.", "source": "here", "conditions": c} | fields for i, c in enumerate(lists)],
    )


def rows(values, ema=STUDY.ema):
    """Rows of {(method, score): values by seed}, with the columns that verdicts are made from."""
    common = {"ema": ema, "status": "ok", "reason": "", "commit": "0123456789ab", "dirty": False}
    lines = [
        {"method": method, "score": score, "seed": seed, "value": float(value)} | common
        for (method, score), column in values.items()
        for seed, value in enumerate(column)
    ]
    return pd.DataFrame(lines)


def judged(values, *conditions, methods=None, study=STUDY, **fields):
    table = values if isinstance(values, pd.DataFrame) else rows(values)
    declared = conditions[0] if isinstance(conditions[0], Claims) else spec(*conditions, **fields)
    return judge(declared, table, study, methods or sorted(set(table["method"])))


def only(values, condition, **fields):
    return judged(values, condition, **fields)[0]


def whole(methods, seeds, **changed):
    """Rows of everything that reports/claims.yaml asks for; `changed` replaces FIDs."""
    rng = np.random.default_rng(0)
    fid = (
        dict(
            zip(
                ["baseline", "masked", "ttr", "recursive_ttr", "diffusion_registers", "dsr"], [1.0, 1.04, 0.7, 0.8, 0.98, 0.79], strict=True
            )
        )
        | changed
    )
    values = {}
    for method in methods:
        values[method, "fid"] = fid[method] + 0.02 * rng.normal(size=seeds)
        values[method, "gflops"] = [1.1 if method in ("dsr", "diffusion_registers") else 1.0] * seeds
        values[method, "encoder_outlier_share"] = [0.0 if "ttr" in method or method == "dsr" else 0.05] * seeds
        values[method, "denoiser_outlier_share"] = [0.0 if method == "dsr" else 0.03] * seeds
        values[method, "denoiser_middle_blocks"] = 1 + 0.1 * rng.normal(size=seeds)
        values[method, "denoiser_noise_fall"] = 0.02 + 0.1 * rng.normal(size=seeds)
    averages = [
        rows({("baseline", "fid"): fid["baseline"] + high + 0.02 * rng.normal(size=seeds)}, ema=ema)
        for ema, high in ((0.9, 0.5), (0.995, 0.2))
    ]
    return pd.concat([rows(values), *averages], ignore_index=True)
