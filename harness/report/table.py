"""Stage `table`: a table from rows and a spec, as Markdown, LaTeX and the long CSV."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness import artifacts
from harness.config import UserError, explain, load_method
from harness.report import rows as row_files
from harness.report.statistics import by_seed, difference, estimate
from harness.schema import score_info, scores_of
from harness.sections import TrainedJudge
from harness.study import Study

ARROW = {"lower": " ↓", "higher": " ↑", "neither": ""}


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Column(Strict):
    """A score, or its difference to the baseline paired by seed."""

    score: str
    title: str | None = None
    difference: bool = False
    scale: float = 1.0
    digits: Annotated[int, Field(ge=0, le=8)] = 2

    @property
    def heading(self) -> str:
        info = score_info(self.score)
        return (self.title or info.title) + ("" if self.difference else ARROW[info.better])


class Panel(Strict):
    title: str
    columns: Annotated[list[Column], Field(min_length=1)]


class Spec(Strict):
    title: str
    baseline: str
    panels: Annotated[list[Panel], Field(min_length=1)]

    def for_study(self, study: Study) -> "Spec":
        """Without the columns of scores that the study does not have, such as the judge's accuracy where that is Inception."""
        has = set(scores_of(study))
        panels = [p.model_copy(update={"columns": [c for c in p.columns if c.score in has]}) for p in self.panels]
        return self.model_copy(update={"panels": [panel for panel in panels if panel.columns]})


@dataclass(frozen=True)
class Cell:
    """`mean` and `half` are formatted; `half` is empty where there is no interval."""

    mean: str
    half: str
    bold: bool


def load_spec(path: Path) -> Spec:
    try:
        spec = Spec(**yaml.safe_load(path.read_text()))
        for panel in spec.panels:
            for column in panel.columns:
                score_info(column.score)
        return spec
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error, Spec)}") from None
    except (yaml.YAMLError, TypeError) as error:
        raise UserError(f"{path}: not a table specification: {' '.join(str(error).split())}") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def cells(table: pd.DataFrame, column: Column, methods: list[str], baseline: str) -> dict[str, Cell]:
    """A column. The best mean is bold where its difference to the baseline, paired by seed, has an interval that excludes zero."""
    info = score_info(column.score)
    found, estimates = {}, {}
    for method in methods:
        values = by_seed(table, method, column.score)
        if values.empty:
            raise UserError(f"no value of score '{column.score}' for method '{method}'; run the whole line again")
        if column.difference:
            estimates[method] = difference(table, method, baseline, column.score)
        else:
            estimates[method] = estimate(values.to_numpy()[:1] if info.shared else values.to_numpy())
    best: list[str] = []
    if info.better != "neither" and not info.shared and not column.difference:
        leader = (min if info.better == "lower" else max)(methods, key=lambda m: estimates[m].mean)
        if difference(table, leader, baseline, column.score).excludes_zero:
            best = [method for method in methods if estimates[method].mean == estimates[leader].mean]
    for method, value in estimates.items():
        if column.difference and method == baseline:
            found[method] = Cell("–", "", False)
            continue
        sign = "+" if column.difference else ""
        mean = f"{value.mean * column.scale:{sign}.{column.digits}f}"
        half = "" if value.half != value.half else f"{value.half * column.scale:.{column.digits}f}"
        found[method] = Cell(mean.replace("-", "−"), half, method in best)
    return found


def markdown(panel: Panel, columns: list[dict[str, Cell]], methods: list[str]) -> str:
    def cell(c: Cell) -> str:
        text = f"{c.mean} ± {c.half}" if c.half else c.mean
        return f"**{text}**" if c.bold else text

    lines = ["| Method | " + " | ".join(column.heading for column in panel.columns) + " |", "|:--|" + "--:|" * len(columns)]
    lines += [f"| {load_method(m).title} | " + " | ".join(cell(column[m]) for column in columns) + " |" for m in methods]
    return f"**{panel.title}**\n\n" + "\n".join(lines) + "\n"


def latex(panel: Panel, columns: list[dict[str, Cell]], methods: list[str]) -> str:
    """A booktabs tabular. Needs \\usepackage{booktabs,graphicx}."""

    def cell(c: Cell) -> str:
        mean = c.mean.replace("−", "-").replace("–", "")
        text = f"{mean} \\pm {c.half}" if c.half else mean
        return "--" if not mean else f"$\\mathbf{{{text}}}$" if c.bold else f"${text}$"

    heading = [escape(column.heading) for column in panel.columns]
    lines = [f"\\begin{{tabular}}{{l{'r' * len(columns)}}}", "\\toprule", " & ".join(["Method", *heading]) + r" \\", "\\midrule"]
    lines += [" & ".join([escape(load_method(m).title), *(cell(column[m]) for column in columns)]) + r" \\" for m in methods]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"])


def escape(text: str) -> str:
    """Text as LaTeX."""
    for plain, tex in (
        ("%", r"\%"),
        ("_", r"\_"),
        ("&", r"\&"),
        ("↓", r"$\downarrow$"),
        ("↑", r"$\uparrow$"),
        ("×", r"$\times$"),
        ("Δ", r"$\Delta$"),
    ):
        text = text.replace(plain, tex)
    return text


