import csv
import json
import re
import subprocess
import sys

import pytest
import torch
from conftest import DATA
from safetensors import safe_open
from safetensors.torch import save_file

from harness.cli import main as cli
from harness.decoder.registry import decoder_of
from harness.denoiser.build import build_denoiser, load_denoiser
from harness.plan.model import UTILISATION
from harness.store import artifacts
from harness.store.tensors import load_tensors
from harness.study import typed as config
from harness.study.study import load_study


def dsr(*arguments):
    return subprocess.run([sys.executable, "-m", "harness", *arguments], capture_output=True, text=True, check=False)


def call(monkeypatch, capsys, *arguments):
    """The command in this process: (exit code, stdout, stderr)."""
    monkeypatch.setattr(sys, "argv", ["dsr", *arguments])
    code = 0
    try:
        cli.main()
    except SystemExit as stopped:
        code = stopped.code
    return code, *capsys.readouterr()


@pytest.mark.parametrize("stage", cli.STAGES)
def test_every_stage_explains_itself(monkeypatch, capsys, stage):
    code, out, _ = call(monkeypatch, capsys, stage, "--help")
    assert code == 0
    assert "--study" in out
    assert "--out" in out


def test_help_lists_the_stages_in_order(monkeypatch, capsys):
    _, out, _ = call(monkeypatch, capsys, "--help")
    places = [re.search(rf"^ +{stage}\b", out, re.MULTILINE).start() for stage in cli.STAGES]
    assert places == sorted(places)
    assert "snakemake --cores all reports/table1.md" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["denoise", "--study", "smoke"], "unknown stage 'denoise', did you mean 'denoiser'?"),
        (["data", "--study", "smoke"], "the following arguments are required: --out; see 'dsr data --help'"),
        (["samples", "--study", "smoke", "--seeds", "x"], "argument --seeds: invalid seed value: 'x'"),
        (
            ["outliers", "--study", "smoke", "--method", "dsr", "--seeds", "-1", "--denoisers", "d", "--latents", "l", "--out", "x"],
            "argument --seeds: invalid seed value: '-1'",
        ),
        (["data", "--study", "digts", "--out", "x"], "unknown study 'digts', did you mean 'digits'?"),
        (
            ["registers", "--study", "smoke", "--encoder", "ttr1", "--data", "d", "--backbone", "b", "--out", "x"],
            "unknown encoder 'ttr1', did you mean 'ttr_1'",
        ),
        (
            ["denoiser", "--study", "smoke", "--method", "drs", "--seed", "0", "--latents", "l", "--state", "s", "--out", "x"],
            "did you mean 'dsr'",
        ),
        (
            ["denoiser", "--study", "smoke", "--method", "dsr", "--seed", "0", "--latents", "l", "--state", "s", "--out", "x"],
            "l: no such file",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(monkeypatch, capsys, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(monkeypatch, capsys, *arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_module_and_version():
    done = dsr("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("dsr-harness ")


def test_the_command_line_does_not_import_torch():
    code = "import sys, harness.cli.main, harness.workflow.targets, harness.report.table; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_plan_is_printed(monkeypatch, capsys, tmp_path):
    code, out, _ = call(monkeypatch, capsys, "plan", "imagenet256_siglip2_b_dit_s", "--seeds", "3", "--assets", str(tmp_path))
    assert code == 0
    assert "3 seeds" in out
    assert f"utilisation {UTILISATION:g}:" in out  # what --help says is the default is
    assert "**missing**" in out
    assert str(tmp_path / "imagenet" / "train") in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "imagenet256_siglip2"], "unknown study 'imagenet256_siglip2', did you mean 'imagenet256_siglip2_b'"),
        (["plan", "imagenet256_sit_xl", "--methods", "baseline", "ttr"], "method 'ttr' works on the tokens of a ViT encoder"),
        (["import", "nowhere.pt", "--study", "smoke", "--out", "x"], "nowhere.pt: no such file"),
        (["benchmark", "--study", "smoke", "--batch", "30", "--micro-batch", "4", "--out", "x"], "30 is not a multiple of micro_batch 4"),
        (["benchmark", "--study", "smoke"], "give --study NAME and --out PATH, or --peers"),
        (["benchmark", "--peers", "--steps", "3"], "--steps is of a study's denoiser"),
        (["benchmark", "--peers", "--rows", "digit"], "unknown row 'digit'"),
        (["benchmark", "--study", "smoke", "--out", "x", "--rows", "digits"], "--rows and --threads go with --peers"),
    ],
)
def test_a_mistake_of_a_command_is_one_line_and_exit_code_2(monkeypatch, capsys, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = call(monkeypatch, capsys, *arguments)
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_parity_of_the_golden_files(monkeypatch, capsys):
    files = sorted(str(path) for path in DATA.glob("*.safetensors"))
    code, out, _ = call(monkeypatch, capsys, "parity", *files)
    assert code == 0
    assert all(f"{file}: all " in out for file in files)
    for quantity in ("block.2", "loss.per_element", "ode.velocity_sample", "out.image", "hidden"):
        assert quantity in out


def test_parity_exits_with_1_above_the_limit(monkeypatch, capsys, tmp_path):
    with safe_open(DATA / "ditdh_plain.safetensors", "pt") as file:
        tensors, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()
    tensors["out"] = tensors["out"] * 1.001
    save_file(tensors, tmp_path / "x.safetensors", metadata)
    code, out, _ = call(monkeypatch, capsys, "parity", str(tmp_path / "x.safetensors"))
    assert code == 1
    assert "out" in out


def released(tmp_path, method="diffusion_registers", **changes):
    """A checkpoint as released: EMA weights under `ema`, beside others."""
    weights = build_denoiser(load_study("smoke"), method).state_dict()
    torch.save({"ema": weights | changes, "model": {"other": torch.zeros(1)}, "epoch": 3}, tmp_path / "ep-0000080.pt")
    return tmp_path / "ep-0000080.pt", weights


def test_a_released_checkpoint_is_imported_with_its_provenance(monkeypatch, capsys, tmp_path):
    path, weights = released(tmp_path)
    out = tmp_path / "x.safetensors"
    arguments = ["import", str(path), "--study", "smoke", "--method", "diffusion_registers", "--out", str(out)]
    code, printed, _ = call(monkeypatch, capsys, *arguments)
    assert code == 0
    assert artifacts.sha256(path) in printed
    tensors, _ = load_tensors(out)
    assert set(tensors) == set(weights)
    assert all(torch.equal(tensors[name], weights[name]) for name in weights)
    assert artifacts.meta(out)["checkpoint_sha256"] == artifacts.sha256(path)
    assert load_denoiser(load_study("smoke"), "diffusion_registers", out).registers == 4


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("baseline", {}, "'register_tokens' is (1, 4, 64) in the file, nothing in the model"),
        (
            "diffusion_registers",
            {"x_embedder.proj.weight": torch.zeros(64, 16, 1, 1)},
            "'x_embedder.proj.weight' is (64, 16, 1, 1) in the file",
        ),
    ],
)
def test_a_checkpoint_of_another_model_is_refused_by_its_first_mismatch(monkeypatch, capsys, tmp_path, method, changes, message):
    path, _ = released(tmp_path, **changes)
    code, _, err = call(
        monkeypatch, capsys, "import", str(path), "--study", "smoke", "--method", method, "--out", str(tmp_path / "x.safetensors")
    )
    assert code == 2
    assert message in err
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_import_takes_the_average_or_what_is_named_and_says_which(monkeypatch, capsys, tmp_path):
    average = build_denoiser(load_study("smoke"), "baseline").state_dict()
    raw, second = ({name: torch.full_like(value, fill) for name, value in average.items()} for fill in (1, 2))
    path, out = tmp_path / "x.pt", tmp_path / "x.safetensors"
    arguments = ["import", str(path), "--study", "smoke", "--out", str(out)]

    def imported(content, *options):
        torch.save(content, path)
        code, printed, err = call(monkeypatch, capsys, *arguments, *options)
        return code, json.loads(printed) if printed else {}, err

    code, printed, err = imported({"model": raw, "model_ema": average})
    assert (code, err) == (0, "")
    for told in (printed, artifacts.meta(out)):
        assert (told["container"], told["other_containers"]) == ("model_ema", {"model": len(average)})
    assert all(torch.equal(value, average[name]) for name, value in load_tensors(out)[0].items())
    out.unlink()
    both = {"model": raw, "model_ema1": average, "model_ema2": second}
    code, _, err = imported(both)
    assert (code, err.count("\n")) == (2, 1)
    assert f"several averages: 'model_ema1' ({len(average)} tensors), 'model_ema2' ({len(average)} tensors)" in err
    assert not out.exists()
    code, printed, _ = imported(both, "--container", "model_ema2")
    assert (code, printed["container"], artifacts.meta(out)["container"]) == (0, "model_ema2", "model_ema2")
    assert all(torch.equal(value, second[name]) for name, value in load_tensors(out)[0].items())
    assert imported(both, "--container", "ema3")[0] == 2


