"""Training as the authors' code does it, beside a plain loop in which every parameter of theirs is trained: what is frozen, loss masks."""

import pytest
import torch
from conftest import error, tiny_values

from harness.denoiser.build import build_denoiser, load_denoiser
from harness.denoiser.loss import loss_of
from harness.denoiser.train import train_denoisers
from harness.encoder import latents as latent_files
from harness.machine import processes
from harness.machine.streams import seed_initialisation, stream
from harness.store import artifacts
from harness.store.tensors import load_tensors, save_tensors
from harness.study import typed as config
from harness.study.method import load_method
from harness.study.study import parse_study
from harness.training import loop
from harness.training.ema import Weights
from harness.training.order import batch_indices

IMAGES, STEPS, BATCH, MICRO = 48, 20, 8, 2
LR, SHIFT, DECAY, SEED = 1e-3, 2.0, 0.9, 5
TABLES = ("pos_embed", ".W")
MASKS = {
    "none": None,
    "released": "norm='whitened', threshold=8.5, absolute=True, normalised='micro_batch'",
    "absolute": "norm='whitened', threshold=8.5, absolute=True",
    "relative": "norm='pre_ln', threshold=1.25",
}
METHOD = """
import torch
from harness import LossMask, Method
METHOD = Method(title="{mask}", diffusion_registers=True{given})
def modify_denoiser(model):  # no weight starts at zero: gradients of rounding errors would decide where AdamW goes
    for weight in model.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.2)
    return model
"""
SHAPES = {"lightningdit": {}, "ditdh": {"architecture": "ditdh", "head": {"width": 48, "depth": 1, "heads": 2}}}


def a_study(frozen="released", shape="lightningdit", **training):
    small = {"width": 32, "depth": 2, "heads": 2, "registers": {"count": 4, "start": 1}, "time_shift": SHIFT, "ema": [DECAY, 0.0]}
    small |= {"frozen": frozen, "ema_warm_up": False, **SHAPES[shape]}
    small["training"] = {"steps": STEPS, "batch": BATCH, "micro_batch": MICRO, "lr": LR, "schedule": {"decay": "constant", "warm_up": 0}}
    small["training"] |= {"clip": 0.0} | training
    values = config.merge(tiny_values(), {"denoiser": small})
    return parse_study("tiny", values | {"sampling": {**values["sampling"], "ema": DECAY, "averages": []}})


@pytest.fixture
def method(tmp_path, monkeypatch):
    """method(mask) -> the name of a method with registers and this loss mask."""
    monkeypatch.setattr("harness.study.method.METHODS", tmp_path)

    def write(mask):
        given = f", loss_mask=LossMask({MASKS[mask]})" if MASKS[mask] else ""
        (tmp_path / f"{mask}.py").write_text(METHOD.format(mask=mask, given=given), encoding="utf-8")
        return mask

    return write


@pytest.fixture(scope="module")
def latents(tmp_path_factory):
    """A latents file of random images; the norm of each token before the final norm is one of its own."""
    path = tmp_path_factory.mktemp("latents") / "latents.safetensors"
    clean = torch.randn(IMAGES, 32, 4, 4) * torch.linspace(0.5, 2, 16).view(4, 4)
    norms = {"pre_ln": 1 + torch.rand(IMAGES, 16), "post_ln": torch.ones(IMAGES, 16), "whitened": clean.flatten(2).norm(dim=1)}
    tensors = {
        "mean": torch.zeros(32, 1, 1),
        "std": torch.ones(32, 1, 1),
        "train.latents": clean,
        "train.labels": torch.arange(IMAGES) % 10,
    }
    with artifacts.artifact(path, stage="latents", module="harness.encoder.encode") as file:
        save_tensors(file, tensors | {f"train.norm.{name}": value for name, value in norms.items()}, flip=False)
    return path


def trained(study, method, latents, folder):
    """(the average, the weights themselves, the record)."""
    folder.mkdir(exist_ok=True)
    train_denoisers(study, method=method, seeds=[SEED], latents=latents, state=folder / "state", out=[folder / "denoiser.safetensors"])
    files = [folder / "denoiser.safetensors", folder / "denoiser-ema0.safetensors"]
    return [load_tensors(file)[0] for file in files] + [artifacts.meta(files[0])]