def notes(study: Study, table: pd.DataFrame, seeds: list[int]) -> list[str]:
    """The lines under the table: how its numbers were made."""
    fid = table[table["score"] == "fid"].iloc[0]
    commits = ", ".join(sorted({commit + "+dirty" * dirty for commit, dirty in zip(table["commit"], table["dirty"], strict=True)}))
    spread = (
        f"Mean ± half-width of the 95 % Student-t interval over {len(seeds)} seeds ({', '.join(map(str, seeds))}); ΔFID is paired by seed. "
        "Bold: best value of a column whose difference to the baseline, paired by seed, excludes zero at 95 % (not corrected for many comparisons)."
        if len(seeds) > 1
        else f"n = 1 seed ({seeds[0]}): no intervals, and nothing is bold."
    )
    lines = [
        spread,
        "DSR: recursive TTR in the encoder and diffusion registers in the denoiser; DSR (trained): trained encoder registers instead of TTR.",
        "Values without an interval are the same for every seed: encoder and decoder are trained once per study, and cost does not vary.",
        f"N = {fid['n']} samples a run, {study.sampling.labels} labels; {judged(study, fid)}",
        sampled(study),
        f"Outlier: patch token with L2 norm above {study.outlier_statistics.factor:g} × the median of its layer; shares and max/median are those "
        f"of the worst layer (denoiser: worst block at t in {', '.join(f'{t:g}' for t in study.outlier_statistics.times)}); registers excluded.",
    ]
    if study.outliers == "planted":
        lines.append(
            f"This is the embedded study '{study.name}': its outliers are planted, {len(study.planted)} populations of register neurons written into "
            "the encoder after training. The encoder with trained registers is not planted: as in DINOv2, such training is what keeps outliers away."
        )
    elif study.outliers == "none":
        lines.append(
            f"This is the embedded negative control '{study.name}': no outliers are planted, so no method may show an effect on them."
        )
    return [*lines, f"Commit {commits}."]


def judged(study: Study, fid: pd.Series) -> str:
    """What the samples are compared with, and by which network."""
    section, weights = study.evaluation, fid["extractor"][:12]
    if isinstance(section.judge, TrainedJudge):
        return (
            f"reference: {study.data.reference} held-out images (data {fid['reference'][:12]}); "
            f"judge: a classifier trained in this DAG, {section.judge.width} standardised features (weights {weights}) "
            "in Inception's place, and a small open_clip model in ViT-L/14's, so FID, IS, KID and CLIP score cannot be compared with other papers'."
        )
    first = f"'{section.references[0].name}'" if section.references else f"{study.data.reference} held-out images"
    return f"reference: {first} (sha256 {fid['reference'][:12]}); judge: Inception of torch-fidelity, layer {section.judge.features} (weights {weights})."


def sampled(study: Study) -> str:
    """Sampler, NFE, guidance, average of the weights."""
    section, guidance = study.sampling, study.sampling.guidance
    name = {"euler": "Euler", "heun": "Heun", "euler_maruyama": "Euler-Maruyama (SDE)"}[section.sampler]
    steps = section.grid_points - 1
    nfe = 2 * steps - 1 if section.sampler == "heun" else steps
    kind = "autoguidance" if guidance.weak else "classifier-free"
    interval = "" if guidance.interval == (0.0, 1.0) else f" for t in [{guidance.interval[0]:g}, {guidance.interval[1]:g}]"
    text = "none" if guidance.scale == 1 else f"{kind}, scale {guidance.scale:g}{interval}"
    check = "clean-fid" if "fid_clean" in scores_of(study) else "an eigen-decomposition in double precision"
    return f"Sampler: {name}, NFE {nfe}, guidance {text}, EMA {study.ema:g}. FID agrees with {check} on the same features."


def render(study: Study, *, methods: list[str], seeds: list[int], results: Path, spec: Path, out: Path) -> dict:
    """Write `out` (.md), and beside it .csv, .tex and times.csv."""
    wanted, rows = load_spec(spec).for_study(study), row_files.collect(study, methods, seeds, results)
    table = row_files.of_average(rows, study.ema)
    panels = [(panel, [cells(table, column, methods, wanted.baseline) for column in panel.columns]) for panel in wanted.panels]
    title, under = f"{wanted.title}: {study.title}", notes(study, table, seeds)
    body = "\n".join(markdown(panel, columns, methods) for panel, columns in panels)
    tabulars = [f"\\resizebox{{\\textwidth}}{{!}}{{%\n{latex(panel, columns, methods)}}}" for panel, columns in panels]
    caption = f"{escape(title)}. " + escape(" ".join(under)).replace("±", r"$\pm$")
    tex = "\n".join([
        "% Needs \\usepackage{booktabs,graphicx}", "\\begin{table*}", "\\centering", "\n\n\\medskip\n".join(tabulars),
        f"\\caption{{{caption}}}", f"\\label{{tab:{study.name}}}", "\\end{table*}", "",
    ])  # fmt: skip
    artifacts.write_text(out.with_name("times.csv"), row_files.times(results).to_csv(index=False, lineterminator="\n"))
    artifacts.write_text(out.with_suffix(".csv"), row_files.to_csv(rows))
    artifacts.write_text(out.with_suffix(".tex"), tex)
    artifacts.write_text(out, f"# {title}\n\n{body}\n" + "\n".join(f"- {line}" for line in under) + "\n")
    return {"rows": len(rows), "table": str(out)}
