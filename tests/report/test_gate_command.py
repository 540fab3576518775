"""`dsr check` at the command line: what must not pass in silence, and what must not be an alarm."""

import numpy as np
import pytest
from gate_rows import FRESH, METHODS, draws, table

from harness.cli import main as cli
from harness.report.rows import to_csv, typed
from harness.store.files import write_json, write_text


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """check(stored, fresh, *words): exit code and what `dsr check` prints of these rows; neuron lists are empty."""
    monkeypatch.chdir(tmp_path)

    def run(stored, fresh, *words):
        write_text("reports/reference/digits.csv", to_csv(stored.assign(registers="none")))
        write_json("reports/reference/digits.json", {})
        write_text("reports/digits/table1.csv", to_csv(fresh.assign(registers="none")))
        monkeypatch.setattr("sys.argv", ["dsr", "check", *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        said = capsys.readouterr()
        return stop.value.code, said.out + said.err

    return run


def eight(rng, methods=METHODS):
    return draws(rng, 8, methods=methods)


def test_all_fresh_runs_diverge_where_one_stored_seed_did(check):
    rng = np.random.default_rng(0)
    stored, fresh = eight(rng), draws(rng, 3)
    for score in ("fid", "is", "recall"):
        stored["baseline", score][2] = None
        fresh["baseline", score] = [None] * 3
    code, said = check(table(stored), table(fresh, FRESH))
    assert code == 1
    assert "1 diverged of 8 seeds before, 3 diverged of 3 seeds now" in said


def test_a_seed_that_diverges_as_often_as_the_stored_ones_is_no_alarm(check):
    rng = np.random.default_rng(0)
    stored, fresh = eight(rng), draws(rng, 3)
    for score in ("fid", "is", "recall"):
        stored["baseline", score][2] = stored["baseline", score][5] = fresh["baseline", score][1] = None
    assert check(table(stored), table(fresh, FRESH))[0] == 0


MOVED = [
    ("rfid", 0.05, 50.0, "latents, decoder, judge"),
    ("encoder_outlier_share", 0.0, 0.4, "encoder"),
    ("filtered_share", 0.038, 0.96, "latents"),
]


@pytest.mark.parametrize(("score", "before", "now", "part"), MOVED)
def test_a_value_that_moved_though_all_of_its_parts_are_equal(check, score, before, now, part):
    rng = np.random.default_rng(0)
    stored, fresh = eight(rng) | {("ttr", score): [before] * 8}, draws(rng, 3) | {("ttr", score): [now] * 3}
    code, said = check(table(stored), table(fresh, FRESH))
    assert code == 1
    line = next(line for line in said.splitlines() if line.startswith("difference  ttr"))
    assert score in line
    assert part in line
    assert "other value" in line
    code, said = check(table(stored), table(fresh, FRESH, encoder="c" * 64, latents="c" * 64, decoder="c" * 64))
    assert code == 0
    assert "moved" in said


def test_equal_parts_give_equal_bits_on_one_machine_and_nearly_on_another(check):
    rng = np.random.default_rng(0)
    stored, fresh = eight(rng), draws(rng, 3)
    for place in range(3):
        fresh["ttr", "rfid"][place] = 0.05 * (1 + 1e-8)  # in its eighth digit
    code, said = check(table(stored), table(fresh, FRESH))
    assert code == 1
    assert "other bits" in said
    code, said = check(table(stored), table(fresh, FRESH, device="another CPU"))
    assert code == 0
    assert "other bits" in said
    fresh["ttr", "rfid"] = [0.0501] * 3
    assert check(table(stored), table(fresh, FRESH, device="another CPU"))[0] == 1


@pytest.mark.parametrize("seeds", [3, 8])
def test_no_spread_in_any_method_is_no_traceback(check, seeds):
    def constant(value, count):
        return {(method, score): [value] * count for method in METHODS for score in ("fid", "denoiser_outlier_share")}

    code, said = check(table(constant(0.25, seeds)), table(constant(0.5, 3), FRESH))
    assert code == (2 if seeds == 3 else 1)
    assert "Traceback" not in said
    means = {("baseline", "fid"): [1.0, 2.0, 3.0], ("ttr", "fid"): [3.0, 2.0, 1.0]}  # whose mean over methods is constant
    assert check(table(means), table(means, FRESH))[0] == 0


def test_rounding_is_no_spread(check):
    stored = {("baseline", "accuracy"): [0.97, 0.97, 0.97 + 2e-16]}
    code, said = check(table(stored, n=1000), table({("baseline", "accuracy"): [0.98] * 3}, FRESH, n=1000))
    assert code == 0, said  # a binomial share of 1,000 images is that far off
    code, _ = check(table(stored, n=1000), table({("baseline", "accuracy"): [0.5] * 3}, FRESH, n=1000))
    assert code == 1
    code, _ = check(table({("baseline", "fid"): [0.97, 0.97, 0.97 + 2e-16]}), table({("baseline", "fid"): [0.98] * 3}, FRESH))
    assert code == 2


def test_methods_that_are_left_out_are_not_gone(check):
    rng = np.random.default_rng(0)
    stored, fresh = eight(rng, ("baseline", "ttr", "dsr", "masked")), draws(rng, 3, methods=("baseline", "ttr"))
    code, said = check(table(stored), table(fresh, FRESH))
    assert code == 1
    assert said.count("gone") == 2
    code, said = check(table(stored), table(fresh, FRESH), "--methods", "baseline", "ttr")
    assert code == 0
    assert "gone" not in said
    code, said = check(table(stored), table(fresh, FRESH), "--methods", "baseline", "tr")
    assert code == 2
    assert said.count("\n") == 1
    assert "no rows of method 'tr'; it has baseline, ttr" in said
    assert check(table(stored), table(fresh, FRESH), "--update", "--methods", "baseline")[0] == 2


def test_other_images_of_the_same_data_are_a_difference(check):
    """As many training images in the place of the held-out ones: the data set's hash is the same."""
    rng = np.random.default_rng(0)
    stored, fresh = table(eight(rng), content="5" * 64), table(draws(rng, 3), FRESH, content="6" * 64)
    code, said = check(stored, fresh)
    assert code == 1
    assert f"other images of the same data: {'5' * 12} before, {'6' * 12} now, for fid, " in said
    assert check(stored, fresh.assign(content="5" * 64))[0] == 0


def test_stored_rows_of_before_are_read_and_what_they_do_not_say_is_told(check, tmp_path):
    rng = np.random.default_rng(0)
    stored, fresh = table(eight(rng), schema_version=3), table(draws(rng, 3), FRESH, content="6" * 64)
    path = tmp_path / "old.csv"
    path.write_text(stored.assign(registers="none").drop(columns=["content", "sampled"]).to_csv(index=False), encoding="utf-8")
    code, said = check(stored, fresh, "--against", str(path))
    assert code == 2  # its neuron lists are not there
    (tmp_path / "old.json").write_text("{}", encoding="utf-8")
    code, said = check(stored, fresh, "--against", str(path))
    assert code == 0
    assert "which images of it, only rows from version 4 on say: renew with --update" in said
    path.write_text(stored.assign(registers="none").drop(columns="content").assign(schema_version=4).to_csv(index=False), encoding="utf-8")
    code, said = check(stored, fresh, "--against", str(path))
    assert code == 2
    assert "no 'content', which rows have from version 4 on" in said


def test_samples_that_were_drawn_otherwise_are_a_difference(check):
    """As the code that ran recorded it: an Euler step fewer, whatever the seeds."""
    rng = np.random.default_rng(0)
    stored, fresh = table(eight(rng)), table(draws(rng, 3), FRESH)
    words = "{} calls from t = 1 to 0.1 (0123456789ab) of weights averaged with 0.98"
    code, said = check(stored.assign(sampled=words.format(30)), fresh.assign(sampled=words.format(29)))
    assert code == 1
    assert f"must be equal: {words.format(30)} before, {words.format(29)} now" in said
    assert check(stored.assign(sampled=words.format(30)), fresh.assign(sampled=words.format(30)))[0] == 0
    assert check(stored, fresh.assign(sampled=words.format(30)))[0] == 0


# ------------------------------------------------------------------------------------------------------------- same seeds


def sampled_again(rows):
    """Of the same denoisers, other samples."""
    return rows.assign(samples=rows["samples"].str[::-1])


def trained_again(rows):
    return sampled_again(rows).assign(denoiser=rows["denoiser"].str[::-1])


def test_other_samples_of_the_same_seed_and_parts_are_a_difference(check):
    stored = table(eight(np.random.default_rng(0)))
    fresh = stored[stored["seed"] < 2].copy()
    assert check(stored, fresh)[0] == 0
    fresh.loc[fresh["score"].isin(["fid", "is"]), "value"] *= 1.0 + 1e-4
    code, said = check(stored, fresh)  # of the same samples
    assert code == 1
    assert "same seed 0, samples, judge, reference; other value: " in said
    code, said = check(stored, sampled_again(fresh))
    assert code == 1
    assert "same seed, denoiser, decoder, latents; other bits: seeds 0, 1" in said
    code, said = check(stored, sampled_again(fresh).assign(device="another CPU"))
    assert "same seed, denoiser, decoder, latents; other bits: seeds 0, 1" in said
    assert code == 0
    code, said = check(stored, trained_again(fresh))
    assert "other bits of the denoiser: baseline (seeds 0, 1)" in said
    assert code == 0


def test_pairs_find_what_lies_below_the_spread_over_seeds(check):
    rng = np.random.default_rng(0)
    stored = table(draws(rng, 8))
    fresh = trained_again(stored)
    fids = (fresh["method"] == "baseline") & (fresh["score"] == "fid")
    fresh.loc[fids, "value"] += 0.3 + 0.1 * rng.normal(size=8)  # a fifth of the spread over seeds
    code, said = check(typed(stored), typed(fresh))
    assert code == 1
    assert "worse, paired by seed" in said
    assert "8 of them pairs" in said
    assert check(typed(stored), typed(fresh.assign(seed=fresh["seed"] + FRESH)))[0] == 0


# ----------------------------------------------------------------------------------------------------------------- power


def test_power_is_said_in_the_units_of_the_score(check):
    rng = np.random.default_rng(0)
    stored = table(
        {("baseline", "fid"): list(np.exp(0.05 * rng.normal(size=8))), ("baseline", "kid"): list(0.01 + 0.001 * rng.normal(size=8))}
    )
    code, said = check(stored, stored, "--power", "3")
    assert code == 0
    assert "8 stored and 3 fresh seeds, 2 tests of single methods, any false difference at most 5%" in said
    assert "×1000" in said
    assert check(stored, stored, "--power", "1")[0] == 2
    assert check(stored[stored["seed"] == 0], stored, "--power")[0] == 2
