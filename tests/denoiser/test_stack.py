"""Several seeds as one: each has the bits that it has alone, whatever is beside it."""

import copy

import pytest
import torch
from faults import diverging
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.denoiser import train as denoiser
from harness.denoiser.base import Denoiser
from harness.denoiser.build import build_denoiser
from harness.denoiser.lightningdit import LightningDiT
from harness.denoiser.stack import stack, stacks
from harness.denoiser.train import train_denoisers
from harness.machine import processes
from harness.machine.streams import seed_initialisation, stream
from harness.store import artifacts
from harness.store.tensors import load_tensors
from harness.training import loop

CALL = {"in_channels": 3, "input_size": 4, "num_classes": 5}


def model(seed, **shape):
    seed_initialisation(seed)
    made = LightningDiT(**CALL, **{"hidden_size": 32, "depth": 2, "num_heads": 2, **shape})
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))  # fresh ones are partly zero, and hide what lies before them
    return made


def batch(seed, size):
    generator = stream(seed, "batch")
    x, t = torch.randn(size, 3, 4, 4, generator=generator), torch.rand(size, generator=generator)
    return x, t, torch.randint(0, 6, (size,), generator=generator)


def gradients(models, size):
    """{seed: [gradient of each weight]} and outputs of a stack of {seed: model}."""
    whole = stack([*models.values()])
    output = whole(*map(torch.cat, zip(*(batch(seed, size) for seed in models), strict=True))).chunk(len(models))
    sum(one.square().mean() for one in output).backward()
    found = [parameter.grad for parameter in whole.parameters()]
    return {seed: (output[i].detach(), [g[i].flatten() for g in found]) for i, seed in enumerate(models)}


shapes = st.fixed_dictionaries({
    "hidden_size": st.sampled_from([16, 32, 40, 64]),
    "depth": st.integers(1, 3),
    "num_heads": st.sampled_from([1, 2]),
    "mlp_ratio": st.sampled_from([1.7, 3.0]),
    "registers": st.sampled_from([0, 3, 4]),
})  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(shapes, st.sampled_from([32, 64, 96]), st.lists(st.integers(0, 5), min_size=1, max_size=5, unique=True))
def test_what_is_beside_a_seed_changes_no_bit_of_it(shape, size, seeds):
    every = gradients({seed: model(seed, **shape) for seed in range(6)}, size)
    some = gradients({seed: model(seed, **shape) for seed in seeds}, size)
    for seed in seeds:
        assert torch.equal(some[seed][0], every[seed][0])
        assert all(map(torch.equal, some[seed][1], every[seed][1]))


@settings(max_examples=25, deadline=None)
@given(shapes, st.integers(1, 9))
def test_a_stack_computes_what_its_models_do(shape, size):
    models = {seed: model(seed, **shape) for seed in (3, 1)}
    for seed, (output, found) in gradients({seed: copy.deepcopy(one) for seed, one in models.items()}, size).items():
        alone = models[seed](*batch(seed, size))
        alone.square().mean().backward()
        torch.testing.assert_close(output, alone, rtol=1e-4, atol=1e-5)
        for own, parameter in zip(found, models[seed].parameters(), strict=True):
            torch.testing.assert_close(own, parameter.grad.flatten(), rtol=1e-3, atol=1e-5)


def test_who_changes_a_weight_changes_it_in_the_stack():
    models = [model(seed, registers=2) for seed in (0, 1)]
    whole = stack(models)
    for number, one in enumerate(models):
        for name, parameter in one.named_parameters():
            parameter.data.fill_(number + 1)
            assert (whole.get_parameter(name)[number] == number + 1).all()


class Own(torch.nn.Linear):
    """Somebody's layer, which may look at a batch as a whole."""


class Batched(Denoiser):
    """Somebody's architecture with a weight that has no stacked form."""

    def __init__(self):
        super().__init__(input_size=4, patch_size=1, num_classes=2, depth=1, registers=0, register_start=0)
        self.scale = torch.nn.Parameter(torch.ones(1))


def test_what_has_no_stacked_form_is_trained_by_itself(study, monkeypatch):
    training, images = study.denoiser.training, 99
    assert stacks(build_denoiser(study, "dsr"), training, images)
    assert not stacks(build_denoiser(study, "dsr"), training, 31)
    assert not stacks(build_denoiser(study, "dsr"), training.model_copy(update={"micro_batch": 8}), images)
    hooked, foreign, patched = model(0), model(0), model(0)
    hooked.blocks[0].register_forward_hook(lambda *_: None)
    foreign.final_layer.linear = Own(32, 3)
    patched.blocks[0].forward = lambda x, *_: x
    wide = model(0, patch_size=2)
    for other in (hooked, foreign, patched, wide, Batched(), torch.nn.Linear(2, 2)):
        assert not stacks(other, training, images)
    assert not stacks(model(0), training.model_copy(update={"precision": "bf16"}), images)
    assert not stacks(model(0), training.model_copy(update={"compile": True}), images)
    monkeypatch.setattr(processes, "_place", [0, 2])
    assert not stacks(model(0), training, images)


