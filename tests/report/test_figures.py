import shutil

import numpy as np
import pytest
from conftest import METHODS, SEEDS
from PIL import Image

from harness import artifacts
from harness.config import UserError
from harness.dag import FIGURES
from harness.report import figures
from harness.report import rows as row_files


@pytest.fixture(scope="module")
def rendered(study, runs, tmp_path_factory):
    folders = [tmp_path_factory.mktemp("figures") for _ in range(2)]
    for folder in folders:
        figures.render(study, methods=METHODS, seeds=SEEDS, results=runs.root, out=folder)
    return folders


@pytest.mark.parametrize("name", FIGURES)
def test_figure_has_content_and_is_the_same_twice(rendered, name):
    for suffix in ("png", "pdf"):
        first, second = ((folder / f"{name}.{suffix}").read_bytes() for folder in rendered)
        assert first == second
    pixels = np.asarray(Image.open(rendered[0] / f"{name}.png").convert("RGB"))
    assert pixels.shape[1] > 1000  # a page's width in print quality
    assert pixels.std() > 5


def test_the_rule_knows_every_figure(rendered):
    assert {path.stem for path in rendered[0].iterdir()} == set(FIGURES)


def test_a_method_keeps_its_colour():
    colours = [figures.colour_of(name) for name in ("baseline", "masked", "dsr")]
    assert len(set(colours)) == 3


def texts(figure):
    found = [text.get_text() for axis in figure.axes for text in axis.texts]
    figures.plt.close(figure)
    return found


@pytest.fixture
def table(study, runs):
    return row_files.of_average(row_files.collect(study, METHODS, SEEDS, runs.root), study.ema)


def diverge(table, method, seeds):
    chosen = (table["method"] == method) & table["seed"].isin(seeds) & ~table["shared"]
    table.loc[chosen, ["value", "low", "high"]] = np.nan
    table.loc[chosen, ["status", "reason"]] = ["diverged", "the loss was not finite"]
    return table


def test_a_diverged_seed_leaves_no_mean(study, runs, table):
    assert not texts(figures.fid(study, METHODS, table))
    diverge(table, "dsr", [1])
    figure = figures.fid(study, METHODS, table)
    assert len(figure.axes[0].containers) == 2  # diamonds of baseline and masked
    assert texts(figure) == ["diverged, 1 of 2 seeds"] * 2
    found = texts(figures.denoiser_outliers(study, METHODS, SEEDS, table, runs.root))
    assert found.count("diverged,\n1 of 2 seeds") == 1
    assert len(found) == 1 + 2 * study.denoiser.depth * len(study.outlier_statistics.times)


def test_without_a_baseline_there_are_no_differences(study, table):
    found = texts(figures.fid(study, METHODS, diverge(table, "baseline", SEEDS)))
    assert found == ["diverged, 2 of 2 seeds"] + ["baseline diverged, 2 of 2 seeds"] * 2


def test_one_seed_shows_the_interval_within_the_run(study, table):
    table = table[table["seed"] == 0].assign(low=table["value"] - 0.1, high=table["value"] + 0.1)
    figure = figures.fid(study, METHODS, table)
    left, right = figure.axes
    assert "within the run" in figure.get_suptitle()
    assert len(left.collections) == len(METHODS)
    assert not left.containers
    assert not right.collections
    figures.plt.close(figure)


@pytest.fixture
def copied(runs, tmp_path):
    for folder in ("runs", "encoders", "data"):
        shutil.copytree(runs.root / folder, tmp_path / folder)
    return tmp_path


def test_samples_that_diverged_are_grey(study, copied):
    path = copied / "runs" / "dsr" / f"seed{SEEDS[0]}" / "samples.npz"
    kept = path.read_bytes()
    with artifacts.artifact(
        path, stage="samples", module="harness.sample", status="diverged", reason="3 images are not finite"
    ) as temporary:
        temporary.write_bytes(kept)
    figure = figures.samples(study, METHODS, SEEDS[0], copied)
    assert [len(np.unique(axis.images[0].get_array())) == 2 for axis in figure.axes] == [False, False, True]
    assert texts(figure) == ["diverged"]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("samples", "runs/dsr/seed0/samples.npz"),
        ("encoder_norms", "encoders/plain/latents.safetensors"),
        ("denoiser_outliers", "runs/dsr/seed1/outliers.parquet"),
    ],
)
def test_a_spoiled_file_is_never_drawn(study, copied, table, name, file):
    path = copied / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    draw = {
        "samples": lambda: figures.samples(study, METHODS, SEEDS[0], copied),
        "encoder_norms": lambda: figures.encoder_norms(study, METHODS, copied),
        "denoiser_outliers": lambda: figures.denoiser_outliers(study, METHODS, SEEDS, table, copied),
    }
    with pytest.raises(UserError, match=f"{file}: corrupted or truncated"):
        draw[name]()
    figures.plt.close("all")
