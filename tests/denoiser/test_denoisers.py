import itertools
import resource

import pytest
import torch
import torch.nn.functional as F
from conftest import error
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.adamw import adamw
from torch.utils.flop_counter import FlopCounterMode

from harness.denoiser.base import register_positions
from harness.denoiser.ditdh import DiTDH
from harness.denoiser.jit import JiT
from harness.denoiser.layers import RotaryTable
from harness.denoiser.lightningdit import LightningDiT
from harness.denoiser.registry import ARCHITECTURES
from harness.denoiser.sit import SiT
from harness.encoder.positions import sincos_2d
from harness.study.typed import UserError

SIZES = {"input_size": 4, "in_channels": 8, "hidden_size": 32, "depth": 3, "num_heads": 2, "num_classes": 10, "patch_size": 1}
EXTRA = {
    "lightningdit": {},
    "ditdh": {"head_width": 48, "head_depth": 2, "head_heads": 3},
    "sit": {},
    "jit": {"bottleneck": 6, "in_context_len": 3, "in_context_start": 1},
}
REGISTERS = {
    "lightningdit": {"register_tokens", "register_pos_embed", "feat_rope_incontext.freqs_cos", "feat_rope_incontext.freqs_sin"},
    "ditdh": {
        f"{side}_{name}"
        for side in ("enc", "dec")
        for name in ("register_tokens", "register_pos_embed", "feat_rope_incontext.freqs_cos", "feat_rope_incontext.freqs_sin")
    },
    "sit": {"register_tokens", "register_pos_embed"},
    "jit": {"register_tokens", "register_pos_embed", "feat_rope_registers.freqs_cos", "feat_rope_registers.freqs_sin"},
}
every_architecture = pytest.mark.parametrize("name", list(ARCHITECTURES))


