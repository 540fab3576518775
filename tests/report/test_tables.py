"""Every table specification on the embedded and the paper-scale studies, from rows that no run made."""

import re
import shutil
import subprocess
from dataclasses import replace
from functools import cache

import pandas as pd
import pytest
from conftest import DATA
from synthetic import EIGHT, synthetic

from harness.report import archive, claims, hypotheses, numbers, page, paper, specs, table
from harness.report import rows as row_files
from harness.results.scores import scores_of
from harness.results.views import chosen_text, plain_view
from harness.study import typed as config
from harness.study.study import load_study, study_names
from harness.study.typed import UserError

FAMILIES = {"digits": "digits", "smoke": "smoke", "imagenet256": "imagenet256_siglip2_b"}
CASES = [(family, name) for family, study in FAMILIES.items() for name in specs.table_names(load_study(study))]
TEX = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs a TeX with booktabs")


def methods_of(study):
    return study.methods or EIGHT


def rows_for(study, spec, seeds=(0, 1, 2), **changes):
    """Rows of every method, view and score that a table of `study` shows."""
    parts, wanted, tables = specs.parts(spec, study, methods_of(study)), {}, []
    shown = {column.score for panel in spec.panels for column in specs.columns_of(panel, parts)} | {"fid"}
    for part in parts:
        wanted.setdefault(part.study.name, (part.study, []))[1].extend(part.methods)
    for place, (of, methods) in enumerate(wanted.values()):
        fids = {
            method: [5.0 + place - 0.3 * n + (0.1 + 0.001 * n) * seed for seed in range(3)]
            for n, method in enumerate(dict.fromkeys(methods))
        }
        plain, common = plain_view(of)._asdict(), {"study": of.name, "n": of.sampling.count} | changes
        tables.append(synthetic(fids, seeds, scores=[score for score in scores_of(of) if score in shown], **plain, **common))
        for decay in of.sampling.averages:
            tables.append(synthetic(fids, seeds, scores=["fid"], **plain | {"ema": decay}, **common))
        if "guided" in specs.views(spec) and (search := of.sampling.guidance_search):
            guidance = chosen_text(of.sampling.guidance, 1.5, (0.0, 1.0), search.seed)
            tables.append(synthetic(fids, seeds, scores=["fid"], **plain | {"guidance": guidance}, **common))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


@cache
def made(family, name):
    """(content, rows) of a table; the same for all tests, which change neither."""
    study, spec = load_study(FAMILIES[family]), specs.load_table(name)
    rows = rows_for(study, spec)
    return table.content_of(study, rows, methods_of(study), [0, 1, 2], spec), rows


def rendered(family, name):
    return table.written(made(family, name)[0])


@pytest.mark.parametrize(("family", "name"), CASES)
def test_every_table_renders_for_every_family(family, name):
    text, tex = rendered(family, name)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) > 3
    assert not re.search(r"\bnan\b|None", text + tex)
    study, spec = load_study(FAMILIES[family]), specs.load_table(name)
    for part in specs.parts(spec, study, methods_of(study)):
        assert not part.title or f"| **{part.title}** |" in text
    for block in re.split(r"\n\n", text):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in rows}) <= 1


def test_every_number_that_the_paper_prints_is_in_some_table():
    texts = [rendered("imagenet256", name)[0] for name in specs.table_names(load_study(FAMILIES["imagenet256"]))]
    shown = {cell.strip(" *") for text in texts for line in text.splitlines() if line.startswith("|") for cell in line.split("|")}
    for study in study_names():
        for guided in (False, True):
            of_study = paper.values(study, guided=guided) if not study.endswith("_released") else {}  # variants of studies that are shown
            for method, scores in of_study.items():
                for score, printed in scores.items():
                    assert printed.text in shown, (study, method, score)
    source = paper.paper()
    for one in source.quoted:
        assert one.model in shown
        assert {f"{value:.2f}" for value in (one.fid, one.guided_fid) if value} <= shown
    for one in source.text_to_image:
        assert {one.model, f"{one.geneval:.1f}", f"{one.dpg_bench:.1f}"} <= shown


