import copy
import subprocess
import sys

import pytest
import yaml

from harness.report import paper
from harness.study.method import load_method
from harness.study.study import load_study, study_names
from harness.study.typed import UserError


@pytest.fixture
def raw():
    return copy.deepcopy(yaml.safe_load(paper.FILE.read_text(encoding="utf-8")))


def test_the_main_row():
    printed = paper.values("imagenet256_siglip2_b")
    assert {method: scores["fid"].value for method, scores in printed.items()} == {
        "baseline": 5.89, "masked": 6.06, "ttr": 4.63, "diffusion_registers": 5.33, "dsr": 4.58,
    }  # fmt: skip
    row = printed["dsr"]
    assert (row["is"].value, row["precision"].value, row["recall"].value, row["gflops"].value) == (165.99, 0.725, 0.56, 262.9)
    assert row["recall"].text == "0.560"
    assert row["parameters"].text == "676"
    assert row["fid"].samples == 50_000
    assert row["fid"].epochs == 80
    assert "arXiv 2605.05206 project page, main ImageNet table" in row["fid"].sources


def test_guided_values_stand_apart():
    assert paper.values("imagenet256_siglip2_b_800ep")["dsr"]["fid"].value == 3.26
    assert paper.values("imagenet256_siglip2_b_800ep", guided=True)["dsr"]["fid"].value == 2.97
    assert paper.values("imagenet256_siglip2_b", guided=True) == {}


def test_what_is_not_given_is_absent():
    assert paper.values("digits") == {}
    assert paper.values("imagenet256_siglip2_b_dit_l") == {}
    assert "baseline" not in paper.values("imagenet256_dinov2_b")
    sit = paper.values("imagenet256_sit_xl")
    assert sit["baseline"]["fid"].epochs is None
    assert "gflops" not in sit["baseline"]


def test_every_study_can_be_asked():
    for name in study_names():
        for method, scores in paper.values(name).items():
            assert load_method(method).registers(load_study(name)) or method in (
                "baseline",
                "masked",
                "ttr",
                "recursive_ttr",
                "trained_registers",
            )
            assert all(printed.sources for printed in scores.values())
    assert paper.values("a_study_of_ones_own") == {}


def test_protocol_is_that_of_the_released_code_where_there_is_some():
    given = {method: scores["fid"].protocol for method, scores in paper.values("imagenet256_siglip2_b").items()}
    assert {method: (one.labels, one.nfe, one.ema, one.guidance) for method, one in given.items()} == {
        "baseline": ("equal", 49, 0.9999, "none"),
        "dsr": ("equal", 49, 0.9999, "none"),
        **dict.fromkeys(("masked", "ttr", "diffusion_registers"), (None, None, None, "none")),
    }
    assert all(one.reference is None for one in given.values())
    assert given["masked"].unclear == ["which norm the mask thresholds"]
    assert paper.values("imagenet256_siglip2_b_800ep", guided=True)["dsr"]["fid"].protocol.guidance == paper.GUIDED
    assert paper.values("imagenet256_sit_xl")["baseline"]["fid"].protocol.guidance is None
    assert paper.values("imagenet256_siglip2_b_ditdh_800ep")["baseline"]["fid"].protocol.ema == 0.9995


def test_shares_and_percentages_are_shares():
    for name in study_names():
        for scores in paper.values(name).values():
            for score in {"precision", "recall", "filtered_share"} & set(scores):
                assert 0 < scores[score].value < 1


def test_the_curve_ends_where_the_table_does():
    curves = paper.curves("imagenet256_siglip2_b_800ep")
    for method, curve in curves.items():
        printed = paper.values("imagenet256_siglip2_b_800ep")[method]["fid"].value
        assert (curve.epochs[-1], curve.values[-1]) == (800, pytest.approx(printed, abs=curve.error))
        assert curve.values == sorted(curve.values, reverse=True)
        assert curve.source.endswith("±0.01")
    assert paper.curves("digits") == {}


@pytest.mark.parametrize(
    ("digits", "cut", "printed", "ours", "match"),
    [
        (1, False, 238.1, 238.121, True),
        (1, False, 238.1, 238.16, False),
        (-6, True, 676e6, 676.95e6, True),
        (-6, False, 676e6, 676.95e6, False),
        (-6, False, 839e6, 838.68e6, True),
        (-6, True, 839e6, 838.68e6, False),
        (2, False, 4.58, 4.584, True),
    ],
)
def test_matching(digits, cut, printed, ours, match):
    assert paper.Printed(value=printed, digits=digits, sources=["page"], cut=cut).matches(ours) is match


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda raw: raw["rows"][0].update(method="basline"), "unknown method 'basline', did you mean 'baseline'"),
        (lambda raw: raw["rows"][0].update(method="dsr_trained"), "unknown method of study 'imagenet256_siglip2_b' 'dsr_trained'"),
        (lambda raw: raw["rows"][0].update(studies=["imagenet_siglip2_b"]), "unknown study 'imagenet_siglip2_b', did you mean"),
        (lambda raw: raw["rows"][0]["scores"].update(fdi=1.0), "unknown score 'fdi', did you mean 'fid'"),
        (lambda raw: raw["rows"][0].update(sources=["page_mian"]), "unknown source 'page_mian', did you mean 'page_main'"),
        (lambda raw: raw["rows"].append(raw["rows"][0]), "stands there twice"),
        (lambda raw: raw["rows"][0].update(epoch=80), "unknown field 'rows.0.epoch', did you mean 'epochs'"),
        (lambda raw: raw["protocols"][0].update(emma=0.9999), "unknown field 'protocols.0.emma', did you mean 'ema'"),
        (lambda raw: raw["protocols"][0].update(ema=1.5), "ema"),
        (lambda raw: raw["protocols"][2].update(methods=["basline"]), "unknown method 'basline', did you mean 'baseline'"),
        (lambda raw: raw["protocols"][4].update(studies=["imagenet"]), "unknown study 'imagenet'"),
        (lambda raw: raw["curves"][0]["epochs"].pop(), "one value for each"),
        (lambda raw: raw["outlier_shares"]["methods"]["dsr"]["blocks"].pop(), "one share for each block"),
    ],
)
def test_mistakes_in_the_file_are_one_line(raw, change, complaint):
    change(raw)
    with pytest.raises(UserError, match=complaint) as caught:
        paper.parse(raw)
    assert "\n" not in str(caught.value)


def test_every_source_is_used(raw):
    parsed = paper.parse(raw)
    used = {source for row in [*parsed.rows, *parsed.text_to_image] for source in row.sources}
    used |= {one.source for one in [*parsed.curves, parsed.outlier_shares, *parsed.quoted]}
    assert used == set(parsed.sources)


def test_no_torch():
    code = "import sys; from harness.report import paper; paper.paper(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
