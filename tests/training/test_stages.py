"""Training stages on real data: same bytes twice, resumable, refusing what cannot work."""

import pytest
import torch
from faults import diverging

from harness.decoder.registry import decoder_of, load_decoder
from harness.denoiser import train as denoiser
from harness.denoiser.build import build_denoiser, load_denoiser
from harness.denoiser.train import train_denoisers
from harness.encoder import latents
from harness.encoder.latents import load_held_out
from harness.machine import processes
from harness.machine.streams import seed_initialisation, stream
from harness.store import artifacts
from harness.store.tensors import load_tensors
from harness.study.method import load_method
from harness.study.typed import UserError
from harness.training import loop
from harness.training.order import batch_indices


def test_training_twice_gives_the_same_bytes(study, built, tmp_path):
    files = []
    for name in ("a", "b"):
        path = tmp_path / f"{name}.safetensors"
        train_denoisers(study, method="dsr", seeds=[5], latents=built.encoders["ttr_1"].latents, state=tmp_path / name, out=[path])
        files.append(path.read_bytes())
    assert files[0] == files[1]


def test_trap17_a_killed_denoiser_resumes_to_the_same_bytes(study, built, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", 0)
    monkeypatch.setattr(loop, "SAVE_SHARE", 1e9)
    monkeypatch.setattr(loop, "CHECK_EVERY", 4)
    options = {"method": "baseline", "seeds": [1], "latents": built.encoders["plain"].latents}
    train_denoisers(study, **options, state=tmp_path / "s", out=[tmp_path / "whole.safetensors"])
    original = batch_indices

    def stop(seed, step, *rest):
        if step == 9:
            raise KeyboardInterrupt
        return original(seed, step, *rest)

    monkeypatch.setattr(latents, "batch_indices", stop)
    with pytest.raises(KeyboardInterrupt):
        train_denoisers(study, **options, state=tmp_path / "s", out=[tmp_path / "parts.safetensors"])
    assert not (tmp_path / "parts.safetensors").exists()
    assert list((tmp_path / "s").glob("denoiser-*/checkpoint.safetensors"))
    monkeypatch.setattr(latents, "batch_indices", original)
    train_denoisers(study, **options, state=tmp_path / "s", out=[tmp_path / "parts.safetensors"])
    assert (tmp_path / "parts.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert not list((tmp_path / "s").iterdir())


def test_a_training_that_diverges_is_recorded_and_its_last_weights_are_kept(study, built, tmp_path, monkeypatch):
    options = {"method": "baseline", "seeds": [1], "latents": built.encoders["plain"].latents, "state": tmp_path / "s"}
    records, steps = {}, study.denoiser.training.steps
    for name, skips, faulty in (("whole", 10, False), ("diverged", 3, True), ("ok", steps, True)):
        training = study.denoiser.training.model_copy(update={"skips": skips})
        changed = study.model_copy(update={"denoiser": study.denoiser.model_copy(update={"training": training})})
        with monkeypatch.context() as patch:
            if faulty:
                diverging(patch, 5)
            printed = train_denoisers(changed, **options, out=[tmp_path / f"{name}.safetensors"])
        records[name] = artifacts.meta(tmp_path / f"{name}.safetensors")
        assert printed["seed1"]["status"] == records[name]["status"]
    assert [record["status"] for record in records.values()] == ["ok", "diverged", "ok"]
    assert [record["skipped_steps"] for record in records.values()] == [0, steps - 5, steps - 5]
    assert records["diverged"]["reason"].startswith(f"{steps - 5} steps had no finite loss or gradient, training.skips allows 3: step 8, ")
    assert records["diverged"]["losses"] == [*records["whole"]["losses"][:5], *[None] * (steps - 5)]
    weights = {name: load_tensors(tmp_path / f"{name}.safetensors")[0] for name in records}
    assert all(value.isfinite().all() and torch.equal(value, weights["ok"][key]) for key, value in weights["diverged"].items())
    assert artifacts.meta(tmp_path / "diverged-ema0.9.safetensors")["status"] == "diverged"
    assert load_denoiser(study, "baseline", tmp_path / "diverged.safetensors")


@pytest.mark.parametrize("micro_batch", [None, 4])
def test_the_losses_of_the_processes_add_up_to_the_one_of_the_batch(study, built, monkeypatch, micro_batch):
    training = study.denoiser.training.model_copy(update={"micro_batch": micro_batch})
    changed = study.model_copy(update={"denoiser": study.denoiser.model_copy(update={"training": training})})

    def loss(rank, count):
        monkeypatch.setattr(processes, "_place", [rank, count])
        seed_initialisation(0)
        model = build_denoiser(changed, "baseline")
        batches = latents.Batches(built.encoders["plain"].latents, seed=0, batch=32)
        return sum(denoiser.loss_of(changed, None, float("inf"), batches, model)(3, stream(0, "step", 3))).item()

    for count in (2, 8):
        assert sum(loss(rank, count) for rank in range(count)) == pytest.approx(loss(0, 1), rel=1e-5)


def test_trap17_a_finished_run_can_be_started_again(study, built, tmp_path):  # released resume_utils.py:50: int("last")
    options = {"method": "baseline", "seeds": [1], "latents": built.encoders["plain"].latents, "state": tmp_path / "s"}
    files = []
    for _ in range(2):
        train_denoisers(study, **options, out=[tmp_path / "x.safetensors"])
        files.append((tmp_path / "x.safetensors").read_bytes())
    assert files[0] == files[1]


def test_trap18_weights_of_another_study_are_refused(study, built, tmp_path):  # a released sampling config names another study's checkpoint
    other = study.model_copy(update={"denoiser": study.denoiser.model_copy(update={"width": 32})})
    train_denoisers(
        other,
        method="baseline",
        seeds=[0],
        latents=built.encoders["plain"].latents,
        state=tmp_path / "s",
        out=[tmp_path / "x.safetensors"],
    )
    with pytest.raises(UserError, match=r"weights of another architecture: '.*' is \(.*\) in the file, \(.*\) in the model"):
        load_denoiser(study, "baseline", tmp_path / "x.safetensors")


def test_trap3_accumulation_changes_nothing_but_rounding(study, built, tmp_path):
    latents, trained = built.encoders["plain"].latents, []
    for size in (None, 8):
        training = study.denoiser.training.model_copy(update={"micro_batch": size})
        changed = study.model_copy(update={"denoiser": study.denoiser.model_copy(update={"training": training})})
        for method in ("baseline", "masked"):
            path = tmp_path / f"{method}-{size}.safetensors"
            train_denoisers(changed, method=method, seeds=[0], latents=latents, state=tmp_path / "s", out=[path])
            trained.append(load_tensors(path)[0])
    for whole, parts in ((trained[0], trained[2]), (trained[1], trained[3])):
        for name, tensor in whole.items():
            torch.testing.assert_close(parts[name], tensor, rtol=2e-2, atol=2e-3)


def test_compiling_is_optional_and_keeps_the_weights(study, built, tmp_path, monkeypatch):
    """Trap 1: after compile the released code averages and evaluates another module than it trains."""
    compiled = []

    class Compiled(torch.nn.Module):
        """As torch.compile's: another module around the same weights."""

        def __init__(self, model):
            super().__init__()
            self.inner = model
            compiled.append(model)

        def forward(self, *inputs):
            return self.inner(*inputs)

    monkeypatch.setattr(torch, "compile", Compiled)
    monkeypatch.setattr(denoiser, "stacks", lambda *_: False)
    files = []
    for switch in (False, True):
        training = study.denoiser.training.model_copy(update={"compile": switch})
        changed = study.model_copy(update={"denoiser": study.denoiser.model_copy(update={"training": training})})
        path = tmp_path / f"{switch}.safetensors"
        train_denoisers(changed, method="dsr", seeds=[0], latents=built.encoders["ttr_1"].latents, state=tmp_path / "s", out=[path])
        files.append(path.read_bytes())
    assert len(compiled) == 1
    assert files[0] == files[1]


def test_bf16_trains_near_fp32_and_keeps_fp32_weights(study, built, tmp_path):
    trained = {}
    for precision in ("fp32", "bf16"):
        training = study.denoiser.training.model_copy(update={"precision": precision})
        changed = study.model_copy(update={"denoiser": study.denoiser.model_copy(update={"training": training})})
        path = tmp_path / f"{precision}.safetensors"
        train_denoisers(changed, method="dsr", seeds=[0], latents=built.encoders["ttr_1"].latents, state=tmp_path / "s", out=[path])
        trained[precision] = load_tensors(path)[0]
    flat = {name: torch.cat([tensor.flatten() for tensor in tensors.values()]) for name, tensors in trained.items()}
    assert flat["bf16"].dtype == torch.float32
    assert not torch.equal(flat["bf16"], flat["fp32"])
    assert (flat["bf16"] - flat["fp32"]).norm() / flat["fp32"].norm() < 0.05


def test_a_corrupted_input_is_named_before_training(study, built, tmp_path):
    copy = tmp_path / "latents.safetensors"
    copy.write_bytes(built.encoders["plain"].latents.read_bytes()[:-1])
    (tmp_path / "latents.safetensors.meta.json").write_text(
        (built.encoders["plain"].latents.parent / "latents.safetensors.meta.json").read_text(encoding="utf-8"),
        encoding="utf-8",
    )
    with pytest.raises(UserError, match=r"latents\.safetensors: corrupted or truncated: sha256"):
        train_denoisers(study, method="baseline", seeds=[0], latents=copy, state=tmp_path / "s", out=[tmp_path / "x"])
    assert not (tmp_path / "x").exists()


def test_masked_loss_is_the_mean_over_kept_tokens(study, built, tmp_path):
    path = tmp_path / "masked.safetensors"
    printed = train_denoisers(study, method="masked", seeds=[0], latents=built.encoders["plain"].latents, state=tmp_path, out=[path])
    source = latents.Batches(built.encoders["plain"].latents, seed=0, batch=32)
    norms, limit = source.norms["pre_ln"], source.threshold(load_method("masked").loss_mask, study.outlier_statistics.factor)
    assert printed["filtered_share"] == pytest.approx((norms > limit).float().mean().item())
    assert printed["filtered_share"] > 0
    assert artifacts.meta(path)["filtered_share"] == printed["filtered_share"]


def test_decoder_learns_and_is_loaded_back(study, built):
    source = load_held_out(built.encoders["plain"].latents)
    image = load_decoder(study, built.encoders["plain"].decoder)(source.whitening.unwhiten(source.latents[:2]))
    assert image.shape == (2, 3, 16, 16)
    assert not image.requires_grad
    assert artifacts.meta(built.encoders["plain"].decoder)["pixels"]["range"] == "signed"
    raw = decoder_of(study).build()
    raw.load_state_dict(load_tensors(built.encoders["plain"].decoder)[0])
    with torch.no_grad():
        assert torch.equal(image, raw.decode(source.whitening.unwhiten(source.latents[:2])))  # as the network gives it


def test_weights_of_another_method_are_refused(study, built, tmp_path):
    path = tmp_path / "x.safetensors"
    train_denoisers(study, method="dsr", seeds=[0], latents=built.encoders["ttr_1"].latents, state=tmp_path, out=[path])
    with pytest.raises(UserError, match="weights of another architecture: 'feat_rope_incontext"):
        load_denoiser(study, "baseline", path)


def test_methods_start_from_the_same_weights(study):
    def first(method):
        seed_initialisation(7)
        return build_denoiser(study, method).state_dict()

    plain, registers = first("baseline"), first("diffusion_registers")
    assert all(torch.equal(value, registers[key]) for key, value in plain.items())


HOOKED = """
from harness import Method
METHOD = Method(title="quiet registers", diffusion_registers=True)
def modify_denoiser(model):
    {body}
"""


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("model.register_tokens.data.zero_(); return model", None),
        ("pass", "must return the model, got NoneType"),
        ("return model.no_such_thing", "modify_denoiser failed: AttributeError"),
    ],
)
def test_a_method_can_change_the_denoiser(study, tmp_path, monkeypatch, body, message):
    monkeypatch.setattr("harness.study.method.METHODS", tmp_path)
    (tmp_path / "mine.py").write_text(HOOKED.format(body=body), encoding="utf-8")
    if message:
        with pytest.raises(UserError, match=message):
            build_denoiser(study, "mine")
    else:
        assert not build_denoiser(study, "mine").register_tokens.any()