@pytest.mark.parametrize("status", ["failed", "skipped", "diverged"])
def test_a_seed_without_a_value_empties_its_cells_in_its_own_group_alone(status):
    study, spec = load_study("digits"), specs.load_table("scaling")
    rows = rows_for(study, spec)
    bad = (rows["study"] == "digits_dit_b") & (rows["method"] == "dsr") & (rows["seed"] == 1)
    rows.loc[bad, ["value", "low", "high"]] = float("nan")
    rows.loc[bad, "status"], rows.loc[bad, "reason"] = status, "the loss was not finite"
    text, tex = table.table_texts(study, rows, ["baseline", "dsr"], [0, 1, 2], spec)
    lines = [line for line in text.splitlines() if line.startswith("| + DSR")]
    assert [line.count("–¹") for line in lines] == [0, 7, 0]
    assert f"¹ DSR, seed 1: {status}: the loss was not finite; 2 of 3 seeds have a value, in the CSV." in text
    assert tex.count(r"--\textsuperscript{1}") == 7


def test_every_group_has_its_own_baseline_and_its_own_bold():
    text, _ = rendered("digits", "input_spaces")
    firsts = re.findall(r"^\| \*\*[A-Z].*\n\| (.+?) \|", text, re.M)
    assert firsts == ["+ trained encoder registers", "baseline", "+ recursive TTR", "baseline", "baseline"]
    assert len(re.findall(r"\| – \|", text)) >= 5  # no difference of a baseline to itself
    assert len(re.findall(r"\| \*\*\d", text)) == 10  # the best FID of each group, and its best share of outliers


def test_rows_of_mixed_protocol_are_refused_and_named():
    study, spec = load_study("digits"), specs.load_table("scaling")
    for field, value in (("n", 7), ("reference", "9" * 64), ("extractor", "9" * 64), ("code", "9" * 16)):
        rows = rows_for(study, spec)
        rows.loc[rows["study"] == "digits_dit_b", field] = value
        with pytest.raises(
            UserError, match=f"digits_dit_b/baseline/seed0 and digits_dit_s/baseline/seed0 cannot share a column: {field} is"
        ):
            table.table_texts(study, rows, ["baseline", "dsr"], [0, 1, 2], spec)


def test_a_missing_row_is_named():
    study, spec = load_study("digits"), specs.load_table("main")
    rows = rows_for(study, spec)
    without = rows[~((rows["study"] == "digits_ditdh") & rows["guidance"].str.contains("chosen"))]
    with pytest.raises(UserError, match=r"no row of score 'fid' for baseline/seed0 at EMA 0.98, guided in study 'digits_ditdh'"):
        table.table_texts(study, without, ["baseline", "dsr"], [0, 1, 2], spec)


def test_notes_say_what_differs_between_groups_and_nothing_twice():
    text, _ = rendered("imagenet256", "input_spaces")
    notes = [line for line in text.splitlines() if line.startswith("- ")]
    assert len(notes) == len(set(notes))
    assert sum("judge: Inception" in line for line in notes) == 1
    samplers = [line for line in notes if "ampler" in line]
    assert [line.partition(": ")[0] for line in samplers] == [
        "- Encoder with trained registers, Plain encoder, Encoder with test-time registers", "- VAE latents (SiT)", "- Pixels (JiT)"
    ]  # fmt: skip


@pytest.mark.parametrize("name", [name for family, name in CASES if family == "digits" and name != "table1"])
def test_rendered_tables_are_the_golden_ones(name, request):
    text, tex = rendered("digits", name)
    for suffix, content in ((".md", text), (".tex", tex)):
        golden = DATA / "tables" / f"{name}{suffix}"
        if request.config.getoption("--update-golden"):
            golden.parent.mkdir(exist_ok=True)
            golden.write_text(content, encoding="utf-8")
        assert content == golden.read_text(encoding="utf-8")


def test_the_csv_alone_gives_the_same_table(tmp_path):
    study, spec = load_study("digits"), specs.load_table("main")
    rows = made("digits", "main")[1]
    (tmp_path / "main.csv").write_text(row_files.to_csv(rows), encoding="utf-8")
    again = row_files.from_csv(tmp_path / "main.csv")
    assert table.table_texts(study, again, EIGHT, [0, 1, 2], spec) == rendered("digits", "main")


