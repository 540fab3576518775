"""A new data source, written and registered here alone, from its images to rows of a table."""

from typing import Literal

import numpy as np
import pytest
from conftest import tiny_values
from PIL import Image
from pipeline import Pipeline

from harness import plan
from harness.data import registry
from harness.data.stage import load_data
from harness.data.stored import StoredSource
from harness.report.rows import collect
from harness.study.sections import data as data_sections
from harness.study.sections.data import DataSection
from harness.study.study import parse_study
from harness.study.typed import Count, UserError, merge

WAYS = ["lying", "standing"]


class Stripes(DataSection):
    """Stripes that lie or stand, each as light as its number says."""

    source: Literal["stripes"]
    train_images: Count
    stripes: Count
    classes: Literal[2] = 2
    flip: Literal[False] = False


class StripesSource(StoredSource):
    def splits(self):
        data = self.data
        return {"train": self._images(data.train_images), "reference": self._images(data.reference)}

    def _images(self, count):
        side = self.data.image_size
        lit = np.broadcast_to(np.arange(side) * self.data.stripes // side % 2 == 0, (side, side))
        labels = [i % 2 for i in range(count)]
        light = [np.uint8(55 + i * 200 // count) * (lit if label else lit.T) for i, label in enumerate(labels)]
        return [Image.fromarray(np.repeat(image[..., None], 3, 2)) for image in light], labels

    def captions(self, labels):
        return [f"{WAYS[label]} stripes" for label in labels]


@pytest.fixture
def stripes(monkeypatch):
    monkeypatch.setitem(data_sections.SOURCES, "stripes", Stripes)
    monkeypatch.setitem(registry.SOURCES, "stripes", StripesSource)


DATA = {"source": "stripes", "image_size": 8, "train_images": 64, "reference": 60, "stripes": 4}
PIXELS = {
    "encoder": {"kind": "pixels"},
    "outliers": "none",
    "planted": [],
    "search": None,
    "latents": {"whitening": "none"},
    "decoder": {"kind": "encoder"},
    "denoiser": {"width": 32, "depth": 2, "heads": 2, "patch": 2, "registers": {"count": 4, "start": 1}},
    "sampling": {"averages": []},
}


def test_a_new_source_is_its_section_and_its_images(tmp_path, stripes):
    study = parse_study("stripes", merge(tiny_values(), {**PIXELS, "data": DATA}))
    pipeline = Pipeline(study, tmp_path).prepare(["plain"])
    pipeline.run("baseline", [0])
    scores = collect(study, ["baseline"], [0], tmp_path).set_index("score")["value"]
    assert scores["fid"] > 0
    assert 0 <= scores["accuracy"] <= 1
    assert scores["clip_score"] >= 0
    split = load_data(pipeline.data, "reference")
    assert split[1].shape == (8, 8, 3)
    assert split.labels.tolist() == [0, 1] * 30
    planned = plan.make_plan(study, methods=["baseline"]).shared[0]
    assert (planned.name, planned.images) == ("data", 124)


def test_what_a_new_source_has_of_its_own_is_refused_in_others(stripes):
    with pytest.raises(UserError, match="data: stripes belongs to source stripes, not to sklearn_digits"):
        parse_study("x", tiny_values(data={"stripes": 4}))
    with pytest.raises(UserError, match="data: source is 'strips', did you mean 'stripes'"):
        parse_study("x", tiny_values(data=DATA | {"source": "strips"}))
