"""The paper's values beside the measured ones."""

import shutil
import subprocess

import pandas as pd
import pytest
from synthetic import synthetic

from harness.report import beside, paper, specs, table
from harness.results.scores import scores_of
from harness.results.views import plain_view
from harness.study import typed as config
from harness.study.study import load_study, parse_study, read_study, study_names

SPEC = config.ROOT / "reports" / "tables" / "table1.yaml"
PAPERS = [name for name in study_names() if paper.values(name) or paper.values(name, guided=True)]
MAIN = "imagenet256_siglip2_b"


def rows(study, seeds=(0, 1, 2), **changes):
    fids = {method: [4.0 + place + 0.1 * seed for seed in range(3)] for place, method in enumerate(study.methods)}
    plain = plain_view(study)._asdict()
    return synthetic(fids, seeds, study=study.name, scores=scores_of(study), n=study.sampling.count, **plain | changes)


def lines_of(study, table, guided=False):
    return {(line.method, line.score): line for line in beside.lines(study, table, study.methods) if line.guided == guided}


def changed(**values):
    plain = {"denoiser": {"snapshots": []}, "sampling": {"averages": []}}  # they must fit the length and the decay that are changed
    return parse_study(MAIN, config.merge(config.merge(read_study(MAIN), plain), values))


@pytest.mark.parametrize("name", PAPERS)
def test_every_study_of_the_paper_renders(name):
    study = load_study(name)
    markdown, tex = table.table_texts(study, rows(study), study.methods, [0, 1, 2], specs.load_spec(SPEC))
    panel = markdown.split("**Paper beside measured**\n\n")[1].split("\n\n")[0].splitlines()[2:]
    values = [scores for guided in (False, True) for scores in paper.values(name, guided=guided).values()]
    printed = sum("@" not in score for scores in values for score in scores)  # those of single blocks are of another table
    assert len(panel) == printed > 0
    assert all(line.count("|") == 7 for line in panel)
    assert tex.count(r"\begin{tabular}") == 3


def test_what_the_paper_does_not_have_gets_no_panel(study):
    assert beside.lines(study, synthetic(), ["baseline"]) == []
    ours = load_study("imagenet256_siglip2_b_dit_l")
    assert "beside" not in table.table_texts(ours, rows(ours), ours.methods, [0, 1, 2], specs.load_spec(SPEC))[0]


def test_a_method_that_is_not_run_is_not_shown():
    study = load_study(MAIN).model_copy(update={"methods": ["baseline", "dsr"]})
    assert {method for method, _ in lines_of(study, rows(study))} == {"baseline", "dsr"}


def test_values_interval_and_difference():
    study = load_study(MAIN)
    line = lines_of(study, rows(study))["baseline", "fid"]
    assert (line.paper.text, line.measured.mean, line.measured.n) == ("5.89", pytest.approx(4.1), 3)
    assert line.difference == pytest.approx(4.1 - 5.89)
    titles, cells = beside.printed_table([(None, [line])]).rows[0]
    assert titles == ["baseline (RAE-DiT)", "FID"]
    assert [cell.text for cell in cells] == ["5.89", "4.100 ± 0.248", "−1.790 ± 0.248", "unknown"]


def test_parameters_are_in_millions():
    study = load_study(MAIN)
    table = rows(study)
    table.loc[table["score"] == "parameters", "value"] = 676_951_040.0
    _, cells = beside.printed_table([(None, [lines_of(study, table)["dsr", "parameters"]])]).rows[0]
    assert [cell.text for cell in cells] == ["676", "677.0", "+1.0", "yes"]


def test_unknown_is_what_neither_paper_nor_code_gives():
    study = load_study(MAIN)
    lines = lines_of(study, rows(study))
    assert lines["baseline", "fid"].because == "the paper does not give reference statistics"
    assert (lines["baseline", "is"].comparable, lines["baseline", "is"].because) == ("yes", "")  # it needs no reference
    assert "which norm the mask thresholds" in lines["masked", "fid"].because
    assert "epochs" in lines["ttr", "precision"].because
    assert lines["dsr", "gflops"].comparable == "yes"


@pytest.mark.parametrize(
    ("values", "because"),
    [
        ({"sampling": {"count": 10_000}}, "N: 50000 in the paper, 10000 here"),
        ({"sampling": {"labels": "random"}}, "labels: equal in the paper, random here"),
        ({"sampling": {"grid_points": 251}}, "NFE: 49 in the paper, 250 here"),
        ({"sampling": {"ema": 0.9995}}, "EMA decay: 0.9999 in the paper, 0.9995 here"),
        ({"sampling": {"guidance": {"scale": 1.5}}}, "guidance: none in the paper, classifier-free, scale 1.5 here"),
        ({"denoiser": {"training": {"epochs": 20}}}, "epochs: 80 in the paper, 20 here"),
        ({"denoiser": {"training": {"epochs": None, "steps": 12_510}}}, "epochs: 80 in the paper, 10 here"),
        (
            {"data": {"classes": 100}},
            "data: 1281167 images of 1000 classes at 256 px in the paper, 1281167 images of 100 classes at 256 px here",
        ),
        ({"evaluation": {"judge": {"features": 768}}}, "judge: inception in the paper, inception, layer 768 here"),
    ],
)
def test_what_differs_is_said_and_no_difference_shown(values, because):
    study = changed(**values)
    line = lines_of(study, rows(study))["baseline", "fid"]
    assert line.comparable == "no"
    assert line.because.startswith(because)
    assert line.because.endswith("the paper does not give reference statistics")
    assert line.difference is None
    assert line.measured is not None


def test_guided_values_are_never_beside_unguided_ones():
    study = load_study(f"{MAIN}_800ep")
    assert lines_of(study, rows(study), guided=True)["dsr", "fid"].comparable == "no"
    guided = study.model_copy(update={"sampling": study.sampling.model_copy(update={"guidance": type(study.sampling.guidance)(scale=1.5)})})
    assert lines_of(guided, rows(guided), guided=True)["dsr", "fid"].comparable == "unknown"
    assert lines_of(guided, rows(guided))["dsr", "fid"].comparable == "no"


def test_a_diverged_method_has_no_measured_value():
    study = load_study(MAIN)
    line = lines_of(study, rows(study, failed={("dsr", 1, "fid"): ("diverged", "the loss was not finite")}))["dsr", "fid"]
    assert (line.measured, line.difference) == (None, None)
    assert "DSR, seed 1: diverged: the loss was not finite" in line.why
    assert [cell.text for cell in beside.printed_table([(None, [line])]).rows[0][1]] == ["4.58", "–", "–", "unknown"]


def test_the_csv_has_every_value(tmp_path):
    study = load_study(MAIN)
    lines = beside.lines(study, rows(study), study.methods)
    path = tmp_path / "paper.csv"
    path.write_text(beside.paper_csv(lines), encoding="utf-8")
    kept = pd.read_csv(path)
    assert len(kept) == len(lines)
    assert set(kept["comparable"]) <= {"yes", "no", "unknown"}
    assert (kept["difference"].notna() == (kept["comparable"] != "no")).all()


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs a TeX with booktabs")
def test_latex_compiles(tmp_path):
    study = load_study(MAIN)
    (tmp_path / "table.tex").write_text(
        table.table_texts(study, rows(study), study.methods, [0, 1, 2], specs.load_spec(SPEC))[1], encoding="utf-8"
    )
    (tmp_path / "main.tex").write_text(
        r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}\input{table}\end{document}", encoding="utf-8"
    )
    done = subprocess.run(["pdflatex", "-halt-on-error", "main.tex"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
