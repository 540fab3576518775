"""The denoisers beside the authors' code, stored, and beside SiT and JiT, written out from their formulas."""

import argparse
import itertools
import json
import re

import pytest
import torch
import torch.nn.functional as F
from architectures import EXTRA, GOLDEN, SIZES, build, inputs, make, on_meta
from conftest import DATA, error
from test_sizes import SIT_XL

from harness.commands.import_checkpoint import import_checkpoint
from harness.denoiser.build import build_denoiser, load_denoiser
from harness.denoiser.jit import JiT
from harness.denoiser.registry import ARCHITECTURES
from harness.denoiser.repa import REPA
from harness.evaluation.runs import check_run
from harness.store.tensors import check_weights
from harness.study.study import load_study
from harness.study.typed import UserError


@pytest.mark.parametrize("name", GOLDEN)
def test_agrees_with_the_authors_code(golden, name):
    config, expected = golden(name)
    model = build(config, expected)
    blocks = []
    for block in model.blocks:
        block.register_forward_hook(lambda _m, _a, out: blocks.append(out))
    with torch.no_grad():
        out = model(expected["in.x"], expected["in.t"], expected["in.y"])
    assert error(out, expected["out"]) < 1e-5
    assert len(blocks) == len(model.blocks) == sum(key.startswith("block.") for key in expected)
    for index, block in enumerate(blocks):
        assert error(block, expected[f"block.{index}"]) < 1e-5


@pytest.mark.parametrize("name", GOLDEN)
def test_loss_and_sampling_agree_with_the_authors_code(golden, name):
    config, expected = golden(name)
    model, shift, y = build(config, expected), config["time_dist_shift"], expected["in.y"]

    def shifted(u):
        return shift * u / (1 + (shift - 1) * u)

    def velocity(x, t):
        return (x - model(x, t, y)) / t.clamp(min=0.05).view(-1, 1, 1, 1)

    with torch.no_grad():
        t, clean, noise = shifted(expected["loss.u"]), expected["loss.x1"], expected["loss.x0_noise"]
        assert error(t, expected["loss.t_shifted"]) < 1e-5
        noisy = torch.lerp(clean, noise, t.view(-1, 1, 1, 1))
        assert error(model(noisy, t, y), expected["loss.pred"]) < 1e-5
        loss = (velocity(noisy, t) - (noise - clean)).square()
        assert error(loss, expected["loss.per_element"]) < 1e-5
        assert error(loss.mean(dim=(1, 2, 3)), expected["loss.per_sample"]) < 1e-5

        grid = shifted(1 - torch.linspace(0, 1, config["ode_grid_points"]))
        states = [expected["ode.noise"]]
        for now, then in itertools.pairwise(grid):
            states.append(states[-1] + (then - now) * velocity(states[-1], now.expand(len(y))))
        assert error(states[6], expected["ode.mid"]) < 1e-5
        assert error(states[-1], expected["ode.sample"]) < 1e-5

        x, grid = expected["ode.noise"], shifted(1 - torch.linspace(0, 0.999, config["ode_grid_points"]))
        for now, then in itertools.pairwise(grid):  # the same model read as one of velocity; released grids then end short of 0
            x = x + (then - now) * model(x, now.expand(len(y)), y)
        assert error(x, expected["ode.velocity_sample"]) < 1e-5


# ------------------------------------------------------------------------------- SiT and JiT, written out from their formulas


