import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import METHODS, SEEDS, tiny_values
from figure_checks import check, drawn, problems, texts, visible_texts

from harness.report import figures
from harness.report import rows as row_files
from harness.report.figure_specs import figure_names, load_figure
from harness.report.figures import render_figures, style
from harness.report.figures.context import Context, Samples
from harness.report.figures.registry import FIGURES
from harness.report.figures.sample_grids import compared
from harness.store import artifacts
from harness.study.method import load_method
from harness.study.study import load_study, parse_study
from harness.study.typed import UserError

TINY = [name for name in figure_names(parse_study("tiny", tiny_values()), METHODS) if "maps" not in load_figure(name).needs]


@pytest.mark.parametrize("name", TINY)
def test_figure_of_real_runs(study, runs, tmp_path, name):
    context = figures.context_of(name, study, methods=METHODS, seeds=SEEDS, results=runs.root)
    check(lambda: FIGURES[name](context), tmp_path)


ALONE = [name for name in TINY if name in figure_names(parse_study("tiny", tiny_values()), ["baseline"])]


def test_what_the_baseline_alone_has_no_figure_of():
    assert set(TINY) - set(ALONE) == {"largest_difference", "intervals", "register_neurons"}


@pytest.mark.parametrize("name", ALONE)
def test_figure_of_the_baseline_alone(study, runs, name):
    context = figures.context_of(name, study, methods=["baseline"], seeds=SEEDS, results=runs.root)
    with drawn(lambda: FIGURES[name](context)) as (figure, _):
        assert not problems(figure)


def test_differences_are_shown_to_a_method_of_the_same_encoder_if_there_is_one():
    assert compared(["baseline", "dsr", "dsr_trained"]) == "dsr"
    assert compared(["baseline", "dsr_trained"]) == "dsr_trained"


def test_stage_writes_picture_vector_and_data(study, runs, tmp_path):
    where = {"methods": METHODS, "seeds": SEEDS, "results": runs.root, "out": tmp_path}
    assert render_figures(study, **where, figures=["fid"]) == {"figures": ["fid"]}
    assert {path.name for path in tmp_path.iterdir()} == {"fid.png", "fid.pdf", "fid.csv"}
    with pytest.raises(UserError, match=r"unknown figure of study 'tiny': 'fdi', did you mean 'fid'"):
        render_figures(study, **where, figures=["fdi"])


# --------------------------------------------------------------------------------------------------------- what is shown


def test_a_method_keeps_its_colour_and_its_variants_are_shades_of_it():
    colours = [style.colour_of(name) for name in ("baseline", "masked", "dsr", "masked-post_ln", "masked-whitened")]
    assert len(set(colours)) == 5
    assert style.colour_of("masked-whitened") == style.colour_of("masked-whitened")


def test_a_title_has_lines_of_like_length_within_the_width():
    with drawn(lambda: (style.plt.figure(figsize=(style.ONE_COLUMN, 1)), None)) as (figure, _):
        style.set_title(figure, "word " * 24)
        lengths = [len(line) for line in figure.get_suptitle().splitlines()]
    assert max(lengths) - min(lengths) <= 5
    assert max(lengths) <= style.ONE_COLUMN * style.CHARACTERS


@pytest.fixture
def context(study, runs):
    def make(name, results=runs.root, **changes):
        made = figures.context_of(name, study, methods=METHODS, seeds=SEEDS, results=results)
        return Context(**(vars(made) | changes))

    return make


@pytest.fixture
def table(study, runs):
    return row_files.collect(study, METHODS, SEEDS, runs.root)


def diverge(table, method, seeds):
    chosen = (table["method"] == method) & table["seed"].isin(seeds) & ~table["shared"]
    table.loc[chosen, ["value", "low", "high"]] = np.nan
    table.loc[chosen, ["status", "reason"]] = ["diverged", "the loss was not finite"]
    return table


def test_a_diverged_seed_leaves_no_mean(study, context, table):
    with drawn(lambda: FIGURES["fid"](context("fid"))) as (figure, _):
        assert not texts(figure)
    diverge(table, "dsr", [1])
    with drawn(lambda: FIGURES["fid"](context("fid", rows=table))) as (figure, _):
        assert len(figure.axes[0].containers) == 2  # diamonds of baseline and masked
        assert texts(figure) == ["diverged, 1 of 2 seeds"] * 2
    with drawn(lambda: FIGURES["denoiser_outliers"](context("denoiser_outliers", rows=table))) as (figure, _):
        written = texts(figure)
    assert written.count("diverged,\n1 of 2 seeds") == 1
    assert len(written) == 1 + 2 * study.denoiser.depth * len(study.outlier_statistics.times)


def test_without_a_baseline_there_are_no_differences(context, table):
    diverge(table, "baseline", SEEDS)
    with drawn(lambda: FIGURES["fid"](context("fid", rows=table))) as (figure, _):
        assert texts(figure) == ["diverged, 2 of 2 seeds"] + ["baseline diverged, 2 of 2 seeds"] * 2
    with drawn(lambda: FIGURES["intervals"](context("intervals", rows=table))) as (figure, data):
        assert set(texts(figure)) == {"no value"}
        assert data.empty


def test_one_seed_shows_the_interval_within_the_run(context, table):
    table = table[table["seed"] == 0].assign(low=table["value"] - 0.1, high=table["value"] + 0.1)
    with drawn(lambda: FIGURES["fid"](context("fid", rows=table))) as (figure, _):
        left, right = figure.axes
        assert "within the run" in figure.get_suptitle()
        assert len(left.collections) == len(METHODS)
        assert not left.containers
        assert not right.collections


