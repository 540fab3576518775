"""`dsr measure` as it is called: a folder that appears whole, the same bytes when repeated, and one line for what cannot be measured."""

import io
import sys
import tracemalloc

import numpy as np
import open_clip
import pytest
import torch
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from harness.cli import main as cli
from harness.commands.peers.images import random_inception
from harness.data.images import centre_crop
from harness.evaluation.clip.folder import save_folder
from harness.evaluation.clip.published import load_published
from harness.evaluation.clip_score import clip_scores
from harness.evaluation.extractors.registry import load_extractor
from harness.evaluation.features import FeaturePass
from harness.evaluation.fid import fid
from harness.evaluation.judge.classifier import Classifier, ClassifierExtractor
from harness.evaluation.judge.inception import InceptionExtractor
from harness.evaluation.outside import score
from harness.evaluation.outside.doors import open_images
from harness.evaluation.outside.judges import Judge, open_judge, protocol_of
from harness.evaluation.outside.score import FLOOR
from harness.evaluation.reference_statistics import ReferenceStatistics
from harness.machine.streams import seed_initialisation, stream
from harness.report.rows import from_csv
from harness.store import artifacts
from harness.store.files import save_npz

N, SIDE, WIDTH = 24, 8, 6


def images_of(count=N, side=SIDE, purpose="a"):
    return torch.randint(0, 256, (count, side, side, 3), generator=stream(0, purpose), dtype=torch.uint8).numpy()


@pytest.fixture
def small_judge(monkeypatch):
    """A classifier of random weights in Inception's place."""
    seed_initialisation(0)
    layers = {"features": "features", "logits": "logits"}
    network = ClassifierExtractor([*layers], Classifier(WIDTH, 10, SIDE))

    class Small(Judge):
        classes, side = 10, None

    def opened(told, _results, changes):
        assert told == "small"
        protocol = protocol_of({"kid_subset": 10, "kid_subsets": 3, "resamples": 20} | changes)
        return Small(FeaturePass(network, layers, "ab" * 32), protocol, WIDTH, "a small one", False)

    monkeypatch.setattr(score, "open_judge", opened)


@pytest.fixture
def here(tmp_path, monkeypatch, small_judge):
    """The working folder, with samples.npz, a reference, and other files to be refused."""
    monkeypatch.chdir(tmp_path)
    np.savez("samples.npz", images_of(), np.arange(N) % 10)
    np.savez("reference.npz", arr_0=images_of(purpose="b"))
    return tmp_path


