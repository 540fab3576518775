"""A new architecture and a new sampler, each written and registered here alone, from a study to a row of its table."""

import copy
import itertools

import pytest
import torch
from conftest import tiny_values
from torch import nn

from harness import plan
from harness.denoiser import registry
from harness.denoiser.base import Denoiser
from harness.denoiser.layers import Block, FinalLayer, LabelEmbedding, PatchEmbedding, SinusoidTimeEmbedding
from harness.denoiser.samplers import Sampler, ode_times
from harness.report.rows import collect
from harness.study.sections import denoiser as denoiser_sections
from harness.study.sections import sampling as sampling_sections
from harness.study.sections.denoiser import Shape
from harness.study.sections.sampling import SamplerFacts
from harness.study.study import parse_study
from harness.study.typed import Count, UserError, merge


def rows_of(built, root, method="baseline", **changes):
    """Rows of one run of a method; everything before the denoiser is the tiny study's."""
    pipeline = copy.copy(built)
    pipeline.study = parse_study("tiny", merge(tiny_values(sampling={"averages": []}), changes))
    pipeline.root, pipeline.state, pipeline.runs = root, root / "state", {}
    pipeline.run(method, [0])
    return pipeline.study, collect(pipeline.study, [method], [0], root)


class TailedShape(Shape):
    title = "Tailed"

    tail: Count  # blocks without conditions, after the others

    @property
    def blocks(self):
        return [*super().blocks, *(f"tail {block}" for block in range(self.tail))]


class Tailed(Denoiser):
    """Attention under conditions, then MLPs."""

    @classmethod
    def own(cls, shape):
        return {"tail": shape.tail}

    def __init__(self, *, in_channels, hidden_size, num_heads, mlp_ratio, tail, **options):
        super().__init__(**options)
        self.x_embedder = PatchEmbedding(in_channels, hidden_size, self.patch_size)
        self.t_embedder = SinusoidTimeEmbedding(hidden_size)
        self.y_embedder = LabelEmbedding(self.num_classes, hidden_size)
        blocks = [Block(hidden_size, num_heads, mlp_ratio) for _ in range(options["depth"])]
        self.blocks = nn.ModuleList([*blocks, *(nn.Linear(hidden_size, hidden_size) for _ in range(tail))])
        self.tail = tail
        self.final_layer = FinalLayer(hidden_size, self.patch_size**2 * in_channels)
        self.initialise()

    def forward(self, x, t, y):
        condition, x = self.t_embedder(t) + self.y_embedder(y), self.x_embedder(x)
        for block in self.blocks[: -self.tail]:
            x = block(x, condition)
        for block in self.blocks[-self.tail :]:
            x = block(x)
        return self.unpatchify(self.final_layer(x, condition))


@pytest.fixture
def tailed(monkeypatch):
    monkeypatch.setitem(denoiser_sections.ARCHITECTURES, "tailed", TailedShape)
    monkeypatch.setitem(registry.ARCHITECTURES, "tailed", Tailed)


def test_a_new_architecture_is_its_shape_and_its_network(built, tmp_path, tailed):
    study, rows = rows_of(built, tmp_path, denoiser={"architecture": "tailed", "tail": 2, "depth": 2})
    scores = rows.set_index("score")["value"]
    assert scores["fid"] > 0
    assert {"denoiser_outlier_share@block0", "denoiser_outlier_share@block3"} <= set(scores.index)
    assert "denoiser_outlier_share@block4" not in scores.index
    assert "Tailed 64/2/4" in plan.plan(study, methods=["baseline"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "denoiser",
    [
        {"architecture": "ddt", "head_depth": 1, "depth": 2},
        {"architecture": "diffusionbench_ddt", "head": {"width": 48, "depth": 1, "heads": 3}, "depth": 2},
    ],
)
def test_the_architectures_of_published_ddts_run_to_a_row(built, tmp_path, denoiser):
    _, rows = rows_of(built, tmp_path, method="dsr", denoiser=denoiser)
    scores = rows.set_index("score")["value"]
    assert scores["fid"] > 0
    assert {"denoiser_outlier_share@block0", "denoiser_outlier_share@block2"} <= set(scores.index)


def test_the_weak_model_of_autoguidance_may_be_of_a_new_architecture_too(tailed):
    shape = {"architecture": "tailed", "tail": 3, "width": 32, "depth": 1, "heads": 2, "mlp_ratio": 2.0}
    weak = {"weights": {"path": "weak.safetensors", "source": "a test"}}
    study = parse_study("x", tiny_values(sampling={"guidance": {"scale": 2.0, "weak": shape | weak}}))
    assert study.sampling.guidance.weak.tail == 3
    assert "sampling.guidance.weak.weights" in study.assets
    assert plan.plan(study, methods=["baseline"])


def test_what_a_new_architecture_has_of_its_own_is_refused_in_others(tailed):
    with pytest.raises(UserError, match="denoiser: tail belongs to architecture tailed, not to lightningdit"):
        parse_study("x", tiny_values(denoiser={"tail": 2}))
    inherited = merge(tiny_values(), {"denoiser": {"tail": 2}})
    assert parse_study("x", merge(inherited, {"denoiser": {"tail": None}})) == parse_study("x", tiny_values())
    with pytest.raises(UserError, match=r"denoiser\.tail: Field required"):
        parse_study("x", tiny_values(denoiser={"architecture": "tailed"}))


@torch.no_grad()
def midpoint(velocity_at, noise, times, _noise_at):
    x = noise
    for now, then in itertools.pairwise(times):
        half = x + (then - now) / 2 * velocity_at(x, now.expand(len(x)))
        x = x + (then - now) * velocity_at(half, ((now + then) / 2).expand(len(x)))
    return x


def test_a_new_sampler_is_its_facts_and_its_integrator(built, tmp_path, monkeypatch):
    monkeypatch.setitem(sampling_sections.SAMPLERS, "midpoint", SamplerFacts("Midpoint", lambda steps: 2 * steps))
    monkeypatch.setitem(registry.SAMPLERS, "midpoint", Sampler(ode_times, midpoint))
    study, rows = rows_of(built, tmp_path, sampling={"sampler": "midpoint"})
    assert rows.set_index("score")["value"]["fid"] > 0
    assert (study.sampling.title, study.sampling.nfe) == ("Midpoint", 6)
    assert "midpoint, NFE 6" in plan.plan(study, methods=["baseline"])
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"sampling\.sampler: unknown; known: euler, heun, euler_maruyama"):
        parse_study("x", tiny_values(sampling={"sampler": "midpoint"}))
