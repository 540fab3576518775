"""The long table: what is collected, what its CSV keeps, and what is refused."""

import json
import shutil

import pandas as pd
import pytest
from conftest import METHODS, SEEDS
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import FIDS, HASHES, synthetic

from harness.report import rows as row_files
from harness.results.schema import Row
from harness.results.scores import scores_of
from harness.store import artifacts
from harness.store.files import write_text
from harness.study.typed import UserError

FIELDS = [*row_files.PROTOCOL, *row_files.ONE_TABLE]
one_line = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp", "Zs"]), max_size=12)
finite = st.floats(allow_nan=False, allow_infinity=False)


# -------------------------------------------------------------------------------------------------------------------- CSV


@st.composite
def tables(draw):
    """Rows with values, intervals, statuses and texts of every kind."""
    table = synthetic({"baseline": [0.0, 0.0]}, [0, 1], scores=["fid", "is", "rfid"])
    lines = []
    for line in table.to_dict("records"):
        status = "ok" if line["shared"] else draw(st.sampled_from(["ok", "diverged", "failed", "skipped"]))
        interval = status == "ok" and draw(st.booleans())
        value = 1 / 3 if line["shared"] else draw(finite)
        texts = {"status": status, "reason": "" if status == "ok" else draw(one_line.filter(bool)), "how": draw(one_line.filter(bool))}
        ends = {end: draw(finite) if interval else None for end in ("low", "high")}
        lines.append(line | texts | ends | {"value": value if status == "ok" else None})
    return row_files.typed(pd.DataFrame(lines)[list(Row.model_fields)])


@given(tables())
def test_the_csv_keeps_every_bit(tmp_path_factory, table):
    path = tmp_path_factory.getbasetemp() / "kept.csv"
    write_text(path, row_files.to_csv(table))
    pd.testing.assert_frame_equal(row_files.from_csv(path), table, check_exact=True)
    assert row_files.to_csv(row_files.from_csv(path)) == path.read_text(encoding="utf-8")