def call(monkeypatch, capsys, *words):
    """(exit code, stdout, stderr)."""
    monkeypatch.setattr(sys, "argv", ["dsr", "measure", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code, *capsys.readouterr()


PLAIN = ("samples.npz", "--judge", "small", "--reference", "reference.npz")


def test_rows_and_a_page_appear_whole_and_are_the_same_bytes_again(here, monkeypatch, capsys):
    code, out, err = call(monkeypatch, capsys, *PLAIN, "--train", "reference.npz", "--seed", 3, "--out", "scores")
    assert (code, err) == (0, "")
    assert {path.name for path in (here / "scores").iterdir()} == {"rows.csv", "scores.md"}
    page, rows = (here / "scores" / "scores.md").read_text(encoding="utf-8"), (here / "scores" / "rows.csv").read_bytes()
    assert page == out
    assert call(monkeypatch, capsys, *PLAIN, "--train", "reference.npz", "--seed", 3, "--out", "scores")[0] == 0
    assert (here / "scores" / "rows.csv").read_bytes() == rows
    assert not [path for path in here.iterdir() if path.name.startswith(".")]

    table = from_csv(here / "scores" / "rows.csv")
    own = table[table["method"] == "samples"]
    assert [*own["score"]] == ["fid", "fid_clean", "is", "is_unsplit", "kid", "precision", "recall", "accuracy"]
    assert set(table["seed"]) == {3}
    assert table["ema"].isna().all()
    assert table["step"].isna().all()
    assert set(table["n"]) == {N}
    assert set(table["precision"]) == {"float32"}
    assert set(own.loc[own["score"] == "fid", "reference"]) == {artifacts.sha256(here / "reference.npz")}
    floor = table[table["method"] == FLOOR].set_index("score")["value"]
    assert floor["fid"] == pytest.approx(0, abs=1e-6)  # all of the reference's own images
    assert "Not measured: FID∞ (needs 60 samples or more, there are 24); CLIP score (looks with a CLIP model: give --clip)." in page
    fid_row = next(line for line in page.splitlines() if line.startswith("| FID ↓"))
    value = own.set_index("score").loc["fid"]
    assert f"| {value['value']:.3f} | {value['low']:.3f} to {value['high']:.3f} | {N} | – |".replace("-", "−") in fid_row


def test_named_scores_alone_and_no_seed(here, monkeypatch, capsys):
    words = ["--scores", "kid,is", "--kid-subset", 12, "--name", "mine", "--method", "my_model", "--out", "scores"]
    assert call(monkeypatch, capsys, *PLAIN, *words)[0] == 0
    table = from_csv(here / "scores" / "rows.csv")
    assert [*zip(table["study"], table["method"], table["score"], strict=True)] == [("mine", "my_model", "is"), ("mine", "my_model", "kid")]
    assert table["seed"].isna().all()


def test_fid_of_enough_samples_has_its_bias_on_the_page(here, monkeypatch, capsys):
    np.savez("many.npz", images_of(70))
    assert call(monkeypatch, capsys, "many.npz", *PLAIN[1:], "--scores", "fid,fid_infinity", "--out", "scores")[0] == 0
    table = from_csv(here / "scores" / "rows.csv").set_index("score")["value"]
    assert f"| 70 | +{table['fid'] - table['fid_infinity']:.3f} |".replace("+-", "−") in (here / "scores" / "scores.md").read_text(
        encoding="utf-8"
    )


def save_pngs(folder, images, names="{:03d}.png"):
    for i, image in enumerate(images):
        path = folder / names.format(i)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


def spoil(here):
    """Samples that cannot be measured."""
    np.savez("objects.npz", arr_0=np.array([{"a": 1}] * N))
    np.savez("floats.npz", arr_0=images_of() / 255)
    np.savez("nan.npz", arr_0=np.full((N, SIDE, SIDE, 3), np.nan, np.float32))
    np.savez("first.npz", arr_0=images_of().transpose(0, 3, 1, 2))
    np.savez("grey.npz", arr_0=images_of()[..., 0])
    np.savez("statistics.npz", mu=np.zeros(WIDTH), sigma=np.eye(WIDTH))
    np.savez("wide.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    np.savez("crooked.npz", mu=np.zeros(WIDTH), sigma=np.triu(np.ones((WIDTH, WIDTH))))
    np.savez("half.npz", mu=np.zeros(WIDTH))
    np.savez("few.npz", images_of(WIDTH))
    np.savez("none.npz", images_of(0))
    np.savez("other.npz", images_of(side=16))
    np.savez("labels.npz", images_of(), np.arange(N))
    np.savez("short.npz", images_of(), np.arange(5))
    np.savez("object_labels.npz", images_of(), np.array([{}] * N))
    (here / "cut.npz").write_bytes((here / "samples.npz").read_bytes()[:2000])
    content = bytearray((here / "samples.npz").read_bytes())
    content[1000] ^= 255
    (here / "damaged.npz").write_bytes(content)
    (here / "empty").mkdir()
    save_pngs(here / "sizes", [*images_of(3), *images_of(1, 16)])
    save_pngs(here / "torn", images_of(3))
    (here / "torn" / "001.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    save_pngs(here / "numbers", images_of(12), "{}.png")
    for name, lines in (("twelve", 12), ("three", 3)):
        (here / f"{name}.txt").write_text("1\n" * lines, encoding="utf-8")
    (here / "words.txt").write_text("cat\n" * N, encoding="utf-8")
    torch.save({"mu": np.zeros(WIDTH), "sigma": np.eye(WIDTH), "run": print}, here / "code.pt")
    torch.save([1, 2], here / "list.pt")
    (here / "text.pt").write_text("no", encoding="utf-8")
    with artifacts.artifact(
        here / "diverged.npz", stage="samples", module="harness.results.schema", status="diverged", reason="nan"
    ) as path:
        save_npz(path, {"images": images_of(0), "labels": np.zeros(0, np.int64)})


SAMPLES = ("--judge", "small", "--reference", "reference.npz")
REFUSED = [
    (("nowhere", *SAMPLES), "nowhere: no such file or folder; expected a folder of images"),
    (("words.txt", *SAMPLES), "words.txt: expected a folder of images"),
    (("objects.npz", *SAMPLES), "arr_0.npy is (24,) object; images are (N, H, W, 3) uint8"),
    (("floats.npz", *SAMPLES), "float64; images are (N, H, W, 3) uint8: make them so as your sampler does"),
    (("nan.npz", *SAMPLES), "float32; images are"),
    (("first.npz", *SAMPLES), "(24, 3, 8, 8) uint8; images are (N, H, W, 3)"),
    (("grey.npz", *SAMPLES), "(24, 8, 8) uint8; images are"),
    (("statistics.npz", *SAMPLES), "has statistics, which a reference may be: mu, sigma; images are called arr_0 or images"),
    (("none.npz", *SAMPLES), "none.npz: has no images"),
    (("empty", *SAMPLES), "empty: has no images"),
    (("cut.npz", *SAMPLES), "cut.npz: not a readable .npz file"),
    (("damaged.npz", *SAMPLES), "damaged.npz: not a readable .npz file (Bad CRC-32"),
    (("diverged.npz", *SAMPLES), "its record says: diverged: nan; there is nothing to measure"),
    (("sizes", *SAMPLES), "sizes/003.png: 16 x 16 pixels, the first image of sizes is 8 x 8 pixels; bring them to one size"),
    (("torn", *SAMPLES), "torn/001.png: not a readable image"),
    (("few.npz", *SAMPLES), "FID needs 7 samples or more, there are 6; give more, or name other scores with --scores"),
    (("few.npz", *SAMPLES, "--scores", "kid"), "KID needs 10 samples or more, there are 6"),
    (("few.npz", *SAMPLES, "--scores", "is"), "IS needs 10 samples or more, there are 6"),
    (("samples.npz", *SAMPLES, "--scores", "fid_infinity"), "FID∞ needs 60 samples or more, there are 24"),
    (("samples.npz", *SAMPLES, "--scores", "fidd"), "unknown score 'fidd', did you mean 'fid'"),
    (("samples.npz", *SAMPLES, "--scores", "psnr"), "psnr: is of reconstruction, not of samples from elsewhere"),
    (("samples.npz", *SAMPLES, "--scores", "clip_score"), "looks with a CLIP model: give --clip"),
    (("samples.npz", "--judge", "small", "--scores", "fid"), "compares with a reference: give --reference"),
    (("samples.npz", *SAMPLES, "--resamples", "2"), "resamples: Input should be greater than or equal to 20"),
    (("labels.npz", *SAMPLES), "label 23 of image 23 is out of range: the judge knows 0 to 9"),
    (("short.npz", *SAMPLES), "labels are (5,) int64; expected a whole number for each of the 24 images"),
    (("object_labels.npz", *SAMPLES), "object_labels.npz: not a readable .npz file (Object arrays cannot be loaded"),
    (("samples.npz", *SAMPLES, "--labels", "three.txt"), "three.txt: 3 lines for 24 images; expected one an image"),
    (("samples.npz", *SAMPLES, "--labels", "words.txt"), "the label of image 0 is 'cat'; expected a whole number"),
    (("samples.npz", *SAMPLES, "--labels", "folders"), "an .npz file has no class folders"),
    (("samples.npz", *SAMPLES, "--labels", "column:x"), "an .npz file has no columns"),
    (("numbers", *SAMPLES, "--labels", "twelve.txt"), "its lines could be in either order, 1.png second or by number"),
    (("samples.npz", *SAMPLES, "--captions", "words.txt"), "--captions are for the CLIP score"),
    (("samples.npz", *SAMPLES, "--column", "x"), "--column and --split are of a data set"),
    (("samples.npz", "--judge", "small", "--reference", "other.npz"), "other.npz: images of 16 x 16 pixels, those of samples.npz"),
    (("samples.npz", "--judge", "small", "--reference", "wide.npz"), "mu has shape (2048,), the judge's 6 features need (6,)"),
    (("samples.npz", "--judge", "small", "--reference", "crooked.npz"), "sigma is no covariance"),
    (("samples.npz", "--judge", "small", "--reference", "half.npz"), "has mu; statistics are both mu and sigma"),
    (("samples.npz", "--judge", "small", "--reference", "few.npz"), "FID needs more reference images than features: got 6 for 6"),
    (("samples.npz", "--judge", "small", "--reference", "code.pt"), "code.pt: holds more than arrays, so it is not opened"),
    (("samples.npz", "--judge", "small", "--reference", "list.pt"), "list.pt: has no mu and sigma"),
    (("samples.npz", "--judge", "small", "--reference", "text.pt"), "text.pt: "),
    (("samples.npz", "--judge", "small", "--reference", "statistics.npz", "--scores", "kid"), "and it is statistics alone"),
    (("samples.npz", "--judge", "small", "--train", "reference.npz"), "--train: the floor compares training images with the reference"),
    (("samples.npz", *SAMPLES, "--seed", "-1"), "seeds must be"),
    (("samples.npz", *SAMPLES, "--method", FLOOR), "is what rows of the floor are called"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[" ".join(words) for words, _ in REFUSED])
def test_what_cannot_be_measured_is_one_line_and_nothing_is_written(here, monkeypatch, capsys, words, message):
    spoil(here)
    before = sorted(here.rglob("*"))
    code, out, err = call(monkeypatch, capsys, *words, "--out", "scores")
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("out", ["samples.npz", "full", "samples.npz/below"])
def test_a_place_that_is_taken_is_refused_before_anything_is_computed(here, monkeypatch, capsys, out):
    save_pngs(here / "full", images_of(1))
    monkeypatch.setattr(score, "open_judge", lambda *_: pytest.fail("computes"))
    code, _, err = call(monkeypatch, capsys, *PLAIN, "--out", out)
    assert (code, err.count("\n")) == (2, 1)
    assert f"--out {out}: " in err
    assert (here / "full" / "000.png").exists()


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ("inception", "expected inception=PATH (torch-fidelity's weights) or study:NAME"),
        ("incption=w.pth", "unknown judge 'incption', did you mean 'inception'"),
        ("inception=nowhere.pth", "nowhere.pth: no such file"),
        ("study:nowhere", "unknown study 'nowhere'"),
        ("study:smoke", "judge.safetensors: no such file; run the stage that makes it"),
    ],
)
def test_a_judge_that_is_not_there_is_told(tmp_path, monkeypatch, capsys, told, message):
    monkeypatch.chdir(tmp_path)
    np.savez("samples.npz", images_of())
    code, _, err = call(monkeypatch, capsys, "samples.npz", "--judge", told, "--out", "scores")
    assert (code, err.count("\n")) == (2, 1)
    assert message in err


def test_labels_and_captions_of_tables_go_by_file_names(here, monkeypatch, capsys):
    save_pngs(here / "numbers", images_of(12), "{}.png")
    rows = "".join(f"{i}.png,{i % 10}\n" for i in reversed(range(12)))
    (here / "labels.csv").write_text(f"file_name,label\n{rows}", encoding="utf-8")
    words = ["--judge", "small", "--reference", "reference.npz", "--labels", "labels.csv", "--scores", "accuracy", "--out"]
    assert call(monkeypatch, capsys, "numbers", *words, "table")[0] == 0
    np.savez("same.npz", images_of(12), np.arange(12) % 10)
    assert call(monkeypatch, capsys, "same.npz", *words[:4], *words[6:], "file")[0] == 0
    one, other = (from_csv(here / name / "rows.csv")["value"].tolist() for name in ("table", "file"))
    assert one == other
    (here / "labels.csv").write_text(f"file_name,label\n{rows}12.png,1\n", encoding="utf-8")
    code, _, err = call(monkeypatch, capsys, "numbers", *words, "more")
    assert (code, "there is no image '12.png'" in err) == (2, True)


def test_images_are_cropped_as_adm_does_where_that_is_asked_for(here, monkeypatch, capsys):
    large = images_of(side=20)[:, :, :17]
    save_pngs(here / "large", large)
    np.savez("cropped.npz", np.stack([centre_crop(Image.fromarray(image), SIDE) for image in large]))
    assert call(monkeypatch, capsys, "large", *SAMPLES, "--image-size", SIDE, "--out", "a")[0] == 0
    assert call(monkeypatch, capsys, "cropped.npz", *SAMPLES, "--out", "b")[0] == 0
    one, other = (from_csv(here / name / "rows.csv") for name in "ab")
    assert one["value"].tolist() == other["value"].tolist()
    assert set(one["samples"]) == set(other["samples"])
    assert set(one["config"]) != set(other["config"])  # how they came to their size is part of how they were measured


# ------------------------------------------------------------------------------------------------------------- inception


def test_inception_is_read_from_torch_fidelitys_file(tmp_path, monkeypatch, capsys):
    """Random weights, at 64 features; values are those of the extractor that a study's judge is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(FeatureExtractorInceptionV3, "INPUT_IMAGE_SIZE", 75)
    tensors, samples, real = random_inception(), images_of(66, 16), images_of(66, 16, "b")
    torch.save(tensors, "weights.pth")
    np.savez("samples.npz", samples)
    np.savez("real.npz", real)
    words = ["samples.npz", "--judge", "inception-64=weights.pth", "--reference", "real.npz", "--scores", "fid,is", "--out", "scores"]
    assert call(monkeypatch, capsys, *words)[0] == 0
    layers = {"features": "64", "logits": "logits_unbiased"}
    extract = FeaturePass(InceptionExtractor("inception", [*layers.values()], tensors, tmp_path), layers, "")
    table = from_csv(tmp_path / "scores" / "rows.csv").set_index("score")
    reference = ReferenceStatistics.of_features("r", extract(real)["features"])
    assert table.loc["fid", "value"] == fid(extract(samples)["features"], reference)["fid"]
    assert set(table["extractor"]) == {artifacts.sha256(tmp_path / "weights.pth")}
    torch.save({name: tensor for name, tensor in tensors.items() if name != "fc.bias"}, "weights.pth")
    code, _, err = call(monkeypatch, capsys, *words[:-1], "again")
    assert (code, err.count("\n")) == (2, 1)
    assert "'fc.bias' is nothing in the file" in err


# ----------------------------------------------------------------------------------------------- CLIP, other extractors


@pytest.fixture
def open_clip_folder(here):
    """A small model of open_clip's, of random weights."""
    config = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
        "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    torch.manual_seed(0)
    save_folder(here / "clip", open_clip.CLIP(**config), config, {"mean": [0.5] * 3, "std": [0.5] * 3})
    return here / "clip"


def test_the_clip_score_is_of_each_image_and_its_own_caption(here, open_clip_folder, monkeypatch, capsys):
    texts = [f"a photo of {i} things" for i in range(N)]
    save_pngs(here / "v1.5", images_of(), "{:03d}.png")
    (here / "captions.txt").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    rows = "".join(f"{i:03d}.png,{texts[i]}\n" for i in reversed(range(N)))
    (here / "captions.csv").write_text(f"file_name,text\n{rows}", encoding="utf-8")
    found = []
    for name in ("captions.txt", "captions.csv"):
        words = ["v1.5", "--judge", "small", "--clip", "clip", "--captions", name, "--scores", "clip_score", "--out", f"of_{name}"]
        assert call(monkeypatch, capsys, *words)[0] == 0
        found.append(from_csv(here / f"of_{name}" / "rows.csv").iloc[0])
    wanted = clip_scores(images_of(), texts, *load_published(open_clip_folder)).mean().item()
    assert [row["value"] for row in found] == [wanted, wanted]
    assert wanted > 0
    assert {row["extractor"] for row in found} == {artifacts.sha256(open_clip_folder)}
    assert {row["method"] for row in found} == {"v1.5"}
    assert found[0]["how"].endswith("; captions: the file's, one an image")
    (here / "captions.txt").write_text("\n" * N, encoding="utf-8")
    code, _, err = call(monkeypatch, capsys, *words[:6], "captions.txt", *words[7:-1], "again")
    assert (code, "captions.txt: image 0 has no text" in err) == (2, True)


def test_another_extractor_is_a_judge_by_its_name_without_an_inception_score(here, open_clip_folder, monkeypatch, capsys):
    monkeypatch.setattr(score, "open_judge", open_judge)
    words = ["samples.npz", "--judge", "open_clip=clip", "--reference", "reference.npz", "--kid-subset", 10]
    code, out, _ = call(monkeypatch, capsys, *words, "--out", "scores")
    assert code == 0
    table = from_csv(here / "scores" / "rows.csv").set_index("score")
    assert [*table.index] == ["fid", "fid_clean", "kid", "precision", "recall"]
    network = load_extractor("open_clip", open_clip_folder)
    extract = FeaturePass(network, {"features": "features"}, "")
    reference = ReferenceStatistics.of_features("r", extract(images_of(purpose="b"))["features"])
    assert table.loc["fid", "value"] == fid(extract(images_of())["features"], reference)["fid"]
    assert set(table["extractor"]) == {network.source.sha256}
    assert "not Inception's 2048, so that FID, FID∞, KID, precision and recall do not compare" in out
    code, _, err = call(monkeypatch, capsys, *words, "--scores", "is", "--out", "more")
    assert (code, "--scores is: needs a judge that classifies" in err) == (2, True)


# ---------------------------------------------------------------------------------------------------------------- memory


def write_many(path, count, side=64):
    images = images_of(count, side)
    if path.suffix == ".npz":
        np.savez_compressed(path, images)
    elif path.suffix == ".parquet":
        rows = []
        for image in images:
            content = io.BytesIO()
            Image.fromarray(image).save(content, "PNG", compress_level=0)
            rows.append({"bytes": content.getvalue(), "path": None})
        features = Features({"image": ImageFeature(), "n": Value("int64")})
        Dataset.from_dict({"image": rows, "n": [*range(count)]}, features=features).to_parquet(path, batch_size=64)
    else:
        save_pngs(path, images)
    return path


@pytest.mark.parametrize("name", ["folder", "x.npz", "x.parquet"])
def test_memory_does_not_grow_with_the_number_of_images(tmp_path, monkeypatch, name):
    layers = {"features": "features", "logits": "logits"}
    extract = FeaturePass(ClassifierExtractor([*layers], Classifier(WIDTH, 10, 64)), layers, "")
    peaks = []
    for count in (100, 600):
        (tmp_path / str(count)).mkdir()
        path = write_many(tmp_path / str(count) / name, count)
        monkeypatch.setattr("harness.evaluation.features.BATCH", 32)
        extract(open_images(path).take([*range(2)]))  # what is imported and cached
        tracemalloc.start()
        images = open_images(path)
        assert len(extract(images)["features"]) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 1_000_000  # 500 more images are 6 MB