@pytest.fixture
def run(study, built, tmp_path):
    """Train `dsr` with these seeds below a folder; (weights, record) of each."""

    def trained(folder, seeds, changed=study):
        out = [tmp_path / folder / f"seed{seed}" / "denoiser.safetensors" for seed in seeds]
        latents = built.encoders["ttr_1"].latents
        train_denoisers(changed, method="dsr", seeds=seeds, latents=latents, state=tmp_path / folder / "state", out=out)
        return {seed: (path.read_bytes(), artifacts.meta(path)) for seed, path in zip(seeds, out, strict=True)}

    return trained


def test_seeds_trained_together_alone_or_later_are_the_same_bytes(run, monkeypatch):
    together = run("together", [0, 1, 4])
    alone = {seed: run("alone", [seed])[seed] for seed in (0, 4)}
    assert all(weights == together[seed][0] for seed, (weights, _) in alone.items())
    assert alone[4][1]["losses"] == together[4][1]["losses"]
    trained = []
    original = denoiser.fit_together
    monkeypatch.setattr(
        denoiser, "fit_together", lambda runs, *rest, **how: trained.extend(r.seed for r in runs) or original(runs, *rest, **how)
    )
    assert run("alone", [0, 1, 4])[1][0] == together[1][0]
    assert trained == [1]  # the others were there
    monkeypatch.setenv(artifacts.ANEW, "1")
    run("alone", [0, 1])
    assert trained == [1, 0, 1]


def test_one_after_the_other_where_they_do_not_stack(run, monkeypatch):
    monkeypatch.setattr(denoiser, "stacks", lambda *_: False)
    together, alone = run("together", [0, 1]), run("alone", [1])
    assert together[1][0] == alone[1][0]


def test_killed_in_a_stack_and_resumed_in_another_is_the_same_bytes(run, monkeypatch):
    whole = run("whole", [0, 1])
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(loop, "SAVE_SHARE", 1e9)
    monkeypatch.setattr(loop, "CHECK_EVERY", 2)
    original = loop.stream

    def stop(at):
        def stream_until(seed, purpose, step, *rest):
            if step == at:
                raise KeyboardInterrupt
            return original(seed, purpose, step, *rest)

        return stream_until

    for seeds, at in (([0, 1], 3), ([1], 6)):  # so that the two are at different steps
        monkeypatch.setattr(loop, "stream", stop(at))
        with pytest.raises(KeyboardInterrupt):
            run("parts", seeds)
    monkeypatch.setattr(loop, "stream", original)
    parts = run("parts", [0, 1])
    assert all(parts[seed][0] == whole[seed][0] for seed in whole)
    assert all(parts[seed][1]["losses"] == whole[seed][1]["losses"] for seed in whole)


def test_a_seed_that_diverges_ends_alone(run, study, monkeypatch):
    training = study.denoiser.training.model_copy(update={"skips": 2})
    changed = study.model_copy(update={"denoiser": study.denoiser.model_copy(update={"training": training})})
    healthy = run("healthy", [0, 1], changed)
    original = denoiser.Batches.of_seed

    def of_seed(self, seed):
        batches = original(self, seed)
        if seed == 1:
            batches.cached = batches.cached * float("inf")
        return batches

    monkeypatch.setattr(denoiser.Batches, "of_seed", of_seed)
    mixed = run("mixed", [0, 1], changed)
    assert mixed[0][0] == healthy[0][0]
    assert [mixed[seed][1]["status"] for seed in (0, 1)] == ["ok", "diverged"]
    assert "training.skips allows 2" in mixed[1][1]["reason"]


def test_all_seeds_that_diverge_end_the_training(run, study, monkeypatch):
    diverging(monkeypatch, 2)
    training = study.denoiser.training.model_copy(update={"skips": 1})
    changed = study.model_copy(update={"denoiser": study.denoiser.model_copy(update={"training": training})})
    ended = run("ended", [0, 1], changed)
    assert {record["status"] for _, record in ended.values()} == {"diverged"}


def test_weights_of_a_stack_are_loaded_as_any(run, tmp_path):
    run("x", [2])
    tensors, _ = load_tensors(tmp_path / "x" / "seed2" / "denoiser.safetensors")
    assert all(tensor.is_contiguous() for tensor in tensors.values())