def sinusoids(t, features=256):
    angle = t[:, None] * 10000 ** (-torch.arange(features // 2, dtype=t.dtype) / (features // 2))
    return torch.cat([angle.cos(), angle.sin()], dim=1)


def linear(weights, name, x):
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def embed_time(weights, t):
    return linear(weights, "t_embedder.mlp.2", F.silu(linear(weights, "t_embedder.mlp.0", sinusoids(t))))


def attend(query, key, value):
    return (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(dim=-1) @ value


def split_heads(x, heads):
    """(B, N, 3 C) -> query, key, value (B, heads, N, C / heads)."""
    return x.reshape(*x.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)


def rms(x, weight):
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def rotate(x, grid):
    """(B, heads, N, D): half of each head turns with the row, half with the column; only the last grid ** 2 tokens do."""
    quarter = x.shape[-1] // 4
    rates = 10000.0 ** (-torch.arange(quarter, dtype=x.dtype) / quarter)
    row, column = torch.arange(grid * grid) // grid, torch.arange(grid * grid) % grid
    angle = torch.cat([row[:, None] * rates, column[:, None] * rates], dim=1)
    angle = torch.cat([torch.zeros(x.shape[2] - grid * grid, 2 * quarter, dtype=x.dtype), angle])
    even, odd = x[..., ::2], x[..., 1::2]
    return torch.stack([even * angle.cos() - odd * angle.sin(), odd * angle.cos() + even * angle.sin()], dim=-1).flatten(-2)


def to_map(x, grid, patch, channels):
    """One (grid * grid, patch * patch * channels) sample at a time, patch by patch."""
    image = torch.empty(len(x), channels, grid * patch, grid * patch, dtype=x.dtype)
    for index in range(grid * grid):
        row, column = index // grid * patch, index % grid * patch
        image[:, :, row : row + patch, column : column + patch] = x[:, index].reshape(-1, patch, patch, channels).permute(0, 3, 1, 2)
    return image


def published(model):
    return {name: value.double() for name, value in model.state_dict().items()}


def test_sit_follows_its_formulas():
    model = make("sit", spread=0.1, patch_size=2)
    weights, heads, patch = published(model), SIZES["num_heads"], 2
    x, t, y = (v.double() if v.is_floating_point() else v for v in inputs())
    condition = F.silu(embed_time(weights, t) + weights["y_embedder.embedding_table.weight"][y])
    tokens = F.conv2d(x, weights["x_embedder.proj.weight"], weights["x_embedder.proj.bias"], stride=patch).flatten(2).mT
    tokens = tokens + weights["pos_embed"]

    def normalised(x, shift, scale):
        return F.layer_norm(x, (x.shape[-1],), eps=1e-6) * (1 + scale) + shift

    for index in range(SIZES["depth"]):
        name = f"blocks.{index}"
        parts = linear(weights, f"{name}.adaLN_modulation.1", condition)[:, None].chunk(6, dim=-1)
        attended = attend(*split_heads(linear(weights, f"{name}.attn.qkv", normalised(tokens, *parts[:2])), heads))
        tokens = tokens + parts[2] * linear(weights, f"{name}.attn.proj", attended.transpose(1, 2).flatten(2))
        hidden = F.gelu(linear(weights, f"{name}.mlp.fc1", normalised(tokens, *parts[3:5])), approximate="tanh")
        tokens = tokens + parts[5] * linear(weights, f"{name}.mlp.fc2", hidden)
    parts = linear(weights, "final_layer.adaLN_modulation.1", condition)[:, None].chunk(2, dim=-1)
    out = to_map(linear(weights, "final_layer.linear", normalised(tokens, *parts)), 2, patch, 16)[:, :8]
    ours = model(x.float(), 1 - t.float(), y)  # upstream's t is our 1 - t, its velocity data - noise
    assert error(-ours.double(), out) < 1e-5


@pytest.mark.parametrize("registers", [{}, {"registers": 4, "register_start": 0}, {"registers": 5, "register_start": 2}])
def test_jit_follows_its_formulas(registers):
    model = make("jit", spread=0.1, patch_size=2, input_size=6, in_channels=3, **registers)
    weights, heads, grid, patch = published(model), SIZES["num_heads"], 3, 2
    x, t, y = (v.double() if v.is_floating_point() else v for v in inputs(channels=3, side=6))
    label = weights["y_embedder.embedding_table.weight"][y]
    condition = F.silu(embed_time(weights, t) + label)
    tokens = F.conv2d(x, weights["x_embedder.proj1.weight"], stride=patch)
    tokens = F.conv2d(tokens, weights["x_embedder.proj2.weight"], weights["x_embedder.proj2.bias"]).flatten(2).mT
    tokens = tokens + weights["pos_embed"]
    for index in range(SIZES["depth"]):
        name = f"blocks.{index}"
        if registers and index == registers["register_start"]:
            rows = weights["register_tokens"] + weights["register_pos_embed"]
            tokens = torch.cat([rows.expand(len(x), -1, -1), tokens], dim=1)
        if index == EXTRA["jit"]["in_context_start"]:
            tokens = torch.cat([label[:, None] + weights["in_context_posemb"], tokens], dim=1)
        parts = linear(weights, f"{name}.adaLN_modulation.1", condition)[:, None].chunk(6, dim=-1)
        normalised = rms(tokens, weights[f"{name}.norm1.weight"]) * (1 + parts[1]) + parts[0]
        query, key, value = split_heads(linear(weights, f"{name}.attn.qkv", normalised), heads)
        query, key = rms(query, weights[f"{name}.attn.q_norm.weight"]), rms(key, weights[f"{name}.attn.k_norm.weight"])
        attended = attend(rotate(query, grid), rotate(key, grid), value)
        tokens = tokens + parts[2] * linear(weights, f"{name}.attn.proj", attended.transpose(1, 2).flatten(2))
        normalised = rms(tokens, weights[f"{name}.norm2.weight"]) * (1 + parts[4]) + parts[3]
        gate, up = linear(weights, f"{name}.mlp.w12", normalised).chunk(2, dim=-1)
        tokens = tokens + parts[5] * linear(weights, f"{name}.mlp.w3", F.silu(gate) * up)
    parts = linear(weights, "final_layer.adaLN_modulation.1", condition)[:, None].chunk(2, dim=-1)
    tokens = rms(tokens[:, -grid * grid :], weights["final_layer.norm_final.weight"]) * (1 + parts[1]) + parts[0]
    out = to_map(linear(weights, "final_layer.linear", tokens), grid, patch, 3)
    ours = model(x.float(), 1 - t.float(), y)  # upstream's t is our 1 - t
    assert error(ours.double(), out) < 1e-5


ALL_OF_JIT = {"": 0, "_ema1": 1, "_ema2": 2}  # what is added to the weights, to tell them apart


def names_of(model):
    block = {name.removeprefix("blocks.0.") for name in model.state_dict() if name.startswith("blocks.0.")}
    return {name for name in model.state_dict() if not name.startswith("blocks.")}, block


@pytest.mark.parametrize(("name", "prefix"), [("sit", ""), ("jit", "net.")])
def test_names_and_shapes_are_those_of_the_originals_state(golden, name, prefix):
    """Of the state dict that its code writes: JiT's has no rotary tables, which a list of our names would not tell."""
    config, tensors = golden(name)
    given = config["kwargs"]
    sizes = {key: given[key] for key in ("input_size", "in_channels", "hidden_size", "depth", "num_heads", "num_classes", "patch_size")}
    own = {"bottleneck": 12, "in_context_len": 3, "in_context_start": 2} if name == "jit" else {"learn_sigma": True}
    ours = {f"state.{prefix}{key}": value.shape for key, value in on_meta(ARCHITECTURES[name], **sizes, **own).state_dict().items()}
    assert ours == {key: value.shape for key, value in tensors.items() if key.startswith("state.")}


def test_a_published_jit_is_imported(tmp_path):
    """`checkpoint-last.pth` of its training: two averages, of which the one that is sampled is named, options, the prefix `net.`."""
    study = load_study("smoke_jit")
    weights = build_denoiser(study, "baseline").state_dict()
    averages = {f"model{kind}": {f"net.{key}": value + shift for key, value in weights.items()} for kind, shift in ALL_OF_JIT.items()}
    optimiser = {"state": {0: {"exp_avg": torch.ones(3), "step": torch.tensor(7.0)}}, "param_groups": [{"lr": 1e-4}]}
    options = argparse.Namespace(model="JiT-H/16", proj_dropout=0.2, ema_decay1=0.9999)
    path, out = tmp_path / "checkpoint-last.pth", tmp_path / "denoiser.safetensors"
    torch.save(averages | {"optimizer": optimiser, "epoch": 600, "args": options}, path)
    with pytest.raises(UserError, match="several averages: 'model_ema1'"):
        import_checkpoint(path, study, method="baseline", part="denoiser", out=out)
    told = import_checkpoint(path, study, method="baseline", part="denoiser", container="model_ema1", out=out)
    assert told["container"] == "model_ema1"
    model = load_denoiser(study, "baseline", out)
    assert all(torch.equal(value, weights[key] + 1) for key, value in model.state_dict().items())
    with pytest.raises(UserError, match="an imported checkpoint: it can be sampled from, but is no run of a seed, so it is not scored"):
        check_run(out, "baseline", 0)  # as every stage that scores does


def test_repa_has_the_published_names_and_shapes():
    file = json.loads((DATA / "repa_sit_xl2_keys.json").read_text(encoding="utf-8"))
    published = {}
    for name, shape in file["shapes"].items():
        for block in range(file["depth"]) if "*" in name else [0]:
            published[name.replace("*", str(block))] = torch.empty(shape, device="meta")
    weights, facts = REPA.from_published(published)
    model = on_meta(REPA, **SIT_XL)
    check_weights(model, weights, "x")
    assert model.load_state_dict(weights, strict=True, assign=True)
    assert facts == {"dropped": {"projectors.*": 6}}
    assert len(published) - len(weights) == 6


def test_repas_blocks_under_their_older_names():
    weights = make("repa", depth=5, spread=0.1).state_dict()
    older = {re.sub(r"^blocks\.([34])\.", lambda found: f"decoder_blocks.{int(found[1]) - 3}.", name): weights[name] for name in weights}
    renamed, facts = REPA.from_published(older)
    assert renamed.keys() == weights.keys()
    assert all(renamed[name] is weights[name] for name in weights)
    assert facts == {"renamed": {"decoder_blocks.*": 20}}
    assert REPA.from_published(weights) == (weights, {})


def test_repa_is_sits_network_in_the_opposite_convention():
    repa, sit = make("repa", spread=0.1, registers=4, register_start=1), make("sit", learn_sigma=False, registers=4, register_start=1)
    sit.load_state_dict(repa.state_dict(), strict=True)
    (x, _, y), t = inputs(), torch.tensor([0.25, 0.875])
    assert torch.equal(repa(x, t, y), -sit(x, 1 - t, y))
    assert not torch.allclose(repa(x, t, y), sit(x, t, y))


def test_the_first_lightningdit_has_the_names_of_the_released_one_but_for_its_frequencies():
    ours, released = (names_of(make(name)) for name in ("lightningdit_hustvl", "lightningdit"))
    assert released[0] - ours[0] == {"t_embedder.W"}
    assert ours == (released[0] - {"t_embedder.W"}, released[1])
    assert make("lightningdit_hustvl").t_embedder.mlp[0].in_features == 256


@pytest.mark.parametrize(
    ("width", "depth", "bottleneck", "start"), [(768, 12, 128, 4), (1024, 24, 128, 8), (1280, 32, 256, 10)], ids=["B", "L", "H"]
)
def test_jit_takes_the_published_bottleneck_and_start(width, depth, bottleneck, start):
    with torch.device("meta"):
        model = JiT(input_size=256, in_channels=3, hidden_size=width, depth=depth, num_heads=16, num_classes=10)
    assert model.x_embedder.proj1.out_channels == bottleneck
    assert model.in_context_start == start