def test_the_pairs_that_differ_most_are_found(context, copied):
    path = copied / "runs" / "dsr" / f"seed{SEEDS[0]}" / "samples.npz"
    with np.load(copied / "runs" / "baseline" / f"seed{SEEDS[0]}" / "samples.npz") as file:
        arrays = dict(file)
    arrays["images"] = arrays["images"].copy()
    arrays["images"][17] = 255 - arrays["images"][17]
    arrays["images"][23, :4] ^= 255
    with artifacts.artifact(path, stage="samples", module="harness.denoiser.sample") as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)
    with drawn(lambda: FIGURES["largest_difference"](context("largest_difference", copied))) as (figure, data):
        assert list(data["numbers"][:2]) == [17, 23]
        assert "differ most" in figure.get_suptitle().replace("\n", " ")
    assert set(data["distances"][np.setdiff1d(np.arange(len(data["distances"])), [17, 23])]) == {0.0}


@pytest.mark.parametrize("name", ["samples", "prompt_differences"])
def test_prompts_are_written_out(name, tmp_path):
    study, rng = load_study("shapes"), np.random.default_rng(0)
    for method in study.methods:
        path = tmp_path / "runs" / method / "seed0" / "samples.npz"
        with artifacts.artifact(path, stage="samples", module="harness.denoiser.sample") as temporary, open(temporary, "wb") as file:
            np.savez(file, images=rng.integers(0, 255, (328, 24, 24, 3), dtype=np.uint8), labels=np.arange(328) % study.classes)
    context = Context(study, study.methods, [0], tmp_path, pd.DataFrame(), load_figure(name))
    with drawn(lambda: FIGURES[name](context)) as (figure, _):
        assert not problems(figure)
        assert any(" circle" in text for text, _ in visible_texts(figure))


def test_no_more_of_a_samples_file_is_read_than_is_asked_for(runs):
    path = runs.root / "runs" / "dsr" / f"seed{SEEDS[0]}" / "samples.npz"
    with np.load(path) as file:
        images = file["images"]
    assert np.array_equal(Samples(path).first(3), images[:3])
    assert np.array_equal(Samples(path).first(10**6), images)


def test_planted_neurons_stand_out(context):
    with drawn(lambda: FIGURES["register_neurons"](context("register_neurons"))) as (_, data):
        first = data[data["round"] == 1]
    best = first.sort_values("score").tail(int(first["chosen"].sum()))
    assert best["chosen"].all()
    assert first["planted"].sum() == 4


def test_masking_norms_say_what_a_mask_leaves_out(study, context):
    with drawn(lambda: FIGURES["masking_norms"](context("masking_norms"))) as (figure, data):
        written = [[text.get_text() for text in axis.texts] for axis in figure.axes]
    assert all(data[f"{name}.share"].sum() == pytest.approx(1) for name in ("pre_ln", "post_ln", "whitened"))
    assert set(written[1]) == {"0 %"}  # constant norms: the mask is inert
    assert load_method("masked").loss_mask.norm == "pre_ln"
    assert "0 %" not in written[0][study.outlier_statistics.multiples.index(study.outlier_statistics.factor)][:3]


def test_a_mask_at_a_given_norm_is_shown_beside_the_multiples(runs):
    study = parse_study("tiny", tiny_values(outlier_statistics={"norms": [100.0]}))
    context = Context(study, ["baseline"], [0], runs.root, pd.DataFrame(), load_figure("masking_norms"))
    with drawn(lambda: FIGURES["masking_norms"](context)) as (figure, _):
        assert not problems(figure)
        assert sum(text.startswith("100: ") for text in texts(figure)) == 3


# --------------------------------------------------------------------------------------------------------------- spoiled


@pytest.fixture
def copied(runs, tmp_path):
    for folder in ("runs", "encoders", "data"):
        shutil.copytree(runs.root / folder, tmp_path / "tiny" / folder)
    return tmp_path / "tiny"


def test_samples_that_diverged_are_grey(context, copied):
    path = copied / "runs" / "dsr" / f"seed{SEEDS[0]}" / "samples.npz"
    kept = path.read_bytes()
    with artifacts.artifact(
        path, stage="samples", module="harness.denoiser.sample", status="diverged", reason="3 images are not finite"
    ) as temporary:
        temporary.write_bytes(kept)
    with drawn(lambda: FIGURES["samples"](context("samples", copied))) as (figure, _):
        assert [len(np.unique(axis.images[0].get_array())) == 2 for axis in figure.axes] == [False, False, True]
        assert texts(figure) == ["diverged"]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("samples", "runs/dsr/seed0/samples.npz"),
        ("largest_difference", "runs/dsr/seed0/samples.npz"),
        ("encoder_norms", "encoders/plain/latents.safetensors"),
        ("masking_norms", "encoders/plain/latents.safetensors"),
        ("register_neurons", "encoders/ttr_until_clean/registers.json"),
        ("denoiser_outliers", "runs/dsr/seed1/outliers.parquet"),
    ],
)
def test_a_spoiled_file_is_never_drawn(context, copied, name, file):
    path = copied / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{file}: corrupted or truncated"), drawn(lambda: FIGURES[name](context(name, copied))):
        pass
