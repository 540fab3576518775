"""The decoder's training as released: random crops, noise on raw latents, a constant average, the discriminator's own schedule."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import error, tiny_values
from PIL import Image
from pipeline import Pipeline
from torchvision import transforms
from toy import make_assets, toy_values

from harness.data.folder import OnDisk
from harness.data.images import InMemory, random_crop, to_pixels
from harness.data.stage import make_data
from harness.decoder.decode import make_decoder
from harness.decoder.losses import Losses
from harness.decoder.registry import decoder_of
from harness.encoder.encode import make_encoder, make_latents
from harness.encoder.latents import Batches
from harness.encoder.whitening import Whitening
from harness.machine import processes
from harness.machine.streams import seed_initialisation, stream
from harness.store import artifacts
from harness.store.assets import record_asset
from harness.store.tensors import save_tensors
from harness.study import typed as config
from harness.study.sections.training import Schedule, Training
from harness.study.study import load_study, parse_study, read_study
from harness.study.typed import UserError
from harness.training import ema, loop
from harness.training.order import batch_indices, crop_places

SIDE, IMAGES, BATCH, SEED, STEPS = 16, 12, 4, 3, 20


def picture(width, height, seed=0):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 255, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)).resize((width, height))


@pytest.mark.parametrize("size", [(60, 48), (48, 61), (24, 24), (20, 91), (300, 217)])
def test_a_random_crop_is_torchvisions(size):
    image, resize = picture(*size), transforms.Resize(24, interpolation=transforms.InterpolationMode.BICUBIC)
    resized = resize(image)
    height, width = resized.height, resized.width
    for down, across in ((0.0, 0.0), (0.37, 0.81), (1 - 2**-24, 1 - 2**-24)):
        top, left = int(down * (height - 15)), int(across * (width - 15))
        expected = transforms.functional.crop(resized, top, left, 16, 16)
        assert np.array_equal(random_crop(image, 16, (down, across)), np.asarray(expected))


def test_every_place_of_a_crop_is_as_likely():
    image = Image.fromarray(np.arange(24 * 24, dtype=np.uint16).astype(np.uint8).reshape(24, 24)).convert("RGB")
    places = crop_places(SEED, 0, 3000, 3000).tolist()
    corners = {random_crop(image, 16, place)[0, 0, 0] for place in places}
    assert corners == {np.asarray(image)[top, left, 0] for top in range(9) for left in range(9)}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """(a latents file without latents, a folder of images that are not square)."""
    folder = tmp_path_factory.mktemp("images")
    for i in range(IMAGES):
        picture(40 + 3 * i, 61 - 2 * i, seed=i).save(folder / f"{i:02d}.png")
    split = OnDisk(folder, [f"{i:02d}.png" for i in range(IMAGES)], np.arange(IMAGES) % 3, SIDE)
    path = folder / "latents.safetensors"
    tensors = {"mean": torch.zeros(3, 1, 1), "std": torch.ones(3, 1, 1), "train.labels": torch.from_numpy(split.labels)}
    with artifacts.artifact(path, stage="latents", module="harness.encoder.encode") as file:
        save_tensors(file, tensors, flip=True)
    return path, split


def batches(source, batch=BATCH, crops=True):
    path, split = source
    return Batches(path, seed=SEED, batch=batch, split=split, encoder=lambda pixels, _noise: (pixels, None), crops=crops)


def test_crops_depend_on_seed_epoch_and_image_alone(source):
    """Not on the size of a batch, on what was read before, as after a kill, or on how many processes share the batch; none is mirrored."""
    epoch = torch.cat([batches(source)(step).pixels for step in range(3, 6)])
    order = torch.cat([batch_indices(SEED, step, IMAGES, BATCH) for step in range(3, 6)])
    places = crop_places(SEED, 1, IMAGES, IMAGES)[batch_indices(SEED, 1, IMAGES, IMAGES).argsort()]  # by image
    _, split = source
    for row, pixels in zip(order.tolist(), epoch, strict=True):
        image = Image.open(split.root / split.files[row]).convert("RGB")
        assert torch.equal(pixels, to_pixels(np.stack([random_crop(image, SIDE, places[row].tolist())]))[0])
    after_all = batches(source)
    for step in range(4):
        after_all(step)
    assert torch.equal(after_all(4).pixels, epoch[BATCH : 2 * BATCH])
    assert torch.equal(batches(source, batch=IMAGES)(1).pixels, epoch[order.argsort()][batch_indices(SEED, 1, IMAGES, IMAGES)])
    before = crop_places(SEED, 0, IMAGES, IMAGES)[batch_indices(SEED, 0, IMAGES, IMAGES).argsort()]
    assert not (before == places).any()


def test_processes_share_the_crops_of_a_batch(source, monkeypatch):
    whole, parts = batches(source)(2).pixels, []
    for rank in (0, 1):
        monkeypatch.setattr(processes, "_place", [rank, 2])
        parts.append(batches(source)(2).pixels)
    assert torch.equal(torch.cat(parts), whole)


def test_without_random_crops_images_are_cropped_in_the_centre_and_mirrored(source):
    _, split = source
    centre, rows = split.pixels(batch_indices(SEED, 0, IMAGES, BATCH).tolist()), batches(source, crops=False)(0).pixels
    mirrored = torch.rand(BATCH, generator=stream(SEED, "flip", 0)) < 0.5
    assert torch.equal(rows, torch.where(mirrored[:, None, None, None], centre.flip(-1), centre))


PAPER = "imagenet256_dinov2_b"
RANDOM = {"decoder": {"crop": "random"}}


@pytest.mark.parametrize(
    "values", [tiny_values(**RANDOM), config.merge(read_study(PAPER), RANDOM | {"latents": {"cache": True}})], ids=["digits", "cached"]
)
def test_images_that_are_stored_cropped_have_no_random_crops(values):
    message = "decoder.crop: random needs images that are not stored cropped: data.source: image_folder"
    with pytest.raises(UserError, match=re.escape(message)):
        parse_study("x", values)
    with pytest.raises(UserError, match=re.escape(message)):
        InMemory(np.zeros((1, 4, 4, 3), np.uint8), np.zeros(1, np.int64)).random_crops([0], [[0.0, 0.0]])


def test_released_studies_say_all_of_it():
    for name in ("imagenet256_siglip2_b_released", "imagenet256_siglip2_so400m_released"):
        section = load_study(name).decoder
        assert (section.noise_on, section.crop, section.ema_warm_up) == ("raw", "random", False)
        assert section.adversarial.discriminator_schedule == "own"
        assert load_study(name).denoiser.frozen == "released"
    section = load_study(PAPER).decoder
    assert (section.noise_on, section.crop, section.ema_warm_up) == ("whitened", "centre", True)


@pytest.mark.parametrize("noise_on", ["raw", "whitened"])
def test_twenty_steps_are_those_of_a_plain_loop(noise_on):
    """L1 alone, with statistics that are not 0 and 1, and the average of the released `update_ema`."""
    training = {"steps": STEPS, "batch": BATCH, "micro_batch": 2, "lr": 1e-3, "schedule": {"decay": "constant", "warm_up": 0}}
    changes = {"noise": 0.8, "noise_on": noise_on, "ema": 0.9, "ema_warm_up": False, "width": 32, "training": training}
    study = parse_study("tiny", tiny_values(decoder=changes))
    draws = torch.Generator().manual_seed(0)
    images, latents = torch.rand(IMAGES, 3, 16, 16, generator=draws) * 2 - 1, torch.randn(IMAGES, 32, 4, 4, generator=draws)
    mean, std = torch.randn(32, 1, 1, generator=draws), 0.3 + torch.rand(32, 1, 1, generator=draws)

    class Drawn:
        whitening = Whitening(mean, std)

        def __call__(self, step):
            rows = batch_indices(SEED, step, IMAGES, BATCH)
            return SimpleNamespace(latents=latents[rows], pixels=images[rows])

        def __len__(self):
            return IMAGES

    seed_initialisation(0)
    model = decoder_of(study).build()
    first = {name: value.clone() for name, value in model.state_dict().items()}
    losses, section = Losses(study, model, Drawn(), []), study.decoder
    [ours] = loop.fit(
        model, losses.decoder, section.training, images=IMAGES, name="decoder", seed=SEED, state=None, ema=[0.9], ema_warm_up=False
    )

    theirs = decoder_of(study).build()
    theirs.load_state_dict(first)
    average = {name: value.detach().clone() for name, value in theirs.named_parameters()}
    optimiser = torch.optim.AdamW([p for p in theirs.parameters() if p.requires_grad], lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(STEPS):
        rows, generator = batch_indices(SEED, step, IMAGES, BATCH), stream(SEED, "step", step)
        sigma = 0.8 * torch.rand(BATCH, 1, 1, 1, generator=generator)
        noise = sigma * torch.randn(BATCH, 32, 4, 4, generator=generator)
        raw = latents[rows] * std + mean + noise if noise_on == "raw" else (latents[rows] + noise) * std + mean
        optimiser.zero_grad()
        (theirs.decode(raw) - images[rows]).abs().mean().backward()
        optimiser.step()
        for name, value in theirs.named_parameters():
            average[name].mul_(0.9).add_(value.detach(), alpha=0.1)
    assert len(average) > 10
    for name, value in average.items():
        if name.endswith("key.bias"):  # the softmax does not see it: its gradient is rounding errors, which AdamW makes steps of
            continue
        assert error(ours[name], value) < 1e-5, name
        assert not torch.equal(first[name], value) or not theirs.get_parameter(name).requires_grad


@pytest.mark.parametrize("own", [False, True])
def test_a_discriminators_own_schedule_counts_its_own_steps(monkeypatch, own):
    """Released: build_scheduler's factors, stepped with each update of the discriminator."""
    rates, update = {}, ema.Weights.update

    def watched(weights, training, lr, step, loss):
        rates.setdefault(len(weights.parameters), []).append(lr)
        update(weights, training, lr, step, loss)

    monkeypatch.setattr(ema.Weights, "update", watched)
    model, judge = torch.nn.Linear(3, 2), torch.nn.Linear(2, 1, bias=False)
    training = Training(epochs=4, batch=4, lr=1e-2, schedule=Schedule(decay="cosine", warm_up=1, final=0.1))
    opponent = loop.Opponent(judge, lambda step, generator: judge(torch.ones(1, 2)).mean(), start=25, own_schedule=own)
    given = {"images": 40, "name": "test", "seed": 0, "state": None, "opponent": opponent}
    loop.fit(model, lambda step, generator: model(torch.ones(4, 3)).square().mean(), training, **given)
    factors = [(step + 1) / 10 if step < 10 else 0.1 + 0.45 * (1 + np.cos(np.pi * (step - 10) / 30)) for step in range(40)]
    assert rates[2] == pytest.approx([1e-2 * factor for factor in factors])
    assert rates[1] == pytest.approx(rates[2][:15] if own else rates[2][25:])


