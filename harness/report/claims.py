"""Stage `claims`: the verdicts on the paper's claims, as Markdown for readers and CSV with a line for each condition."""

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from harness.report import rows as row_files
from harness.report.conditions import Above, EmaAbove
from harness.report.hypotheses import Claims, load_claims
from harness.report.statistics import POWER, SKEW, Estimate, detectable
from harness.report.verdicts import ALPHA, MOST_SEEDS, Result, Verdict, effect_text, finding, judge
from harness.report.words import number, seeds_text
from harness.results.markdown import markdown_table
from harness.store.files import write_text
from harness.study.study import Study

HEADINGS = ["Claim", "Verdict", "Effect [95 % interval]", "Seeds", "Seeds needed", "Paper", "Source"]


def render_claims(study: Study, *, methods: list[str], seeds: list[int], results: Path, spec: Path, out: Path) -> dict[str, Any]:
    """Write `out` (.md), and beside it .csv."""
    claims, rows = load_claims(spec), row_files.collect(study, methods, seeds, results)
    page, lines = claims_texts(study, rows, methods, seeds, claims)
    write_text(out.with_suffix(".csv"), lines)
    write_text(out, page)
    return {"verdicts": dict(Counter(one.verdict for one in judge(claims, rows, study, methods))), "claims": str(out)}


def claims_texts(study: Study, rows: pd.DataFrame, methods: list[str], seeds: list[int], spec: Claims) -> tuple[str, str]:
    """The page in Markdown and CSV, from the rows of `methods` and `seeds` alone."""
    verdicts, seeds = judge(spec, rows, study, methods), study.trained_seeds(methods, seeds)
    return claims_markdown(study, rows, seeds, spec.title, verdicts), claims_csv(study, verdicts)


def claims_markdown(study: Study, rows: pd.DataFrame, seeds: list[int], title: str, verdicts: list[Verdict]) -> str:
    """The page: a table, a paragraph for each claim, and the rule."""
    lines = [f"# {title}: {study.title}", "", markdown_table(HEADINGS, map(_cells, verdicts), "llrrrll")]
    for place, one in enumerate(verdicts, start=1):
        paragraph = f"**{one.verdict.capitalize()}.** {one.note}".rstrip()
        lines += ["", f"## {place}. {one.text}", "", paragraph, "", *(f"- {_bullet(result)}" for result in one.conditions)]
    lines += ["", "## How the verdicts are made", "", *(f"- {line}" for line in rule(study, rows, seeds, verdicts))]
    return "\n".join(lines) + "\n"


def _cells(one: Verdict) -> list[str]:
    key = one.key
    if key.effect is None or key.condition.in_words:
        effect = key.reason
    else:
        effect = effect_text(key) + (f" ({number(100 * key.relative, 1, signed=True)} %)" if key.relative is not None else "")
        effect += f" ({key.detail})" if key.detail else ""
    effect = f"{key.text}: {effect}" if len(one.conditions) > 1 else effect
    return [one.text, f"**{one.verdict}**", effect, str(key.seeds or "–"), key.needed_text, key.paper or "–", one.source]


def _bullet(result: Result) -> str:
    shown = f" Paper: {result.paper}." if result.paper else ""
    return f"{result.text}: **{result.outcome}**; {finding(result)}. Refuted if {result.condition.refuted_if}.{shown}"


