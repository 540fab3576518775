"""What samples are compared with: ADM's reference batches and the held-out images."""

import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_fidelity.metric_fid import fid_features_to_statistics

from harness.data.images import InMemory
from harness.evaluation import references
from harness.evaluation.adm_batches import ArchivedImages, batch_statistics
from harness.evaluation.fid import fid
from harness.evaluation.reference_statistics import ReferenceStatistics
from harness.evaluation.references import load_references, make_references
from harness.machine.streams import stream
from harness.results.references import references_of
from harness.results.scores import REFERENCES, SCORES, score_info, scores_of
from harness.store import artifacts
from harness.store.assets import record_asset
from harness.study.study import parse_study, read_study
from harness.study.typed import UserError, merge

SIZE, WIDTH = 8, 6  # of the images, and features of the extractor that stands in for a judge


def study_with(*names, reconstruction=True, **evaluation):
    """`digits` with small images and features, and reference batches of these names."""
    files = [{"name": name, "file": {"path": f"{name}.npz", "source": "made by the test"}} for name in names]
    judge = {"kind": "trained", "width": WIDTH, "training": {"steps": 2, "batch": 4, "lr": 1e-3}}
    changes = {"references": files, "judge": judge, "kid_subset": 20, "reconstruction": reconstruction, **evaluation}
    return parse_study("small", merge(read_study("digits"), {"data": {"reference": 40}, "evaluation": changes}))


class Projection:
    """Features of images: a fixed random projection."""

    sha256 = "projection"

    def __init__(self, *_):
        pass

    def __call__(self, images):
        pixels = torch.stack([torch.from_numpy(np.array(images[i])).float().flatten() / 255 for i in range(len(images))])
        return {"features": pixels @ torch.randn(pixels.shape[1], WIDTH, generator=stream(0, "projection"))}


def images_of(count, purpose="a", size=SIZE):
    return torch.randint(0, 256, (count, size, size, 3), generator=stream(0, purpose), dtype=torch.uint8).numpy()


def batch(path, study=None, **arrays):
    """batch_statistics of an .npz with these arrays."""
    np.savez(path, **arrays)
    return batch_statistics(small(study or study_with()), "virtual", path, "ff00", Projection())


def small(study):
    return study.model_copy(update={"data": study.data.model_copy(update={"image_size": SIZE})})


def statistics_of(images):
    return fid_features_to_statistics(Projection()(images)["features"])


def test_trap21_mu_and_sigma_are_not_computed_anew_from_the_few_images_beside_them(tmp_path):
    """ADM's VIRTUAL batch has 10,000 images beside mu and sigma of the whole training set; statistics of those images inflate FID."""
    whole = images_of(2000)
    full = batch(tmp_path / "virtual.npz", arr_0=whole[:30], **statistics_of(whole))
    few = batch(tmp_path / "few.npz", arr_0=whole[:30])
    samples = Projection()(images_of(2000, "b"))["features"]
    assert full.statistics == "given"
    assert full.n == 30
    assert np.array_equal(full.sigma, statistics_of(whole)["sigma"])
    assert few.statistics == "from 30 images"
    assert fid(samples, few)["fid"] > 10 * fid(samples, full)["fid"]


def test_statistics_of_a_batch_without_them_are_torch_fidelitys(tmp_path):
    computed, wanted = batch(tmp_path / "val.npz", arr_0=images_of(50)), statistics_of(images_of(50))
    assert np.array_equal(computed.mu, wanted["mu"])
    assert np.array_equal(computed.sigma, wanted["sigma"])
    assert computed.mu.dtype == np.float32


GIVEN = {"mu": np.zeros(WIDTH), "sigma": np.eye(WIDTH)}


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        (GIVEN, r"has mu, sigma; a reference needs arr_0 \(images, for precision, recall and KID\)"),
        ({"arr_1": np.zeros(3)}, "has arr_1; a reference needs arr_0"),
        ({}, "has no arrays; a reference needs arr_0"),
        ({"arr_0": images_of(50), "mu": GIVEN["mu"]}, "has arr_0, mu; a reference needs .* either both mu and sigma .* or neither"),
        (
            {"arr_0": images_of(50), "mu": np.zeros(2048), "sigma": GIVEN["sigma"]},
            r"mu has shape \(2048,\), the judge's 6 features need \(6,\)",
        ),
        (
            {"arr_0": images_of(50), "mu": GIVEN["mu"], "sigma": np.eye(5)},
            r"sigma has shape \(5, 5\), the judge's 6 features need \(6, 6\)",
        ),
        ({"arr_0": images_of(50), "mu": GIVEN["mu"] * np.nan, "sigma": GIVEN["sigma"]}, "mu is not a finite float array"),
        ({"arr_0": images_of(50), "mu": np.zeros(WIDTH, dtype=int), "sigma": GIVEN["sigma"]}, "mu is not a finite float array"),
        ({"arr_0": images_of(50, size=16), **GIVEN}, r"\(50, 16, 16, 3\) uint8; this study compares with images \(N, 8, 8, 3\) uint8"),
        ({"arr_0": images_of(50) / 255, **GIVEN}, "float64; this study compares with images"),
        ({"arr_0": np.asfortranarray(images_of(50)), **GIVEN}, "in Fortran order"),
        ({"arr_0": images_of(WIDTH)}, "FID needs more reference images than features: got 6 for 6 features"),
        (
            {"arr_0": images_of(50), "mu": np.array([{}]), "sigma": GIVEN["sigma"]},
            "not a readable .npz file .*Object arrays cannot be loaded",
        ),
    ],
)
def test_a_batch_that_cannot_serve_is_refused_in_one_line(tmp_path, arrays, match):
    with pytest.raises(UserError, match=match) as caught:
        batch(tmp_path / "ref.npz", **arrays)
    assert "\n" not in str(caught.value)