# ------------------------------------------------------------------------------------------------------------ bad specifications


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("methods: [baseline, dsr]", "methods: [baseline, drs]"), "unknown method 'drs', did you mean 'dsr'"),
        (("digits: digits_dit_s", "digits: digits_dit_x"), "unknown study 'digits_dit_x', did you mean 'digits_dit_"),
        (("digits: digits_dit_s", "digit: digits_dit_s"), "unknown family of studies 'digit', did you mean 'digits'"),
        (("score: recall", "score: recal"), "unknown score 'recal', did you mean 'recall'"),
        (("fact: size", "fact: sice"), "unknown fact 'sice', did you mean 'size'"),
        (("- {fact: size}", "- {score: fid, each: block}"), "each: block belongs to score denoiser_outlier_share"),
        (("- {fact: size}", "- {digits: 3}"), "a column needs either a score or a fact"),
        (("- title: small", "- titel: small"), "unknown field 'groups.*titel', did you mean 'title'"),
        (("methods: [baseline, dsr]", "methods: [baseline, dsr]\n    baseline: ttr"), "baseline 'ttr' is none of the group's methods"),
    ],
)
def test_a_bad_spec_is_one_line_with_the_nearest_name(tmp_path, change, message):
    path = tmp_path / "scaling.yaml"
    path.write_text((specs.TABLES / "scaling.yaml").read_text(encoding="utf-8").replace(*change, 1), encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        specs.load_spec(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_an_unknown_table_is_one_line_with_the_nearest_name():
    with pytest.raises(UserError, match="unknown table 'scalling', did you mean 'scaling'"):
        specs.load_table("scalling")


def test_studies_that_are_measured_differently_are_refused_before_any_run(tmp_path):
    path = tmp_path / "mixed.yaml"
    path.write_text(
        (specs.TABLES / "scaling.yaml").read_text(encoding="utf-8").replace("digits: digits_dit_s", "digits: smoke_dit_s"), encoding="utf-8"
    )
    with pytest.raises(UserError, match="studies 'smoke_dit_s' and 'digits_dit_b' cannot share its columns: data is"):
        specs.parts(specs.load_spec(path), load_study("digits"), ["baseline", "dsr"])


# -------------------------------------------------------------------------------------------------------------- page and export


@pytest.fixture(scope="module")
def shown():
    """(study, rows of Table 1, further tables, the page that shows them)."""
    study, rows = load_study("digits"), made("digits", "table1")[1]
    others = {name: (specs.load_table(name), made("digits", name)[1]) for name in ("main", "ema", "input_spaces")}
    declared = hypotheses.load_claims(config.ROOT / "reports" / "claims.yaml")
    given = {"spec": specs.load_table("table1"), "declared": declared, "figures": {}, "others": others}
    return study, rows, others, page.page_html(study, rows, methods_of(study), [0, 1, 2], **given)


def test_the_page_shows_all_tables_and_their_numbers_open(shown):
    study, _, others, html = shown
    assert page.tables_of(html) == list(others)
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', html)) - {"-"} <= set(ids)
    for name in others:
        section = html[html.index(f'id="table-{name}"') : html.index("</section>", html.index(f'id="table-{name}"'))]
        cells = [cell for cell in re.findall(r"<td>(.*?)</td>", section, re.S) if re.search(r"\d ?±", re.sub("<[^>]*>", "", cell))]
        assert len(cells) > 5
        assert all(cell.startswith('<a href="#') for cell in cells)
    assert f"dsr trace reports/{study.name}/main.csv --study digits_ditdh --method dsr --score fid --guided" in html
    assert 'id="of-digits-dit' not in html  # of a table that is not shown


def test_an_export_checks_the_further_tables(shown):
    study, rows, others, html = shown
    judged, lines = claims.claims_texts(
        study, rows, *archive.runs_of(rows), hypotheses.load_claims(config.ROOT / "reports" / "claims.yaml")
    )
    reports = {"claims.md": judged, "claims.csv": lines, "index.html": html}
    for name, its_rows in {"table1": rows, **{name: its_rows for name, (_, its_rows) in others.items()}}.items():
        text, tex = rendered("digits", name)
        reports |= {f"{name}.csv": row_files.to_csv(its_rows), f"{name}.md": text, f"{name}.tex": tex}
    reports = {name: text.encode() for name, text in reports.items()}
    given = {path.name: path.read_bytes() for path in (config.ROOT / "reports" / "claims.yaml", *specs.TABLES.glob("*.yaml"))}
    assert archive.differing(study, rows, reports, given) == []
    reports["main.md"] = reports["main.md"].replace(b"4.801", b"1.801")
    assert [line.partition(":")[0] for line in archive.differing(study, rows, reports, given)] == ["main.md"]


# ----------------------------------------------------------------------------------------------------------------- numbers, LaTeX


def contents(family):
    study = load_study(FAMILIES[family])
    return study, {name: made(family, name)[0] for name in specs.table_names(study)}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_cell_has_a_command_of_letters_and_no_two_have_the_same(family):
    study, tables = contents(family)
    text = numbers.numbers_tex(study, tables)
    names = re.findall(r"\\newcommand\{\\([^}]*)\}", text)
    cells = sum(len(line) for one in tables.values() for panel in one.panels for _, lines in panel.parts for line in lines.values())
    assert len(names) > cells > 100
    assert len(names) == len(set(names))
    assert all(re.fullmatch("[A-Za-z]+", name) for name in names)


def test_commands_are_named_as_documented():
    text = numbers.numbers_tex(*contents("digits"))
    assert r"\newcommand{\DigitsScalingSmallDsrFid}{\ensuremath{4.801 \pm 0.251}}" in text
    assert r"\newcommand{\DigitsScalingSmallDsrFidMean}{\ensuremath{4.801}}" in text
    assert r"\newcommand{\DigitsScalingSmallDsrFidDifference}{\ensuremath{-0.299 \pm 0.002}}" in text
    assert r"\newcommand{\DigitsEmaBaselineFidEmaZeroPointNineEight}" in text
    paper_scale = numbers.numbers_tex(*contents("imagenet256"))
    assert r"\newcommand{\ImagenetTwoFiveSixSiglipTwoBScalingDitXlDsrFidPaper}{\ensuremath{4.58}}" in paper_scale


def defined(text):
    """Command -> what it prints."""
    return dict(re.findall(r"^\\newcommand\{\\(\w+)\}\{(.*)\}(?: %.*)?$", text, re.MULTILINE))


def test_a_column_that_two_panels_show_is_one_command():
    study, tables = contents("smoke")
    panel = tables["scaling"].panels[0]
    twice = replace(tables["scaling"], panels=[panel, panel])
    assert numbers.numbers_tex(study, {"scaling": twice}) == numbers.numbers_tex(study, {"scaling": tables["scaling"]})


def test_cells_whose_names_have_the_same_letters_have_commands_of_their_own_that_another_method_does_not_move(monkeypatch):
    study, tables = contents("digits")
    main = tables["table1"]

    def renamed(**names):
        panels = [
            replace(panel, parts=[(part, {names[old]: cells for old, cells in of.items() if old in names}) for part, of in panel.parts])
            for panel in main.panels
        ]
        return numbers.numbers_tex(study, {"table1": replace(main, panels=panels, lines=[])})

    alone, other = defined(renamed(baseline="baseline", ttr="ttr2")), defined(renamed(baseline="baseline", dsr="ttr_2"))
    two = renamed(baseline="baseline", ttr="ttr2", dsr="ttr_2")
    three = renamed(baseline="baseline", ttr="ttr2", masked="TTR2", dsr="ttr_2")
    assert "DigitsTableOneTtrTwoFidMean" not in defined(two) | defined(three)
    marked = [name for name in defined(two) if re.fullmatch("DigitsTableOneTtrTwoFid[A-Z][a-z]{4}Mean", name)]
    assert len(marked) == 2
    assert [defined(two)[name] for name in marked] == [values["DigitsTableOneTtrTwoFidMean"] for values in (alone, other)]
    assert alone["DigitsTableOneTtrTwoFidMean"] != other["DigitsTableOneTtrTwoFidMean"]
    assert all(defined(three)[name] == value for name, value in defined(two).items())
    assert " % table1, ttr_2, fid\n" in two
    assert defined(two)["DigitsTableOneBaselineFidMean"] == alone["DigitsTableOneBaselineFidMean"]


@TEX
def test_all_tables_and_numbers_compile_into_one_pdf_without_wide_boxes(tmp_path):
    inputs = []
    for family in ("digits", "imagenet256"):
        study = load_study(FAMILIES[family])
        for name in specs.table_names(study):
            (tmp_path / f"{family}-{name}.tex").write_text(rendered(family, name)[1], encoding="utf-8")
            inputs.append(rf"\input{{{family}-{name}.tex}}\clearpage")
        (tmp_path / f"{family}-numbers.tex").write_text(numbers.numbers_tex(*contents(family)), encoding="utf-8")
        inputs.insert(0, rf"\input{{{family}-numbers.tex}}")
    quoted = r"FID of DSR: \DigitsTableOneDsrFid; of the paper: \ImagenetTwoFiveSixSiglipTwoBScalingDitXlDsrFidPaper."
    head = r"\documentclass{article}\usepackage[margin=1in]{geometry}\usepackage{booktabs,graphicx}\begin{document}"
    (tmp_path / "main.tex").write_text("\n".join([head, *inputs, quoted, r"\end{document}"]), encoding="utf-8")
    done = subprocess.run(["pdflatex", "-halt-on-error", "main.tex"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    log = (tmp_path / "main.log").read_text(errors="replace", encoding="utf-8")
    wide = [float(width) for width in re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide\)", log)]
    tall = [float(height) for height in re.findall(r"(?:Overfull \\vbox|Float too large for page by) \(?([\d.]+)pt", log)]
    assert max([*wide, *tall, 0.0]) < 20
