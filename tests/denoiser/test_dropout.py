"""JiT's dropout: its share, its place, and that a sample's mask depends on its key alone."""

import torch
from architectures import inputs, make
from conftest import tiny_values

from harness.denoiser.dropout import dropped, uniform_of
from harness.denoiser.loss import loss_of
from harness.encoder.latents import Batch
from harness.machine.streams import stream
from harness.study.study import parse_study

KEYS = torch.tensor([0, 1, 2**62 + 12345])


def splitmix(seed, count):
    """The first numbers of SplitMix64 in Python's whole numbers."""
    mask, numbers = 2**64 - 1, []
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) & mask
        z = seed
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        numbers.append(z ^ (z >> 31))
    return numbers


def test_numbers_are_those_of_splitmix():
    assert splitmix(1234567, 2) == [6457827717110365317, 3203168211198807973]  # of its reference implementation
    for row, key in zip(uniform_of(KEYS, 0, 50), KEYS.tolist(), strict=True):
        assert row.tolist() == [(number >> 40) / 2**24 for number in splitmix(key * 0x9E3779B97F4A7C15, 50)]


def test_a_share_of_the_values_is_dropped_and_the_rest_made_larger():
    x = torch.ones(3, 100, 500)
    out = dropped(x, 0.2, KEYS, 7)
    assert set(out.unique().tolist()) == {0.0, torch.tensor(1.0).div(0.8).item()}
    for sample in out:  # 50,000 values: standard error 0.0018
        assert abs((sample == 0).float().mean().item() - 0.2) < 0.008
    kept = (out > 0).float().flatten(1)
    assert torch.corrcoef(torch.cat([kept, (dropped(x, 0.2, KEYS, 8) > 0).float().flatten(1)])).fill_diagonal_(0).abs().max() < 0.02


def test_a_mask_is_the_samples_own():
    x = torch.randn(3, 5, 7, generator=stream(0, "test"))
    whole = dropped(x, 0.5, KEYS, 3)
    alone = [dropped(x[i : i + 1], 0.5, KEYS[i : i + 1], 3) for i in range(3)]
    assert torch.equal(whole, torch.cat(alone))


def test_the_middle_half_of_the_blocks_has_it_where_keys_are_given():
    model = make("jit", spread=0.1, depth=8, patch_size=2, dropout=0.3)
    assert [block.dropout for block in model.blocks] == [0, 0, 0.3, 0.3, 0.3, 0.3, 0, 0]
    assert make("jit", depth=8, patch_size=2).state_dict().keys() == model.state_dict().keys()
    x, t, y = inputs(batch=3)
    seen = []
    for block in model.blocks:
        block.register_forward_hook(lambda _m, _a, out: seen.append(out))
    plain, dropping, again = model(x, t, y), model(x, t, y, KEYS), model(x, t, y, KEYS)
    changed = [not torch.equal(a, b) for a, b in zip(seen[:8], seen[8:16], strict=True)]
    assert changed == [False] * 2 + [True] * 6
    assert torch.equal(dropping, again)
    assert torch.equal(make("jit", spread=0.1, depth=8, patch_size=2)(x, t, y), plain)
    assert torch.equal(make("jit", spread=0.1, depth=8, patch_size=2)(x, t, y, KEYS), plain)


def test_the_attention_and_the_mlp_are_thinned_as_upstream():
    """LTH14/JiT `model_jit.py`: after the projection of the attention, and before the last layer of the MLP."""
    block = make("jit", spread=0.3, depth=4, patch_size=2, dropout=0.4).blocks[1]
    x, condition = torch.randn(3, 4, 32, generator=stream(0, "x")), torch.randn(3, 32, generator=stream(0, "c"))
    shift1, scale1, gate1, shift2, scale2, gate2 = block.adaLN_modulation(condition)
    table = make("jit", depth=4, patch_size=2).feat_rope
    attended = block.attn(block.norm1(x) * (1 + scale1) + shift1, table)
    h = x + gate1 * attended * (uniform_of(KEYS, 2, 4 * 32).view(3, 4, 32) >= 0.4) / 0.6
    gate, up = block.mlp.w12(block.norm2(h) * (1 + scale2) + shift2).chunk(2, dim=-1)
    hidden = torch.nn.functional.silu(gate) * up
    hidden = hidden * (uniform_of(KEYS, 3, hidden[0].numel()).view(hidden.shape) >= 0.4) / 0.6
    torch.testing.assert_close(block(x, condition, table, KEYS), h + gate2 * block.mlp.w3(hidden), rtol=1e-5, atol=1e-5)


def loss_at(step, *, dropout, micro_batch=None):
    changes = {"architecture": "jit", "in_context": 2, "dropout": dropout, "depth": 4}
    study = parse_study("x", tiny_values(denoiser=changes | ({"training": {"micro_batch": micro_batch}} if micro_batch else {})))
    torch.manual_seed(0)
    model = make("jit", spread=0.1, input_size=4, in_channels=4, depth=4, dropout=dropout)
    latents = torch.randn(6, 4, 4, 4, generator=stream(0, "test"))
    loss = loss_of(study, None, float("inf"), lambda _step: Batch(latents, torch.arange(6), {}, None), model)
    return sum(part.item() for part in loss(step, stream(0, "train", step)))


def test_a_training_step_draws_its_keys_from_seed_and_step():
    assert loss_at(3, dropout=0.5) == loss_at(3, dropout=0.5)
    assert loss_at(3, dropout=0.5) != loss_at(3, dropout=0.0)
    assert abs(loss_at(3, dropout=0.5) - loss_at(3, dropout=0.5, micro_batch=2)) < 1e-5  # its split changes nothing but rounding
