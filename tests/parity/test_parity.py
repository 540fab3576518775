import itertools
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from harness.cli.main import main
from harness.decoder.vit import ViTDecoder
from harness.encoder.test_time_registers import TestTimeRegisters
from harness.encoder.tower import build_tower
from harness.parity import dsr, files
from harness.parity.registry import FORMATS, UNNAMED, format_of
from harness.parity.report import Quantity, parity, parity_report, relative_error
from harness.study.typed import UserError

DATA = Path(__file__).parents[1] / "data"
GOLDEN = sorted(DATA.glob("*.safetensors"))
DENOISERS = {"lightningdit": "LightningDiT", "ditdh": "DiTwDDTHead"}
OUTPUTS_OF_A_DENOISER = {"out", "ode.mid", "ode.sample", "ode.velocity_sample"} | {
    f"loss.{name}" for name in ("t_shifted", "pred", "per_element", "per_sample")
}


def read(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["config"]), {key: file.get_tensor(key) for key in file.keys()}


def write(path, config, tensors):
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, path, {"config": json.dumps(config)})
    return path


def state_of(model, spread=0.0):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    return {f"state.{name}": value for name, value in model.state_dict().items()}


# ------------------------------------------------------------------------------------------------------ the authors' outputs


def test_every_format_has_a_file():
    models = {read(path)[0].get("model") for path in GOLDEN}
    assert models - {None} == {*FORMATS}
    used = {id(format_of(files.read(path))) for path in (*GOLDEN, *DATA.glob("*.npz"), *DATA.glob("extractors/[cf]*.npz"))}
    assert used == {id(known) for known in (*FORMATS.values(), *UNNAMED.values())}


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_agrees_with_the_authors_code(path):
    quantities = parity(path)
    config, tensors = read(path)
    outputs = {name for name in tensors if not name.startswith(("state.", "in.", "stat."))}
    outputs -= {"loss.u", "loss.x1", "loss.x0_noise", "ode.noise"}
    if "loss.t_shifted" not in tensors:
        outputs -= {"loss.t"}  # what was drawn
    assert {quantity.name for quantity in quantities} == outputs  # each has its line
    assert {quantity.name for quantity in quantities if quantity.left_out} <= {"ode.dopri5_sample"}
    assert max(quantity.error for quantity in quantities if not quantity.left_out) < 1e-5
    if config.get("model") in DENOISERS.values():
        assert outputs == OUTPUTS_OF_A_DENOISER | {f"block.{i}" for i in range(6)}


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_every_spoiled_output_is_found(path, tmp_path):
    config, tensors = read(path)
    names = [quantity.name for quantity in parity(path) if not quantity.left_out]
    for some in (names[::2], names[1::2]):
        changed = {name: tensors[name] * (1 + 1e-4) for name in some}
        spoiled = write(tmp_path / "spoiled.safetensors", config, tensors | changed)
        assert [quantity.name for quantity in parity(spoiled) if not quantity.ok] == some


def test_a_spoiled_weight_is_found(tmp_path):
    config, tensors = read(DATA / "lightningdit_plain.safetensors")
    tensors["state.blocks.3.mlp.w3.weight"] *= 1.01
    text, good = parity_report([write(tmp_path / "spoiled.safetensors", config, tensors), DATA / "ditdh_plain.safetensors"])
    assert not good
    assert "block.3" in text
    assert "FAILS" in text
    assert f"{DATA / 'ditdh_plain.safetensors'}: all 14 quantities below 1e-05" in text
    assert {q.name for q in parity(tmp_path / "spoiled.safetensors") if q.ok} == {"block.0", "block.1", "block.2", "loss.t_shifted"}


def test_the_report_has_a_line_for_every_quantity():
    paths = [DATA / "sit.safetensors", DATA / "rae_decoder.safetensors"]
    text, good = parity_report(paths)
    assert good
    assert len(text.splitlines()) == sum(1 + len(parity(path)) for path in paths)
    assert "FAILS" not in text
    assert re.search(r"^  ode\.dopri5_sample +not compared: it follows another library's step control$", text, re.MULTILINE)
    assert "all 12 quantities below" in text  # what is not compared is not counted


# ------------------------------------------------------------------------------------------------------------- other shapes


def denoiser_config(architecture, **changes):
    wide = architecture == "ditdh"
    kwargs = {
        "input_size": 6,
        "patch_size": 1,
        "in_channels": 5,
        "hidden_size": [24, 40] if wide else 24,
        "depth": [3, 1] if wide else 11,
        "num_heads": [3, 2] if wide else 3,
        "mlp_ratio": 3.0,
        "num_classes": 7,
    }
    return {"model": DENOISERS[architecture], "kwargs": kwargs | changes, "time_dist_shift": 2.5, "ode_grid_points": 7}


