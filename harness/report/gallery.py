"""Stage `gallery`: the figures of a study that are kept with the code, with a page that shows them, and the README's section of them."""

import re
import shutil
from pathlib import Path
from typing import Any

from harness.report.figure_specs import figure_names, load_figure
from harness.store.files import atomic, write_text
from harness.study.folders import PROJECT
from harness.study.study import Study
from harness.study.typed import UserError

README = PROJECT / "README.md"
SECTION = r"(<!-- gallery of {} -->\n).*?(<!-- end of gallery -->)"


def render_gallery(study: Study, *, reports: Path, out: Path) -> dict[str, Any]:
    """Copy the figures in `reports` beside `out` (gallery.md), write it, and renew the README's section where it has one of this study.

    The section has the figures that reports/figures.yaml marks so, the page all. UserError where there is no figure.
    """
    names = [name for name in figure_names(study) if (reports / f"{name}.png").is_file()]
    if not names:
        raise UserError(f"{reports}: has no figure of study '{study.name}'; render some first (stage figures)")
    for name in names:
        with atomic(out.parent / f"{name}.png") as temporary:
            shutil.copyfile(reports / f"{name}.png", temporary)
    write_text(out, f"# Figures of '{study.name}'\n\n{pictures(names)}\n")
    if README.parent != Path.cwd().resolve() or not README.is_file():  # its links are from the folder that it is in
        return {"figures": names, "readme": False}
    text = README.read_text(encoding="utf-8")
    renewed = with_section(text, study.name, section_of(names, out))
    if renewed != text:
        write_text(README, renewed)
    return {"figures": names, "readme": renewed != text}


def pictures(names: list[str], folder: str = "") -> str:
    """Markdown of figures in `folder`, each with its caption."""
    specs = {name: load_figure(name) for name in names}
    return "\n\n".join(f"![{spec.title}]({folder}{name}.png)\n\n{spec.caption}" for name, spec in specs.items())


def section_of(names: list[str], page: Path) -> str:
    """Markdown of the README's section: the marked ones of these figures, and where the `page` of all is."""
    marked, folder = [name for name in names if load_figure(name).readme], page.parent.as_posix()
    return f"{pictures(marked, f'{folder}/')}\n\nAll {len(names)} figures, each with its caption: [gallery]({page.as_posix()})."


def with_section(text: str, study: str, section: str) -> str:
    """`text`, with what is between the markers of the study's gallery replaced, if it has them."""
    return re.sub(SECTION.format(re.escape(study)), lambda match: f"{match[1]}{section}\n{match[2]}", text, flags=re.DOTALL)
