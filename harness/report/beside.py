"""The paper's values beside the measured ones, and whether they can be compared at all."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from harness.report import paper
from harness.report import rows as row_files
from harness.report.cells import EMPTY, Cell, empty, named
from harness.report.markup import TextTable
from harness.report.specs import Column, OfPaper
from harness.report.statistics import Estimate, by_seed, estimate
from harness.results.references import HELD_OUT
from harness.results.scores import BY_BLOCK, BY_THRESHOLD, score_info
from harness.study.sections.released import PrintedScore
from harness.study.study import Study

PAGE = 26  # lines
TITLES = {
    "data": "data",
    "judge": "judge",
    "reference": "reference statistics",
    "samples": "N",
    "labels": "labels",
    "nfe": "NFE",
    "guidance": "guidance",
    "ema": "EMA decay",
    "epochs": "epochs",
}
RULE = (
    "Comparable: yes, where data, judge, reference statistics, N, labels, NFE, guidance, EMA decay and epochs are the same; unknown, where "
    "{source} not give all of them; no, where one differs, and then no difference is shown."
)
NOTE = (
    "Paper beside measured: the paper's values are as printed, each of a single run without an interval, so the interval of a difference "
    f"knows the measured spread alone. {RULE.format(source='the paper and its released code do')}"
)
OF_PUBLISHED = "Published beside measured: values as they are printed for the same weights, each of a single run"


@dataclass(frozen=True)
class PaperLine:
    """A value of the paper with the measured one. `because`: what differs or is not given; `why`: the reason for no measured value."""

    method: str
    score: str
    guided: bool
    paper: paper.Printed
    measured: Estimate | None
    why: str
    comparable: Literal["yes", "no", "unknown"]
    because: str
    published: bool = False  # of published weights, not of the paper

    @property
    def difference(self) -> float | None:
        """Measured minus printed; None where the two cannot be compared."""
        return None if self.measured is None or self.comparable == "no" else self.measured.mean - self.paper.value


def lines(study: Study, rows: pd.DataFrame, methods: list[str], wanted: Collection[tuple[str, bool]] | None = None) -> list[PaperLine]:
    """What the paper prints for `methods` in this study, beside the measured values; nothing where it has no such study.

    `rows`: of the study, in every view. `wanted`: (score, guided) of a table's columns; None: all that is not of a single block.
    """
    beside = []
    for guided in (False, True):
        table, ours = _measured(study, rows, guided)
        for method, scores in printed_of(study, guided=guided).items():
            for score, printed in scores.items() if method in methods else ():
                if ("@" in score) if wanted is None else ((score, guided) not in wanted):
                    continue
                chosen = table[table["score"] == score]
                why = empty(chosen, [method]).get(method, "")
                values = by_seed(chosen, method, score).to_numpy()
                measured = None if why or not len(values) else estimate(values[:1] if score_info(score).shared else values)
                verdict = comparable(study, score, printed, ours.get(method), method)
                published = method in study.denoiser.released
                beside.append(PaperLine(method, score, guided, printed, measured, why, *verdict, published))
    return sorted(beside, key=lambda line: (methods.index(line.method), line.guided))


def _measured(study: Study, rows: pd.DataFrame, guided: bool) -> tuple[pd.DataFrame, dict[str, str]]:
    """The rows that stand beside the paper's, and the guidance that was searched for, by method: a study may have that or its own."""
    searched = row_files.of_view(rows, study, guided=True) if guided else rows[:0]
    return (searched, row_files.choices(searched)) if len(searched) else (row_files.of_view(rows, study), {})


def printed_of(study: Study, *, guided: bool) -> dict[str, dict[str, paper.Printed]]:
    """method -> score -> what the paper prints in this study; of published weights what is printed for them."""
    values = {method: scores for method, scores in paper.values(study.name, guided=guided).items() if method not in study.denoiser.released}
    released = {} if guided else study.denoiser.released
    return values | {method: {score: _published(one) for score, one in of.printed.items()} for method, of in released.items() if of.printed}