@pytest.mark.parametrize(
    ("architecture", "registers"),
    itertools.product(DENOISERS, [{}, {"register_len": 5, "register_start": 0}, {"register_len": 16, "register_start": 2}]),
)
def test_denoisers_of_other_shapes(architecture, registers, tmp_path):
    """Outputs written out here from the formulas, with the model's own forward pass."""
    torch.manual_seed(0)
    config = denoiser_config(architecture, **registers)
    model = dsr.released_denoiser(dsr.DenoiserConfig(**config)).eval()
    tensors = state_of(model, spread=0.05)
    x, t, y, shift = torch.randn(2, 5, 6, 6), torch.tensor([0.3, 0.9]), torch.tensor([3, 7]), config["time_dist_shift"]
    clean, noise, u = torch.randn(2, 5, 6, 6), torch.randn(2, 5, 6, 6), torch.tensor([0.2, 0.7])
    shifted = shift * u / (1 + (shift - 1) * u)
    blocks = []
    handles = [block.register_forward_hook(lambda _m, _i, out: blocks.append(out)) for block in model.blocks]
    with torch.no_grad():
        out = model(x, t, y)
        for handle in handles:
            handle.remove()
        wide = shifted.view(-1, 1, 1, 1)
        noisy = (1 - wide) * clean + wide * noise
        prediction = model(noisy, shifted, y)
        loss = ((noisy - prediction) / wide.clamp(min=0.05) - (noise - clean)) ** 2
        state, states = torch.randn(2, 5, 6, 6), []
        start = state
        grid = [shift * v / (1 + (shift - 1) * v) for v in (1 - i / 6 for i in range(7))]
        for now, then in itertools.pairwise(grid):
            states.append(state)
            state = state + (then - now) * (state - model(state, torch.full((2,), now), y)) / max(now, 0.05)
    tensors |= {"in.x": x, "in.t": t, "in.y": y, "out": out, "loss.u": u, "loss.x1": clean, "loss.x0_noise": noise}
    tensors |= {"loss.t_shifted": shifted, "loss.pred": prediction, "loss.per_element": loss, "loss.per_sample": loss.mean((1, 2, 3))}
    tensors |= {"loss.mean": loss.mean(), "ode.noise": start, "ode.mid": states[3], "ode.sample": state}
    tensors |= {f"block.{i}": block for i, block in enumerate(blocks)}
    quantities = parity(write(tmp_path / "other.safetensors", config, tensors))
    assert [quantity.name for quantity in quantities if not quantity.ok] == []
    assert len(quantities) == 1 + 5 + 2 + len(model.blocks)


@pytest.mark.parametrize("count", [1, 3])
def test_encoder_of_another_shape(count, tmp_path):
    torch.manual_seed(0)
    shape = {"width": 24, "depth": 3, "heads": 2, "mlp": 36, "patch": 4, "image_size": 12}
    encoder = build_tower("siglip", **shape).eval()
    tensors = state_of(encoder.tower, spread=0.05)
    encoder.final_norm.weight.data.fill_(1.0)
    encoder.final_norm.bias.data.zero_()
    golden, _ = read(DATA / "siglip_ttr_1register.safetensors")
    sizes = {
        "hidden_size": 24,
        "intermediate_size": 36,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 12,
        "patch_size": 4,
    }
    config = golden | {"vision_config": sizes, "register_neurons": {"0": [1, 7], "2": [35]}, "num_registers": count}
    pixels = torch.randn(2, 3, 12, 12)
    tensors["in.pixel_values"] = pixels
    with torch.no_grad():
        tensors |= {f"plain.hidden.{i}": state for i, state in enumerate(encoder.all_hidden_states(pixels))}
        tensors["plain.last_hidden_state"] = encoder(pixels)
        TestTimeRegisters(encoder, {0: [1, 7], 2: [35]}, count=count, variant="released")
        tensors |= {f"ttr.hidden.{i}": state for i, state in enumerate(encoder.all_hidden_states(pixels))}
    path = write(tmp_path / "other.safetensors", config, tensors)
    assert [quantity.name for quantity in parity(path) if not quantity.ok] == []
    assert len(parity(path)) == 2 * 4 + 1


def test_decoder_of_another_shape(tmp_path):
    torch.manual_seed(0)
    model = ViTDecoder(channels=10, side=3, patch=2, width=16, depth=2, heads=2, mlp=20, eps=1e-6).eval()
    sizes = {"encoder_hidden_size": 10, "decoder_hidden_size": 16, "decoder_num_hidden_layers": 2, "decoder_num_attention_heads": 2}
    config = sizes | {"decoder_intermediate_size": 20, "patch_size": 2, "grid": 3, "layer_norm_eps": 1e-6, "hidden_act": "gelu"}
    tensors, tokens = state_of(model, spread=0.05), torch.randn(4, 9, 10)
    with torch.no_grad():
        tensors |= {"in.tokens": tokens, "out.image": model(tokens), "out.logits": model.logits(tokens)}
    path = write(tmp_path / "other.safetensors", config, tensors)
    assert [quantity.ok for quantity in parity(path)] == [True, True]
    config["layer_norm_eps"] = 1e-1
    assert not any(quantity.ok for quantity in parity(write(path, config, tensors)))


