"""Rows of published weights: their seed in files and words, and that nothing is paired with them."""

import pandas as pd
import pytest
from synthetic import FIDS, synthetic

from harness.report import rows as row_files
from harness.report.beside import comparable, printed_of
from harness.report.cells import UNPAIRED, cells
from harness.report.notes import spread
from harness.report.specs import Column
from harness.store.files import write_text
from harness.study.seeds import PUBLISHED, noise_seed, run_name, seed, seed_text
from harness.study.study import load_study
from harness.study.typed import UserError


def with_published(fid=0.2):
    """Three seeds of three methods, and the published weights of another."""
    published = synthetic({"diffusion_registers": {PUBLISHED: fid}}, [PUBLISHED], ema=0.0, step=0)
    return pd.concat([synthetic(FIDS), published], ignore_index=True)


def test_a_seed_has_one_spelling_in_files_and_none_of_its_own_noise():
    assert (seed("published"), seed_text(PUBLISHED), run_name(PUBLISHED), noise_seed(PUBLISHED)) == (PUBLISHED, "published", "published", 0)
    assert (seed("7"), seed_text(7), run_name(7), noise_seed(7)) == (7, "7", "seed7", 7)


def test_the_csv_says_published_and_gives_it_back(tmp_path):
    table, path = with_published(), tmp_path / "rows.csv"
    write_text(path, row_files.to_csv(table))
    assert set(pd.read_csv(path)["seed"].astype(str)) == {"0", "1", "2", "published"}
    pd.testing.assert_frame_equal(row_files.from_csv(path), table, check_exact=True)
    row_files.to_parquet(table.assign(seconds=1.0), tmp_path / "rows.parquet")
    assert set(pd.read_parquet(tmp_path / "rows.parquet")["seed"]) == {-1, 0, 1, 2}


@pytest.mark.parametrize(("seed", "step"), [("published", "12"), ("0", "0"), ("-1", "12"), ("-2", "0")])
def test_a_seed_that_does_not_fit_its_step_is_refused(tmp_path, seed, step):
    table, path = synthetic({"baseline": [1.0]}, [0], scores=["fid"]), tmp_path / "rows.csv"
    write_text(path, row_files.to_csv(table.astype({"seed": str, "step": str}).assign(seed=seed, step=step)))
    with pytest.raises(UserError, match="seed"):
        row_files.from_csv(path)


def test_nothing_is_paired_with_published_weights_and_they_are_never_bold():
    methods = ["baseline", "masked", "dsr", "diffusion_registers"]
    plain = cells(with_published(), Column(score="fid"), methods, "baseline")
    assert plain["diffusion_registers"].mean == "0.200"
    assert plain["diffusion_registers"].within == ("0.180", "0.220")
    assert not plain["diffusion_registers"].bold
    assert plain["dsr"].bold  # as without the row of published weights, whose FID is lower
    differences = cells(with_published(), Column(score="fid", difference=True), methods, "baseline")
    assert differences["diffusion_registers"].why == UNPAIRED
    assert differences["dsr"].mean == "−0.493"
    against = cells(with_published(), Column(score="fid", difference=True), methods, "diffusion_registers")
    assert all(against[method].why == UNPAIRED for method in methods if method != "diffusion_registers")


def test_rows_of_published_weights_alone_tell_nothing_of_chance(tmp_path):
    table = with_published()
    assert set(row_files.trained(table, tmp_path)["seed"]) == {0, 1, 2}
    with pytest.raises(UserError, match="published weights alone"):
        row_files.trained(table[table["seed"] == PUBLISHED], tmp_path)


def test_notes_say_what_they_are():
    lines = spread(with_published(), [0, 1, 2], grouped=False, differences=True)
    assert lines[0].startswith("Mean ± half-width of the 95 % Student-t interval over 3 seeds (0, 1, 2)")
    assert lines[-1].startswith("Published weights, trained elsewhere, have one run")
    table = with_published()
    (alone,) = spread(table[table["seed"] == PUBLISHED], [], grouped=False, differences=False)
    assert alone.startswith("Published weights, trained elsewhere: each has one run")


def test_what_is_printed_for_them_is_comparable_only_where_all_of_it_is_known():
    study = load_study("published_lightningdit")
    printed = printed_of(study, guided=False)["baseline"]["fid"]
    assert (printed.text, printed.epochs) == ("1.35", 800)
    verdict, because = comparable(study, "fid", printed, method="baseline")
    assert verdict == "unknown"
    assert because == "their source does not give reference statistics, N, labels, EMA decay"
    other = study.model_copy(update={"sampling": study.sampling.model_copy(update={"grid_points": 101})})
    verdict, because = comparable(other, "fid", printed, method="baseline")
    assert verdict == "no"
    assert "NFE: 249 there, 100 here" in because
