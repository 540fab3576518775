import itertools
import json
import random
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.denoiser import sample
from harness.denoiser.recipe import recipe_of
from harness.denoiser.sample import draw_samples, load_samples
from harness.store import artifacts, shards
from harness.store.tensors import load_tensors, save_tensors
from harness.study.sections.sampling import Guidance
from harness.study.typed import UserError


def parts(cuts, count):
    """range(count), cut at `cuts`."""
    edges = sorted({0, count, *(cut % count for cut in cuts)})
    return [range(first, stop) for first, stop in itertools.pairwise(edges)]


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 12),
    cuts=st.lists(st.integers(0, 11)),
    how=st.sampled_from(["equal", "random"]),
)
def test_trap20_and_24_noise_and_labels_depend_on_seed_and_index_alone(seed, count, cuts, how):
    split = parts(cuts, count)
    for purpose in ("sample", "step 3"):
        whole = sample.sample_noise(seed, range(count), (2, 3), purpose)
        assert torch.equal(whole, torch.cat([sample.sample_noise(seed, part, (2, 3), purpose) for part in split]))
    labels = torch.cat([sample.sample_labels(part, 10, how, seed) for part in split])
    assert torch.equal(labels, sample.sample_labels(range(count), 10, how, seed))


def test_seeds_give_different_noise():
    assert not torch.equal(sample.sample_noise(0, range(1), (8,)), sample.sample_noise(1, range(1), (8,)))


def draw(study, runs, out, weights=None, **changes):
    """The samples of the baseline's first seed, drawn again."""
    encoder = runs.encoders["plain"]
    changed = study.model_copy(update={"sampling": study.sampling.model_copy(update={"averages": [], **changes})})
    draw_samples(
        changed,
        method="baseline",
        seeds=[0],
        denoisers=[weights or runs.runs["baseline"][0] / "denoiser.safetensors"],
        decoder=encoder.decoder,
        latents=encoder.latents,
        state=out.parent / "state",
        out=[out],
    )
    return load_samples(out)


@pytest.mark.parametrize("batch", [1, 7, 60])
def test_samples_do_not_depend_on_the_batch(study, runs, tmp_path, batch):
    images, labels = load_samples(runs.runs["baseline"][0] / "samples.npz")
    again, same_labels = draw(study, runs, tmp_path / "x.npz", batch=batch)
    assert np.array_equal(labels, same_labels)
    assert np.abs(images.astype(int) - again.astype(int)).max() <= 1  # a float's last bit may tip a rounding
    assert (images != again).mean() < 1e-3


def test_sampling_twice_gives_the_same_bytes(study, runs, tmp_path):
    draw(study, runs, tmp_path / "x.npz")
    assert (tmp_path / "x.npz").read_bytes() == (runs.runs["baseline"][0] / "samples.npz").read_bytes()


def test_labels_are_equal_in_number(runs):
    _, labels = load_samples(runs.runs["baseline"][0] / "samples.npz")
    assert np.bincount(labels).tolist() == [6] * 10


def test_guidance_moves_the_samples(study, runs, tmp_path):
    images, _ = load_samples(runs.runs["baseline"][0] / "samples.npz")
    guided, _ = draw(study, runs, tmp_path / "x.npz", guidance=Guidance(scale=3.0))
    assert (images != guided).mean() > 0.01


def test_guidance_extrapolates_from_the_unconditional_prediction(study):
    calls = []

    def model(x, t, y):
        calls.append(y.tolist())
        return y.view(-1, 1, 1, 1).float().expand_as(x)

    scaled = study.model_copy(update={"sampling": study.sampling.model_copy(update={"guidance": Guidance(scale=2.0)})})
    guided = recipe_of(scaled).guided(model, torch.tensor([3]))
    out = guided(torch.zeros(1, 1, 1, 1), torch.ones(1))
    assert calls == [[3, 10]]
    assert out.item() == 10 + 2 * (3 - 10)


