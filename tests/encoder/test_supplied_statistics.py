"""Whitening statistics from elsewhere: read as their authors do, checked, recorded, and used in place of the study's own."""

import copy

import pytest
import torch
import yaml
from conftest import tiny_values

from harness import plan
from harness.cli import main as cli
from harness.encoder.encode import NORM_IMAGES, encoded_images, make_latents
from harness.encoder.latents import Batches, load_held_out
from harness.encoder.statistics import read_statistics
from harness.report.rows import collect, to_csv
from harness.report.trace import trace_score
from harness.store import artifacts
from harness.store.assets import record_asset
from harness.store.files import write_text
from harness.study.method import EncoderRegisters, load_method
from harness.study.study import load_study, parse_study
from harness.study.typed import UserError
from harness.workflow.run import Run

SHAPE = (6, 2, 2)


SECTION = {"statistics": {"plain": {"path": "stat.pt", "source": "toy"}}}


def drawn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


RAW = drawn(5, *SHAPE) * 3 + 1
MEAN, VAR = drawn(*SHAPE), drawn(*SHAPE).square() + 0.1


def stored(path, **entries):
    torch.save(entries, path)
    return path


def test_mean_and_variance_as_rae_has_them(tmp_path):
    whitening, facts = read_statistics(stored(tmp_path / "stat.pt", mean=MEAN, var=VAR), SHAPE)
    assert torch.equal(whitening.whiten(RAW), (RAW - MEAN) / torch.sqrt(VAR + 1e-5))
    assert torch.equal(whitening.unwhiten(RAW), RAW * torch.sqrt(VAR + 1e-5) + MEAN)
    assert facts == {"entries": {"mean": [6, 2, 2], "var": [6, 2, 2]}, "multiplier": 1.0}


def test_a_mean_of_none_is_zero_as_in_raes_file_of_dinov2(tmp_path):
    whitening, facts = read_statistics(stored(tmp_path / "stat.pt", mean=None, var=VAR), SHAPE)
    assert torch.equal(whitening.whiten(RAW), RAW / torch.sqrt(VAR + 1e-5))
    assert facts["entries"] == {"mean": None, "var": [6, 2, 2]}


@pytest.mark.parametrize("multiplier", [1.0, 0.5])
def test_mean_and_deviation_by_channel_as_lightningdit_has_them(tmp_path, multiplier):
    mean, std = drawn(1, 6, 1, 1), drawn(1, 6, 1, 1).abs() + 0.1
    whitening, _ = read_statistics(stored(tmp_path / "latents_stats.pt", mean=mean, std=std), (6, 1, 1), multiplier)
    torch.testing.assert_close(whitening.whiten(RAW), (RAW - mean) / std * multiplier)
    torch.testing.assert_close(whitening.unwhiten(RAW), RAW * std / multiplier + mean)


def changed(values, place, value):
    values = values.clone()
    values.view(-1)[place] = value
    return values


