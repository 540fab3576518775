"""`dsr trace`: from a number in the table back to the data, by the records beside the artifacts, with every hash on the way compared."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from pydantic import ValidationError

from harness.report import rows as row_files
from harness.report.chain import Artifact, Chain, brief
from harness.results.schema import NONE, Row, ScoreFile, rows_of
from harness.results.scores import score_info
from harness.results.views import CHOSEN, View
from harness.store import code
from harness.study.seeds import run_name, seed_text
from harness.study.typed import UserError, digest, nearest

MADE_BY: dict[str, tuple[str, ...]] = {  # field of Row -> stages
    name: (name,) for name in ("encoder", "registers", "latents", "denoiser", "samples")
}
MADE_BY["denoiser"] = ("denoiser", "released")
MADE_BY["decoder"] = ("decoder", "encoder")  # a VAE decodes itself


def trace_score(
    csv: Path,
    *,
    method: str,
    score: str,
    study: str | None = None,
    seed: int | None = None,
    ema: float | None = None,
    step: int | None = None,
    guided: bool = False,
    results: Path | None = None,
) -> tuple[str, list[str]]:
    """(text, problems): where a method's score comes from, seed by seed; a problem is a hash or value that does not fit, or a missing file.

    `study` is that of the first row where it is not given, `results` its results/<study>, `ema` and `step` those that every score is of;
    `guided`: with the guidance that was searched for.
    """
    table = row_files.from_csv(csv)
    study = nearest(study or table["study"].iloc[0], list(dict.fromkeys(table["study"])), "study")
    table = table[table["study"] == study]
    first = first_of(table, method)
    chosen = choose(table, method=method, score=score, seed=seed, ema=ema, step=step, guided=guided)
    view, chain = view_of(chosen.iloc[0]), Chain(results or Path("results") / study)
    printed: set[str] = set()
    problems: list[str] = []
    about = f"{score_info(score).title} ('{score}') of {method}, study '{study}', {view.text}"
    lines: list[str | tuple[str, ...]] = [f"{about}: {csv} back to the data, by the records in {chain.results}"]
    for line in chosen.astype(object).where(chosen.notna(), None).to_dict("records"):
        row = Row.model_validate(line)
        name = file_name(row, first)
        source = chain.artifact(name)
        wrong = [f"{name}: {reason}" for reason in mismatches(row, source, chain)]
        lines += ["", *described(row), *(f"  ✗ {reason}" for reason in wrong)]
        problems += wrong
        for cells, problem in tree(chain, source, None, "  ", printed):
            lines.append(cells)
            problems += [problem] if problem else []
    good, problems = sum(1 for one in chain.seen.values() if one.problem is None), list(dict.fromkeys(problems))
    summary = f"{good} of {len(chain.seen)} artifacts are what their records say"
    lines += ["", f"{summary}; {f'problems: {len(problems)}' if problems else 'every hash on the chain fits'}", *of_other_code(chain)]
    return "\n".join(columns(lines)), problems


def of_other_code(chain: Chain) -> Iterator[str]:
    """The source files that have changed since an artifact of the chain was made, each with the stages that it is of."""
    records = [one.record for one in chain.seen.values() if one.record]
    stages: dict[str, set[str]] = {}
    for record in records:
        for name in record.changed:
            stages.setdefault(name, set()).add(record.stage)
    if stages:
        yield "code that has changed since, with the stages that it made (`snakemake -n` says what would run again):"
        yield from (f"  {name}: {', '.join(sorted(stages[name]))}" for name in sorted(stages))
    others = {version for record in records if (version := code.python(record.provenance.python)) != code.PYTHON}
    if others:
        yield f"made under {', '.join(sorted(others))}; this is {code.PYTHON}, which reads code otherwise, so that it is not compared"


def columns(lines: list[str | tuple[str, ...]]) -> list[str]:
    """Tuples as lines with their cells one below the other; the last cell of each is as long as it likes."""
    rows = [line for line in lines if isinstance(line, tuple)]
    widths = [max((len(row[place]) for row in rows if len(row) > place + 1), default=0) for place in range(max(map(len, rows)))]
    return [
        line if isinstance(line, str) else "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False)).rstrip()
        for line in lines
    ]


def view_of(row: pd.Series | Row) -> View:
    """What a row's samples were drawn with. UserError for samples from outside."""
    if pd.isna(row.ema) or pd.isna(row.step):
        raise UserError(f"score '{row.score}' of {row.method} is of samples from outside (dsr measure): no run that made them is known")
    return View(row.ema, row.step, row.guidance)


def first_of(table: pd.DataFrame, method: str) -> View:
    """What every score of a method is of: its first row's; the table's where the method has none."""
    own = table[table["method"] == method]
    return view_of((own if len(own) else table).iloc[0])


