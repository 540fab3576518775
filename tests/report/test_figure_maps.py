import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from figure_checks import check, drawn, problems, texts
from synthetic import EIGHT

from harness.report.figures import denoiser_maps, encoder_maps, flows, map_data
from harness.report.figures.context import Context
from harness.report.figures.registry import FIGURES
from harness.store import artifacts
from harness.study.method import load_method
from harness.study.study import load_study
from harness.study.typed import UserError

NAMES = [name for name, draw in FIGURES.items() if draw.__module__ in (encoder_maps.__name__, denoiser_maps.__name__, flows.__name__)]
IMAGES, ROWS = 5, [0, 3, 6, 9, 12]
MOST = 2  # the image with most outliers


def written(path, study, method, *, why=""):
    """A maps.npz with the shapes that the stage gives it for the study; outliers where nothing is done about them."""
    rng = np.random.default_rng(0)
    times, blocks, patches = study.outlier_statistics.times, len(study.denoiser.blocks), (study.latent_side // study.denoiser.patch) ** 2
    registers = load_method(method).registers(study.denoiser.registers)
    count, start = (registers.count, registers.start) if registers else (0, 0)
    shape = (len(times), blocks, IMAGES, patches)
    context = 32 if study.denoiser.architecture == "jit" else 0
    arrays = {"times": np.array(times), "rows": np.array(ROWS), "labels": np.zeros(IMAGES, int)}
    if not why:
        growth = 20 * np.linspace(1, 3, blocks + 1)[None, :, None, None]
        norms = growth * rng.lognormal(0, 0.15, (len(times), blocks + 1, IMAGES, patches))
        if not count:
            norms[:, 1:-1, MOST, :3] *= 8
            norms[0, 2, 0, 5] *= 8
        joined = np.arange(blocks)[None, :, None, None] >= start
        arrays |= {
            "norms": norms,
            "entering": norms[:, :-1],
            "components": rng.normal(size=norms.shape),
            "explained": rng.uniform(0.1, 0.4, norms.shape[:3]),
            "attention": np.full(shape, 1 / (patches + count + context)),
            "register_norms": np.where(joined, 12.0, np.nan) * np.ones((*shape[:3], count)),
            "register_attention": np.where(joined, 1 / (patches + count + context), np.nan) * np.ones((*shape[:3], count)),
            "context_norms": np.full((*shape[:3], context), 9.0),
            "context_attention": np.full((*shape[:3], context), 1 / (patches + count + context)),
            "decoded": rng.integers(0, 255, (len(times), IMAGES, 20, 20, 3), dtype=np.uint8),
        }
    outcome = {"status": "diverged", "reason": why} if why else {"status": "ok"}
    with artifacts.artifact(path, stage="maps", module="harness.evaluation.maps", **outcome) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def encoders_written(results, study, methods):
    """Maps of the encoders; outliers in the plain one."""
    rng = np.random.default_rng(0)
    for key in {load_method(method).encoder.key for method in methods}:
        norms = rng.lognormal(0, 0.15, (study.encoder.depth + 2, IMAGES, study.latent_side**2))
        if key == "plain":
            norms[3:-1, MOST, :2] *= 20
        count = 0 if key == "plain" else 4
        shape = (study.encoder.depth, IMAGES)
        arrays = {
            "rows": np.array(ROWS),
            "norms": norms,
            "components": rng.normal(size=norms.shape),
            "explained": np.full(norms.shape[:2], 0.4),
        }
        arrays |= {"entering": norms[:-2], "attention": np.full((*shape, study.latent_side**2), 1 / (study.latent_side**2 + count))}
        arrays |= {
            "register_norms": np.full((*shape, count), 12.0),
            "register_attention": np.full((*shape, count), 1 / (study.latent_side**2 + count)),
        }
        arrays |= {f"context_{name}": np.zeros((*shape, 0)) for name in ("norms", "attention")}
        path = results / "encoders" / key / "maps.npz"
        with artifacts.artifact(path, stage="encoder_maps", module="harness.evaluation.maps") as file, open(file, "wb") as opened:
            np.savez(opened, **arrays)


@pytest.fixture
def context(tmp_path, monkeypatch):
    """context(study, methods, diverged) -> Context over synthetic maps."""
    image = np.random.default_rng(1).integers(0, 255, (20, 20, 3), dtype=np.uint8)
    monkeypatch.setattr(Context, "reference", lambda _context: [image] * (max(ROWS) + 1))

    def make(name, methods, diverged=(), times=None):
        study = load_study(name)
        if times:
            study = study.model_copy(update={"outlier_statistics": study.outlier_statistics.model_copy(update={"times": times})})
        for method in methods:
            why = "4 of 1500 losses were not finite" if method in diverged else ""
            written(tmp_path / "runs" / method / "seed0" / "maps.npz", study, method, why=why)
        if study.encoder.has_tokens:
            encoders_written(tmp_path, study, methods)
        return Context(study, methods, [0, 1], tmp_path, pd.DataFrame(), None)

    yield make
    plt.close("all")


FOUR = ["baseline", "diffusion_registers", "ttr", "dsr"]


@pytest.mark.parametrize("name", NAMES)
def test_figure_is_complete_legible_and_the_same_twice(context, tmp_path, name):
    made = context("digits", ["baseline", "dsr"], times=[0.1, 0.5])  # few rows: each panel is laid out six times
    check(lambda: FIGURES[name](made), tmp_path)


@pytest.mark.parametrize(
    ("study", "name", "methods"),
    [
        ("digits", "attention", EIGHT),
        ("imagenet256_siglip2_b", "encoder_pca", FOUR),
        ("imagenet256_dinov2_b", "encoder_attention", EIGHT),
        ("imagenet256_siglip2_b", "denoiser_norms", FOUR),
        ("imagenet256_siglip2_b", "norm_flow", FOUR),
        ("imagenet256_dinov2_b", "trained_registers_maps", ["baseline", "trained_registers"]),
        ("imagenet256_siglip2_b_ditdh", "denoiser_norms_by_method", ["baseline", "dsr"]),
        ("imagenet256_jit_h", "attention", ["baseline", "diffusion_registers"]),
        ("imagenet256_sit_xl", "denoiser_pca_by_method", ["baseline", "diffusion_registers"]),
    ],
)
def test_figure_of_many_panels_is_legible(context, study, name, methods):
    made = context(study, methods)
    with drawn(lambda: FIGURES[name](made)) as (figure, _):
        assert not problems(figure)


@pytest.mark.parametrize(
    ("name", "diverged"),
    [
        ("denoiser_norms", "baseline"),
        ("denoiser_norms_by_method", "baseline"),
        ("denoiser_pca_by_method", "dsr"),
        ("attention", "dsr"),
        ("norm_flow", "baseline"),
    ],
)
def test_a_run_without_maps_is_grey_and_says_why(context, name, diverged):
    made = context("digits", FOUR, [diverged])
    with drawn(lambda: FIGURES[name](made)) as (figure, _):
        assert not problems(figure)
        assert "diverged: 4 of 1500 losses were not finite" in [text.replace("\n", " ") for text in texts(figure)]


def test_the_image_is_that_with_most_outliers_in_the_baseline(context):
    made = context("digits", FOUR)
    figure, data = denoiser_maps.denoiser_norms_by_method(made)
    assert f"held-out image {ROWS[MOST]}" in " ".join(figure.get_suptitle().split())
    expected = map_data.maps_of(made, "baseline").arrays["norms"][2, :, MOST]  # of the middle noise level
    np.testing.assert_array_equal(data["norms"][0], expected)
    assert data["norms.t"].tolist() == [0.5] * 4
    framed = [len(axis.patches) for axis in figure.axes if axis.get_images() and axis.get_images()[0].get_array().shape == (4, 4)]
    assert framed[:5] == [0, 3, 3, 3, 0]


def test_without_outliers_the_title_says_so(context):
    figure, _ = denoiser_maps.denoiser_norms(context("digits", ["dsr"]))
    assert "the first, for want of outliers in the baseline" in " ".join(figure.get_suptitle().split())


def test_the_encoder_is_shown_before_and_after_its_registers(context):
    figure, data = encoder_maps.encoder_pca(context("digits", EIGHT))
    assert len(data["components"]) == 4  # plain, two of test-time registers, trained
    assert data["columns"].tolist() == ["embedding", *(f"layer {layer}" for layer in range(6)), "output"]
    framed = [len(axis.patches) for axis in figure.axes if axis.get_images() and axis.get_images()[0].get_array().shape == (4, 4)]
    assert framed[:8] == [0, 0, 0, 2, 2, 2, 2, 0]
    assert not any(framed[8:])


def test_rows_are_the_baseline_either_register_and_both():
    assert map_data.four(EIGHT) == ["baseline", "recursive_ttr", "diffusion_registers", "dsr"]  # DSR's own encoder
    assert map_data.four(FOUR) == ["baseline", "ttr", "diffusion_registers", "dsr"]
    assert map_data.four(["baseline", "masked"]) == ["baseline"]


def test_a_deep_denoiser_shows_first_last_and_the_papers_blocks():
    assert map_data.blocks_shown(load_study("digits"), 4) == [0, 1, 2, 3, 4]
    shown = map_data.blocks_shown(load_study("imagenet256_siglip2_b"), 28)
    assert {0, 3, 13, 21, 25, 26, 27, 28} <= set(shown)
    ditdh = load_study("imagenet256_siglip2_b_ditdh")
    assert {0, 27, 28, 29, 30} <= set(map_data.blocks_shown(ditdh, 30))
    assert map_data.block_names(ditdh, 30)[27:] == ["block 27", "head 0", "head 1", "output"]


def test_numbers_of_attention_and_norm_are_those_of_the_maps(context):
    made = context("digits", FOUR)
    table = flows.tokens_of({method: map_data.maps_of(made, method) for method in FOUR})
    at_half = table[(table["t"] == 0.5) & (table["block"] == 2)].set_index(["method", "kind"])
    arrays = map_data.maps_of(made, "baseline").arrays
    outlying = arrays["norms"][2, 2] > 3 * np.median(arrays["norms"][2, 2])
    assert outlying.sum() == 3
    assert at_half.loc[("baseline", flows.OUTLIERS), "norm"] == pytest.approx(arrays["norms"][2, 2][outlying].mean())
    assert at_half.loc[("baseline", flows.OUTLIERS), "norm_tokens"] == 3 / IMAGES
    assert at_half.loc[("baseline", flows.OUTLIERS), "attention"] == pytest.approx(1 / 16)
    assert at_half.loc[("dsr", flows.REGISTERS), "uniform"] == pytest.approx(1 / 20)
    assert at_half.loc[("dsr", flows.REGISTERS), "norm"] == 12
    first = table[(table["method"] == "dsr") & (table["block"] == 0) & (table["kind"] == flows.REGISTERS)]
    assert first["norm"].isna().all()


def test_a_spoiled_file_is_never_drawn(context):
    made = context("digits", FOUR)
    path = made.run("baseline", 0) / "maps.npz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"maps\.npz: corrupted or truncated"):
        FIGURES["attention"](made)
