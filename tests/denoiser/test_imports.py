"""`dsr import` of files as their authors write them, made of golden weights: strictly, and with the authors' outputs."""

import sys

import pytest
import torch
from conftest import error
from safetensors.torch import save_file

from harness.cli.main import main
from harness.commands.import_checkpoint import import_checkpoint
from harness.denoiser.build import load_denoiser
from harness.denoiser.train import train_denoisers
from harness.store import artifacts
from harness.study.sections.denoiser import ARCHITECTURES
from harness.study.study import parse_study, read_study
from harness.study.typed import UserError, merge

HEADED = {"architecture": "diffusionbench_ddt", "patch": 1, "depth": 3, "head": {"width": 32, "depth": 2, "heads": 4}}
STUDIES = {  # whose latents have the golden files' shape
    "ddt_mcg": {"encoder": {"channels": 4, "downsampling": 2}}
    | {"denoiser": {"architecture": "ddt", "patch": 2, "width": 24, "heads": 3, "depth": 3, "head_depth": 2}},
    "diffusionbench_ddt_label": {"encoder": {"channels": 12}, "denoiser": HEADED | {"width": 24, "heads": 3}},
    "diffusionbench_ddt_text": {"encoder": {"channels": 12}}
    | {"denoiser": HEADED | {"width": 20, "heads": 5, "condition": "text", "condition_tokens": 10, "context_width": 20, "states": "given"}},
}


def study_of(name, **denoiser):
    values = merge(read_study("digits_sit"), {"denoiser": {"mlp_ratio": 4.0}})
    if name.endswith("text"):
        values["data"] = read_study("shapes")["data"]
    return parse_study("x", merge(merge(values, STUDIES[name]), {"denoiser": denoiser}))


def spoiled(weights):
    return {name: value + 1 for name, value in weights.items()}


def under(prefix, weights):
    return {prefix + name: value for name, value in weights.items()}