WRONG = {
    "another grid": ({"mean": drawn(6, 3, 3), "var": VAR}, r"'mean' is \(6, 3, 3\), the study's encoder .* need \(6, 2, 2\)"),
    "by channel": ({"mean": MEAN, "var": VAR[:, :1, :1]}, r"'var' is \(6, 1, 1\), .* by channel or by position"),
    "flattened": ({"mean": MEAN, "var": VAR.flatten(1)}, r"'var' is \(6, 4\)"),
    "NaN": ({"mean": changed(MEAN, 3, torch.nan), "var": VAR}, r"'mean' is not finite \(1 of 24 values\)"),
    "infinite": ({"mean": MEAN, "var": changed(VAR, 0, torch.inf)}, r"'var' is not finite"),
    "negative variance": ({"mean": MEAN, "var": changed(VAR, 5, -1e-3)}, r"'var' is not positive \(1 of 24 values\)"),
    "zero deviation": ({"mean": MEAN, "std": changed(VAR, 5, 0.0)}, r"'std' is not positive \(1 of 24 values\)"),
    "no variance": ({"mean": MEAN}, r"'mean' and 'var', or 'mean' and 'std'; it has 'mean'"),
    "no mean": ({"var": VAR}, r"it has 'var'"),
    "a variance of None": ({"mean": MEAN, "var": None}, r"it has 'mean', 'var'"),
    "both": ({"mean": MEAN, "var": VAR, "std": VAR}, r"it has 'mean', 'var', 'std'"),
    "other names": ({"mu": MEAN, "sigma": VAR}, r"it has neither of them"),
    "whole numbers": ({"mean": MEAN, "var": VAR.ceil().long()}, r"'var' is int64, not floating-point"),
    "a mean beyond float32": ({"mean": MEAN.double() * 1e200, "var": VAR}, r"'mean' or 'var' is beyond float32"),
    "a variance that float32 has as zero": ({"mean": MEAN, "std": VAR.double() * 1e-200}, r"'std' is not positive \(24 of 24 values\)"),
    "a number": ({"mean": 0.0, "var": VAR}, r"'mean' is a float, not a tensor"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_statistics_are_one_line(tmp_path, name):
    entries, message = WRONG[name]
    path = stored(tmp_path / "stat.pt", **entries)
    with pytest.raises(UserError, match=message) as refusal:
        read_statistics(path, SHAPE)
    assert str(refusal.value).startswith(f"{path}: ")
    assert "\n" not in str(refusal.value)


def test_a_multiplier_that_leaves_no_deviation_is_refused(tmp_path):
    with pytest.raises(UserError, match="by the multiplier 1e\\+60, is beyond float32"):
        read_statistics(stored(tmp_path / "stat.pt", mean=MEAN, std=VAR), SHAPE, 1e60)


def test_a_tensor_alone_and_a_file_with_code_are_refused(tmp_path):
    torch.save(VAR, tmp_path / "stat.pt")
    with pytest.raises(UserError, match="holds a Tensor, not a mapping"):
        read_statistics(tmp_path / "stat.pt", SHAPE)
    torch.save({"mean": MEAN, "var": VAR, "from": EncoderRegisters()}, tmp_path / "stat.pt")
    with pytest.raises(UserError, match="holds more than weights"):
        read_statistics(tmp_path / "stat.pt", SHAPE)


# ------------------------------------------------------------------------------------------------------------------- studies


def test_statistics_are_of_an_encoder_variant_and_of_a_whitening():
    asset = {"path": "stat.pt", "source": "toy"}
    with pytest.raises(UserError, match=r"latents: latents\.statistics: unknown encoder 'plane', did you mean 'plain'"):
        parse_study("x", tiny_values(latents={"statistics": {"plane": asset}}))
    with pytest.raises(UserError, match="are of whitening channel or position, not of none"):
        parse_study("x", tiny_values(latents={"statistics": {"plain": asset}, "whitening": "none"}))
    study = parse_study("x", tiny_values(latents={"statistics": {"ttr_2": asset | {"multiplier": 2.0}}}))
    assert list(study.assets) == ["latents.statistics.ttr_2"]


@pytest.mark.parametrize("name", ["imagenet256_siglip2_b_released", "imagenet256_siglip2_so400m_released"])
def test_the_released_studies_take_the_authors_statistics_and_encode_no_more_than_norms_need(name):
    study = load_study(name)
    assert {*study.latents.statistics} == {load_method(method).encoder.key for method in study.methods}
    for variant in study.latents.statistics:
        record = f"results/{name}/assets/latents.statistics.{variant}.json"
        assert Run(study, [0], study.methods).latents_records(variant) == [record]
        assert encoded_images(study, variant, study.data.train_images) == NORM_IMAGES
    assert study.sampling.eight_bit == "truncated"


def test_the_plan_says_that_statistics_are_supplied():
    study = parse_study("x", tiny_values(latents=SECTION))
    text = plan.plan(study, methods=["baseline", "ttr"])
    [plain, other] = [line for line in text.splitlines() if line.startswith("| `latents` |")]
    assert "latents, statistics supplied" in plain
    assert "supplied" not in other
    assert "stat.pt" in text


# ------------------------------------------------------------------------------------------------------------- end to end


@pytest.fixture(scope="module")
def entries(study):
    """Statistics by channel that are nobody's own."""
    return {"mean": drawn(study.channels, 1, 1) / 5, "var": 0.5 + drawn(study.channels, 1, 1).square()}


@pytest.fixture(scope="module")
def supplied(built, entries, tmp_path_factory):
    """The tiny study with these statistics for `plain`, through every stage; what they do not change is the tiny study's."""
    pipeline, root = copy.copy(built), tmp_path_factory.mktemp("supplied")
    pipeline.study = parse_study("tiny", tiny_values(latents=SECTION, sampling={"averages": []}))
    pipeline.dag, pipeline.root, pipeline.state = Run(pipeline.study, [0], ["baseline"]), root, root / "state"
    pipeline.encoders, pipeline.searches, pipeline.runs = {}, {}, {}
    stored(root / "stat.pt", **entries)
    pipeline.records = {name: root / "assets" / f"{name}.json" for name in pipeline.study.assets}
    for name, record in pipeline.records.items():
        record_asset(pipeline.study, name=name, assets=root, out=record)
    pipeline._encoder("plain")
    pipeline.run("baseline", [0])
    return pipeline


def test_supplied_statistics_whiten_in_place_of_the_studys_own(built, supplied, entries):
    own, theirs = (pipeline.encoders["plain"].latents for pipeline in (built, supplied))
    before, after = (Batches(path, seed=0, batch=32) for path in (own, theirs))
    released = (before.whitening.unwhiten(before.cached) - entries["mean"]) / torch.sqrt(entries["var"] + 1e-5)
    torch.testing.assert_close(after.cached, released, rtol=1e-4, atol=1e-4)
    assert torch.equal(after.whitening.mean, entries["mean"])
    assert torch.equal(after.whitening.std, torch.sqrt(entries["var"] + 1e-5))
    held_out = load_held_out(theirs)
    torch.testing.assert_close(after.norms["whitened"], after.cached.flatten(2).norm(dim=1))
    assert torch.equal(after.norms["pre_ln"], before.norms["pre_ln"])
    record = artifacts.meta(theirs)
    assert record["whitened"]["mean"] == pytest.approx(held_out.latents.double().mean().item())
    assert record["whitened"]["std"] == pytest.approx(held_out.latents.double().std().item())


def test_which_file_it_was_is_recorded(supplied):
    latents, asset = supplied.encoders["plain"].latents, supplied.records["latents.statistics.plain"]
    record = artifacts.meta(latents)
    assert record["inputs"][str(asset)] == artifacts.checked(asset)
    assert artifacts.read_json(asset)["sha256"] == artifacts.sha256(supplied.root / "stat.pt")
    shape = [supplied.study.channels, 1, 1]
    taken = {"asset": "latents.statistics.plain", "file": "stat.pt", "multiplier": 1.0}
    assert record["statistics"] == taken | {"entries": {"mean": shape, "var": shape}}


def test_a_number_of_the_table_leads_back_to_the_file(supplied):
    rows = collect(supplied.study, ["baseline"], [0], supplied.root)
    assert rows.set_index("score").loc[["fid", "rfid"], "value"].gt(0).all()
    write_text(supplied.root / "table1.csv", to_csv(rows))
    text, _ = trace_score(supplied.root / "table1.csv", method="baseline", score="fid", results=supplied.root)
    assert "whitened by stat.pt (mean, var)" in text
    assert f"asset {artifacts.sha256(supplied.root / 'stat.pt')[:12]}" in text


def test_the_decoder_reads_the_encoders_own_latents_whatever_whitened_them(built, supplied):
    """Reconstructions do not know the whitening, up to rounding and what the decoder's training saw."""
    raw = [load_held_out(pipeline.encoders["plain"].latents) for pipeline in (built, supplied)]
    before, after = (held_out.whitening.unwhiten(held_out.latents) for held_out in raw)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


def latents_by_command(monkeypatch, capsys, supplied, root, entries):
    """(exit code, stderr) of `dsr latents` where the study's file holds `entries`."""
    (root / "studies").mkdir()
    (root / "studies" / "toy.yaml").write_text(yaml.safe_dump(tiny_values(latents=SECTION)), encoding="utf-8")
    monkeypatch.setattr("harness.study.study.STUDIES", root / "studies")
    stored(root / "stat.pt", **entries)
    record = root / "latents.statistics.plain.json"
    record_asset(supplied.study, name=record.stem, assets=root, out=record)
    files = {"data": supplied.data, "backbone": supplied.backbones["plain"], "records": record, "out": root / "latents.safetensors"}
    options = [word for name, path in files.items() for word in (f"--{name}", str(path))]
    monkeypatch.setattr("sys.argv", ["dsr", "latents", "--study", "toy", "--encoder", "plain", *options])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code, capsys.readouterr().err


@pytest.mark.parametrize("name", ["another grid", "NaN", "negative variance", "no variance"])
def test_the_command_refuses_wrong_statistics_and_leaves_nothing(monkeypatch, capsys, supplied, tmp_path, name):
    code, err = latents_by_command(monkeypatch, capsys, supplied, tmp_path, WRONG[name][0])
    assert (code, err.count("\n")) == (2, 1)
    assert "stat.pt: " in err
    assert not list(tmp_path.glob("latents.safetensors*"))


def test_a_variant_without_a_file_has_its_own_statistics(built, supplied, tmp_path):
    files = {"data": built.data, "backbone": built.backbones["plain"], "registers": built.encoders["ttr_1"].registers}
    printed = make_latents(supplied.study, encoder="ttr_1", **files, out=tmp_path / "latents.safetensors")
    assert printed["statistics over"] == supplied.study.data.train_images
    assert artifacts.checked(tmp_path / "latents.safetensors") == artifacts.checked(built.encoders["ttr_1"].latents)