@settings(max_examples=8 * settings.default.max_examples)
@given(st.data())
def test_a_mutilated_csv_is_one_line_or_still_a_table(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "mutilated.csv"
    text = bytearray(row_files.to_csv(synthetic({"baseline": [1.0, 2.0]}, [0, 1], scores=["fid", "rfid"])).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.sampled_from([0, 1, 2, 40, len(text)]))
        text[place : place + cut] = data.draw(
            st.sampled_from([b"", b",", b'"', b"\n", b"\r", b"\0", b"nan", b"inf", b"-1", b"\xff", b"0.98,", b"ok"])
        )
    path.write_bytes(text)
    table = error = None
    try:
        table = row_files.from_csv(path)
    except UserError as refused:
        error = str(refused)
    if error:
        assert error.startswith(str(path))
        assert "\n" not in error
    else:
        assert list(table) == list(Row.model_fields)
        assert table["value"].notna().tolist() == (table["status"] == "ok").tolist()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: "", "not rows of this schema: it has no column 'study'"),
        (lambda text: text.split("\n")[0] + "\n", "has no rows"),
        (lambda text: text.replace(",ema,", ",mea,", 1), "no column 'ema'"),
        (lambda text: text.replace(",n,", ",n,n,", 1), "columns in another order"),
        (lambda text: text.replace(",60,", ",sixty,", 1), "line 2: n: Input should be a valid integer"),
        (lambda text: text.replace(",1.0,", ",nan,", 1), "line 2: value: Input should be a finite number"),
        (
            lambda text: text.replace(",1.0,", ",,", 1),
            "line 2: value: Value error, a score has a value, or a status other than ok and a reason",
        ),
        (lambda text: text.replace("a" * 64, "a" * 63, 1), "line 2: reference: String should match"),
        (
            lambda text: text.replace(",lower,False", ",higher,False", 1),
            "line 2: better, shared: higher, False are not those of score 'fid'",
        ),
        (lambda text: text.replace(",0.98,", ",inf,", 1), "line 2: ema: Input should be a finite number"),
        (lambda text: text.replace(",fid,", ",fdi,", 1), "line 2: unknown score 'fdi', did you mean 'fid'"),
        (
            lambda text: text.replace(",4\n", ",2\n", 1),
            r"line 2: not rows of this schema: schema_version is 2, not 3 to 4; render the table again \(snakemake",
        ),
        (
            lambda text: text.replace(",4\n", ",5\n"),
            "line 2: not rows of this schema: schema_version is 5, not 3 to 4; render the table again",
        ),
        (lambda text: text.replace(",4\n", ",\n"), "schema_version is missing, not 3 to 4; render the table again"),
        (lambda text: text.replace("a CPU,4", "4", 1), "line 2: has 35 values for 36 columns"),
        (lambda text: text + text.split("\n")[1] + "\n", "score 'fid' of baseline/seed0 is there twice"),
        (
            lambda text: text.replace(",60,", ",61,", 1),
            "score 'fid' of baseline/seed1 and baseline/seed0 cannot share a column: n is 60 and 61",
        ),
    ],
)
def test_what_is_wrong_in_a_csv_is_named(tmp_path, spoil, message):
    path = tmp_path / "rows.csv"
    path.write_text(spoil(row_files.to_csv(synthetic(scores=["fid"]))), encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        row_files.from_csv(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_csv_that_a_spreadsheet_saved_is_read(tmp_path):
    table = row_files.typed(synthetic(scores=["fid"])[list(Row.model_fields)])
    (tmp_path / "rows.csv").write_text(row_files.to_csv(table), encoding="utf-8-sig")
    pd.testing.assert_frame_equal(row_files.from_csv(tmp_path / "rows.csv"), table, check_exact=True)


def test_no_csv_is_one_line(tmp_path):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(UserError, match="not a table of rows"):
            row_files.from_csv(path)


# --------------------------------------------------------------------------------------------------------------- protocol


OTHER = {"n": 7, "tf32": True, "compile": True, "reference": "9" * 64, "extractor": "9" * 64}


@given(st.sampled_from(FIELDS), st.integers(0, 8))
def test_a_row_of_another_protocol_is_refused_and_both_are_named(field, place):
    table = synthetic(scores=["fid"])
    table.loc[table.index[place], field] = OTHER.get(field, "other")
    odd = table.iloc[place]
    with pytest.raises(UserError, match=f"cannot share a column: {field} is") as caught:
        row_files.check_protocol(table)
    assert f"{odd['method']}/seed{odd['seed']}" in str(caught.value)
    named = {f"{method}/seed{seed}" for method in FIDS for seed in (0, 1, 2) if f"{method}/seed{seed}" in str(caught.value)}
    assert len(named) == 2


def test_columns_may_differ_from_one_another():
    table = synthetic(scores=["fid", "is"])
    table.loc[table["score"] == "is", "n"] = 7
    row_files.check_protocol(table)


def test_outlier_statistics_are_of_the_runs_own_models():
    table = synthetic(scores=["denoiser_outlier_share"])
    table["extractor"] = [f"{place:064x}" for place in range(len(table))]
    row_files.check_protocol(table)


def test_rows_without_a_value_were_not_measured():
    table = synthetic(scores=["fid"], failed={("dsr", 1, "fid"): ("diverged", "the loss was not finite")})
    table.loc[table["status"] != "ok", ["n", "reference", "extractor"]] = [0, "none", "none"]
    row_files.check_protocol(table)


@pytest.mark.parametrize("field", [*row_files.OF_METHOD, "value"])
def test_seeds_of_a_method_share_encoder_decoder_and_what_is_measured_on_them(field):
    table = synthetic(scores=["rfid"])
    table.loc[table.index[-1], field] = 3.0 if field == "value" else "9" * 64
    with pytest.raises(UserError, match=f"'rfid' of dsr/seed2 and dsr/seed0 are not seeds of one method: {field} is"):
        row_files.check_protocol(table)
    table.loc[table["method"] == "dsr", field] = table[field].iloc[-1]  # of another method they may differ
    row_files.check_protocol(table)


def test_rows_of_two_steps_are_kept_apart():
    early, late = synthetic(scores=["fid"], step=3), synthetic(scores=["fid"])
    both = pd.concat([early.assign(n=7), late], ignore_index=True)
    row_files.checked(both)  # they are no rows of one column
    with pytest.raises(UserError, match="cannot share a column: n is 60 and 7"):
        row_files.checked(both.assign(step=3, seed=range(len(both))))
    with pytest.raises(UserError, match="is there twice"):
        row_files.checked(both.assign(step=3, n=60))


def test_guided_rows_of_methods_may_differ_in_what_was_chosen_and_not_in_how():
    table = synthetic(scores=["fid"], guidance="none, chosen on seed 7")
    table.loc[table["method"] == "dsr", "guidance"] = "classifier-free, scale 1.5, chosen on seed 7"
    row_files.checked(table)
    assert row_files.choices(table)["dsr"] == "classifier-free, scale 1.5"
    with pytest.raises(UserError, match="cannot share a column: config is"):
        row_files.checked(table.assign(config=[f"{place:016d}" for place in range(len(table))]))
    table.loc[table["seed"] == 1, "guidance"] = "classifier-free, scale 2, chosen on seed 7"
    with pytest.raises(UserError, match="are not seeds of one method: guidance is"):
        row_files.checked(table)


# ---------------------------------------------------------------------------------------------------------- results folder


def test_rows_come_from_real_files(study, runs):
    rows = row_files.collect(study, METHODS, SEEDS, runs.root)
    scores = [score for decay in study.sampled for score in (scores_of(study) if decay == study.ema else ("fid", "fid_infinity"))]
    assert len(rows) == len(METHODS) * len(SEEDS) * len(scores)
    assert set(rows["score"]) == set(scores_of(study))
    assert rows[[*HASHES, "config", "code", "commit", "versions", "device"]].map(bool).all().all()
    assert (rows["seconds"] > 0).all()


@pytest.fixture
def copied(runs, tmp_path):
    shutil.copytree(runs.root / "runs", tmp_path / "runs")
    return tmp_path


def rewrite(path, change):
    """The file as a stage would have written it, with a change."""
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    with artifacts.artifact(path, stage="scores", module="harness.evaluation.scores") as temporary:
        temporary.write_text(json.dumps(values), encoding="utf-8")


def refused(study, folder):
    with pytest.raises(UserError) as caught:
        row_files.collect(study, METHODS, SEEDS, folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_corrupted_file_is_refused(study, copied):
    path = copied / "runs" / "dsr" / "seed1" / "scores.json"
    path.write_text(path.read_text(encoding="utf-8").replace("1", "2", 1), encoding="utf-8")
    assert "dsr/seed1/scores.json: corrupted or truncated" in refused(study, copied)


def test_a_row_without_any_of_its_provenance_is_refused(study, copied):
    path = copied / "runs" / "dsr" / "seed1" / "scores.json"
    whole = json.loads(path.read_text(encoding="utf-8"))
    hashes = [field for field in HASHES if field in whole]
    places = [(field,) for field in (*hashes, "seed", "ema", "step", "guidance", "schema_version")] + [
        ("provenance", field) for field in whole["provenance"]
    ]
    places += [("scores", "fid", field) for field in ("n", "reference", "extractor", "how", "value")]
    assert len(places) > 20
    for *outer, field in places:
        if (*outer, field) == ("schema_version",):  # has a default for those who write it
            continue

        def spoil(values, outer=outer, field=field):
            values |= json.loads(json.dumps(whole))
            for key in outer:
                values = values[key]
            del values[field]

        rewrite(path, spoil)
        assert f"dsr/seed1/scores.json: {'.'.join([*outer, field])}: Field required" in refused(study, copied)


def test_the_files_of_another_run_are_refused(study, copied):
    for name in ("scores.json", f"scores.json{artifacts.META}"):
        shutil.copy(copied / "runs" / "dsr" / "seed0" / name, copied / "runs" / "dsr" / "seed1" / name)
    assert "dsr/seed1/scores.json: seed is 0, not 1" in refused(study, copied)
    for name in ("scores.json", f"scores.json{artifacts.META}"):
        shutil.copy(copied / "runs" / "masked" / "seed1" / name, copied / "runs" / "dsr" / "seed1" / name)
    assert "dsr/seed1/scores.json: method is masked, not dsr" in refused(study, copied)


def test_a_score_that_is_not_a_number_is_refused(study, copied):
    rewrite(copied / "runs" / "dsr" / "seed1" / "scores.json", lambda values: values["scores"]["fid"].update(value=float("inf")))
    assert "scores.json: scores.fid.value: Input should be a finite number" in refused(study, copied)


def test_a_reason_of_several_lines_becomes_one(study, copied):
    def diverge(values):
        values["scores"]["is"] |= {"value": None, "low": None, "high": None, "status": "diverged", "reason": "one\r\n  two\n"}

    rewrite(copied / "runs" / "dsr" / "seed1" / "scores.json", diverge)
    rows = row_files.collect(study, METHODS, SEEDS, copied)
    assert rows.loc[rows["status"] == "diverged", "reason"].tolist() == ["one two"]


def test_rows_of_an_older_version_are_read_and_written_as_they_were(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(row_files.to_csv(synthetic(scores=["fid"], schema_version=3)), encoding="utf-8")
    assert not {"content", "sampled"} & set(path.read_text(encoding="utf-8").splitlines()[0].split(","))
    table = row_files.from_csv(path)
    assert set(table["content"]) == set(table["sampled"]) == {"none"}
    assert row_files.to_csv(table) == path.read_text(encoding="utf-8")
    path.write_text(path.read_text(encoding="utf-8").replace(",3\n", ",4\n"), encoding="utf-8")
    with pytest.raises(UserError, match="line 2: no 'sampled', which rows have from version 4 on; render the table again"):
        row_files.from_csv(path)
