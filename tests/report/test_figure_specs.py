"""What a figure needs, says of itself, and takes to add."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from conftest import METHODS, SEEDS

from harness.report import figure_specs
from harness.report.figure_specs import figure_names, load_figures
from harness.report.figures import render_figures, style
from harness.report.figures.registry import FIGURES, registered
from harness.study.study import load_study
from harness.study.typed import UserError


def test_every_figure_has_a_function_and_a_spec():
    assert set(load_figures()) == set(FIGURES)


def test_a_new_figure_is_a_function_and_a_spec(study, runs, tmp_path, monkeypatch):
    def toy(context):
        figure, axis = plt.subplots(figsize=(style.ONE_COLUMN, 2))
        shown = context.table.query("score == 'precision'")[["method", "seed", "value"]]
        axis.plot(shown["value"])
        return figure, shown

    spec = {"title": "Toy", "caption": "Precision of every run.", "methods": ["baseline", "dsr"], "needs": ["rows"]}
    monkeypatch.setitem(load_figures(), "toy", figure_specs.FigureSpec(**spec))
    where = {"methods": METHODS, "seeds": SEEDS, "results": runs.root, "out": tmp_path, "figures": ["toy"]}
    with pytest.raises(UserError, match=r"figure 'toy': reports/figures.yaml has it, but harness/report/figures/ no function of this name"):
        render_figures(study, **where)
    with monkeypatch.context() as patched:
        patched.setitem(FIGURES, "toy", None)  # so that what is registered here goes away again
        registered(toy)
        assert render_figures(study, **where) == {"figures": ["toy"]}
    assert {path.name for path in tmp_path.iterdir()} == {"toy.png", "toy.pdf", "toy.csv"}
    assert list(pd.read_csv(tmp_path / "toy.csv")["method"]) == ["baseline", "baseline", "dsr", "dsr"]
    assert "toy" in figure_names(study, METHODS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fid: {title: FID, caption: c, needs: [rows], methods: [drs]}", "fid: unknown method 'drs', did you mean 'dsr'"),
        ("fid: {title: FID, caption: c, needs: [rows], scores: [fdi]}", "fid: unknown score 'fdi', did you mean 'fid'"),
        ("fid: {title: FID, caption: c, needs: [rows], study: {digits: digts}}", "fid: unknown study 'digts', did you mean 'digits'"),
        ("fid: {title: FID, caption: c, needs: [rows], table: tabel1}", "fid: unknown table 'tabel1', did you mean 'table1'"),
        ("fid: {title: FID, caption: c, needs: [row]}", "fid: needs.0: Input should be 'rows'"),
        ("fid: {title: FID, caption: c, needs: [rows], score: [fid]}", "fid: unknown field 'score', did you mean 'scores'"),
        ("- fid", "expected a mapping of figures"),
        ("{", "figures.yaml, line 1: not valid YAML: expected the node content"),
    ],
)
def test_a_bad_spec_is_one_line(tmp_path, text, message):
    (tmp_path / "figures.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        figure_specs.load_figures(tmp_path / "figures.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("study", "absent"),
    [
        ("digits_sit", {"encoder_norms", "register_neurons", "masking_norms"}),
        ("imagenet256_jit_h", {"encoder_norms", "register_neurons", "masking_norms", "prompt_differences", "geneval_steps"}),
        ("digits", set()),
    ],
)
def test_figures_of_a_study(study, absent):
    assert set(load_figures()) - set(figure_names(load_study(study))) >= absent
    if not absent:
        assert "fid_steps" in figure_names(load_study(study))
