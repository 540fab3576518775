"""`dsr calibrate`: its rates are those of the distribution that the rows are from, and what it cannot simulate from is one line."""

import sys
from functools import cache, partial

import numpy as np
import pytest
from claims_of_rows import SPEC
from gate_rows import draws, table

from harness.cli import main as cli
from harness.report.calibrate import CHANGES, NULLS, Seeds, coverage, decidable, gate_rates, page_rates
from harness.report.gate.compare import RATE
from harness.report.gate.scores import compare_scores
from harness.report.rows import to_csv
from harness.store.files import write_text
from harness.study.study import load_study

SIGMA = 0.1  # of log FID


def values(rng, seeds):
    """Log-normal FIDs and normal KIDs, alike in a seed, of methods without any difference."""
    common = rng.normal(size=seeds)
    noise = {(method, score): (common + rng.normal(size=seeds)) / np.sqrt(2) for method in ("baseline", "ttr") for score in ("fid", "kid")}
    return {key: np.exp(SIGMA * z) if key[1] == "fid" else 5 + z for key, z in noise.items()}


def made(seeds, seed=0):
    """Rows of these."""
    return table({key: list(of) for key, of in values(np.random.default_rng(seed), seeds).items()})


@pytest.mark.parametrize("null", NULLS)
def test_new_seeds_have_the_mean_and_covariance_of_the_rows(null):
    sample = Seeds.of(made(6))
    drawn = sample.draw(np.random.default_rng(1), 40_000, null)
    on_scale = np.where(np.array(sample.scales) == "log", np.log(np.abs(drawn)), drawn)
    assert sorted(set(sample.scales)) == ["log", "plain"]
    np.testing.assert_allclose(on_scale.mean(0), sample.mean, atol=0.03)
    expected = np.cov(sample.centred.T)
    np.testing.assert_allclose(np.cov(on_scale.T), expected, atol=0.05 * expected.max())


@cache
def simulated(redraws, change):
    """What new seeds are drawn from, and of direct redraws of their distribution: alarms without a change, and how often one is found."""
    sample, rng, alarms, found = Seeds.of(made(400)), np.random.default_rng(1), 0, 0
    place = next(i for i, key in enumerate(sample.keys) if key[0] == "fid")
    for _ in range(redraws):
        before, after = (
            np.column_stack([of[method, score] for score, _, method in sample.keys]) for of in map(partial(values, rng), (8, 3))
        )
        for changed in (False, True):
            after[:, place] *= 1 + change * changed
            lines, _ = compare_scores(sample.cells(after, 8), sample.cells(before, 0), RATE)
            differ = {(line.score, line.view, line.method) for line in lines if line.verdict == "difference"}
            alarms += bool(differ) and not changed
            found += changed and sample.keys[place] in differ
    return sample, alarms, found


@pytest.mark.parametrize("null", NULLS)
def test_rates_of_the_gate_agree_with_direct_simulation(null):
    """Of many rows, so that what is drawn from them is what they were drawn from."""
    redraws, change = 120, CHANGES[1]
    sample, alarms, direct = simulated(redraws, change)
    found = gate_rates(sample, null, 8, 3, redraws, change=change)
    error = np.sqrt(2 * 0.25 / redraws)
    assert 0.3 * redraws < direct
    assert abs(found[2] - direct) / redraws < 4 * error
    assert abs(gate_rates(sample, null, 8, 3, redraws)[0] - alarms) / redraws < 4 * np.sqrt(2 * RATE / redraws)
    assert found[1] == 0


def test_intervals_of_normal_seeds_cover_as_they_say():
    means, differences = coverage(Seeds.of(made(6)), "normal", 400)
    for shares in (means, differences):
        assert abs(shares.mean() - 0.95) < 4 * shares.std(ddof=1) / np.sqrt(400)


def test_pages_are_wrong_as_rarely_as_promised_and_a_clear_effect_is_found():
    rows, study = made(6), load_study("digits")
    rows.loc[(rows["method"] == "ttr") & (rows["score"] == "fid"), "value"] *= 0.3
    results = decidable(rows, study, SPEC)
    assert [one.method for one in results] == ["ttr"]
    sample = Seeds.of(rows)
    assert page_rates(sample, results, study, "normal", 300, effects=False)[0] / 300 < RATE + 4 * np.sqrt(RATE / 300)
    decided, holds, refuted = page_rates(sample, results, study, "normal", 50, effects=True)
    assert (decided, holds, refuted) == (50, [50], [0])


@pytest.fixture
def calibrate(tmp_path, monkeypatch, capsys):
    """calibrate(rows or None, *words): exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(rows, *words):
        if rows is not None:
            write_text("reports/digits/table1.csv", to_csv(rows.assign(registers="none")))
        monkeypatch.setattr(sys, "argv", ["dsr", "calibrate", "--claims", str(SPEC), *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code, *capsys.readouterr()

    return run


def test_it_prints_every_rate_with_its_error_and_the_same_again(calibrate):
    rows = table(draws(np.random.default_rng(0), 4))
    code, said, _ = calibrate(rows, "--redraws", "2")
    assert code == 0
    for words in (
        "4 stored, 3 fresh: false alarm in",
        "cannot decide",
        "power, 4 stored, 3 fresh: fid of baseline from",
        "paired: has the true one",
    ):
        assert said.count(words) >= len(NULLS)
    assert all("±" in line for line in said.splitlines() if line.startswith("  ") and "claims: none" not in line)
    assert calibrate(None, "--redraws", "2")[1] == said


@pytest.mark.parametrize(
    ("rows", "words", "said"),
    [
        (None, [], "no rows; run snakemake"),
        (made(1), [], "rows of 1 seed"),
        (made(3), ["--seeds", "7"], "no rows of seed 7; it has 0, 1, 2"),
        (made(3), ["--study", "smoke", "--against", "reports/digits/table1.csv"], "rows of study 'digits', not of 'smoke'"),
        (made(3), ["--study", "nothing"], "nothing"),
        (table({("baseline", "fid"): [1.0, 1.0, 1.0]}), [], "no score of the rows varies by seed"),
    ],
)
def test_what_cannot_be_simulated_from_is_one_line(calibrate, rows, words, said):
    code, out, err = calibrate(rows, *words)
    assert code == 2
    assert said in err
    assert (out, len(err.strip().splitlines())) == ("", 1)