def test_truncated_samples_are_refused(runs, tmp_path):
    source = runs.runs["baseline"][0] / "samples.npz"
    (tmp_path / "samples.npz").write_bytes(source.read_bytes()[:1000])
    (tmp_path / "samples.npz.meta.json").write_text((source.parent / "samples.npz.meta.json").read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(UserError, match="corrupted or truncated"):
        load_samples(tmp_path / "samples.npz")


def test_samples_record_their_inputs_and_shards(runs):
    record = artifacts.meta(runs.runs["baseline"][0] / "samples.npz")
    assert len(record["inputs"]) == 3
    assert (record["seed"], record["ema"], record["status"], record["processes"]) == (0, 0.98, "ok", 1)
    assert [(shard["first"], shard["stop"]) for shard in record["shards"]] == [(0, 25), (25, 50), (50, 60)]
    assert len({shard["sha256"] for shard in record["shards"]}) == 3
    assert not list(runs.state.glob("samples-*"))


# ------------------------------------------------------------------------------------------------------------- survival


@pytest.fixture
def drawn(monkeypatch):
    """The shards that are drawn, by their first image; `drawn.stop_at` is the one that fails."""

    class Drawn(list):
        stop_at = None

    seen, original = Drawn(), sample._batch

    def batch(*arguments):
        if arguments[-1].start == seen.stop_at:
            raise KeyboardInterrupt
        seen.append(arguments[-1].start)
        return original(*arguments)

    monkeypatch.setattr(sample, "_batch", batch)
    return seen


def flip(content):
    return content[:-40] + bytes([content[-40] ^ 4]) + content[-39:]


SPOILED = {"truncated": lambda content: content[:300], "flipped": flip, "emptied": lambda _content: b""}


@pytest.mark.parametrize(
    ("spoiled", "how"), [("nothing", "kept"), *itertools.product(["shard-0-7.npz", "shard-0-7.npz.meta.json"], SPOILED)]
)
def test_a_run_that_was_stopped_draws_what_is_missing_or_spoiled_and_ends_in_the_same_bytes(
    study, runs, tmp_path, drawn, capsys, spoiled, how
):
    whole = draw(study, runs, tmp_path / "whole.npz", batch=7)
    drawn.clear()
    drawn.stop_at = random.Random(spoiled + how).choice(range(7, 60, 7))
    with pytest.raises(KeyboardInterrupt):
        draw(study, runs, tmp_path / "x.npz", batch=7)
    assert not (tmp_path / "x.npz").exists()
    [folder] = (tmp_path / "state").iterdir()
    if how in SPOILED:
        (folder / spoiled).write_bytes(SPOILED[how]((folder / spoiled).read_bytes()))
    before, first, drawn.stop_at = capsys.readouterr(), drawn.stop_at, None
    drawn.clear()
    again = draw(study, runs, tmp_path / "x.npz", batch=7)
    assert drawn == ([0] if how in SPOILED else []) + list(range(first, 60, 7))
    assert ("drawn again" in capsys.readouterr().err) == (how in SPOILED)
    assert "drawn again" not in before.err
    assert all(np.array_equal(one, other) for one, other in zip(whole, again, strict=True))
    assert (tmp_path / "x.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
    assert not list((tmp_path / "state").iterdir())


def write_shards(folder, split):
    for part in split:
        shards.write(folder, part, images=np.array(part) * 3, labels=np.array(part) % 2)


@given(count=st.integers(1, 30), cuts=st.lists(st.integers(0, 29), max_size=3), choice=st.randoms(use_true_random=False))
def test_shards_make_a_set_only_if_each_image_is_there_once(count, cuts, choice):
    split = parts(cuts, count)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_shards(folder, split)
        arrays, manifest = shards.assemble(folder, count)
        assert arrays["images"].tolist() == [3 * i for i in range(count)]
        assert arrays["labels"].tolist() == [i % 2 for i in range(count)]
        assert [range(shard["first"], shard["stop"]) for shard in manifest] == split
        assert shards.missing_shards(folder, split) == []
        lost = choice.choice(split)
        (folder / f"shard-{lost.start}-{lost.stop}.npz").unlink()
        assert shards.missing_shards(folder, split) == [lost]
        with pytest.raises(UserError, match=f"of {count} images, {lost.start} to {lost.stop - 1} are missing; delete it") as caught:
            shards.assemble(folder, count)
        assert "\n" not in str(caught.value)
        write_shards(folder, [lost])
        first = choice.randrange(count)
        double = range(first, choice.randrange(first + 1, count + 1))
        if double not in split:
            write_shards(folder, [double])
            with pytest.raises(UserError, match="are there twice"):
                shards.assemble(folder, count)


def test_shards_beyond_the_set_or_of_another_length_are_refused(tmp_path):
    write_shards(tmp_path, [range(3), range(3, 6)])
    with pytest.raises(UserError, match="of 4 images, 4 to 5 are too many"):
        shards.assemble(tmp_path, 4)
    with pytest.raises(UserError, match="of 8 images, 6 to 7 are missing"):
        shards.assemble(tmp_path, 8)
    for end in ("npz", "npz.meta.json"):
        shutil.move(tmp_path / f"shard-3-6.{end}", tmp_path / f"shard-3-8.{end}")
    with pytest.raises(UserError, match=r"shard-3-8\.npz: does not hold 5 images"):
        shards.assemble(tmp_path, 8)


# ---------------------------------------------------------------------------------------------------- averages and status


def with_record(source, target, change=lambda tensors: None, **facts):
    """A copy of a denoiser, changed, with its record."""
    tensors, _ = load_tensors(source)
    change(tensors)
    with artifacts.artifact(target, stage="denoiser", module="harness.denoiser.train", **facts) as path:
        save_tensors(path, tensors)
    return target


def test_every_average_that_the_study_names_is_sampled_from_its_own_weights(study, runs, tmp_path):
    first, second = (folder / "denoiser.safetensors" for folder in runs.runs["baseline"])
    weights = with_record(first, tmp_path / "denoiser.safetensors", status="ok")
    with_record(second, tmp_path / "denoiser-ema0.9.safetensors", status="ok")
    images, _ = draw(study, runs, tmp_path / "samples.npz", weights=weights, averages=[0.9])
    others, _ = load_samples(tmp_path / "samples-ema0.9.npz")
    assert np.array_equal(images, load_samples(first.with_name("samples.npz"))[0])
    assert (images != others).mean() > 0.01
    assert artifacts.meta(tmp_path / "samples-ema0.9.npz")["ema"] == 0.9
    assert not list((tmp_path / "state").iterdir())


def test_samples_of_a_diverged_denoiser_say_so(study, runs, tmp_path):
    source = runs.runs["baseline"][0] / "denoiser.safetensors"
    weights = with_record(source, tmp_path / "denoiser.safetensors", status="diverged", reason="11 steps had no finite loss")
    images, _ = draw(study, runs, tmp_path / "samples.npz", weights=weights)
    record = artifacts.meta(tmp_path / "samples.npz")
    assert (record["status"], record["reason"]) == ("diverged", "11 steps had no finite loss")
    assert images.shape == (60, 16, 16, 3)


def test_images_that_are_not_finite_are_counted(study, runs, tmp_path):
    def spoil(tensors):
        [table] = [tensor for name, tensor in tensors.items() if name.endswith("embedding_table.weight")]
        table[3] = float("nan")  # one class of ten

    weights = with_record(runs.runs["baseline"][0] / "denoiser.safetensors", tmp_path / "denoiser.safetensors", spoil, status="ok")
    images, labels = draw(study, runs, tmp_path / "samples.npz", weights=weights)
    record = artifacts.meta(tmp_path / "samples.npz")
    assert (record["status"], record["reason"]) == ("diverged", "6 of 60 images are not finite")
    assert not images[labels == 3].any()
    assert images[labels != 3].any()
    json.dumps(record, allow_nan=False)