def test_import_records_the_order_of_classes_or_says_that_their_number_is_all(monkeypatch, capsys, tmp_path):
    (path, _), out, listed = released(tmp_path), tmp_path / "x.safetensors", tmp_path / "classes.txt"
    arguments = ["import", str(path), "--study", "smoke", "--method", "diffusion_registers", "--out", str(out)]
    assert json.loads(call(monkeypatch, capsys, *arguments)[1])["classes"] == "only their number is checked"
    names = [f"digit {i}" for i in range(10)]
    listed.write_text("\n".join(names), encoding="utf-8")
    code, printed, _ = call(monkeypatch, capsys, *arguments, "--classes", str(listed))
    assert (code, json.loads(printed)["classes"], artifacts.meta(out)["classes"]) == (0, "stated", names)
    listed.write_text("one\ntwo", encoding="utf-8")
    code, _, err = call(monkeypatch, capsys, *arguments, "--classes", str(listed))
    assert (code, err.count("\n")) == (2, 1)
    assert "2 classes, study 'smoke' has 10" in err


def test_a_released_decoder_is_imported(monkeypatch, capsys, tmp_path):
    weights = decoder_of(load_study("smoke")).build().state_dict()
    torch.save({f"decoder.{name}": value for name, value in weights.items()}, tmp_path / "model.pt")
    arguments = ["import", str(tmp_path / "model.pt"), "--study", "smoke", "--part", "decoder", "--out", str(tmp_path / "x.safetensors")]
    assert call(monkeypatch, capsys, *arguments)[0] == 0
    loaded, _ = load_tensors(tmp_path / "x.safetensors")
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)
    assert artifacts.meta(tmp_path / "x.safetensors")["pixels"]["range"] == "signed"  # this study's decoders are its own
    code, _, err = call(monkeypatch, capsys, *arguments[:3], "imagenet256_sit_xl", *arguments[4:])
    assert code == 2
    assert "its encoder decodes" in err


def test_benchmark_adds_a_line(monkeypatch, capsys, tmp_path):
    out = tmp_path / "speed.csv"
    for switch in ("baseline", "dsr"):
        arguments = ["benchmark", "--study", "smoke", "--method", switch, "--steps", "2", "--micro-batch", "16", "--out", str(out)]
        assert call(monkeypatch, capsys, *arguments)[0] == 0
    lines = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
    assert [line["registers"] for line in lines] == ["none", "4@1"]
    assert all(float(line["train_images_per_second"]) > 0 and float(line["samples_per_second"]) > 0 for line in lines)
    assert lines[0]["nfe"] == "5"


def test_compute_table_is_the_committed_one(monkeypatch, capsys, tmp_path):
    assert call(monkeypatch, capsys, "compute", "--out", str(tmp_path / "compute.md"))[0] == 0
    assert (tmp_path / "compute.md").read_text(encoding="utf-8") == (config.ROOT / "reports" / "reference" / "compute.md").read_text(
        encoding="utf-8"
    )