def make(name, *, seed=0, spread=0.0, **changes):
    """A tiny denoiser; `spread` moves every weight away from its first value, so that no path is closed by a zero."""
    torch.manual_seed(seed)
    model = ARCHITECTURES[name](**SIZES | EXTRA[name] | changes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    return model


def inputs(batch=2, channels=8, side=4):
    generator = torch.Generator().manual_seed(1)
    x, t = torch.randn(batch, channels, side, side, generator=generator), torch.rand(batch, generator=generator)
    return x, t, torch.tensor([0, 10, 3, 7])[:batch]


# ---------------------------------------------------------------------------------------------------------- the authors' code


def build(config, tensors):
    kwargs = config["kwargs"]
    registers = {"registers": kwargs.get("register_len", 0), "register_start": kwargs.get("register_start", 0)}
    sizes = {name: kwargs[name] for name in ("input_size", "in_channels", "num_classes", "mlp_ratio")}
    if config["model"] == "DiTwDDTHead":
        wide = {f"head_{name}": kwargs[key][1] for name, key in (("width", "hidden_size"), ("depth", "depth"), ("heads", "num_heads"))}
        deep = {key: kwargs[key][0] for key in ("hidden_size", "depth", "num_heads", "patch_size")}
        model = DiTDH(**sizes, **deep, **wide, **registers)
    else:
        model = LightningDiT(**sizes, **{key: kwargs[key] for key in ("hidden_size", "depth", "num_heads", "patch_size")}, **registers)
    model.load_state_dict({key.removeprefix("state."): value for key, value in tensors.items() if key.startswith("state.")}, strict=True)
    return model.eval()


GOLDEN = ["lightningdit_plain", "lightningdit_registers9_start2", "ditdh_plain", "ditdh_registers4_start1"]


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
    found = model(x.float(), 1 - t.float(), y)  # upstream's t is our 1 - t, its velocity data - noise
    assert error(-found.double(), out) < 1e-5


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
    found = model(x.float(), 1 - t.float(), y)  # upstream's t is our 1 - t
    assert error(found.double(), out) < 1e-5


OF_ALL = {
    *("pos_embed", "y_embedder.embedding_table.weight", "t_embedder.mlp.0.weight", "t_embedder.mlp.0.bias"),
    *("t_embedder.mlp.2.weight", "t_embedder.mlp.2.bias", "final_layer.linear.weight", "final_layer.linear.bias"),
    *("final_layer.adaLN_modulation.1.weight", "final_layer.adaLN_modulation.1.bias"),
}
OF_BLOCKS = {f"{layer}.{kind}" for layer in ("attn.qkv", "attn.proj", "adaLN_modulation.1") for kind in ("weight", "bias")}


def names_of(model):
    block = {name.removeprefix("blocks.0.") for name in model.state_dict() if name.startswith("blocks.0.")}
    return {name for name in model.state_dict() if not name.startswith("blocks.")}, block


def test_sit_has_the_published_names():
    outside, block = names_of(make("sit"))
    assert outside == OF_ALL | {"x_embedder.proj.weight", "x_embedder.proj.bias"}
    assert block == OF_BLOCKS | {f"mlp.{layer}.{kind}" for layer in ("fc1", "fc2") for kind in ("weight", "bias")}


def test_jit_has_the_published_names():
    outside, block = names_of(make("jit"))
    tables = {f"{table}.freqs_{kind}" for table in ("feat_rope", "feat_rope_incontext") for kind in ("cos", "sin")}
    patches = {"x_embedder.proj1.weight", "x_embedder.proj2.weight", "x_embedder.proj2.bias"}
    assert outside == OF_ALL | tables | patches | {"in_context_posemb", "final_layer.norm_final.weight"}
    norms = {f"{norm}.weight" for norm in ("norm1", "norm2", "attn.q_norm", "attn.k_norm")}
    assert block == OF_BLOCKS | norms | {f"mlp.{layer}.{kind}" for layer in ("w12", "w3") for kind in ("weight", "bias")}


@pytest.mark.parametrize(
    ("width", "depth", "bottleneck", "start"), [(768, 12, 128, 4), (1024, 24, 128, 8), (1280, 32, 256, 10)], ids=["B", "L", "H"]
)
def test_jit_takes_the_published_bottleneck_and_start(width, depth, bottleneck, start):
    with torch.device("meta"):
        model = JiT(input_size=256, in_channels=3, hidden_size=width, depth=depth, num_heads=16, num_classes=10)
    assert model.x_embedder.proj1.out_channels == bottleneck
    assert model.in_context_start == start


# ------------------------------------------------------------------------------------------- parameters and FLOPs of the paper

RAE = {"input_size": 16, "in_channels": 768, "num_classes": 1000}
S, B, XL = (
    {**RAE, "hidden_size": width, "depth": depth, "num_heads": heads}
    for width, depth, heads in ((384, 12, 6), (768, 12, 12), (1152, 28, 16))
)
DH_XL = {**XL, "head_width": 2048, "head_depth": 2, "head_heads": 16}
SIT_XL = {**XL, "input_size": 32, "in_channels": 4, "patch_size": 2}
JIT_H = {"input_size": 256, "in_channels": 3, "num_classes": 1000, "hidden_size": 1280, "depth": 32, "num_heads": 16, "patch_size": 16}
AT_4, AT_8 = ({"registers": 36, "register_start": start} for start in (4, 8))


def on_meta(architecture, **sizes):
    with torch.device("meta"):
        return architecture(**sizes)


@pytest.mark.parametrize(
    ("architecture", "sizes", "millions", "digits"),
    [
        (LightningDiT, S, 33.65, 2),
        (LightningDiT, B, 131.88, 2),
        (LightningDiT, XL, 677.25, 2),
        (LightningDiT, XL | AT_8, 677.33, 2),
        (DiTDH, DH_XL, 838.68, 2),
        (DiTDH, DH_XL | AT_8, 838.91, 2),
        (SiT, SIT_XL, 675, 0),
        (JiT, JIT_H, 953, 0),
    ],
    ids=["S", "B", "XL", "XL+36@8", "DH-XL", "DH-XL+36@8", "SiT-XL/2", "JiT-H/16"],
)
def test_parameters_of_the_paper(architecture, sizes, millions, digits):
    model = on_meta(architecture, **sizes)
    fixed = [table for name, table in model.named_buffers() if name.endswith(("pos_embed", ".W"))]  # parameters in the released code
    assert round(sum(v.numel() for v in [*model.parameters(), *fixed]) / 1e6, digits) == millions


def test_trainable_parameters_of_xl():
    assert round(sum(p.numel() for p in on_meta(LightningDiT, **XL).parameters()) / 1e6, 2) == 676.95


@pytest.mark.parametrize(
    ("architecture", "sizes", "gflops", "digits"),
    [
        (LightningDiT, S, 12.4, 1),
        (LightningDiT, S | AT_4, 13.67, 2),
        (LightningDiT, B, 46.6, 1),
        (LightningDiT, B | AT_4, 51.16, 2),
        (LightningDiT, XL, 238.1, 1),
        (LightningDiT, XL | AT_8, 262.9, 1),
        (DiTDH, DH_XL, 323.2, 1),
        (DiTDH, DH_XL | AT_8, 359.3, 1),
    ],
    ids=["S", "S+36@4", "B", "B+36@4", "XL", "XL+36@8", "DH-XL", "DH-XL+36@8"],
)
def test_gflops_of_the_paper(architecture, sizes, gflops, digits):
    model = on_meta(architecture, **sizes)
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, 768, 16, 16), torch.empty(1), torch.empty(1, dtype=torch.long))
    assert round(counter.get_total_flops() / 1e9, digits) == gflops