def rule(study: Study, rows: pd.DataFrame, seeds: list[int], verdicts: list[Verdict]) -> list[str]:
    """How the verdicts were made, in words."""
    tested = [result for one in verdicts for result in one.conditions if result.adjusted is not None]
    left = sum(result.outcome == "undecided" for result in tested)
    kinds = {type(result.condition) for result in tested}
    commits = ", ".join(sorted({commit + "+dirty" * dirty for commit, dirty in zip(rows["commit"], rows["dirty"], strict=True)}))
    if not seeds:
        return [f"Nothing is tested: these weights are published, and of no seed. N = {study.sampling.count} samples. Commit {commits}."]
    unseen = 100 * (1 - ALPHA ** (1 / len(seeds)))
    level = f", {ALPHA / left:.2g}" if left else ""
    lines = [
        "A claim replicates if all of its conditions hold, and does not replicate if one is refuted; otherwise it is undecided. It is not "
        "tested where the study, the run or the rows lack what it is about. One seed never decides, except on what is counted (below), and "
        "a run that diverged or failed leaves every claim that needs it undecided.",
        "Two methods are compared by seed: both had the same first weights, data order and noise. A condition holds if the mean over seeds "
        "lies on the claimed side, and is refuted if it lies on the other, by a two-sided Student t-test with an adjusted p below "
        f"{ALPHA:.2f}. Adjusted: Holm's correction over all that is tested on this page, {len(tested)} here, so that the chance that any "
        f"of them is wrong is at most {100 * ALPHA:.0f} %, for seeds that are normal or log-normal. Brackets are the 95 % interval of one "
        "condition without that correction; percentages are of the mean of the method compared with.",
        "Above a value: the difference of two methods is symmetric where there is no effect, however skewed each of them is; the seeds of "
        "one method are not. So p is the larger of Student's t and of what log-normal seeds would give, skewed to either side up to "
        f"sigma = {SKEW:g}.",
        "Not lower, by a margin: the same test, against (1 − margin) × the mean of the other method. It holds if the mean is shown to be "
        "inside the margin, whether a little lower or not, and is refuted if it is shown to be outside.",
        *(
            [
                "Between EMA decays: the difference between the scores of two averages and that between the two methods are both paired by "
                "seed. The first is larger if their sum and their difference have one sign, both by the same test; p is the larger of the "
                "two, times the number of decays. With no effect at all it decides in at most the same 5 %."
            ]
            if EmaAbove in kinds
            else []
        ),
        "That a share is 0 in every seed, or is not, is looked at and not tested: a counter-example refutes it. Seeds that were not run "
        f"may differ: after {seeds_text(len(seeds))} without one, up to {unseen:.0f} % of all seeds may be counter-examples (95 %).",
        "GFLOPs and parameters are counted, the same in every run: one value decides.",
        f"Seeds needed: how many would give the test a power of {100 * POWER:.0f} % at the level that Holm's correction leaves to what is "
        f"undecided{level}, from the fewest to the most that the 95 % interval of the effect, in standard deviations over seeds, allows; "
        f"more than {MOST_SEEDS} are not looked for.",
    ]
    if len(seeds) > 1 and tested:
        size, above = (detectable(len(seeds), ALPHA / len(tested), skewed=skewed) for skewed in (False, True))
        lines.append(
            f"The most that {seeds_text(len(seeds))} can do: of {len(tested)} effects the clearest is decided {10 * POWER:.0f} times in 10 "
            f"if it is {size:.1f} standard deviations over seeds"
            + (f", or {above:.1f} where one method's score is held against a value." if Above in kinds else ".")
        )
    if study.outliers != "natural":
        lines.append(
            "This is an embedded study: a verdict is about its small models, and on no account about ImageNet. Encoder, decoder and judge "
            "are trained once, so the seeds vary the denoiser alone."
        )
    return [*lines, f"N = {study.sampling.count} samples a run; seeds {', '.join(map(str, seeds))}; EMA {study.ema:g}. Commit {commits}."]


def claims_csv(study: Study, verdicts: list[Verdict]) -> str:
    """A line for each condition, unrounded; what there is not is empty."""
    lines = [{"study": study.name, "claim": one.id, "verdict": one.verdict} | _line(r) for one in verdicts for r in one.conditions]
    return pd.DataFrame(lines).to_csv(index=False, lineterminator="\n")


def _line(result: Result) -> dict[str, Any]:
    effect = result.effect or Estimate(float("nan"), float("nan"), 0)
    interval = {"effect": effect.mean, "low": effect.low, "high": effect.high, "sd": effect.sd}
    fields = ("relative", "p", "adjusted", "outcome", "reason", "detail", "seeds_needed", "paper")
    facts = {field: getattr(result, field) for field in fields}
    who = {field: getattr(result, field) for field in ("text", "kind", "method", "against", "score", "seeds")}
    needed = {"seeds_needed": result.needed_text.removeprefix("–")}
    return who | interval | facts | needed
