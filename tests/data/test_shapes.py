from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pipeline import Pipeline

from harness.data import shapes
from harness.data.captions import captions, token_table, words
from harness.data.shapes import COLOURS, KINDS, OUTLINES, PROMPTS, Thing
from harness.data.stage import load_data, make_data
from harness.denoiser.build import build_denoiser
from harness.denoiser.sample import load_samples
from harness.results.schema import ScoreFile
from harness.results.scores import SCORES, scores_of
from harness.study import typed as config
from harness.study.study import load_study, parse_study, read_study
from harness.study.typed import UserError

LABELS = st.integers(0, len(PROMPTS) - 1)
SIZE = 24


# --------------------------------------------------------------------------------------------------------------- grammar


def test_every_prompt_is_there_once_seen_ones_first():
    texts = [prompt.text for prompt in PROMPTS]
    assert len(set(texts)) == len(texts) == load_study("shapes").classes
    seen = [prompt.seen for prompt in PROMPTS]
    assert sorted(seen, reverse=True) == seen
    assert Counter(p.kind for p in PROMPTS) == dict(zip(KINDS, (4, 12, 12, 16, 48, 72), strict=True))


def test_seen_and_unseen_are_disjoint_and_share_their_words():
    seen, unseen = ([p for p in PROMPTS if p.seen is side] for side in (True, False))
    assert {p.kind for p in seen} == set(KINDS)
    assert {p.kind for p in unseen} == set(KINDS) - {"single"}
    words = {word for prompt in seen for word in prompt.text.split()}
    assert {word for prompt in unseen for word in prompt.text.split()} <= words
    assert not {p.text for p in seen} & {p.text for p in unseen}


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("a red triangle", False),
        ("a red circle", True),
        ("a square above a cross", False),
        ("a cross and a square", False),
        ("three circles", False),
        ("four circles", True),
        ("a red circle and a blue square", True),
        ("a blue circle and a red square", False),
        ("a green square and a red triangle", False),
    ],
)
def test_a_prompt_with_a_combination_that_is_left_out_is_unseen(text, seen):
    assert {p.text: p.seen for p in PROMPTS}[text] is seen


