"""`dsr import` of files as other projects' training scripts write them."""

import argparse
import os
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import error
from toy import toy_values

from harness.cli import main as cli
from harness.commands.import_checkpoint import import_checkpoint
from harness.denoiser.build import build_denoiser, load_denoiser
from harness.store import artifacts
from harness.study.study import load_study, parse_study
from harness.study.typed import UserError, merge


def study_of(architecture, config, **changes):
    """The toy of a study on VAE latents, with the network of a golden file."""
    given = config["kwargs"]
    names = {"width": "hidden_size", "depth": "depth", "heads": "num_heads", "patch": "patch_size", "mlp_ratio": "mlp_ratio"}
    shape = {name: given[theirs] for name, theirs in names.items()} | {"architecture": architecture}
    encoder = {"channels": given["in_channels"], "downsampling": 32 // given["input_size"]}
    values = {"encoder": encoder, "data": {"classes": given["num_classes"]}, "denoiser": shape}
    return parse_study("toy", merge(merge(toy_values("imagenet256_sit_xl"), values), changes))


def states_of(tensors):
    """(average, raw) under their own names."""
    average = {name.removeprefix("state."): value for name, value in tensors.items() if name.startswith("state.")}
    return average, {name: torch.zeros_like(value) for name, value in average.items()}


def older(weights, depth):
    """REPA's names before its blocks were one list."""
    late = f"blocks.{depth}."
    return {f"decoder_blocks.0.{name.removeprefix(late)}" if name.startswith(late) else name: weights[name] for name in weights}


OPT = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.999)}]}
OPTIONS = argparse.Namespace(model="SiT-XL/2", num_classes=1000, encoder_depth=8, qk_norm=False, enc_type="dinov2-vit-b", epochs=1400)
PROJECTORS = {"dropped": {"projectors.*": 6}}


def imported(path, study, out, content, **options):
    torch.save(content, path)
    printed = import_checkpoint(path, study, method=options.pop("method", "baseline"), part="denoiser", out=out, **options)
    record = artifacts.meta(out)
    facts = {name: record[name] for name in ("dropped", "renamed") if name in record}
    assert facts == {name: printed[name] for name in ("dropped", "renamed") if name in printed}
    assert record["container"] == printed["container"]
    return record["container"], facts


@pytest.fixture
def repa(golden):
    config, tensors = golden("repa_sit")
    return study_of("repa", config), tensors


@pytest.fixture
def hustvl(golden):
    config, tensors = golden("lightningdit_hustvl_f16d32")
    return study_of("lightningdit_hustvl", config), tensors


@pytest.mark.parametrize(
    ("content", "container", "facts"),
    [
        (lambda a, r: {"model": r, "ema": a, "opt": OPT, "args": OPTIONS, "steps": 400000}, "ema", PROJECTORS),
        (
            lambda a, r: {"model": older(r, 2), "ema": older(a, 2), "opt": OPT, "args": OPTIONS, "steps": 7},
            "ema",
            PROJECTORS | {"renamed": {"decoder_blocks.*": 10}},
        ),
        (lambda a, _: a, ".", PROJECTORS),
        (lambda a, _: {name: value for name, value in a.items() if not name.startswith("projectors.")}, ".", {}),
    ],
    ids=["train.py", "an older train.py", "last.pt", "without projectors"],
)
def test_repas_checkpoints_give_its_outputs(repa, tmp_path, content, container, facts):
    (study, tensors), out = repa, tmp_path / "denoiser.safetensors"
    assert imported(tmp_path / "0400000.pt", study, out, content(*states_of(tensors))) == (container, facts)
    model = load_denoiser(study, "baseline", out)
    with torch.no_grad():
        assert error(model(tensors["in.x"], tensors["in.t"], tensors["in.y"]), tensors["out"]) < 1e-5


@pytest.mark.parametrize(
    ("content", "container"),
    [
        (lambda a, r: {"model": r, "ema": a, "opt": OPT, "config": {"train": {"ckpt": None}, "sample": {"cfg_scale": 6.7}}}, "ema"),
        (lambda a, r: {"ema": {f"module.{name}": value for name, value in a.items()}, "model": r, "args": OPTIONS}, "ema"),
        (lambda a, _: a, "."),
    ],
    ids=["train.py", "under a wrapper", "alone"],
)
def test_hustvls_checkpoints_give_its_outputs(hustvl, tmp_path, content, container):
    (study, tensors), out = hustvl, tmp_path / "denoiser.safetensors"
    assert imported(tmp_path / "0080000.pt", study, out, content(*states_of(tensors))) == (container, {})
    model = load_denoiser(study, "baseline", out)
    with torch.no_grad():
        theirs = -model(tensors["in.x"], 1 - tensors["in.t"], tensors["in.y"])  # in its time and with its sign
    assert error(theirs, tensors["out"]) < 1e-5


def test_a_study_of_another_convention_refuses_the_file(repa, hustvl, golden, tmp_path):
    (_, weights), (_, others), out = repa, hustvl, tmp_path / "x.safetensors"
    cases = [
        ("repa_sit", "sit", {}, weights, "'final_layer.linear.weight' is"),
        ("lightningdit_hustvl_f16d32", "lightningdit", {}, others, "'t_embedder.W' is nothing in the file"),
        ("repa_sit", "repa", {"method": "diffusion_registers"}, weights, "'register_tokens' is nothing in the file"),
    ]
    for name, architecture, options, tensors, says in cases:
        with pytest.raises(UserError, match=says):
            imported(tmp_path / "x.pt", study_of(architecture, golden(name)[0]), out, states_of(tensors)[0], **options)
    assert not out.exists()


class Runs:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("options", [argparse.Namespace(hook=Runs()), SimpleNamespace(lr=1.0), Runs()])
def test_options_of_another_class_are_refused_and_nothing_is_executed(monkeypatch, capsys, tmp_path, options):
    monkeypatch.chdir(tmp_path)
    torch.save({"ema": build_denoiser(load_study("smoke"), "baseline").state_dict(), "args": options}, "x.pt")
    monkeypatch.setattr(sys, "argv", ["dsr", "import", "x.pt", "--study", "smoke", "--out", "x.safetensors"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed, err = capsys.readouterr()
    assert (ended.value.code, printed, err.count("\n")) == (2, "", 1)
    assert "x.pt: holds more than weights" in err
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]
