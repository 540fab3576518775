"""`dsr trace`: from a number in the table back to the data, by the records beside the artifacts, with every hash on the way compared."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

import pandas as pd
from pydantic import BaseModel, ValidationError

from harness.report import rows as row_files
from harness.results.schema import NONE, Row, ScoreFile, rows_of
from harness.results.scores import score_info
from harness.results.views import CHOSEN, View
from harness.store import artifacts
from harness.store.assets import locate
from harness.study.typed import UserError, digest, nearest

# Inputs are listed from the samples back to the data, so that each artifact is met first where it belongs.
ORDER = (
    "outliers", "samples", "guidance", "denoiser", "decoder", "latents", "registers", "encoder", "references", "judge", "clip", "data", "asset",
)  # fmt: skip
MADE_BY = {name: (name,) for name in ("encoder", "registers", "latents", "denoiser", "samples")}  # field of Row -> stages
MADE_BY["decoder"] = ("decoder", "encoder")  # a VAE decodes itself


class TracedProvenance(BaseModel):
    """What is read of how an artifact was made."""

    commit: str
    dirty: bool
    device: str

    @property
    def revision(self) -> str:
        """The commit, and whether files had been changed since."""
        return self.commit + "+dirty" * self.dirty


class Record(BaseModel):
    """What is read of an artifact's sidecar."""

    stage: str
    sha256: str
    inputs: dict[str, str]
    code: str
    config: object
    seconds: float
    provenance: TracedProvenance


@dataclass(frozen=True)
class Artifact:
    """`name`: path below the results folder, where it is there. `sha256` is of the file as it is now; None where it is missing."""

    name: str
    sha256: str | None
    record: Record | None
    content: str | None  # of an asset's record: sha256 of the asset
    problem: str | None

    @property
    def hashes(self) -> set[str]:
        """Those that a row can have of it; of a file that is spoiled or missing the one that was recorded, so that it is one problem."""
        return {value for value in (self.record.sha256 if self.record else self.sha256, self.content) if value}