def _published(one: PrintedScore) -> paper.Printed:
    facts = one.model_dump(include={"reference", "labels", "nfe", "guidance", "ema", "judge"})
    data = paper.TrainingImages(**one.data.model_dump()) if one.data else None
    return paper.Printed(
        value=one.value,
        digits=one.digits,
        sources=[one.source],
        epochs=one.epochs,
        samples=one.samples,
        note=one.note,
        protocol=paper.Protocol(**facts, data=data, unclear=one.unclear),
    )


def comparable(
    study: Study, score: str, printed: paper.Printed, guidance: str | None = None, method: str | None = None
) -> tuple[Literal["yes", "no", "unknown"], str]:
    """Whether a value of the paper and one of `study` were measured alike, and because of what not.

    `guidance`: one that was searched for.
    """
    if score_info(score).of == "network":  # depends on nothing but the method
        other = score == "parameters" and printed.counts == "all"
        return ("no", "the paper counts parameters that are not trained, too") if other else ("yes", "")
    ours, theirs = (
        facts(study, method) | ({"guidance": guidance} if guidance else {}),
        printed.protocol.model_dump() | {"samples": printed.samples, "epochs": printed.epochs},
    )
    fields = (
        ["data", "epochs"]
        if score.startswith((BY_THRESHOLD, BY_BLOCK))
        else [field for field in TITLES if (score, field) != ("is", "reference")]
    )
    guided = theirs["guidance"] == paper.GUIDED and ours["guidance"] != "none"  # of a kind that may be ours
    unknown = [field for field in fields if None in (theirs[field], ours[field]) or (field == "guidance" and guided)]
    lacking = [TITLES[field] for field in unknown] + printed.protocol.unclear
    released = method in study.denoiser.released
    source, where = ("their source", "there") if released else ("the paper", "in the paper")
    differing = [
        f"{TITLES[field]}: {said(theirs[field])} {where}, {said(ours[field])} here"
        for field in fields
        if TITLES[field] not in lacking and theirs[field] != ours[field]
    ]
    not_given = [f"{source} does not give {', '.join(lacking)}"] if lacking else []
    return "no" if differing else "unknown" if lacking else "yes", "; ".join(differing + not_given)


def facts(study: Study, method: str | None = None) -> dict[str, object]:
    """What the study's scores depend on besides the method, by the fields of TITLES; of published weights None where that is unknown."""
    released = study.denoiser.released.get(method or "")
    training, references, judge = study.denoiser.training, study.evaluation.references, study.evaluation.judge
    data = {"train_images": study.data.train_images, "classes": study.data.classes, "image_size": study.data.image_size}
    return {
        "data": data,
        "judge": judge.name,
        "reference": references[0].name if references else HELD_OUT,
        "samples": study.sampling.count,
        "labels": study.sampling.labels,
        "nfe": study.sampling.nfe,
        "guidance": study.sampling.guidance.text,
        "ema": released.average if released else study.ema,
        "epochs": released.epochs if released else training.in_epochs(study.data.train_images),
    }


def said(value: object) -> str:
    """A fact of TITLES in words."""
    if isinstance(value, dict):
        return f"{value['train_images']} images of {value['classes']} classes at {value['image_size']} px"
    return f"{value:g}" if isinstance(value, float) else str(value)


def printed_tables(groups: list[tuple[str | None, list[PaperLine]]]) -> list[TextTable]:
    """The panels, of groups with their titles, none much longer than a page. Measured values have one decimal more than the printed one."""
    pages: list[list[tuple[str | None, list[PaperLine]]]] = []
    for title, some in groups:
        if some and (not pages or sum(len(lines) for _, lines in pages[-1]) + len(some) > PAGE):
            pages.append([])
        if some:
            pages[-1].append((title, some))
    return [printed_table(page, " (continued)" * (place > 0)) for place, page in enumerate(pages)]


