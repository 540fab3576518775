import numpy as np
import pytest
from conftest import METHODS, SEEDS
from PIL import Image

from harness.dag import FIGURES
from harness.report import figures


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
