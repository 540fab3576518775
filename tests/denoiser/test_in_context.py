"""What is special to diffusion-bench's DDT, whose time, label and text are tokens beside the patches, and how a study reads its prompts."""

import pytest
import torch
from architectures import WORDS, inputs, make
from conftest import error, tiny_values

from harness.denoiser.build import build_denoiser
from harness.denoiser.diffusionbench import DiffusionBenchDDT
from harness.denoiser.guidance import classifier_free
from harness.denoiser.text import GivenStates, WordStates
from harness.study.study import parse_study, read_study
from harness.study.typed import UserError, merge

TEXT = {"architecture": "diffusionbench_ddt", "head": {"width": 48, "depth": 1, "heads": 3}, "condition": "text", "context_width": 12}


def of_prompts(**changes):
    return merge(read_study("shapes"), {"denoiser": TEXT | changes})


def of_classes(**changes):
    return tiny_values(denoiser={"architecture": "diffusionbench_ddt", "head": TEXT["head"]} | changes)


@pytest.mark.parametrize("registers", [{}, {"registers": 4, "register_start": 1}])
def test_padded_positions_of_a_text_change_nothing(registers):
    torch.manual_seed(0)
    model = make("diffusionbench_ddt of text", spread=0.1, **registers)
    states, real = model.y_embedder(torch.arange(11))
    x, t, y = inputs()
    with torch.no_grad():
        expected = model(x, t, y)
        model.y_embedder = GivenStates(states.masked_fill(~real[..., None], 1e3), real)
        assert torch.equal(model(x, t, y), expected)
        model.y_embedder = GivenStates(states.masked_fill(real[..., None], 1e3), real)
        assert error(model(x, t, y)[0], expected[0]) > 0.01
        assert torch.equal(model(x, t, y)[1], expected[1])  # the null prompt has no words


def test_without_anything_that_reads_prompts_it_takes_states_and_which_are_real():
    model = make("diffusionbench_ddt of text", spread=0.1)
    x, t, y = inputs()
    expected, pair = model(x, t, y), model.y_embedder(y)
    model.y_embedder = torch.nn.Identity()
    assert torch.equal(model(x, t, pair), expected)


def test_words_become_states_in_their_places():
    torch.manual_seed(0)
    reader = WordStates(WORDS, 6, 5)
    states, real = reader(torch.tensor([7, 10]))
    assert real.tolist() == [[True, True, False, False, False], [False] * 5]
    torch.testing.assert_close(states[0, :2], reader.words.weight[WORDS[7, :2]] + reader.places[:2])
    assert "tokens" not in reader.state_dict()  # part of the study, not of the weights
    with pytest.raises(UserError, match=r"^denoiser\.condition_tokens 2 is too few: the longest prompt has 3 words$"):
        WordStates(WORDS, 6, 2)


def test_a_study_of_prompts_runs_with_its_own_words():
    study = parse_study("x", of_prompts(condition_tokens=12))
    torch.manual_seed(0)
    plain = build_denoiser(study, "baseline")
    torch.manual_seed(0)
    model = build_denoiser(study, "dsr")  # with registers
    for name, weights in plain.state_dict().items():
        assert torch.equal(weights, model.state_dict()[name])
    assert model.y_embedder.tokens.shape == (study.classes + 1, 12)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        x, t, y = torch.randn(3, *study.latent_shape), torch.full((3,), 0.5), torch.tensor([0, 5, 163])
        guided = classifier_free(model, y, study.classes, 2.0)(x, t)
        free, given = model(x, t, torch.full_like(y, study.classes)), model(x, t, y)
    torch.testing.assert_close(guided, 2 * given - free, rtol=1e-4, atol=1e-5)
    assert error(given, free) > 1e-3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (of_prompts(condition="label", context_width=None), "condition label, but labels are prompts; change it, or the data"),
        (of_classes(condition="text", context_width=12), "condition text, but labels are classes; change it, or the data"),
        (of_classes(context_width=12), "give it with condition text, and only there"),
        (of_prompts(context_width=None), "give it with condition text, and only there"),
        (of_classes(head=None), r"denoiser\.head"),
        (tiny_values(denoiser={"architecture": "ddt"}), r"denoiser\.head_depth: Field required"),
    ],
)
def test_what_does_not_fit_is_one_line(values, message):
    with pytest.raises(UserError, match=message) as caught:
        parse_study("x", values)
    assert "\n" not in str(caught.value)


def test_too_few_places_for_the_prompts_is_one_line():
    with pytest.raises(UserError, match=r"denoiser\.condition_tokens 3 is too few: the longest prompt has"):
        build_denoiser(parse_study("x", of_prompts(condition_tokens=3)), "baseline")


def test_blocks_are_counted_and_named():
    study = parse_study("x", tiny_values(denoiser={"architecture": "ddt", "head_depth": 2, "depth": 3}))
    assert study.denoiser.blocks == ["block 0", "block 1", "block 2", "head 0", "head 1"]
    assert study.denoiser.text == "DDT 64/3/4 + head 2"
    assert len(build_denoiser(study, "dsr").blocks) == 5
    study = parse_study("x", of_classes())
    assert study.denoiser.blocks[-1] == "head 0"
    assert len(build_denoiser(study, "dsr").blocks) == len(study.denoiser.blocks)


def test_the_projector_of_training_is_dropped_and_told():
    weights = make("diffusionbench_ddt").state_dict()
    published = weights | {"repa_projector.weight": torch.ones(2, 2), "repa_projector.bias": torch.ones(2)}
    kept, facts = DiffusionBenchDDT.from_published(published)
    assert kept.keys() == weights.keys()
    assert facts == {"dropped": {"repa_projector.*": 2}}
    assert DiffusionBenchDDT.from_published(weights) == (weights, {})
