"""A new judge and a new CLIP model, written and registered here alone, from a study to rows of a table."""

import copy
from typing import ClassVar, Literal

import pytest
import torch
from conftest import tiny_values
from torch import nn
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from harness import plan
from harness.data.images import to_pixels
from harness.evaluation.clip import registry as clips
from harness.evaluation.clip.base import ClipKind, LoadedClip
from harness.evaluation.clip.stage import make_clip
from harness.evaluation.judge import registry as judges
from harness.evaluation.judge.base import JudgeKind
from harness.evaluation.judge.stage import make_judge
from harness.evaluation.references import make_references
from harness.report import notes
from harness.report.rows import collect
from harness.store import artifacts
from harness.store.tensors import load_tensors, save_tensors
from harness.study.sections import evaluation as sections
from harness.study.sections.evaluation import ClipSection, JudgeSection
from harness.study.study import parse_study
from harness.study.typed import Count, UserError, merge
from harness.training.network import Network


class Projection(JudgeSection):
    """Random directions in pixels."""

    comparable = False

    kind: Literal["projection"]
    directions: Count

    @property
    def feature_width(self):
        return self.directions

    @property
    def note(self):
        return f"{self.directions} random directions"


class ProjectionExtractor(FeatureExtractorBase):
    def __init__(self, matrix):
        super().__init__("projection", ["directions"])
        self.matrix = nn.Parameter(matrix)

    @staticmethod
    def get_provided_features_list():
        return ("directions",)

    def forward(self, images):
        return (images.flatten(1).float() @ self.matrix / 1000,)


class ProjectionJudge(JudgeKind):
    layers: ClassVar = {"features": "directions", "logits": "directions"}

    def make(self, *, data, records, state, out):
        assert (data, records) == (None, [])
        generator = torch.Generator().manual_seed(0)
        with artifacts.artifact(out, stage="judge", module="harness.evaluation.judge.stage", config=self.section) as path:
            save_tensors(path, {"matrix": torch.randn(3 * self.study.data.image_size**2, self.section.directions, generator=generator)})
        return {}

    def extractor(self, weights):
        return ProjectionExtractor(load_tensors(weights)[0]["matrix"])

    def network(self):
        size, directions = self.study.data.image_size, self.section.directions
        return Network(lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * size**2, directions, bias=False)), (1, 3, size, size))


class BagSection(ClipSection):
    """Captions by their lengths."""

    kind: Literal["bag"]


class BagClip(ClipKind):
    def make(self, *, data, records, state, out):
        with artifacts.artifact(out, stage="clip", module="harness.evaluation.clip.stage", config=self.section) as folder:
            folder.mkdir()
            save_tensors(folder / "nothing.safetensors", {})
        return {}

    def load(self, folder):
        model = nn.Identity()
        model.encode_image = lambda images, normalize: nn.functional.normalize(images.abs().mean((2, 3)) + 0.1)
        model.encode_text = lambda ids, normalize: nn.functional.normalize(ids.float())
        return LoadedClip(model, lambda texts: torch.tensor([[len(text), 3, 4] for text in texts]), to_pixels)


@pytest.fixture
def toys(monkeypatch):
    monkeypatch.setitem(sections.JUDGES, "projection", Projection)
    monkeypatch.setitem(judges.JUDGES, "projection", ProjectionJudge)
    monkeypatch.setitem(sections.CLIPS, "bag", BagSection)
    monkeypatch.setitem(clips.CLIPS, "bag", BagClip)


TOYS = {"sampling": {"averages": []}, "evaluation": {"judge": {"kind": "projection", "directions": 12}, "clip": {"kind": "bag"}}}


def test_a_new_judge_and_a_new_clip_are_their_sections_and_their_networks(built, tmp_path, toys):
    """Everything before them is the tiny study's."""
    study, pipeline = parse_study("toys", merge(tiny_values(), TOYS)), copy.copy(built)
    pipeline.study, pipeline.root, pipeline.state, pipeline.runs = study, tmp_path, tmp_path / "state", {}
    pipeline.judge, pipeline.clip, pipeline.references = (tmp_path / name for name in ("judge", "clip", "references"))
    make_judge(study, state=pipeline.state, out=pipeline.judge)
    make_clip(study, state=pipeline.state, out=pipeline.clip)
    make_references(study, data=pipeline.data, judge=pipeline.judge, out=pipeline.references)
    pipeline.run("baseline", [0])
    rows = collect(study, ["baseline"], [0], tmp_path).set_index("score")
    assert rows["value"]["fid"] > 0
    assert rows["value"]["clip_score"] > 0
    assert "accuracy" not in rows.index
    assert "judge: 12 random directions (weights" in notes.judged(study, rows.loc["fid"])
    planned = {stage.name: stage for stage in plan.make_plan(study, methods=["baseline"]).shared}
    assert (planned["judge"].what, planned["judge"].parameters) == ("projection", 12 * 3 * 16**2)
    assert planned["clip"].flops == 0


def test_what_a_new_judge_has_of_its_own_is_refused_in_others(toys):
    with pytest.raises(UserError, match=r"evaluation\.judge: directions belongs to kind projection, not to trained"):
        parse_study("x", tiny_values(evaluation={"judge": {"directions": 4}}))
    with pytest.raises(UserError, match=r"evaluation\.clip: kind is 'bagg', did you mean 'bag'"):
        parse_study("x", tiny_values(evaluation={"clip": {"kind": "bagg"}}))
