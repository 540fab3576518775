"""Verdicts on claims; regenerate the golden page with `pytest tests/report/test_claims.py --update-golden`."""

import subprocess
import sys

import pandas as pd
import pytest
import yaml
from claims_of_rows import DECLARED, SPEC, STUDY, rows, whole
from conftest import DATA, METHODS, SEEDS
from hypothesis import given
from hypothesis import strategies as st

from harness.report import claims
from harness.report.claims import render_claims
from harness.report.hypotheses import load_claims
from harness.report.verdicts import judge
from harness.results.scores import SCORES
from harness.study import typed as config
from harness.study.study import load_study
from harness.study.typed import UserError

# ------------------------------------------------------------------------------------------------------------------ the page


def test_the_page_is_the_golden_one(request):
    methods = ["baseline", "masked", "ttr", "recursive_ttr", "dsr"]
    texts = dict(zip((".md", ".csv"), claims.claims_texts(STUDY, whole(methods, 5), methods, list(range(5)), DECLARED), strict=True))
    for suffix, text in texts.items():
        golden = DATA / f"claims{suffix}"
        if request.config.getoption("--update-golden"):
            golden.write_text(text, encoding="utf-8")
        assert text == golden.read_text(encoding="utf-8")
    assert set(pd.read_csv(DATA / "claims.csv")["verdict"]) == {"replicates", "does not replicate", "undecided", "not tested"}


def test_the_page_of_real_rows_is_the_same_twice(study, runs, tmp_path):
    for name in ("a", "b"):
        said = render_claims(study, methods=METHODS, seeds=SEEDS, results=runs.root, spec=SPEC, out=tmp_path / name / "claims.md")
    assert sum(said["verdicts"].values()) == len(DECLARED.claims)
    for suffix in ("md", "csv"):
        assert (tmp_path / "a" / f"claims.{suffix}").read_bytes() == (tmp_path / "b" / f"claims.{suffix}").read_bytes()
    assert "method ttr is not in this run" in (tmp_path / "a" / "claims.md").read_text(encoding="utf-8")


def test_the_order_of_rows_does_not_matter():
    methods, declared = ["baseline", "masked", "ttr", "dsr"], DECLARED
    table = whole(methods, 3)
    wanted = claims.claims_texts(STUDY, table, methods, [0, 1, 2], declared)
    for seed in range(5):
        assert claims.claims_texts(STUDY, table.sample(frac=1, random_state=seed), methods, [0, 1, 2], declared) == wanted


def test_claims_of_every_study_have_a_place_for_the_papers_values():
    verdicts = judge(DECLARED, whole(["baseline", "ttr", "dsr"], 2), load_study("imagenet256_siglip2_b"), ["baseline", "ttr", "dsr"])
    assert {one.id: one.key.paper for one in verdicts}["ttr"] == "−1.26 (5.89 → 4.63)"
    assert {one.id: one.key.paper for one in verdicts}["recursive_ttr"] == "−0.18 (6.66 → 6.48, imagenet256_siglip2_so400m)"
    assert {one.id: one.key.paper for one in verdicts}["cost"] == "1.104 (238.1 → 262.9)"


def test_verdicts_import_no_torch():
    code = "import sys, harness.report.claims; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=config.ROOT, check=False).returncode == 0


# ------------------------------------------------------------------------------------------------------------------ the file


def test_a_claim_is_a_few_lines(tmp_path):
    path = tmp_path / "claims.yaml"
    path.write_text(
        SPEC.read_text(encoding="utf-8")
        + """
  - id: recall
    text: TTR raises recall.
    source: somewhere
    conditions: [{kind: higher, method: ttr, against: baseline, score: recall}]
""",
        encoding="utf-8",
    )
    values = {("baseline", "recall"): [0.5, 0.51, 0.49], ("ttr", "recall"): [0.6, 0.62, 0.59]}
    assert judge(load_claims(path), rows(values), STUDY, ["baseline", "ttr"])[-1].verdict == "replicates"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("kind: lower,", "kind: lowre,"), "kind is 'lowre', did you mean 'lower'"),
        (("method: masked", "method: maskd"), "unknown method 'maskd', did you mean 'masked'"),
        (("score: fid", "score: fidd"), "unknown score 'fidd', did you mean 'fid'"),
        (("margin: 0.05", "margn: 0.05"), "unknown field 'claims.0.conditions.0.margn', did you mean 'margin'"),
        ((", margin: 0.05", ""), "kind not_lower needs margin"),
        (("against: ttr", "against: recursive_ttr"), "method recursive_ttr is compared with itself"),
        (("against: baseline, score: gflops", "against: baseline, score: fid"), "kind ratio is for scores that are counted"),
        (("score: denoiser_noise_fall", "score: rfid"), "score 'rfid' has one value for all seeds"),
        (("value: 0}", "value: .inf}"), "finite"),
        (("id: noise", "id: ttr"), "claim 'ttr' stands there twice"),
        (("paper_study: imagenet256_siglip2_so400m", "paper_study: imagenet256"), "unknown study 'imagenet256'"),
        (("claims:\n", "claims: 3\nmore:\n"), "claims"),
        (("title:", "title: ["), "claims.yaml, line 18: not valid YAML"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, change, message):
    path = tmp_path / "claims.yaml"
    text = SPEC.read_text(encoding="utf-8")
    assert change[0] in text
    path.write_text(text.replace(*change), encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        load_claims(path)
    assert "\n" not in str(caught.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["title", "claims", "id", "kind", "method", "score", "against", "conditions", "text"]), inner, max_size=5
            )
        ),
    )
)
def test_any_other_file_is_one_line(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("claims") / "claims.yaml"
    path.write_text(yaml.safe_dump(value), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_claims(path)
    assert "\n" not in str(caught.value)


def test_what_is_counted_is_a_score_without_spread():
    assert all(info.shared for info in SCORES.values() if info.counted)