def notes(lines: list[PaperLine]) -> list[str]:
    """What is said under the panels of these lines: how they are compared, and where values of published weights are printed."""
    published = [line for line in lines if line.published]
    if not published:
        return [NOTE] * bool(lines)
    sources = dict.fromkeys(f"{line.paper.text}, {'; '.join(line.paper.sources)}" for line in published)
    return [f"{OF_PUBLISHED} ({' | '.join(sources)}). {RULE.format(source='their source does')}", *[NOTE] * (len(published) < len(lines))]


def printed_table(groups: list[tuple[str | None, list[PaperLine]]], further: str = "") -> TextTable:
    """One of `printed_tables`, of groups with their titles."""
    word = "Published" if all(line.published for _, lines in groups for line in lines) else "Paper"
    rows: list[tuple[list[str], list[Cell]]] = []
    titles: dict[int, str] = {}
    for title, some in groups:
        if title:
            titles[len(rows)] = title
        rows += _rows(some, grouped=bool(title))
    return TextTable(f"{word} beside measured{further}", ["Method", "Score", word, "Measured", "Difference", "Comparable?"], rows, titles)


def _rows(lines: list[PaperLine], *, grouped: bool) -> list[tuple[list[str], list[Cell]]]:
    rows = []
    for line in lines:
        printed, info = line.paper, score_info(line.score)
        digits, scale = max(printed.digits, 0) + 1, 10.0 ** min(printed.digits, 0)
        plain, signed = (Column(score=line.score, scale=scale, digits=digits, difference=signed) for signed in (False, True))
        unit = {-6: ", M"}.get(printed.digits, "")
        measured = difference = Cell(EMPTY, why=line.why)
        if line.measured is not None:
            half = plain.text(line.measured.half) if line.measured.n > 1 else ""
            measured = Cell(plain.text(line.measured.mean), half)
            difference = Cell(EMPTY) if line.difference is None else Cell(signed.text(line.difference), half)
        verdict = Cell(line.comparable, why=line.because and f"{line.comparable}, because {line.because}")
        title = f"{info.title}{unit}{', guided' if line.guided else ''}"
        method = named(line.method).partition(" (")[0] if grouped and line.method == "baseline" else named(line.method)
        rows.append(([method, title], [Cell(printed.text), measured, difference, verdict]))
    return rows


def alone(kind: OfPaper) -> TextTable:
    """Rows that only the paper has: quoted there from other papers, or of text to image, whose training code is not released."""
    source = paper.paper()
    if kind == "quoted":
        headings = ["Model", "Epochs", "Parameters, M ↓", "FID ↓", "FID, guided ↓"]
        rows = [
            (
                [one.model],
                [Cell(f"{one.epochs}"), Cell(f"{one.parameters / 1e6:.0f}"), *(_printed(v, 2) for v in (one.fid, one.guided_fid))],
            )
            for one in source.quoted
        ]
        return TextTable("Quoted by the paper from other papers", headings, rows)
    rows = [([one.model], [_printed(one.geneval, 1), _printed(one.dpg_bench, 1)]) for one in source.text_to_image]
    return TextTable("As the paper prints it", ["Model", "GenEval, % ↑", "DPG-Bench, % ↑"], rows)


def _printed(value: float | None, digits: int) -> Cell:
    return Cell(EMPTY if value is None else f"{value:.{digits}f}")


def paper_csv(lines: list[PaperLine]) -> str:
    """One line a value of the paper, unrounded."""
    table = [
        {
            "method": line.method,
            "score": line.score,
            "guided": line.guided,
            "paper": line.paper.text,
            "measured": line.measured.mean if line.measured else None,
            "low": line.measured.low if line.measured else None,
            "high": line.measured.high if line.measured else None,
            "seeds": line.measured.n if line.measured else 0,
            "difference": line.difference,
            "comparable": line.comparable,
            "because": line.because or line.why,
            "sources": "; ".join(line.paper.sources),
        }
        for line in lines
    ]
    return pd.DataFrame(table).to_csv(index=False, lineterminator="\n")