class Chain:
    """The artifacts below a results folder; each is hashed once."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self.seen: dict[str, Artifact] = {}

    def artifact(self, recorded: str) -> Artifact:
        """The artifact that a record calls `recorded`."""
        name = relative(recorded, self.results)
        if name not in self.seen:
            self.seen[name] = self._look(name)
        return self.seen[name]

    def _look(self, name: str) -> Artifact:
        path = self.results / name
        sha256 = artifacts.sha256(path) if path.exists() else None
        record, content, problem = None, None, None if sha256 else "no such file"
        try:
            record = Record.model_validate(artifacts.meta(path))
            if sha256 and sha256 != record.sha256:
                problem = f"sha256 is {brief(sha256)}, its record says {brief(record.sha256)}"
            elif sha256 and record.stage == "asset":
                content = str(json.loads(path.read_text(encoding="utf-8"))["sha256"])
                problem = _absent(path)
        except UserError:
            problem = problem or "its record is missing or not JSON"
        except (ValidationError, ValueError, KeyError, TypeError):
            problem = problem or "its record is not one that this harness writes"
        return Artifact(name, sha256, record, content, problem)

    def inputs(self, artifact: Artifact) -> list[tuple[Artifact, str]]:
        """(artifact, sha256 that the consumer read) of what an artifact was made from, in the order of ORDER."""
        inputs = [(self.artifact(name), sha256) for name, sha256 in artifact.record.inputs.items()] if artifact.record else []
        return sorted(inputs, key=lambda pair: (ORDER.index(pair[0].record.stage) if known(pair[0]) else len(ORDER), pair[0].name))

    def behind(self, artifact: Artifact) -> dict[str, Artifact]:
        """An artifact and everything it was made from, directly or not, by name."""
        seen, waiting = {}, [artifact]
        while waiting:
            one = waiting.pop()
            if one.name not in seen:
                seen[one.name] = one
                waiting += [other for other, _ in self.inputs(one)]
        return seen


def _absent(record_file: Path) -> str | None:
    """Why an asset is not where its record says; None where it is. (Its content was hashed when it was recorded; it may be very large.)"""
    try:
        locate(record_file)
    except UserError as error:
        return str(error)
    return None


def known(artifact: Artifact) -> bool:
    """Whether it has a record of a stage."""
    return artifact.record is not None and artifact.record.stage in ORDER


def brief(sha256: str | None) -> str:
    """The first 12 digits of a hash; ? where there is none."""
    return sha256[:12] if sha256 else "?"


def relative(recorded: str, results: Path) -> str:
    """A path of a record, below the results folder or that of another study beside it: the longest end of it that is there; else as it is.

    Records name paths as the stage was given them, from the folder it was started in; results may have moved since.
    """
    parts = PurePath(recorded).parts
    ends = [PurePath(*parts[start:]) for start in range(len(parts)) if start or not PurePath(recorded).is_absolute()]
    for name in [*ends, *(PurePath("..", *end.parts) for end in ends if len(end.parts) > 1)]:
        if (results / name).exists() or (results / f"{name}{artifacts.META}").exists():
            return name.as_posix()
    return recorded


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
    first = view_of(table.iloc[0])
    chosen = choose(table, method=method, score=score, seed=seed, ema=ema, step=step, guided=guided)
    view, chain, printed, problems = view_of(chosen.iloc[0]), Chain(results or Path("results") / study), set(), []
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
    lines += ["", f"{summary}; {f'problems: {len(problems)}' if problems else 'every hash on the chain fits'}"]
    return "\n".join(columns(lines)), problems


def columns(lines: list[str | tuple[str, ...]]) -> list[str]:
    """Tuples as lines with their cells one below the other; the last cell of each is as long as it likes."""
    rows = [line for line in lines if isinstance(line, tuple)]
    widths = [max((len(row[place]) for row in rows if len(row) > place + 1), default=0) for place in range(max(map(len, rows)))]
    return [
        line if isinstance(line, str) else "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False)).rstrip()
        for line in lines
    ]


def view_of(row: pd.Series | Row) -> View:
    """What a row's samples were drawn with."""
    return View(row.ema, row.step, row.guidance)


def choose(
    table: pd.DataFrame, *, method: str, score: str, seed: int | None, ema: float | None, step: int | None, guided: bool
) -> pd.DataFrame:
    """The rows of a study that are meant. UserError that names the nearest method, score, seed, average or step for one that there is not."""
    first = view_of(table.iloc[0])
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
    return f"runs/{row.method}/seed{row.seed}/{folder}{kind}{'' if row.ema == first.ema else f'-ema{row.ema:g}'}.json"


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
        f"seed {row.seed}: {value}, n = {row.n}; interval: {row.how}",
        f"  commit {revision}, code {row.code}, config {row.config}, {row.precision}, TF32 {_on(row.tf32)}, compiled {_on(row.compile)}, {row.device}",
        f"  {row.versions}",
    ]


def _on(switch: bool) -> str:
    return "yes" if switch else "no"


def tree(
    chain: Chain, artifact: Artifact, read: str | None, indent: str, printed: set[str]
) -> Iterator[tuple[tuple[str, ...], str | None]]:
    """(cells, problem) of an artifact and what it was made from; `read` is the sha256 that its consumer recorded. Each is spelt out once."""
    problem, record = artifact.problem, artifact.record
    if problem is None and read is not None and read != artifact.sha256:
        problem = f"sha256 is {brief(artifact.sha256)}, what was made from it read {brief(read)}"
    fault = f"{artifact.name}: {problem}" if problem else None
    notes = [f"asset {brief(artifact.content)}"] * bool(artifact.content) + [problem] * bool(problem)
    head = (f"{indent}{'✗' if problem else '✓'} {record.stage if record else '?'}", artifact.name, brief(artifact.sha256))
    if artifact.name in printed:
        yield (*head, "; ".join(["as above", *notes])), fault
        return
    printed.add(artifact.name)
    origin = ()
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