# ------------------------------------------------------------------------------------------------------ every architecture


@every_architecture
def test_registers_leave_every_other_first_weight_alone(name):
    plain, registers = make(name).state_dict(), make(name, registers=5, register_start=1).state_dict()
    assert set(registers) - set(plain) == REGISTERS[name]
    assert all(torch.equal(plain[key], registers[key]) for key in plain)


@every_architecture
@pytest.mark.parametrize("count", [1, 4, 5, 7, 9])
@pytest.mark.parametrize("start", [0, 2])
def test_trap14_any_count_of_registers_runs_and_none_is_left_in_the_output(name, count, start):
    model = make(name, spread=0.1, registers=count, register_start=start)
    shapes = []
    for block in model.blocks:
        block.register_forward_hook(lambda _m, _a, out: shapes.append(out.shape[1]))
    assert model(*inputs()).shape == (2, 8, 4, 4)
    context = EXTRA[name].get("in_context_len", 0)
    expected = [16 + count * (index >= start) + context * (index >= 1) for index in range(len(model.blocks))]
    assert shapes == expected


@every_architecture
def test_registers_come_first_and_patches_last(name):
    model = make(name, spread=0.1, registers=4, register_start=2)
    before, after = [], []
    model.blocks[1].register_forward_hook(lambda _m, _a, out: before.append(out))
    model.blocks[2].register_forward_pre_hook(lambda _m, args: after.append(args[0]))
    model(*inputs())
    prefix = "enc_" if name == "ditdh" else ""
    tokens = getattr(model, f"{prefix}register_tokens") + getattr(model, f"{prefix}register_pos_embed")
    assert torch.equal(after[0][:, :4], tokens.expand(2, -1, -1))
    assert torch.equal(after[0][:, -(model.side**2) :], before[0][:, -(model.side**2) :])


@every_architecture
def test_trap2_registers_learn_and_position_tables_are_frozen(name):  # the released train.py:252 unfreezes them
    model = make(name, spread=0.1, registers=4, register_start=0)
    trainable = dict(model.named_parameters())
    assert not [key for key in trainable if key.endswith(("pos_embed", ".W", "freqs_cos", "freqs_sin"))]
    model(*inputs()).square().mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in trainable.values())
    assert sum(key.endswith("register_tokens") for key in trainable) == (2 if name == "ditdh" else 1)


@every_architecture
def test_time_label_and_registers_change_the_output(name):
    model = make(name, spread=0.1, registers=4, register_start=1)
    x, t, y = inputs()
    out = model(x, t, y)
    with torch.no_grad():
        assert not torch.allclose(model(x, 1 - t, y), out)
        assert not torch.allclose(model(x, t, y.flip(0)), out)
        for key, parameter in model.named_parameters():
            if key.endswith("register_tokens"):
                parameter.mul_(2)
        assert not torch.allclose(model(x, t, y), out)


@every_architecture
def test_first_output_is_zero(name):
    assert make(name, registers=4, register_start=1)(*inputs()).count_nonzero() == 0


@every_architecture
@pytest.mark.parametrize("registers", [{"registers": 4, "register_start": 3}, {"registers": -1}, {"registers": 2, "register_start": -1}])
def test_trap14_registers_that_do_not_fit_are_refused(name, registers):  # the released code strips registers it never added
    with pytest.raises(UserError, match=r"^diffusion registers: .* does not fit a denoiser of 3 blocks; take .* from 0 to 2$"):
        make(name, **registers)


