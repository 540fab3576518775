"""From a number back to the data: the whole chain is there, and whatever does not fit is named."""

import os
import shutil
from types import SimpleNamespace

import pytest
from conftest import METHODS, SEEDS

from harness.report import rows as row_files
from harness.report.chain import ORDER, relative
from harness.report.trace import trace_score
from harness.store import artifacts
from harness.store.assets import record_asset
from harness.store.files import write_text
from harness.study.sections.asset import Asset
from harness.study.typed import UserError


@pytest.fixture(scope="module")
def kept(study, runs, tmp_path_factory):
    """A results folder of our own, elsewhere than where it was made, and its table1.csv."""
    folder = tmp_path_factory.mktemp("moved")
    for name in ("runs", "encoders", "backbones", "data", "clip"):
        shutil.copytree(runs.root / name, folder / "results" / name)
    for path in runs.root.iterdir():
        if path.is_file():
            shutil.copy(path, folder / "results")
    table = row_files.to_csv(row_files.collect(study, METHODS, SEEDS, folder / "results"))
    write_text(folder / "table1.csv", table)
    return folder


@pytest.fixture
def moved(kept, tmp_path):
    """A copy of it that a test may spoil."""
    shutil.copytree(kept, tmp_path / "copy")
    return tmp_path / "copy"


def traced(folder, score="fid", method="dsr", **options):
    return trace_score(folder / "table1.csv", method=method, score=score, results=folder / "results", **options)


@pytest.mark.parametrize("score", ["fid", "rfid", "clip_score", "denoiser_outlier_share", "gflops"])
def test_a_sound_chain_reaches_the_data_and_has_no_problem(kept, score):
    text, problems = traced(kept, score)
    assert problems == []
    assert "✗" not in text
    stages = [line.split()[1] for line in text.splitlines() if "✓" in line]
    wanted = {"outliers"} if score.startswith("denoiser_") else {"scores", *ORDER} - {"outliers", "guidance", "asset"}
    assert set(stages) >= wanted | {"denoiser", "latents", "registers", "encoder", "data"}


def test_every_artifact_is_spelt_out_once_with_code_config_seconds_commit_and_device(kept):
    text, _ = traced(kept)
    full = [line for line in text.splitlines() if "✓" in line and "as above" not in line]
    assert len({line.split()[2] for line in full}) == len(full) == len({line.split()[2] for line in text.splitlines() if "✓" in line})
    commit = artifacts.meta(kept / "results" / "judge.safetensors")["provenance"]["commit"]
    assert all("code " in line and "config " in line and " s  " in line and commit in line and "CPU" in line for line in full)


def test_what_the_decoder_gives_is_said(kept):
    text, _ = traced(kept)
    [line] = [line for line in text.splitlines() if "decoder.safetensors" in line and "as above" not in line]
    assert line.endswith("its output is pixels in [-1, 1]")


def test_the_value_and_its_hashes_are_those_of_the_row(kept):
    rows = row_files.from_csv(kept / "table1.csv")
    row = rows[(rows["method"] == "dsr") & (rows["score"] == "fid") & (rows["seed"] == 1) & (rows["ema"] == rows["ema"].iloc[0])].iloc[0]
    text, _ = traced(kept, seed=1)
    assert f"seed 1: {float(row['value'])!r} [" in text
    assert "seed 0" not in text
    for field in ("samples", "denoiser", "decoder", "latents", "registers", "encoder", "extractor", "reference"):
        assert row[field][:12] in text, field


def test_another_average_has_its_own_samples(study, kept):
    decay = study.sampling.averages[0]
    text, problems = traced(kept, ema=decay)
    assert problems == []
    assert f"samples-ema{decay:g}.npz" in text
    assert f"denoiser-ema{decay:g}.safetensors" in text


CHAIN = [
    "runs/dsr/seed1/scores.json", "runs/dsr/seed1/samples.npz", "runs/dsr/seed1/denoiser.safetensors",
    "encoders/ttr_until_clean/decoder.safetensors", "encoders/ttr_until_clean/latents.safetensors",
    "encoders/ttr_until_clean/registers.json",
    "backbones/plain/model.safetensors", "judge.safetensors", "references.safetensors", "clip/words.json", "data/dataset_dict.json",
]  # fmt: skip


def owner(name):
    """The artifact that a file belongs to."""
    return (
        "/".join(name.split("/")[:2]) if name.startswith("backbones") else name.split("/")[0] if name.startswith(("clip", "data")) else name
    )


@pytest.mark.parametrize("name", CHAIN)
def test_a_changed_bit_anywhere_on_the_chain_is_named(moved, name):
    path = moved / "results" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    text, problems = traced(moved)
    assert any(problem.startswith(f"{owner(name)}: sha256 is") for problem in problems)
    assert any("✗" in line and owner(name) in line for line in text.splitlines())


@pytest.mark.parametrize("name", ["runs/dsr/seed1/scores.json", "runs/dsr/seed0/samples.npz", "judge.safetensors"])
def test_a_missing_file_is_named(moved, name):
    (moved / "results" / name).unlink()
    text, problems = traced(moved)
    assert problems == [f"{name}: no such file"]
    assert any("✗" in line and name in line for line in text.splitlines())


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", '{"inputs": 3}', "\x00"])
def test_a_spoiled_record_is_named(moved, content):
    path = moved / "results" / "runs" / "dsr" / "seed1" / f"denoiser.safetensors{artifacts.META}"
    path.unlink()
    if content is not None:
        path.write_text(content, encoding="utf-8")
    assert any(problem.startswith("runs/dsr/seed1/denoiser.safetensors: its record is") for problem in traced(moved)[1])


