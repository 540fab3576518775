"""The gallery: figures that are kept with the code, on a page and in the README."""

import re
from pathlib import Path

import pytest
from PIL import Image

from harness.report import gallery
from harness.report.figure_specs import load_figure
from harness.report.gallery import render_gallery
from harness.study import typed as config
from harness.study.study import load_study
from harness.study.typed import UserError

README = "# x\n<!-- gallery of digits -->\nold\n<!-- end of gallery -->\n\n<!-- gallery of shapes -->\nkept\n<!-- end of gallery -->\n"


@pytest.fixture
def digits():
    return load_study("digits")


def picture(folder, name, grey):
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("L", (2, 2), grey).save(folder / f"{name}.png")
    return (folder / f"{name}.png").read_bytes()


def test_page_pictures_and_readme_are_renewed(digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gallery, "README", tmp_path / "README.md")
    (tmp_path / "README.md").write_text(README, encoding="utf-8")
    reports, out = tmp_path / "reports" / "digits", Path("reports/reference/digits/gallery.md")
    kept = picture(reports, "fid", 1)
    picture(reports, "norm_flow", 3)  # not marked for the README
    picture(reports, "of_another_study", 2)
    made = render_gallery(digits, reports=reports, out=out)
    assert made == {"figures": ["fid", "norm_flow"], "readme": True}
    assert (out.parent / "fid.png").read_bytes() == kept
    assert {path.name for path in out.parent.iterdir()} == {"fid.png", "norm_flow.png", "gallery.md"}
    assert "(norm_flow.png)" in out.read_text(encoding="utf-8")
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    caption = load_figure("fid").caption
    shown = f"<!-- gallery of digits -->\n![FID of all methods](reports/reference/digits/fid.png)\n\n{caption}\n\nAll 2 figures"
    assert shown in readme
    assert "[gallery](reports/reference/digits/gallery.md)" in readme
    assert "kept" in readme
    assert "old" not in readme
    assert render_gallery(digits, reports=reports, out=out)["readme"] is False


def test_without_figures_there_is_no_gallery(digits, tmp_path):
    with pytest.raises(UserError, match="has no figure of study 'digits'; render some first"):
        render_gallery(digits, reports=tmp_path, out=tmp_path / "gallery.md")


def test_readme_shows_the_committed_gallery():
    text = (config.ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"<!-- gallery of digits -->\n(.*?)\n?<!-- end of gallery -->", text, re.DOTALL)[1]
    page = Path("reports/reference/digits/gallery.md")
    names = re.findall(r"\]\((\w+)\.png\)", (config.ROOT / page).read_text(encoding="utf-8"))
    assert shown == gallery.section_of(names, page)
    assert len(names) == len(set(names))
    assert set(names) <= {path.stem for path in (config.ROOT / page.parent).glob("*.png")}
