"""What holds for every architecture."""

import resource

import pytest
import torch
from architectures import EXTRA, HEADED, KINDS, REGISTERS, SIZES, every_architecture, in_context, inputs, make, on_meta
from conftest import error
from hypothesis import given
from hypothesis import strategies as st
from test_sizes import S
from torch.optim.adamw import adamw

from harness.denoiser.base import register_positions
from harness.denoiser.layers import RotaryTable
from harness.denoiser.lightningdit import LightningDiT
from harness.encoder.positions import sincos_2d
from harness.study.typed import UserError


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
    expected = [16 + count * (index >= start) + in_context(name, index) for index in range(len(model.blocks))]
    assert shapes == expected


@every_architecture
def test_registers_come_first_and_patches_last(name):
    model = make(name, spread=0.1, registers=4, register_start=2)
    before, after = [], []
    model.blocks[1].register_forward_hook(lambda _m, _a, out: before.append(out))
    model.blocks[2].register_forward_pre_hook(lambda _m, args: after.append(args[0]))
    model(*inputs())
    prefix = "enc_" if name in HEADED else ""
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
    assert sum(key.endswith("register_tokens") for key in trainable) == (2 if name in HEADED else 1)


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


@pytest.mark.parametrize("name", ["ditdh", "diffusionbench_ddt"])
def test_a_head_that_its_heads_do_not_divide_is_refused(name):
    with pytest.raises(UserError, match=r"^denoiser's head: width 48 must be a multiple of 4 x 5 heads; change"):
        make(name, head_heads=5)


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
    model = on_meta(KINDS[name], **SIZES | EXTRA[name], registers=4, register_start=1)
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