def test_an_artifact_that_was_made_again_is_not_what_its_consumer_read(moved):
    path = moved / "results" / "judge.safetensors"
    path.write_bytes(path.read_bytes() + b"\0")
    artifacts.write_record(path, artifacts.meta(path) | {"sha256": artifacts.sha256(path)})
    _, problems = traced(moved)
    assert any(problem.startswith("judge.safetensors: sha256 is") and "what was made from it read" in problem for problem in problems)
    assert any("extractor" in problem and "not what it was made from" in problem for problem in problems)


CHANGED = {"value": 0.5, "low": 0.1, "n": 61, "denoiser": "1" * 64, "reference": "2" * 64, "commit": "abc", "dirty": None, "how": "by hand"}


@pytest.mark.parametrize("field", CHANGED)
def test_a_changed_table_is_named(moved, field):
    rows = row_files.from_csv(moved / "table1.csv")
    chosen = rows["score"] == "fid"  # of every method: rows that differ in protocol are refused before
    rows.loc[chosen, field] = ~rows.loc[chosen, "dirty"] if field == "dirty" else CHANGED[field]
    write_text(moved / "table1.csv", row_files.to_csv(rows))
    _, problems = traced(moved)
    assert len([problem for problem in problems if f"scores.json: {field} is" in problem]) == len(SEEDS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "drs"}, "unknown method 'drs', did you mean 'dsr'"),
        ({"score": "fidd"}, "unknown score 'fidd', did you mean 'fid'"),
        ({"seed": 7}, "unknown seed '7'"),
        ({"ema": 0.5}, "unknown ema '0.5'"),
    ],
)
def test_what_there_is_not_is_one_line(kept, options, message):
    with pytest.raises(UserError, match=message) as caught:
        traced(kept, **options)
    assert "\n" not in str(caught.value)


def test_paths_of_records_are_found_below_the_results_wherever_they_are_now(kept):
    results = kept / "results"
    for recorded in (
        "results/tiny/runs/dsr/seed0/samples.npz",
        "/elsewhere/results/tiny/runs/dsr/seed0/samples.npz",
        "runs/dsr/seed0/samples.npz",
    ):
        assert relative(recorded, results) == "runs/dsr/seed0/samples.npz"
    assert relative("results/tiny/nothing.json", results) == "results/tiny/nothing.json"


@pytest.mark.parametrize("inside", ["", "n01440764/1.JPEG"])
def test_an_asset_is_hashed_and_one_that_is_gone_or_another_is_named(moved, tmp_path, inside):
    """A file, and a folder with an image that keeps its size and time."""
    results, asset = moved / "results", tmp_path / "asset"
    file = asset / inside
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"weights")
    study = SimpleNamespace(assets={"encoder.plain.weights": Asset(path="asset", source="somewhere")})
    record = results / "assets" / "encoder.plain.weights.json"
    recorded = record_asset(study, name="encoder.plain.weights", assets=tmp_path, out=record)["sha256"]
    judge = results / "judge.safetensors"
    artifacts.write_record(
        judge, artifacts.meta(judge) | {"inputs": {"results/tiny/assets/encoder.plain.weights.json": artifacts.sha256(record)}}
    )
    text, problems = traced(moved)
    assert problems == []
    assert f"asset {recorded[:12]}" in text
    before = file.stat()
    file.write_bytes(b"WEIGHTS")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert any(f"{file} has changed since it was recorded" in problem for problem in traced(moved)[1])
    asset.rename(tmp_path / "elsewhere")
    assert any("no longer at" in problem for problem in traced(moved)[1])


def test_code_that_has_changed_since_is_named_with_the_stages_it_made(moved):
    assert "code that has changed" not in traced(moved)[0]
    for name in ("denoiser", "samples"):
        path = moved / "results" / "runs" / "dsr" / "seed1" / f"{name}.{'npz' if name == 'samples' else 'safetensors'}"
        record = artifacts.meta(path)
        assert {"baselines/dsr.py", "harness/denoiser/train.py"} <= set(record["sources"]) or name == "samples"
        artifacts.write_record(path, record | {"sources": record["sources"] | {"harness/denoiser/flow.py": "0" * 16}})
    text, problems = traced(moved)
    assert problems == []  # it is what it was made to be
    assert "  harness/denoiser/flow.py: denoiser, samples" in text
    marked = {line.split()[1] for line in text.splitlines() if line.endswith("code has changed since")}
    assert marked == {"samples", "denoiser"}


def test_code_of_another_version_of_python_is_not_compared(moved):
    path = moved / "results" / "judge.safetensors"
    record = artifacts.meta(path)
    old = {"sources": {"harness/data/stage.py": "0" * 16}, "provenance": record["provenance"] | {"python": "3.10.4"}}
    artifacts.write_record(path, record | old)
    text, problems = traced(moved)
    assert problems == []
    assert "made under Python 3.10; this is Python 3." in text
    assert "harness/data/stage.py" not in text
