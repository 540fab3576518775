"""A new kind of encoder and one of decoder, each written and registered here alone, from a study to a row of its table."""

import copy
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_values

from harness import plan
from harness.data.stage import load_data
from harness.decoder import registry as decoders
from harness.decoder.base import DecoderKind
from harness.encoder import registry as encoders
from harness.encoder.base import EncoderKind
from harness.encoder.latents import Batches
from harness.report.rows import collect
from harness.store import artifacts
from harness.store.files import write_json
from harness.store.tensors import load_tensors, save_tensors
from harness.study.sections import decoder as decoder_sections
from harness.study.sections import encoder as encoder_sections
from harness.study.sections.decoder import DecoderSection
from harness.study.sections.encoder import EncoderSection
from harness.study.study import parse_study
from harness.study.typed import Count, UserError, merge
from harness.training.network import Network
from harness.workflow.run import Run


def pipeline_of(built, root, **changes):
    """Of a changed tiny study, with the encoder variant `plain`; data, judge, CLIP and references are the tiny study's."""
    pipeline = copy.copy(built)
    pipeline.study = parse_study("tiny", merge(tiny_values(sampling={"averages": []}), changes))
    pipeline.dag = Run(pipeline.study, [0], ["baseline"])
    pipeline.root, pipeline.state = root, root / "state"
    pipeline.backbones = built.backbones if pipeline.study.encoder == built.study.encoder else {}
    pipeline.encoders, pipeline.searches, pipeline.runs = {}, {}, {}
    pipeline._encoder("plain")
    return pipeline


def scores_of(pipeline):
    """By name, of one run of the baseline."""
    pipeline.run("baseline", [0])
    return collect(pipeline.study, ["baseline"], [0], pipeline.root).set_index("score")["value"]


class BlocksSection(EncoderSection):
    """Pixels of a block are the channels of its token."""

    decodes_itself = True

    kind: Literal["blocks"]
    block: Count

    @property
    def text(self):
        return f"Blocks of {self.block}"

    @property
    def latent_channels(self):
        return 3 * self.block**2

    def latent_side(self, image_size):
        return image_size // self.block

    def check(self, image_size, planted):
        if image_size % self.block:
            raise ValueError(f"encoder.block {self.block} does not divide data.image_size {image_size}")


class Blocks(EncoderKind):
    def make(self, *, backbone, data, records, state, out):
        with artifacts.artifact(out, stage="encoder", module=__name__, config=self.study.encoder) as folder:
            folder.mkdir()
            write_json(folder / "block.json", self.study.encoder.block)
        return {"block": self.study.encoder.block}

    def load(self, backbone, registers):
        block = int((backbone / "block.json").read_text(encoding="utf-8"))
        return lambda pixels, _noise: (F.pixel_unshuffle(pixels, block), None)

    def decoder(self, backbone):
        block = int((backbone / "block.json").read_text(encoding="utf-8"))
        return lambda raw: F.pixel_shuffle(raw, block)

    def network(self, registers):
        size, block = self.study.data.image_size, self.study.encoder.block
        return Network(lambda: torch.nn.Conv2d(3, 3 * block**2, block, stride=block), (1, 3, size, size))


@pytest.fixture
def blocks(monkeypatch):
    monkeypatch.setitem(encoder_sections.ENCODERS, "blocks", BlocksSection)
    monkeypatch.setitem(encoders.ENCODERS, "blocks", Blocks)
    return {"encoder": {"kind": "blocks", "block": 4}, "outliers": "none", "planted": [], "search": None, "decoder": {"kind": "encoder"}}


def test_a_new_encoder_is_its_section_and_what_it_does(built, tmp_path, blocks):
    pipeline = pipeline_of(built, tmp_path, **blocks)
    scores = scores_of(pipeline)
    assert pipeline.study.latent_shape == (48, 4, 4)
    assert scores["fid"] > 0
    assert scores["psnr"] > 50  # blocks lose nothing
    assert "encoder_outlier_share" not in scores.index
    assert "Blocks of 4" in plan.plan(pipeline.study, methods=["baseline"])


def test_a_new_encoder_checks_its_own_sizes(blocks):
    with pytest.raises(UserError, match=r"encoder\.block 3 does not divide data\.image_size 16"):
        parse_study("x", tiny_values(**merge(blocks, {"encoder": {"block": 3}})))
    with pytest.raises(UserError, match="encoder blocks decodes itself"):
        parse_study("x", tiny_values(**blocks | {"decoder": {}}))


class LinearSection(DecoderSection):
    kind: Literal["linear"]

    @property
    def text(self):
        return "Linear"


class Linear(DecoderKind):
    """Least squares from a token to its patch."""

    def make(self, *, encoder, data, latents, backbone, registers, records, state, out):
        with artifacts.artifact(out, stage="decoder", module=__name__, config=self.study.decoder, inputs=[data, latents]) as path:
            batches, pixels = Batches(latents, seed=0, batch=1), load_data(data, "train").pixels()
            raw = batches.whitening.unwhiten(batches.cached)
            patches = F.pixel_unshuffle(pixels, self._patch()).movedim(1, -1).flatten(0, 2)
            save_tensors(path, {"weight": torch.linalg.lstsq(raw.movedim(1, -1).flatten(0, 2), patches).solution.T})
        return {"decoder": "least squares"}

    def _patch(self):
        return self.study.data.image_size // self.study.latent_side

    def load(self, path):
        weight = load_tensors(path)[0]["weight"]
        return lambda raw: F.pixel_shuffle(torch.einsum("oc,bchw->bohw", weight, raw), self._patch())

    def network(self):
        return Network(lambda: torch.nn.Conv2d(self.study.channels, 3 * self._patch() ** 2, 1), (1, *self.study.latent_shape))


def test_a_new_decoder_is_its_section_and_what_it_does(built, tmp_path, monkeypatch):
    monkeypatch.setitem(decoder_sections.DECODERS, "linear", LinearSection)
    monkeypatch.setitem(decoders.DECODERS, "linear", Linear)
    pipeline = pipeline_of(built, tmp_path, decoder={"kind": "linear"})
    scores = scores_of(pipeline)
    assert scores["fid"] > 0
    assert scores["psnr"] > 10
    assert "Linear" in plan.plan(pipeline.study, methods=["baseline"])