def test_no_training_image_has_what_is_left_out():
    study = load_study("smoke_shapes")
    labels, scenes = shapes.labels_of(study.data, "train"), shapes.scenes_of(study.data, "train")
    assert all(PROMPTS[label].seen for label in labels)
    assert set(Counter(PROMPTS[label].kind for label in labels).values()) == {study.data.train_images // len(KINDS)}
    for scene in scenes:
        assert not {(thing.colour, thing.shape) for thing in scene} & shapes.LEFT_OUT_COLOURS
        assert frozenset(thing.shape for thing in scene) not in shapes.LEFT_OUT_PAIRS
        assert (len(scene), scene[0].shape) not in shapes.LEFT_OUT_NUMBERS or len({t.shape for t in scene}) > 1


# ------------------------------------------------------------------------------------------------------------- generator


@given(LABELS, st.integers(0, 2**31), st.sampled_from(shapes.SPLITS))
def test_an_example_is_a_function_of_its_place_and_its_scene_fulfils_the_prompt(label, index, split):
    (image, scene), (again, _) = (shapes.example(label, split, index, SIZE) for _ in range(2))
    assert np.array_equal(image, again)
    assert shapes.fulfils(scene, PROMPTS[label])
    assert image.shape == (SIZE, SIZE, 3)


def test_splits_differ_and_do_not_depend_on_their_length():
    small, large = (load_study(name).data.model_copy(update={"train_images": n}) for name, n in (("shapes", 12), ("shapes", 30)))
    images, labels = shapes.split_of(large, "train")
    assert np.array_equal(shapes.split_of(small, "train")[0], images[:12])
    assert labels[:12] == shapes.labels_of(small, "train")
    assert not np.array_equal(shapes.example(0, "train", 5, SIZE)[0], shapes.example(0, "reference", 5, SIZE)[0])


def test_relations_are_genevals():
    one = Thing("circle", "red", 6, 6, 4)
    assert shapes.relations(one, replace(one, x=18)) == {"left of"}
    assert shapes.relations(one, replace(one, y=18)) == {"above"}
    assert shapes.relations(one, replace(one, x=18, y=18)) == {"left of", "above"}
    assert shapes.relations(replace(one, x=18), one) == {"right of"}
    assert shapes.relations(one, replace(one, x=7)) == set()  # too near


def test_a_changed_generator_is_noticed(tmp_path):
    study = load_study("shapes")
    with pytest.raises(UserError, match=r"sha256 2fd4\S+ instead of 0000"):
        make_data(study.model_copy(update={"data": study.data.model_copy(update={"sha256": "0" * 64})}), out=tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_a_study_that_does_not_draw_every_prompt_is_refused():
    values = config.merge(read_study("shapes"), {"sampling": {"count": 163}, "evaluation": {"kid_subset": 100}})
    with pytest.raises(UserError, match=r"sampling.count 163 is too few: GenEval, one image of each prompt, needs at least 164"):
        parse_study("few", values)


# ------------------------------------------------------------------------------------------------------ text condition


def test_token_table_spells_the_prompts():
    data = load_study("shapes").data
    table, numbered = token_table(data), ["", *words(data)]
    for row, prompt in zip(table, PROMPTS, strict=False):
        assert " ".join(numbered[i] for i in row).strip() == prompt.text
    assert len(table) == len(PROMPTS) + 1
    assert not table[-1].any()  # the null prompt


def test_the_denoiser_reads_words_the_same_first_weights_for_every_method():
    study = load_study("shapes")
    models = []
    for method in ("baseline", "dsr"):
        torch.manual_seed(0)
        models.append(build_denoiser(study, method))
    first, second = (dict(model.y_embedder.named_parameters()) for model in models)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(models[0].blocks[0].attn.qkv.weight, models[1].blocks[0].attn.qkv.weight)
    embedded = models[0].y_embedder(torch.arange(study.classes + 1))
    assert embedded.shape == (study.classes + 1, study.denoiser.width)
    assert torch.cdist(embedded, embedded).add(torch.eye(len(embedded)) * 9).min() > 1e-3  # no two prompts are the same
    assert "y_embedder.tokens" not in models[0].state_dict()


def test_word_order_counts():
    torch.manual_seed(0)
    embed = build_denoiser(load_study("shapes"), "baseline").y_embedder
    label = {prompt.text: i for i, prompt in enumerate(PROMPTS)}
    one, other = embed(torch.tensor([label["a circle left of a square"], label["a square left of a circle"]]))
    assert (one - other).norm() > 0.1


# ------------------------------------------------------------------------------------------------------------ all of it


def test_every_stage_end_to_end(tmp_path):
    values = config.merge(read_study("smoke_shapes"), {"data": {"train_images": 120, "reference": 170}, "sampling": {"grid_points": 3}})
    few = {"training": {"steps": 8}}
    values = config.merge(values, {"encoder": few, "decoder": few, "denoiser": few | {"snapshots": [4]}, "search": {"images": 32}})
    values = config.merge(values, {"evaluation": {"judge": few, "clip": few, "resamples": 20}, "outlier_statistics": {"images": 8}})
    study = parse_study("toy_shapes", values)
    done = Pipeline(study, tmp_path).prepare(["plain"])
    done.run("baseline", [0])
    file = ScoreFile.model_validate_json((done.runs["baseline"][0] / "scores.json").read_text(encoding="utf-8"))
    _, labels = load_samples(done.runs["baseline"][0] / "samples.npz")
    assert labels.tolist() == list(range(len(PROMPTS)))
    assert set(scores_of(study)) >= set(file.scores) >= {name for name in SCORES if name.startswith(("geneval", "checker"))}
    assert file.scores["checker_accuracy"].value == 1
    assert file.scores["checker_accuracy_reconstructed"].value < 0.9  # after eight steps
    assert file.scores["geneval"].status == "ok"
    assert file.scores["geneval_unseen"].how.endswith("of 43 images")
    reference = load_data(done.data, "reference")
    assert np.array_equal(reference.images, shapes.split_of(study.data, "reference")[0])
    assert captions(study.data, reference.labels)[0] == "a circle"


def test_colours_and_outlines_are_far_apart():
    colours = np.array(list(COLOURS.values()), float)
    distances = np.linalg.norm(colours[:, None] - colours, axis=-1) + np.eye(len(colours)) * 999
    assert distances.min() > 100
    boxes = [shapes.covered(Thing(shape, None, 12, 12, 4), SIZE) for shape in OUTLINES]
    for i, one in enumerate(boxes):
        for other in boxes[:i]:
            assert abs(one - other).sum() > 0.2 * one.sum()
