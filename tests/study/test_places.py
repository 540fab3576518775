import pytest
import yaml
from conftest import tiny_values

from harness.study import places, study
from harness.study.study import load_study, parse_study


def homes(of):
    return {part: places.home(of, part) for part in places.PARTS}


@pytest.fixture
def studies(tmp_path, monkeypatch):
    """Writes a study file into a folder that holds the repository's studies."""
    for path in study.STUDIES.glob("*.yaml"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(study, "STUDIES", tmp_path)

    def write(name, **values):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"title": name, **values}), encoding="utf-8")
        return load_study(name)

    return write


def test_a_study_without_a_base_keeps_everything_at_home():
    assert set(homes(load_study("digits")).values()) == {"digits"}


def test_a_study_shares_the_parts_whose_settings_it_does_not_change():
    owners = homes(load_study("digits_control"))  # nothing is planted into its encoder
    assert {part for part, name in owners.items() if name == "digits"} == {"data", "judge", "clip", "references"}
    assert owners["encoder"] == owners["decoder"] == "digits_control"


def test_cut_budgets_share_nothing_but_the_same_cuts_do(studies):
    assert set(homes(load_study("smoke")).values()) == {"smoke"}
    studies("digits_wide", extends="digits", denoiser={"width": 96})
    assert set(homes(studies("smoke_wide", extends=["digits_wide", "_smoke"])).values()) == {"smoke"}


@pytest.mark.parametrize(
    ("change", "own"),
    [
        ({"denoiser": {"depth": 2}}, set()),
        ({"sampling": {"count": 900}}, set()),
        ({"evaluation": {"kid_subsets": 3}}, set()),
        ({"decoder": {"noise": 0.5}}, {"decoder"}),
        ({"evaluation": {"judge": {"width": 24}}}, {"judge", "references"}),
        ({"evaluation": {"reconstruction": False}}, {"references"}),
        ({"outlier_statistics": {"factor": 4.0}}, {"encoder", "decoder"}),
        ({"search": {"top_k": 3}}, {"encoder", "decoder"}),
        ({"data": {"reference": 500}}, set(places.PARTS)),
    ],
)
def test_a_change_takes_home_what_is_made_from_it(studies, change, own):
    owners = homes(studies("digits_changed", extends="digits", **change))
    assert {part for part, name in owners.items() if name == "digits_changed"} == own
    assert set(owners.values()) <= {"digits", "digits_changed"}


def test_a_home_is_at_home():
    for name in study.study_names():
        for part, owner in homes(load_study(name)).items():
            assert places.home(load_study(owner), part) == owner


def test_the_nearest_to_the_root_is_taken(studies):
    studies("digits_a", extends="digits", decoder={"noise": 0.5})
    studies("digits_b", extends="digits_a", seeds=[1])
    owners = homes(studies("digits_c", extends=["digits_b", "_smoke"], **{"decoder": {"noise": 0.8}}))
    assert owners["judge"] == "digits_c"  # no study named digits_smoke has the cut budgets
    assert places.ancestors("digits_c") == ["digits", "digits_a", "digits_b"]
    assert places.home(load_study("digits_b"), "decoder") == "digits_a"
    assert places.home(load_study("digits_b"), "encoder") == "digits"


def test_a_study_without_a_file_is_at_home():
    assert set(homes(parse_study("tiny", tiny_values())).values()) == {"tiny"}


def test_folder_of_a_sibling(tmp_path):
    own = load_study("digits_control")
    assert places.folder(tmp_path / "copy", own, "digits_control") == tmp_path / "copy"
    assert places.folder(tmp_path / "copy", own, "digits") == tmp_path / "digits"


def test_family_is_the_name_up_to_the_first_underscore():
    assert [load_study(name).family for name in ("digits", "digits_control", "imagenet256_siglip2_b")] == [
        "digits",
        "digits",
        "imagenet256",
    ]
