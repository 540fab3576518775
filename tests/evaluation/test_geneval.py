from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data import shapes
from harness.data.shapes import COLOURS, OUTLINES, PROMPTS, Thing
from harness.evaluation import geneval

SIZE = 24
LABEL = {prompt.text: i for i, prompt in enumerate(PROMPTS)}
CIRCLE, SQUARE = Thing("circle", "red", 6, 6, 4), Thing("square", "blue", 18, 6, 4)


def passes(text, *scene, grey=30):
    return geneval.passes(shapes.draw([*scene], SIZE, grey), LABEL[text])


@given(st.integers(0, len(PROMPTS) - 1), st.integers(0, 2**31), st.sampled_from([20, 24, 32]))
def test_the_checker_agrees_with_the_scene_about_every_prompt(label, index, size):
    image, scene = shapes.example(label, "reference", index, size)
    things = geneval.read(image)
    assert geneval.passes(image, label)
    assert geneval.answers(things) == geneval.answers(scene)
    for thing in things:
        near = min(scene, key=lambda other: abs(other.x - thing.x) + abs(other.y - thing.y))
        assert max(abs(near.x - thing.x), abs(near.y - thing.y), abs(near.radius - thing.radius)) < 0.5


@given(
    st.sampled_from(sorted(OUTLINES)),
    st.sampled_from(sorted(COLOURS)),
    st.floats(8, 16),
    st.floats(8, 16),
    st.floats(3.6, 6),
    st.integers(0, 80),
    st.floats(0.8, 1),
)
def test_one_object_anywhere(shape, colour, x, y, radius, grey, brightness):
    image = shapes.draw([Thing(shape, colour, x, y, radius)], SIZE, grey, [brightness])
    assert [(thing.shape, thing.colour) for thing in geneval.read(image)] == [(shape, colour)]


@pytest.mark.parametrize(
    ("text", "scene", "right"),
    [
        ("a circle", [CIRCLE], True),
        ("a circle", [], False),
        ("a circle", [SQUARE], False),
        ("a circle", [CIRCLE, SQUARE], False),
        ("a red circle", [CIRCLE], True),
        ("a green circle", [CIRCLE], False),
        ("a circle and a square", [CIRCLE, SQUARE], True),
        ("a square and a circle", [CIRCLE, SQUARE], True),
        ("a circle and a square", [CIRCLE, replace(SQUARE, shape="circle")], False),
        ("a circle left of a square", [CIRCLE, SQUARE], True),
        ("a circle right of a square", [CIRCLE, SQUARE], False),
        ("a square left of a circle", [CIRCLE, SQUARE], False),
        ("a circle above a square", [CIRCLE, SQUARE], False),
        ("a red circle and a blue square", [CIRCLE, SQUARE], True),
        ("a blue circle and a red square", [CIRCLE, SQUARE], False),
        ("a red circle and a blue square", [CIRCLE, replace(SQUARE, colour="red")], False),
        ("two circles", [CIRCLE, replace(CIRCLE, x=18)], True),
        ("two circles", [CIRCLE], False),
        ("two circles", [CIRCLE, replace(CIRCLE, x=18), replace(CIRCLE, y=18)], False),
        ("three squares", [SQUARE, replace(SQUARE, x=6), replace(SQUARE, y=18)], True),
        ("three circles", [SQUARE, replace(SQUARE, x=6), replace(SQUARE, y=18)], False),
    ],
)
def test_spoiled_scenes_are_refused(text, scene, right):
    assert passes(text, *scene) is right


def test_what_is_no_shape_has_none():
    noise = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
    assert all(thing.shape is None for thing in geneval.read(noise))
    bar = np.full((SIZE, SIZE, 3), 30, np.uint8)
    bar[10:12, 2:22] = COLOURS["red"]
    assert [(thing.shape, thing.colour) for thing in geneval.read(bar)] == [(None, "red")]
    speck = np.full((SIZE, SIZE, 3), 30, np.uint8)
    speck[3:5, 3:5] = COLOURS["blue"]
    assert geneval.read(speck) == []
    assert geneval.read(np.full((SIZE, SIZE, 3), 200, np.uint8)) == []


def test_shares_by_kind_and_their_mean():
    labels = np.arange(len(PROMPTS))
    images = np.stack([shapes.example(label, "reference", label, SIZE)[0] for label in labels])
    scores = geneval.geneval(images, labels, 20)
    assert {name: one.value for name, one in scores.items()} == dict.fromkeys(scores, 1.0)
    wrong = np.array([PROMPTS[label].kind == "counting" or not PROMPTS[label].seen for label in labels])
    images[wrong] = 30
    scores = geneval.geneval(images, labels, 20)
    assert scores["geneval_counting"].value == scores["geneval_unseen"].value == 0
    assert scores["geneval_single"].value == 1
    assert scores["geneval_position"].value == pytest.approx(40 / 48)
    kinds = [scores[f"geneval_{kind}"].value for kind in shapes.KINDS]
    assert scores["geneval"].value == pytest.approx(sum(kinds) / 6)
    assert scores["geneval"].low < scores["geneval"].value < scores["geneval"].high
    with pytest.raises(ValueError, match="groups two, counting"):
        geneval.geneval(images[:4], labels[:4], 20)


def test_checker_accuracy_counts_wrong_answers():
    labels = range(8)
    images, scenes = zip(*(shapes.example(label, "reference", label, SIZE) for label in labels), strict=True)
    assert geneval.checker_accuracy(np.stack(images), [*scenes]).value == 1
    swapped = [scenes[1], scenes[0], *scenes[2:]]
    assert geneval.checker_accuracy(np.stack(images), swapped).value == pytest.approx(6 / 8)