def kept(mask, norms):
    """(N, 1, 4, 4), as each mask says; (N, 16) norms of NORMS."""
    keep = norms["pre_ln"] <= 1.25 * norms["pre_ln"].median() if mask == "relative" else norms["whitened"] < 8.5
    return keep.float().view(-1, 1, 4, 4)


def by_hand(study, method, latents, mask, clip=0.0, weight_decay=0.0, frozen="released"):
    """The weights and their average after the released loop: AdamW over all parameters, micro-batches whose losses are averaged."""
    seed_initialisation(SEED)
    model = build_denoiser(study.model_copy(update={"denoiser": study.denoiser.model_copy(update={"frozen": "described"})}), method)
    fixed = {name: value.clone() for name, value in model.state_dict().items()}
    names = [name for name in fixed if "rope" not in name and (frozen == "released" or not name.endswith(TABLES))]
    weights = {name: fixed[name].clone().requires_grad_() for name in names}
    average = {name: value.detach().clone() for name, value in weights.items()}
    optimiser = torch.optim.AdamW(weights.values(), lr=LR, betas=(0.9, 0.95), weight_decay=weight_decay, eps=1e-8)
    stored, _ = load_tensors(latents)
    norms = {name: stored[f"train.norm.{name}"] for name in ("pre_ln", "whitened")}
    for step in range(STEPS):
        rows, draws = batch_indices(SEED, step, IMAGES, BATCH), stream(SEED, "step", step)
        clean, labels = stored["train.latents"][rows], stored["train.labels"][rows]
        t = (torch.randn(BATCH, generator=draws)).sigmoid()
        t = SHIFT * t / (1 + (SHIFT - 1) * t)
        noise = torch.randn(clean.shape, generator=draws)
        labels = torch.where(torch.rand(BATCH, generator=draws) < 0.1, 10, labels)
        keep = kept(mask, norms)[rows] if mask != "none" else torch.ones(BATCH, 1, 4, 4)
        optimiser.zero_grad()
        for part in torch.arange(BATCH).split(MICRO):
            x, e, s = clean[part], noise[part], t[part].view(-1, 1, 1, 1)
            noisy = (1 - s) * x + s * e
            predicted = torch.func.functional_call(model, fixed | weights, (noisy, t[part], labels[part]))
            loss = ((noisy - predicted) / s.clamp(min=0.05) - (e - x)).square()
            weight = torch.ones_like(loss) * keep[part]
            weight = weight / ((weight if mask == "released" else keep).mean() + 1e-12)
            (loss * weight).mean().mul(MICRO / BATCH).backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(weights.values(), clip)
        optimiser.step()
        for name, value in average.items():
            value.mul_(DECAY).add_(weights[name].detach(), alpha=1 - DECAY)
    return fixed | average, fixed | {name: value.detach() for name, value in weights.items()}, fixed


CASES = [
    ("none", "released", "ditdh", {"clip": 0.3, "weight_decay": 0.1}),
    ("released", "released", "lightningdit", {}),
    ("absolute", "described", "lightningdit", {}),
    ("relative", "released", "lightningdit", {}),
]


@pytest.mark.parametrize(("mask", "frozen", "shape", "changes"), CASES)
def test_twenty_steps_are_those_of_a_plain_loop(latents, method, tmp_path, mask, frozen, shape, changes):
    study = a_study(frozen, shape, **changes)
    average, weights, record = trained(study, method(mask), latents, tmp_path)
    wanted_average, wanted, first = by_hand(study, mask, latents, mask, frozen=frozen, **changes)
    assert weights.keys() == wanted.keys()
    for name in wanted:
        assert error(weights[name], wanted[name]) < 1e-5, name
        assert error(average[name], wanted_average[name]) < 1e-5, name
    tables = [name for name in first if name.endswith(TABLES)]
    assert len(tables) == {"lightningdit": 3, "ditdh": 4}[shape]
    for name in tables:
        assert torch.equal(weights[name], first[name]) == (frozen == "described"), name
    norms = {name: load_tensors(latents)[0][f"train.norm.{name}"] for name in ("pre_ln", "whitened")}
    assert record["filtered_share"] == (0 if mask == "none" else pytest.approx(1 - kept(mask, norms).mean().item()))
    assert 0.02 < record["filtered_share"] < 0.5 or mask == "none"