# -------------------------------------------------------------------------------------------------------------------- errors


def refused(path, match):
    with pytest.raises(UserError, match=match) as caught:
        parity(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def spoiled(name, path):
    """(kind, what its line says) of files that are not golden, each written to `path` in turn."""
    config, tensors = read(DATA / f"{name}.safetensors")
    some_input = next(key for key in tensors if key.startswith("in."))
    weight = next(key for key, value in tensors.items() if key.startswith("state.") and value.is_floating_point())
    path.write_bytes((DATA / f"{name}.safetensors").read_bytes()[:-100])
    yield "truncated", "not a readable safetensors file"
    write(path, config, {key: value for key, value in tensors.items() if key != some_input})
    yield "without an input", f"has no '{some_input}'"
    write(path, config, {key: value for key, value in tensors.items() if key != weight})
    yield "without a weight", "weights of another architecture|not a size|has no"
    changed = tensors[weight].clone()
    changed.view(-1)[0] = float("nan")
    write(path, config, tensors | {weight: changed})
    yield "a weight that is no number", f"'{weight}' has values that are not finite"
    write(path, config, tensors | {weight: tensors[weight].to(torch.float8_e4m3fn)})
    yield "of eight bits", f"'{weight}' is float8_e4m3fn, which no golden file holds"
    output = next(key for key in tensors if not key.startswith(("state.", "in.", "stat.")))
    write(path, config, tensors | {output: tensors[output] + 5j})
    yield "complex", f"'{output}' is complex64"
    for text in ("[" * 200_000, f'{{"model": {"1" * 5000}}}'):
        save_file(tensors, path, {"config": text})
        yield "of no config", "its metadata has no 'config'"
    field = next(key for key, value in config.items() if isinstance(value, dict | int) and not isinstance(value, bool))
    write(path, config | {field: "x"}, tensors)
    yield "of another config", f"its config: {field}"


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN))
def test_a_spoiled_file_is_one_line(name, path):
    for _kind, line in spoiled(name, path):
        refused(path, line)


def test_every_file_is_gone_through_before_the_exit_code(path, capsys, monkeypatch):
    def run(*files):
        monkeypatch.setattr("sys.argv", ["dsr", "parity", *map(str, files)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code

    sound = DATA / "rae_decoder.safetensors"
    path.write_bytes(b"nothing of the kind")
    assert run(path, path.with_name("none"), sound) == 1
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].startswith(f"error: {path}: not a readable safetensors file")
    assert lines[1] == f"error: {path.with_name('none')}: no such file"
    assert lines[2] == f"{sound}: all 2 quantities below 1e-05"
    assert (len(lines), err) == (5, "")
    assert run(sound) == 0
    assert run() == 2


@pytest.fixture
def plain():
    return read(DATA / "lightningdit_plain.safetensors")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.safetensors"


def test_an_unknown_quantity_is_named(plain, path):
    config, tensors = plain
    extra = {"attention.map": tensors["out"], "block.6": tensors["block.0"]}
    refused(write(path, config, tensors | extra), r"not computed here: attention\.map, block\.6")


def test_files_of_another_kind(plain, path):
    config, tensors = plain
    refused(path, "no such file")
    path.write_bytes(b"nothing of the kind")
    refused(path, "not a readable safetensors file")
    save_file(tensors, path)
    refused(path, "its metadata has no 'config'")
    refused(write(path, {"width": 3}, tensors), "names no model; known: LightningDiT")
    refused(
        write(path, config | {"model": ["UNet"]}, tensors), r"its config: model: unknown '\['UNet'\]'; known: LightningDiT, DiTwDDTHead"
    )
    refused(write(path, config | {"model": "UNet"}, tensors), "its config: model: unknown 'UNet'; known: LightningDiT, DiTwDDTHead")
    inputs = {name: value for name, value in tensors.items() if name.startswith(("state.", "in."))}
    refused(write(path, config, inputs), "holds no outputs")


def test_options_that_are_not_implemented(plain, path):
    config, tensors = plain
    refused(
        write(path, config | {"kwargs": config["kwargs"] | {"use_qknorm": True}}, tensors), r"kwargs\.use_qknorm: Input should be False"
    )
    refused(
        write(path, config | {"kwargs": config["kwargs"] | {"attn_with_bias": True}}, tensors), r"unknown field 'kwargs\.attn_with_bias'"
    )


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("repa_sit", {"qk_norm": True}, r"kwargs\.qk_norm: Input should be False"),
        ("repa_sit", {"path_type": "cosine"}, r"kwargs\.path_type: Input should be 'linear'"),
        ("repa_sit", {"hidden_size": 24}, r"weights of another architecture: '\S+' is \(.*\) in the file, \(.*\) in the model"),
        ("lightningdit_hustvl_f16d32", {"use_qknorm": True}, r"kwargs\.use_qknorm: Input should be False"),
        ("lightningdit_hustvl_f16d32", {"wo_shift": True}, r"kwargs\.wo_shift: Input should be False"),
    ],
)
def test_what_other_projects_models_do_not_have_here_is_refused(path, name, changes, says):
    config, tensors = read(DATA / f"{name}.safetensors")
    refused(write(path, config | {"kwargs": config["kwargs"] | changes}, tensors), says)