def choose(
    table: pd.DataFrame, *, method: str, score: str, seed: int | None, ema: float | None, step: int | None, guided: bool
) -> pd.DataFrame:
    """The rows of a study that are meant.

    UserError that names the nearest method, score, seed, average or step for one that there is not.
    """
    first = first_of(table, method)
    searched = table["guidance"].str.contains(CHOSEN, regex=False)
    if guided and not searched.any():
        raise UserError("no row is of guidance that was searched for; leave out --guided")
    table = table[searched == guided]
    wanted_view = {"ema": first.ema if ema is None else ema, "step": first.step if step is None else step}
    for field, wanted in ({"method": method, "score": score} | wanted_view | {"seed": seed}).items():
        if wanted is not None:
            nearest(wanted, list(dict.fromkeys(table[field])), field)
            table = table[table[field] == wanted]
    return table


def file_name(row: Row, first: View) -> str:
    """The score file that a row is from, below the results folder; `first` is what every score is of."""
    kind = score_info(row.score).stage
    view = view_of(row)
    folder = "guided/" * view.guided + (f"step{row.step}/" if row.step != first.step else "")
    return f"runs/{row.method}/{run_name(row.seed)}/{folder}{kind}{'' if row.ema == first.ema else f'-ema{row.ema:g}'}.json"


def mismatches(row: Row, source: Artifact, chain: Chain) -> Iterator[str]:
    """Where the row of the table is not that of its score file, or names hashes that are not on the chain behind it."""
    if source.sha256 is None:
        return
    try:
        file = ScoreFile.model_validate_json((chain.results / source.name).read_bytes())
        own = next(own for own in rows_of(file) if own.score == row.score)
    except (ValidationError, UserError):
        yield "not a score file of this harness"
        return
    except StopIteration:
        yield f"has no score '{row.score}'"
        return
    for field, value in own:
        if value != getattr(row, field):
            yield f"{field} is {value}, the table says {getattr(row, field)}"
    behind = chain.behind(source).values()
    every = {NONE}.union(*(one.hashes for one in behind))
    for field in (*MADE_BY, "reference", "extractor"):
        stages = MADE_BY.get(field)
        known_hashes = (
            every if stages is None else {NONE}.union(*(one.hashes for one in behind if one.record and one.record.stage in stages))
        )
        if getattr(row, field) not in known_hashes:
            yield f"{field} {brief(getattr(row, field))} of the table is not what it was made from"


def described(row: Row) -> list[str]:
    """The row in lines."""
    interval = f" [{row.low!r}, {row.high!r}]" if row.low is not None else ""
    value = f"{row.value!r}{interval}" if row.status == "ok" else f"{row.status}: {row.reason}"
    revision = row.commit + "+dirty" * row.dirty
    return [
        f"seed {seed_text(row.seed)}: {value}, n = {row.n}; interval: {row.how}",
        f"  commit {revision}, code {row.code}, config {row.config}, "
        f"{row.precision}, TF32 {_on(row.tf32)}, compiled {_on(row.compile)}, {row.device}",
        f"  {row.versions}",
    ]


def _on(switch: bool) -> str:
    return "yes" if switch else "no"


def tree(
    chain: Chain, artifact: Artifact, read: str | None, indent: str, printed: set[str]
) -> Iterator[tuple[tuple[str, ...], str | None]]:
    """(cells, problem) of an artifact and what it was made from; `read` is the sha256 that its consumer recorded.

    Each is spelt out once.
    """
    problem, record = artifact.problem, artifact.record
    if problem is None and read is not None and read != artifact.sha256:
        problem = f"sha256 is {brief(artifact.sha256)}, what was made from it read {brief(read)}"
    fault = f"{artifact.name}: {problem}" if problem else None
    changed = bool(record and record.changed)
    notes = [f"asset {brief(artifact.content)}"] * bool(artifact.content) + ["code has changed since"] * changed
    notes += [*(record.remarks if record else []), *([problem] if problem else [])]
    head = (f"{indent}{'✗' if problem else '✓'} {record.stage if record else '?'}", artifact.name, brief(artifact.sha256))
    if artifact.name in printed:
        yield (*head, "; ".join(["as above", *notes])), fault
        return
    printed.add(artifact.name)
    origin: tuple[str, ...] = ()
    if record:
        config = digest(record.config) if record.config is not None else "none"
        origin = (
            f"code {record.code}",
            f"config {config}",
            f"{record.seconds:.1f} s",
            record.provenance.revision,
            record.provenance.device,
        )
    yield (*head, *origin, "; ".join(notes)), fault
    for other, sha256 in chain.inputs(artifact):
        yield from tree(chain, other, sha256, indent + "  ", printed)