def test_a_truncated_or_foreign_file_is_refused_by_name(tmp_path):
    np.savez(tmp_path / "whole.npz", arr_0=images_of(50), **GIVEN)
    whole = (tmp_path / "whole.npz").read_bytes()
    spoiled = {"cut.npz": whole[: len(whole) // 2], "empty.npz": b"", "text.npz": b"<html>not found</html>"}
    for name, content in spoiled.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: not a readable .npz file .*; truncated") as caught:
            batch_statistics(small(study_with()), "virtual", tmp_path / name, "", Projection())
        assert "\n" not in str(caught.value)


def test_a_damaged_image_is_refused_by_name(tmp_path):
    np.savez(tmp_path / "ref.npz", arr_0=images_of(50), **GIVEN)
    content = bytearray((tmp_path / "ref.npz").read_bytes())
    content[5000] ^= 255  # inside arr_0, which savez writes first
    (tmp_path / "ref.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"ref.npz: not a readable .npz file \(Bad CRC-32"):
        batch_statistics(small(study_with()), "virtual", tmp_path / "ref.npz", "", Projection())


@given(st.integers(1, 6), st.lists(st.integers(0, 5), max_size=8), st.sampled_from([np.savez, np.savez_compressed]))
def test_images_come_one_by_one_in_any_order(tmp_path_factory, count, order, save):
    path, images = tmp_path_factory.mktemp("npz") / "ref.npz", images_of(count)
    save(path, arr_0=images)
    with zipfile.ZipFile(path) as archive:
        archived = ArchivedImages(archive, path, "arr_0.npy", SIZE)
        assert len(archived) == count
        for i in order:
            assert np.array_equal(archived[i % count], images[i % count])


@pytest.fixture
def supplied(tmp_path, monkeypatch):
    """make(study) -> the loaded references, with `first.npz` and `second.npz` among the assets and a projection as the judge."""
    monkeypatch.setattr(references, "Extractor", Projection)
    held_out = InMemory(images_of(40, "held out"), np.zeros(40, dtype=np.int64))
    monkeypatch.setattr(references, "load_data", lambda _folder, split: {"reference": held_out}[split])
    for name in ("data", "judge"):
        with artifacts.artifact(tmp_path / name, stage=name, module="harness.results.schema") as path:
            path.write_text(name, encoding="utf-8")
    np.savez(tmp_path / "first.npz", arr_0=images_of(60), **statistics_of(images_of(500)))
    np.savez(tmp_path / "second.npz", arr_0=images_of(50, "c"))

    def make(study):
        records = {name: tmp_path / "records" / f"{name}.json" for name in study.assets}
        for name, path in records.items():
            record_asset(study, name=name, assets=tmp_path, out=path)
        out, folders = tmp_path / "references.safetensors", {"data": tmp_path / "data", "records": [*records.values()]}
        return make_references(small(study), **folders, judge=tmp_path / "judge", out=out), load_references(out)

    return SimpleNamespace(make=make, folder=tmp_path)


def test_references_keep_their_order_their_source_and_every_bit(supplied):
    study = study_with("second", "first")
    facts, statistics = supplied.make(study)
    assert list(statistics) == ["second", "first", "held_out"] == references_of(study)
    content = facts["first"].pop("content")
    assert facts["first"] == {"sha256": artifacts.sha256(supplied.folder / "first.npz"), "statistics": "given", "images": 60}
    assert content == statistics["first"].content
    assert facts["second"]["statistics"] == "from 50 images"
    assert statistics["held_out"].sha256 == artifacts.checked(supplied.folder / "data")
    wanted = statistics_of(images_of(500))
    assert np.array_equal(statistics["first"].mu, wanted["mu"])
    assert statistics["first"].mu.dtype == wanted["mu"].dtype
    assert np.array_equal(statistics["first"].sigma, wanted["sigma"])
    assert torch.equal(statistics["second"].features, Projection()(images_of(50, "c"))["features"])
    record = artifacts.meta(supplied.folder / "references.safetensors")
    assert {name.split("/")[-1] for name in record["inputs"]} == {
        "judge",
        "data",
        "evaluation.references.first.file.json",
        "evaluation.references.second.file.json",
    }


def test_a_reference_is_told_by_the_images_that_were_read(supplied, monkeypatch):
    """Other images of the same data set, as many: the data's hash is the same."""
    study = study_with(reconstruction=True)
    before = supplied.make(study)[1]["held_out"]
    (supplied.folder / "references.safetensors").unlink()
    assert supplied.make(study)[1]["held_out"].content == before.content
    (supplied.folder / "references.safetensors").unlink()
    training = InMemory(images_of(40, "train"), np.zeros(40, dtype=np.int64))
    monkeypatch.setattr(references, "load_data", lambda _folder, _split: training)
    after = supplied.make(study)[1]["held_out"]
    assert (after.sha256, after.n) == (before.sha256, before.n)
    assert after.content != before.content


def test_held_out_images_are_left_out_where_nothing_needs_them(supplied):
    assert list(supplied.make(study_with("first", reconstruction=False))[1]) == ["first"]
    assert list(supplied.make(study_with(reconstruction=False))[1]) == ["held_out"]


def test_a_reference_with_too_few_images_for_kid_is_refused_before_any_training(supplied):
    with pytest.raises(UserError, match=r"reference second has 50 images; evaluation.kid_subset and neighbours need at least 55"):
        supplied.make(study_with("first", "second", kid_subset=55, reconstruction=False))


def test_references_that_share_a_name_are_refused():
    for names in (("virtual", "virtual"), ("held_out",)):
        with pytest.raises(UserError, match="must differ in name, and none may be called held_out"):
            references_of(study_with(*names))


OF_PROMPTS = {name for name in SCORES if name.startswith(("geneval", "checker"))}
COMPARED = [name for name, info in SCORES.items() if info.places is REFERENCES]


def test_scores_of_a_study_name_each_reference():
    plain = scores_of(study_with())
    assert [name for name in plain if "@" not in name] == [name for name in SCORES if name not in OF_PROMPTS]
    both = scores_of(study_with("virtual", "val"))
    assert [name for name in both if name not in plain] == [f"{score}@{name}" for score in COMPARED for name in ("val", "held_out")]
    assert both.index("fid@val") == both.index("fid") + 1
    assert set(plain) - set(scores_of(study_with("virtual", reconstruction=False))) == {"rfid", "psnr"}
    assert "clip_score" not in scores_of(study_with(clip=None))


def test_a_paper_scale_study_has_no_accuracy_and_no_clean_fid():
    judge = {"kind": "inception", "weights": {"path": "w", "source": "s"}, "features": 2048}
    values = merge(
        read_study("digits"),
        {"evaluation": {"judge": judge}, "sampling": {"count": 5000, "guidance_search": None}, "data": {"image_size": 16}},
    )
    study = parse_study(
        "wide",
        merge(values, {"evaluation": {"reconstruction": False, "references": [{"name": "virtual", "file": {"path": "v", "source": "s"}}]}}),
    )
    assert {name for name in scores_of(study) if "@" not in name} == set(SCORES) - OF_PROMPTS - {"accuracy", "fid_clean", "rfid", "psnr"}


def test_shares_of_outliers_are_scored_by_block_and_those_of_a_mask_by_threshold():
    names = scores_of(study_with())
    blocks = ["block0", "block1", "block2", "block3", "output"]
    assert [name for name in names if name.startswith("denoiser_outlier_share@")] == [f"denoiser_outlier_share@{b}" for b in blocks]
    assert [name for name in names if name.startswith("filtered_share@")] == [f"filtered_share@{m}" for m in ("1.5", "2", "3", "5", "10")]
    assert score_info("denoiser_outlier_share@block3").title == "Outliers, block 3"
    assert [score_info(f"filtered_share@{at}").title for at in ("1.5", "norm100")] == ["Above 1.5 × median", "Above norm 100"]
    with pytest.raises(UserError, match="unknown score 'denoiser_outlier_share@blok3'"):
        score_info("denoiser_outlier_share@blok3")


def test_a_score_against_another_reference_has_its_own_title():
    assert score_info("fid@virtual2").title == "FID (virtual2)"
    assert score_info("fid@virtual2").better == "lower"
    assert score_info("precision@val").better == "higher"
    for wrong, match in (
        ("fidd@virtual", "did you mean 'fid'"),
        ("is@virtual", "unknown score 'is@virtual'; only fid, kid"),
        ("fid@", "unknown score 'fid@'"),
    ):
        with pytest.raises(UserError, match=match):
            score_info(wrong)


def test_trap21_the_number_of_images_decides_fid_so_too_few_are_refused():
    with pytest.raises(UserError, match="reference virtual: FID needs more reference images than features: got 6 for 6 features"):
        ReferenceStatistics.of_features("virtual", torch.randn(WIDTH, WIDTH, generator=stream(0, "few")))
