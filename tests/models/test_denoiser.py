import pytest
import torch
from conftest import error

from harness.config import UserError
from harness.models.denoiser import LightningDiT, register_positions, sincos_2d
from harness.models.flow import euler, euler_grid, shift_time, v_loss

SIZES = {"input_size": 4, "in_channels": 8, "hidden_size": 32, "depth": 3, "num_heads": 2, "num_classes": 10}


def build(config, tensors):
    kwargs = config["kwargs"]
    names = ["input_size", "in_channels", "hidden_size", "depth", "num_heads", "num_classes", "patch_size", "mlp_ratio"]
    registers = {"registers": kwargs.get("register_len", 0), "register_start": kwargs.get("register_start", 0)}
    model = LightningDiT(**{name: kwargs[name] for name in names}, **registers)
    model.load_state_dict({key.removeprefix("state."): value for key, value in tensors.items() if key.startswith("state.")}, strict=True)
    return model.eval()


@pytest.mark.parametrize("name", ["lightningdit_plain", "lightningdit_registers9_start2"])
def test_agrees_with_the_authors_code(golden, name):
    config, expected = golden(name)
    model, shift = build(config, expected), config["time_dist_shift"]
    blocks = []
    handles = [block.register_forward_hook(lambda _m, _a, out: blocks.append(out)) for block in model.blocks]
    with torch.no_grad():
        assert error(model(expected["in.x"], expected["in.t"], expected["in.y"]), expected["out"]) < 1e-5
        for index, block in enumerate(blocks):
            assert error(block, expected[f"block.{index}"]) < 1e-5
        for handle in handles:
            handle.remove()
        t = shift_time(expected["loss.u"], shift)
        assert error(t, expected["loss.t_shifted"]) < 1e-5
        clean, noise, y = expected["loss.x1"], expected["loss.x0_noise"], expected["in.y"]
        noisy = (1 - t.view(-1, 1, 1, 1)) * clean + t.view(-1, 1, 1, 1) * noise
        assert error(v_loss(clean, noise, t, model(noisy, t, y), 0.05), expected["loss.per_element"]) < 1e-5
        grid = euler_grid(config["ode_grid_points"], shift)
        sample = euler(lambda x, t: model(x, t, y), expected["ode.noise"], grid, 0.05)
        assert error(sample, expected["ode.sample"]) < 1e-5
        middle = euler(lambda x, t: model(x, t, y), expected["ode.noise"], grid[:7], 0.05)
        assert error(middle, expected["ode.mid"]) < 1e-5


def with_seed(**registers):
    torch.manual_seed(0)
    return LightningDiT(**SIZES, **registers)


def test_registers_leave_every_other_first_weight_alone():
    plain, registers = with_seed().state_dict(), with_seed(registers=5, register_start=1).state_dict()
    assert set(registers) - set(plain) == {
        "register_tokens",
        "register_pos_embed",
        "feat_rope_incontext.freqs_cos",
        "feat_rope_incontext.freqs_sin",
    }
    assert all(torch.equal(plain[key], registers[key]) for key in plain)


@pytest.mark.parametrize("count", [1, 4, 5, 7, 9])
def test_any_count_of_registers_runs_and_none_is_left_in_the_output(count):
    model = with_seed(registers=count, register_start=2)
    out = model(torch.randn(2, 8, 4, 4), torch.rand(2), torch.tensor([0, 10]))
    assert out.shape == (2, 8, 4, 4)


def test_square_counts_keep_the_released_positions():
    assert torch.equal(register_positions(32, 9), sincos_2d(32, 3))
    assert register_positions(32, 7).shape == (7, 32)


def test_position_tables_are_frozen():  # the released train.py:252 unfreezes them
    model = with_seed(registers=4, register_start=0)
    trainable = {name for name, _ in model.named_parameters()}
    assert not {"pos_embed", "register_pos_embed", "t_embedder.W"} & trainable
    assert "register_tokens" in trainable


@pytest.mark.parametrize("registers", [{"registers": 4, "register_start": 3}, {"registers": -1}, {"registers": 2, "register_start": -1}])
def test_registers_that_do_not_fit_are_refused(registers):  # the released code strips registers it never added
    with pytest.raises(UserError, match="does not fit a denoiser of 3 blocks"):
        LightningDiT(**SIZES, **registers)


def test_a_grid_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match="must be a multiple"):
        LightningDiT(**SIZES | {"patch_size": 3})


def test_builds_on_meta():  # the released model_utils.py:185 needs CUDA
    with torch.device("meta"):
        model = LightningDiT(**SIZES, registers=4, register_start=1)
    assert all(p.is_meta for p in model.parameters())


def test_patches_larger_than_one():
    model = LightningDiT(**SIZES | {"patch_size": 2})
    assert model(torch.randn(1, 8, 4, 4), torch.rand(1), torch.tensor([3])).shape == (1, 8, 4, 4)


def test_training_step_speed(benchmark):
    model = with_seed(registers=4, register_start=1)
    x, t, y = torch.randn(32, 8, 4, 4), torch.rand(32), torch.randint(0, 10, (32,))

    def step():
        model.zero_grad()
        model(x, t, y).square().mean().backward()

    benchmark(step)