def test_a_stop_changes_no_byte_of_trained_tables(latents, method, tmp_path, monkeypatch):
    for name, value in {"SAVE_EVERY": 0, "SAVE_SHARE": 1e9, "CHECK_EVERY": 4}.items():
        monkeypatch.setattr(loop, name, value)
    study, name = a_study(steps=8), method("none")
    trained(study, name, latents, tmp_path / "whole")

    def stop(seed, step, *rest):
        if step == 6:
            raise KeyboardInterrupt
        return batch_indices(seed, step, *rest)

    monkeypatch.setattr(latent_files, "batch_indices", stop)
    with pytest.raises(KeyboardInterrupt):
        trained(study, name, latents, tmp_path / "parts")
    monkeypatch.setattr(latent_files, "batch_indices", batch_indices)
    trained(study, name, latents, tmp_path / "parts")
    for file in ("denoiser.safetensors", "denoiser-ema0.safetensors"):
        assert (tmp_path / "parts" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    there, wanted = load_denoiser(study, name, tmp_path / "parts" / file), load_tensors(tmp_path / "parts" / file)[0]
    assert all(torch.equal(value, wanted[key]) for key, value in there.state_dict().items())


def test_what_a_run_is_knows_what_was_frozen(latents, method, tmp_path):
    """One of another kind is trained anew, not taken for the same, nor resumed."""
    first, again = (trained(a_study(frozen, steps=2), method("none"), latents, tmp_path) for frozen in ("described", "released"))
    assert (first[2]["config"]["frozen"], again[2]["config"]["frozen"]) == ("described", "released")
    assert not torch.equal(first[0]["pos_embed"], again[0]["pos_embed"])


@pytest.mark.parametrize("mask", ["released", "absolute"])
def test_the_losses_of_processes_add_up_where_each_micro_batch_is_normalised(latents, method, monkeypatch, mask):
    """Over the batch they do where the processes tell one another their shares, which they do not here."""
    study, rule = a_study(), load_method(method(mask)).loss_mask
    monkeypatch.setattr(processes, "add_up", lambda _tensors: None)

    def loss(rank, count):
        monkeypatch.setattr(processes, "_place", [rank, count])
        seed_initialisation(0)
        batches = latent_files.Batches(latents, seed=0, batch=BATCH)
        parts = loss_of(study, rule, batches.threshold(rule, 3.0), batches, build_denoiser(study, mask))
        return sum(parts(3, stream(0, "step", 3))).item()

    assert (sum(loss(rank, 2) for rank in range(2)) == pytest.approx(loss(0, 1), rel=1e-5)) == (mask == "released")


def test_trained_tables_keep_their_names_and_first_values_and_their_gradients_travel(method, monkeypatch):
    states = {}
    for frozen in ("described", "released"):
        seed_initialisation(0)
        model = build_denoiser(a_study(frozen, "ditdh"), method("none"))
        states[frozen] = model.state_dict()
    assert states["described"].keys() == states["released"].keys()
    assert all(torch.equal(value, states["released"][name]) for name, value in states["described"].items())
    sent = []
    monkeypatch.setattr(processes, "add_up", lambda tensors: sent.extend(id(tensor) for tensor in tensors))
    model(torch.randn(2, 32, 4, 4), torch.rand(2), torch.tensor([1, 2])).square().mean().backward()
    gradients = {name: id(weight.grad) for name, weight in model.named_parameters() if name.endswith(TABLES)}
    Weights(model, [], 1).update(a_study().denoiser.training, LR, 0, torch.zeros(()))
    assert gradients.keys() == {"pos_embed", "t_embedder.W", "enc_register_pos_embed", "dec_register_pos_embed"}
    assert set(gradients.values()) <= set(sent)
