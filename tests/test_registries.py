"""A kind is its section and what it does: no registry has one without the other."""

import pytest

from harness.data.registry import SOURCES
from harness.decoder.registry import DECODERS
from harness.denoiser.registry import ARCHITECTURES, SAMPLERS
from harness.encoder.families import FAMILIES
from harness.encoder.registry import ENCODERS
from harness.evaluation.clip.registry import CLIPS
from harness.evaluation.judge.registry import JUDGES
from harness.study.sections import data, decoder, denoiser, encoder, evaluation, sampling

PAIRS = {
    "data sources": (data.SOURCES, SOURCES),
    "encoders": (encoder.ENCODERS, ENCODERS),
    "families of vision towers": (encoder.FAMILIES, FAMILIES),
    "decoders": (decoder.DECODERS, DECODERS),
    "architectures": (denoiser.ARCHITECTURES, ARCHITECTURES),
    "samplers": (sampling.SAMPLERS, SAMPLERS),
    "judges": (evaluation.JUDGES, JUDGES),
    "CLIP models": (evaluation.CLIPS, CLIPS),
}


@pytest.mark.parametrize("kinds", PAIRS)
def test_every_section_has_its_implementation(kinds):
    sections, implementations = PAIRS[kinds]
    assert list(sections) == list(implementations)