OPTIMIZER = {"state": {0: {"exp_avg": torch.ones(2), "step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
PROJECTOR = {f"diffusion_trainer.proj.0.{layer}.{kind}": torch.ones(3) for layer in (0, 2, 4) for kind in ("weight", "bias")}


def lightning(weights):
    return {
        "epoch": 3,
        "global_step": 10,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": under("denoiser.", spoiled(weights)) | under("ema_denoiser.", weights) | PROJECTOR,
        "loops": {},
        "callbacks": {"x": {"best_model_score": torch.tensor(1.0)}},
        "optimizer_states": [OPTIMIZER],
        "lr_schedulers": [],
    }


def training(weights):
    scheduler = {"last_epoch": 3, "_last_lr": [0.1]}
    return {"step": 10, "epoch": 3, "model": spoiled(weights), "ema": weights, "optimizer": OPTIMIZER, "scheduler": scheduler}


def bare(weights):
    return weights


def weights_of(tensors, prefix=""):
    return {name.removeprefix(f"state.{prefix}"): value for name, value in tensors.items() if name.startswith("state.")}


@pytest.mark.parametrize(
    ("name", "written", "container"),
    [
        ("ddt_mcg", lightning, "state_dict.ema_denoiser"),
        ("diffusionbench_ddt_label", training, "ema"),
        ("diffusionbench_ddt_label", bare, "."),
        ("diffusionbench_ddt_text", training, "ema"),
        ("diffusionbench_ddt_text", bare, "."),
    ],
)
def test_a_published_file_is_imported_and_gives_its_authors_outputs(golden, tmp_path, name, written, container):
    config, tensors = golden(name)
    study, out, states = study_of(name), tmp_path / "denoiser.safetensors", None
    torch.save(written(weights_of(tensors, config.get("prefix", ""))), tmp_path / "published.pt")
    x, t = tensors["in.x"], tensors["in.t"]
    if name.endswith("text"):
        states, y = tmp_path / "states.pt", torch.arange(len(x))
        torch.save(states_of(study, tensors), states)
        wanted = tensors["out"], tensors["out.uncond"]
    elif name == "ddt_mcg":  # its time and its velocity run the other way
        t, y, wanted = 1 - t, tensors["in.y"], (-tensors["out"], None)
    else:
        y, wanted = tensors["in.y"], (tensors["out"], tensors["out.uncond"])
    printed = import_checkpoint(
        tmp_path / "published.pt", study, method="baseline", part="denoiser", out=out, **({"states": states} if states else {})
    )
    assert printed["container"] == artifacts.meta(out)["container"] == container
    assert (
        set(printed["other_containers"])
        == {
            lightning: {"state_dict.denoiser", "state_dict.diffusion_trainer"},
            training: {"model"},
            bare: set(),
        }[written]
    )
    model = load_denoiser(study, "baseline", out)
    assert error(model(x, t, y), wanted[0]) < 1e-5
    if wanted[1] is not None:
        assert error(model(x, t, torch.full_like(y, study.classes)), wanted[1]) < 1e-5


def states_of(study, tensors):
    """Those of a golden file for the first prompts, zeros for the rest, and the null prompt's."""
    states, real = torch.zeros(study.classes + 1, 10, 20), torch.zeros(study.classes + 1, 10, dtype=torch.int64)
    states[:3], real[:3] = tensors["in.context"], tensors["in.attn_mask"]
    states[-1], real[-1] = tensors["in.null_context"][0], tensors["in.null_attn_mask"][0]
    return {"states": states, "real": real}


def test_states_of_a_text_become_part_of_the_weights_and_of_the_record(golden, tmp_path):
    _, tensors = golden("diffusionbench_ddt_text")
    study, out = study_of("diffusionbench_ddt_text"), tmp_path / "denoiser.safetensors"
    save_file(weights_of(tensors), tmp_path / "published.safetensors")
    given = states_of(study, tensors)
    save_file(given, tmp_path / "states.safetensors")
    states = {"states": tmp_path / "states.safetensors"}
    import_checkpoint(tmp_path / "published.safetensors", study, method="baseline", part="denoiser", out=out, **states)
    record = artifacts.meta(out)
    assert (record["states"], record["states_sha256"]) == ("states.safetensors", artifacts.sha256(tmp_path / "states.safetensors"))
    reader = load_denoiser(study, "baseline", out).y_embedder
    assert torch.equal(reader.states, given["states"])
    assert torch.equal(reader.real, given["real"].bool())


def test_weights_that_need_a_text_encoder_are_not_read_as_those_of_words(golden, tmp_path):
    _, tensors = golden("diffusionbench_ddt_text")
    save_file(weights_of(tensors), tmp_path / "published.safetensors")
    words, given = study_of("diffusionbench_ddt_text", states="words"), study_of("diffusionbench_ddt_text")

    def refused(study, match, **states):
        with pytest.raises(UserError, match=match) as caught:
            import_checkpoint(
                tmp_path / "published.safetensors", study, method="baseline", part="denoiser", out=tmp_path / "x.safetensors", **states
            )
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "x.safetensors").exists()

    refused(words, r"'y_embedder\.places' is nothing in the file")
    refused(given, "reads a text encoder's states of the prompts; give them with --states")
    file = tmp_path / "states.pt"
    sound = states_of(given, tensors)
    for content, match in [
        ({"states": sound["states"]}, r"'real' is nothing, study 'x' needs \(165, 10\)"),
        (sound | {"states": sound["states"][1:]}, r"'states' is \(164, 10, 20\), study 'x' needs \(165, 10, 20\): its prompts in order"),
        (sound | {"real": sound["real"] + 1}, "'real' 1 where a state is of a token"),
        (sound | {"states": sound["states"] * torch.nan}, "'states' is not finite"),
        (sound | {"states": sound["states"].int()}, "'states' must be floating-point"),
    ]:
        torch.save(content, file)
        refused(given, match, states=file)
    torch.save(sound, file)
    refused(words, r"--states is of a denoiser that is given them: study 'x' has none \(denoiser\.states: given\)", states=file)


def test_a_denoiser_of_given_states_is_not_trained(tmp_path):
    study = study_of("diffusionbench_ddt_text")
    with pytest.raises(UserError, match=r"come with imported weights \(dsr import --states\); none is trained$"):
        train_denoisers(study, method="baseline", seeds=[0], latents=tmp_path, state=tmp_path, out=[tmp_path / "x.safetensors"])


def test_the_command_takes_states(monkeypatch, capsys, tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "x.pt")
    arguments = ["import", str(tmp_path / "x.pt"), "--study", "smoke", "--states", str(tmp_path / "s.pt"), "--out", str(tmp_path / "o")]
    monkeypatch.setattr(sys, "argv", ["dsr", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "--states is of a denoiser that is given them: study 'smoke' has none" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "read_as"), [("ddt_mcg", "data"), ("diffusionbench_ddt_label", "data")])
def test_weights_whose_output_would_be_read_as_another_are_refused(golden, tmp_path, name, read_as):
    checkpoint, out = tmp_path / "published.pt", tmp_path / "denoiser.safetensors"
    torch.save(bare(weights_of(golden(name)[1])), checkpoint)
    with pytest.raises(
        UserError, match=r"published weights of .* predict the velocity, .* read as the data; say denoiser.prediction: velocity there"
    ):
        import_checkpoint(checkpoint, study_of(name, prediction=read_as), method="baseline", part="denoiser", out=out)
    assert not out.exists()


def test_every_architecture_that_one_project_alone_publishes_says_what_it_predicts():
    said = {name: shape.published_prediction for name, shape in ARCHITECTURES.items()}
    assert said.pop("jit") == "data"
    assert {said.pop(name) for name in ("lightningdit", "ditdh")} == {None}  # RAE's predict the velocity, the authors' the data
    assert set(said.values()) == {"velocity"}
