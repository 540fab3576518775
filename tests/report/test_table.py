"""Rendered tables against golden files; regenerate them with `pytest tests/report/test_table.py --update-golden`."""

import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from conftest import DATA, METHODS, SEEDS

from harness import artifacts, config
from harness.config import UserError
from harness.report import rows as row_files
from harness.report import table
from harness.schema import SCORES, Row

SPEC = config.ROOT / "reports" / "table1.yaml"
FIDS = {"baseline": [1.0, 1.1, 0.9], "masked": [1.05, 1.12, 0.93], "dsr": [0.5, 0.61, 0.41]}
HASHES = dict(
    zip(
        ("reference", "extractor", "encoder", "registers", "latents", "decoder", "denoiser", "samples"),
        [letter * 64 for letter in "abcdef01"],
        strict=True,
    )
)
MADE = {
    "config": "d" * 16, "code": "e" * 16, "commit": "0123456789ab", "dirty": False, "precision": "float32", "tf32": False, "compile": False,
    "versions": "torch 2.13.0", "device": "a CPU", "schema_version": 2,
}  # fmt: skip


def synthetic(methods=FIDS, seeds=(0, 1, 2), **changes):
    """Rows of three methods: every score is a plain function of the FIDs above."""
    rows = []
    for method in methods:
        for seed in seeds:
            for place, (score, info) in enumerate(SCORES.items()):
                value = FIDS[method][seed] if score.startswith("fid") else 10.0 + place + (0 if info.shared else FIDS[method][seed])
                rows.append(
                    Row(study="tiny", method=method, seed=seed, ema=0.98, score=score, value=value, low=None, high=None, how="none: synthetic", n=60,
                        status="ok", reason="", better=info.better, shared=info.shared, **HASHES, **MADE).model_dump()
                )  # fmt: skip
    return pd.DataFrame(rows).assign(**changes)


@pytest.mark.parametrize(("name", "seeds"), [("three_seeds", [0, 1, 2]), ("one_seed", [0])])
def test_rendered_table_is_the_golden_one(study, monkeypatch, tmp_path, request, name, seeds):
    monkeypatch.setattr(row_files, "collect", lambda *_: synthetic(seeds=seeds))
    monkeypatch.setattr(row_files, "times", lambda *_: pd.DataFrame({"stage": ["data"], "seconds": [1.0]}))
    table.render(study, methods=list(FIDS), seeds=seeds, results=tmp_path, spec=SPEC, out=tmp_path / f"{name}.md")
    for suffix in (".md", ".tex", ".csv"):
        golden, found = DATA / f"{name}{suffix}", (tmp_path / f"{name}{suffix}").read_text()
        if request.config.getoption("--update-golden"):
            golden.write_text(found)
        assert found == golden.read_text()


def columns(**changes):
    spec = table.load_spec(SPEC)
    rows = synthetic(**changes)
    return {(c.score, c.difference): table.cells(rows, c, list(FIDS), spec.baseline) for panel in spec.panels for c in panel.columns}


def test_bold_only_where_the_paired_interval_excludes_zero():
    found = columns()
    assert [m for m in FIDS if found["fid", False][m].bold] == ["dsr"]
    assert found["fid", False]["dsr"].mean == "0.507"
    assert found["fid", True]["baseline"].mean == "–"
    assert found["fid", True]["dsr"].mean == "−0.493"
    assert not any(cell.bold for cell in found["rfid", False].values())  # shared by the seeds: no interval, no bold
    assert not any(cell.half for cell in found["rfid", False].values())


def test_the_best_is_not_bold_when_seeds_disagree(monkeypatch):
    monkeypatch.setitem(FIDS, "dsr", [0.5, 1.5, 0.1])
    assert not any(cell.bold for cell in columns()["fid", False].values())


def test_equal_bests_are_both_bold(monkeypatch):
    monkeypatch.setitem(FIDS, "masked", FIDS["dsr"])
    assert [m for m in FIDS if columns()["fid", False][m].bold] == ["masked", "dsr"]


def test_one_seed_bolds_nothing():
    assert not any(cell.bold or cell.half for column in columns(seeds=[0]).values() for cell in column.values())


@pytest.mark.parametrize("field", ["n", "reference", "extractor", "config", "precision"])
def test_rows_of_different_protocol_share_no_column(field):
    rows = synthetic()
    rows.loc[rows.index[-len(SCORES)], field] = 7 if field == "n" else "other"
    with pytest.raises(UserError, match=f"score 'fid' of dsr/seed2 and baseline/seed0 cannot share a column: {field} is"):
        row_files.check_protocol(rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("score: fid,", "score: fidd,"), "unknown score 'fidd', did you mean 'fid'"),
        (("digits: 3", "digts: 3"), "unknown field"),
        (("panels:", "panel:"), "unknown field 'panel'|panels"),
    ],
)
def test_a_bad_spec_is_one_line(tmp_path, change, message):
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC.read_text().replace(*change))
    with pytest.raises(UserError, match=message) as caught:
        table.load_spec(path)
    assert "\n" not in str(caught.value)


def test_rows_come_from_real_files(study, runs):
    found = row_files.collect(study, METHODS, SEEDS, runs.root)
    assert set(found["score"]) == set(SCORES)
    assert len(found) == len(METHODS) * len(SEEDS) * len(SCORES)
    assert found[["reference", "extractor", "subject", "config", "code", "commit"]].map(bool).all().all()
    assert "seconds" not in found


def test_real_rows_render_twice_to_the_same_bytes(study, runs, tmp_path):
    for name in ("a", "b"):
        table.render(study, methods=METHODS, seeds=SEEDS, results=runs.root, spec=SPEC, out=tmp_path / name / "table1.md")
    for suffix in ("md", "csv", "tex"):
        assert (tmp_path / "a" / f"table1.{suffix}").read_bytes() == (tmp_path / "b" / f"table1.{suffix}").read_bytes()
    assert "seconds" in (tmp_path / "a" / "times.csv").read_text()


def test_a_corrupted_score_file_is_refused(study, runs, tmp_path):
    shutil.copytree(runs.root / "runs", tmp_path / "runs")
    path = tmp_path / "runs" / "dsr" / "seed1" / "scores.json"
    path.write_text(path.read_text().replace("1", "2", 1))
    with pytest.raises(UserError, match=r"dsr/seed1/scores\.json: corrupted or truncated"):
        row_files.collect(study, METHODS, SEEDS, tmp_path)


def test_a_score_that_is_not_a_number_never_reaches_the_table(study, runs, tmp_path):
    shutil.copytree(runs.root / "runs", tmp_path / "runs")
    path = tmp_path / "runs" / "dsr" / "seed1" / "scores.json"
    file = row_files._read(path)
    file.values["fid"] = float("inf")
    with artifacts.artifact(path, stage="scores", module="harness.evaluate.scores") as temporary:
        temporary.write_text(file.model_dump_json().replace("null", "Infinity"))
    with pytest.raises(UserError, match=r"score 'fid' is inf|values\.fid"):
        row_files.collect(study, METHODS, SEEDS, tmp_path)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs a TeX with booktabs")
def test_latex_compiles(tmp_path):
    shutil.copy(DATA / "three_seeds.tex", tmp_path / "table.tex")
    document = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}\input{table.tex}\end{document}"
    (tmp_path / "main.tex").write_text(document)
    done = subprocess.run(["pdflatex", "-halt-on-error", "main.tex"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert Path(tmp_path / "main.pdf").stat().st_size > 1000