@pytest.mark.slow
def test_the_whole_stage_is_the_same_after_a_stop(tmp_path, monkeypatch):
    """All of it as released, with both players, at toy size; another field makes another decoder, trained anew."""
    released = read_study("_released")["decoder"] | {"training": {"epochs": 6}}
    study = parse_study("toy", config.merge(toy_values("imagenet256_dinov2_b"), {"decoder": released}))
    pipeline = Pipeline(study, tmp_path / "results", make_assets(study, tmp_path / "assets"))
    for name in study.assets:
        if name.startswith(("data.", "encoder.plain", "decoder.")):
            record_asset(study, name=name, assets=pipeline.asset_root, out=pipeline.records[name])
    records, folder = [path for path in pipeline.records.values() if path.exists()], tmp_path / "results"
    make_data(study, records=records, out=pipeline.data)
    make_encoder(study, backbone="plain", data=pipeline.data, records=records, state=folder, out=folder / "plain")
    make_latents(study, encoder="plain", data=pipeline.data, backbone=folder / "plain", out=folder / "latents.safetensors")
    files = {"data": pipeline.data, "latents": folder / "latents.safetensors", "backbone": folder / "plain", "records": records}

    def trained(out, study=study):
        make_decoder(study, encoder="plain", **files, state=folder / "state", out=folder / out)
        return (folder / out).read_bytes()

    whole = trained("whole.safetensors")
    for name, value in {"SAVE_EVERY": 0, "SAVE_SHARE": 1e9, "CHECK_EVERY": 2}.items():
        monkeypatch.setattr(loop, name, value)

    def stop(self, batch, step, *rest, original=Losses.decoder):
        if batch == 5:
            raise KeyboardInterrupt
        return original(self, batch, step, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Losses, "decoder", stop)
        trained("parts.safetensors")
    assert trained("parts.safetensors") == whole
    other = parse_study("toy", config.merge(toy_values("imagenet256_dinov2_b"), {"decoder": released | {"crop": "centre"}}))
    assert trained("centre.safetensors", other) != whole
    assert artifacts.meta(folder / "centre.safetensors")["config"]["crop"] == "centre"