@every_architecture
def test_a_grid_that_does_not_fit_is_refused(name):
    with pytest.raises(UserError, match=r"^denoiser: latent grid 4 must be a multiple of the patch size 3; change one of the two$"):
        make(name, patch_size=3)


@every_architecture
def test_a_width_that_the_heads_do_not_divide_is_refused(name):
    with pytest.raises(UserError, match=r"^denoiser: width 32 must be a multiple of .* 3 heads; change"):
        make(name, num_heads=3)


def test_a_head_that_its_heads_do_not_divide_is_refused():
    with pytest.raises(UserError, match=r"^denoiser's head: width 48 must be a multiple of 4 x 5 heads; change"):
        make("ditdh", head_heads=5)


@pytest.mark.parametrize("context", [{"in_context_start": 3}, {"in_context_len": -1}])
def test_in_context_tokens_that_do_not_fit_are_refused(context):
    with pytest.raises(UserError, match=r"^JiT's in-context tokens: .* does not fit a denoiser of 3 blocks"):
        make("jit", **context)


def test_jit_without_its_in_context_tokens():
    model = make("jit", spread=0.1, in_context_len=0, registers=4, register_start=1)
    assert "in_context_posemb" not in model.state_dict()
    assert model(*inputs()).shape == (2, 8, 4, 4)


@every_architecture
def test_trap15_builds_on_meta_and_loads(name):  # the released model_utils.py:185 needs CUDA
    weights = make(name, spread=0.1, registers=4, register_start=1)
    model = on_meta(ARCHITECTURES[name], **SIZES | EXTRA[name], registers=4, register_start=1)
    assert all(value.is_meta for value in model.state_dict().values())
    model.load_state_dict(weights.state_dict(), strict=True, assign=True)
    assert torch.equal(model(*inputs()), weights(*inputs()))


@every_architecture
def test_patches_larger_than_one(name):
    model = make(name, spread=0.1, patch_size=2, registers=4, register_start=1)
    assert model.side == 2
    assert model(*inputs()).shape == (2, 8, 4, 4)


@every_architecture
def test_half_precision_under_autocast(name):
    model = make(name, spread=0.1, registers=4, register_start=1)
    expected = model(*inputs(batch=4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert error(model(*inputs(batch=4)).float(), expected) < 0.05


def test_square_counts_keep_the_released_positions():
    assert torch.equal(register_positions(32, 9), sincos_2d(32, 3))
    assert register_positions(32, 7).shape == (7, 32)


# ------------------------------------------------------------------------------------------------------------------- speed


def test_training_step_speed(benchmark):
    model = make("lightningdit", registers=4, register_start=1)
    x, t, y = torch.randn(32, 8, 4, 4), torch.rand(32), torch.randint(0, 10, (32,))

    def step():
        model.zero_grad()
        model(x, t, y).square().mean().backward()

    benchmark(step)


def test_training_step_of_a_small_dit(measured):
    """Forward, backward and AdamW of DiT-S on 8 latents; the peak is the process's own, so run this test alone to read it."""
    torch.manual_seed(0)
    model = LightningDiT(**S)
    x, t, y = torch.randn(8, 768, 16, 16), torch.rand(8), torch.randint(0, 1000, (8,))
    parameters = list(model.parameters())
    first, second = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
    steps = [torch.zeros(()) for _ in parameters]

    def step():
        model.zero_grad(set_to_none=True)
        (model(x, t, y) - x).square().mean().backward()
        with torch.no_grad():
            adamw(
                parameters, [p.grad for p in parameters], first, second, [], steps,
                fused=True, amsgrad=False, maximize=False, lr=2e-4, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.0,
            )  # fmt: skip

    measured.pedantic(step, rounds=3, warmup_rounds=1)
    measured.extra_info["peak_rss_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    assert all(torch.isfinite(p).all() for p in parameters)


@given(grid=st.integers(1, 5), still=st.integers(0, 4), seed=st.integers(0, 99))
def test_both_forms_of_the_rotation_agree(grid, still, seed):
    table = RotaryTable(8, grid, still)
    x = torch.randn(2, 3, grid**2 + still, 8, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(
        RotaryTable.by_reals(x, table.freqs_cos, table.freqs_sin), RotaryTable.by_complex(x, table.freqs_cos, table.freqs_sin)
    )