def test_weights_of_another_architecture(plain, path):
    config, tensors = plain
    other = config | {"kwargs": config["kwargs"] | {"hidden_size": 32}}
    refused(write(path, other, tensors), r"weights of another architecture: '\S+' is \(.*\) in the file, \(.*\) in the model")
    beyond = config | {"kwargs": config["kwargs"] | {"register_len": 4, "register_start": 6}}
    refused(write(path, beyond, tensors), "does not fit a denoiser of 6 blocks")


def test_inputs_that_are_missing_or_do_not_fit(plain, path):
    config, tensors = plain
    refused(write(path, config, {name: value for name, value in tensors.items() if name != "loss.u"}), r"has no 'loss\.u'")
    refused(write(path, config, tensors | {"in.x": tensors["in.x"][:, :3]}), "its inputs do not fit its config")
    refused(write(path, config, tensors | {"out": tensors["out"][:1]}), r"'out' is \(1, 16, 4, 4\) in the file, \(3, 16, 4, 4\) here")


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [([3.0, 4.0], [3.0, 4.0], 0), ([3.0, 4.5], [3.0, 4.0], 0.1), ([0.0, 0.0], [0.0, 0.0], 0), ([0.1, 0.0], [0.0, 0.0], float("inf"))],
)
def test_relative_error(ours, theirs, expected):
    assert relative_error(torch.tensor(ours), torch.tensor(theirs)) == pytest.approx(expected)


def test_not_a_number_fails():
    assert not Quantity(name="out", error=relative_error(torch.tensor([float("nan")]), torch.ones(1))).ok


def test_remarks_and_options_that_are_off_change_nothing(plain, path):
    config, tensors = plain
    described = config | {"torch": "2.8.0", "kwargs": config["kwargs"] | {"attn_with_bias": False, "some_path": None}}
    assert all(quantity.ok for quantity in parity(write(path, described, tensors)))


@pytest.mark.parametrize("name", ["diffusionbench_ddt_label", "diffusionbench_ddt_text", "ddt_mcg"])
def test_a_ddt_of_another_shape_or_with_other_options_is_refused(name, path):
    config, tensors = read(DATA / f"{name}.safetensors")
    kwargs = config["kwargs"]
    wide = [32, 32] if isinstance(kwargs["hidden_size"], list) else 48
    refused(write(path, config | {"kwargs": kwargs | {"hidden_size": wide}}, tensors), "weights of another architecture|must be a multiple")
    refused(write(path, config | {"kwargs": kwargs | {"enable_reg": True}}, tensors), r"unknown field 'kwargs\.enable_reg'")
    off = config | {"kwargs": kwargs | {"enable_reg": False, "z_dim": None}}
    assert all(quantity.ok for quantity in parity(write(path, off, tensors)))


def test_patches_of_two_sizes_are_refused(path):
    config, tensors = read(DATA / "diffusionbench_ddt_label.safetensors")
    refused(write(path, config | {"kwargs": config["kwargs"] | {"patch_size": [2, 1]}}, tensors), "here encoder and head have the same")


def test_the_target_of_diffusion_bench_is_not_the_noise_less_the_data_near_the_data():
    """The file's first sample is at a time below the smallest that its loss divides by."""
    config, tensors = read(DATA / "diffusionbench_ddt_label.safetensors")
    t, output = tensors["loss.t_shifted"], tensors["loss.pred"]
    assert t[0] < config["t_eps"] < t[1:].min()
    plain = (output - (tensors["loss.x0_noise"] - tensors["loss.x1"])).square()
    assert relative_error(plain[1:], tensors["loss.per_element"][1:]) < 1e-5
    assert relative_error(plain[0], tensors["loss.per_element"][0]) > 0.1
