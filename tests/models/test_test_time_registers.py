import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness import data, encode
from harness.config import EncoderRegisters, UserError
from harness.models import encoder as encoders
from harness.models.test_time_registers import TestTimeRegisters, mlp_output_layer, score_neurons, search_registers
from harness.train.encoder import planted

FACTOR = 3.0


@pytest.fixture
def encoder(built):
    return encoders.load(built.backbones["plain"])


@pytest.fixture(scope="session")
def pixels(built):
    return data.load(built.data, "train").pixels()[:96]


def test_one_round_finds_the_first_population_and_recursion_both(built, study):
    one, until_clean = built.found["ttr_1"], built.found["ttr_until_clean"]
    assert one["precision"] == 1.0
    assert one["recall"] == 0.5
    assert set(one["neurons"]) == {str(study.planted[0].layer)}
    assert until_clean["precision"] == until_clean["recall"] == 1.0
    assert [len(r["found"]) for r in until_clean["rounds"]] == [2, 2]
    assert until_clean["outlier_share_left"] < 0.1 * until_clean["rounds"][0]["outlier_share_before"]


def test_the_control_encoder_is_left_as_it_is(built, study, pixels):
    encoder = encoders.load(built.backbones["trained_registers"])  # not planted
    rounds, neurons, left = search_registers(encoder, pixels, EncoderRegisters(kind="test_time"), study.search, FACTOR)
    assert (rounds, neurons, left) == ([], {}, 0.0)


def test_neurons_move_from_patches_to_the_register(encoder, pixels):
    layer, listed = 2, [1, 5]
    seen = {}
    fc2 = mlp_output_layer(encoder.layers[layer])
    fc2.register_forward_pre_hook(lambda _m, args: seen.update(before=args[0].clone()))
    registers = TestTimeRegisters(encoder, {layer: listed})
    fc2.register_forward_pre_hook(lambda _m, args: seen.update(after=args[0].clone()))
    encoder(pixels)
    before, after = seen["before"], seen["after"]
    assert not after[:, :-1, listed].any()
    assert torch.equal(after[:, -1, listed].abs(), before[:, :, listed].abs().amax(dim=1))
    others = [n for n in range(before.shape[-1]) if n not in listed]
    assert torch.equal(after[..., others], before[..., others])
    registers.remove()


def test_remove_restores_the_encoder(encoder, pixels):
    before = encoder(pixels)
    registers = TestTimeRegisters(encoder, {2: [0], 3: [1, 2]})
    assert not torch.equal(encoder(pixels), before)
    registers.remove()
    assert torch.equal(encoder(pixels), before)


@given(split=st.integers(1, 7))
def test_interventions_do_not_depend_on_the_batch(built, pixels, split):
    encoder = encoders.load(built.backbones["plain"])
    TestTimeRegisters(encoder, {2: [0, 3]})
    together = encoder(pixels[:8])
    apart = torch.cat([encoder(pixels[:split]), encoder(pixels[split:8])])
    assert torch.allclose(together, apart, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 7, 96])
def test_search_does_not_depend_on_the_batch(encoder, pixels, study, batch):
    whole = score_neurons(encoder, pixels, study.search, FACTOR)
    parts = score_neurons(encoder, pixels, study.search.model_copy(update={"batch": batch}), FACTOR)
    assert [n[:2] for n in whole.found] == [n[:2] for n in parts.found]
    assert [n[2] for n in whole.found] == pytest.approx([n[2] for n in parts.found], rel=1e-5)
    assert whole.outlier_share == parts.outlier_share


def test_scores_are_the_mean_over_images_of_the_mean_over_outliers(encoder, pixels, study):
    found = score_neurons(encoder, pixels, study.search.model_copy(update={"top_k": 5, "sparsity_filter": False}), FACTOR)
    activations = {}
    for index, layer in enumerate(encoder.layers):
        mlp_output_layer(layer).register_forward_pre_hook(lambda _m, args, index=index: activations.update({index: args[0]}))
    norms = encoder.hidden_states(pixels)[-1].norm(dim=-1)
    for layer, neuron, score in found.found:
        means = [
            activations[layer][i, norms[i] > found.threshold, neuron].abs().mean()
            for i in range(len(pixels))
            if (norms[i] > found.threshold).any()
        ]
        assert torch.stack(means).mean().item() == pytest.approx(score, rel=1e-5)


@pytest.mark.parametrize(
    ("neurons", "message"), [({9: [0]}, "layer 9, the encoder has 6"), ({2: [64]}, "not a list from 0 to 63"), ({1: []}, "not a list")]
)
def test_a_list_for_another_encoder_is_refused_and_leaves_no_hooks(encoder, pixels, neurons, message):
    before = encoder(pixels[:2])
    with pytest.raises(UserError, match=message):
        TestTimeRegisters(encoder, neurons)
    assert torch.equal(encoder(pixels[:2]), before)


def test_planting_is_where_the_record_says(built, study):
    truth = planted(built.backbones["plain"])
    assert {layer for layer, _ in truth} == {p.layer for p in study.planted}
    assert len(truth) == sum(p.neurons for p in study.planted)
    assert planted(built.backbones["trained_registers"]) == set()


def test_planted_share_is_near_what_was_asked_for(built, study, pixels):
    norms = encoders.load(built.backbones["plain"]).hidden_states(pixels)[-1].norm(dim=-1)
    share = (norms > FACTOR * norms.median()).float().mean().item()
    assert 0.3 * sum(p.share for p in study.planted) < share < 2 * sum(p.share for p in study.planted)


def test_outliers_are_few_tokens_of_many_images(built, pixels):
    norms = encoders.load(built.backbones["plain"]).hidden_states(pixels)[-1].norm(dim=-1)
    counts = (norms > FACTOR * norms.median()).sum(dim=1)
    assert (counts > 0).float().mean() > 0.2
    assert counts[counts > 0].float().mean() < 3  # of 16


def test_an_encoder_without_such_mlps_is_refused():
    with pytest.raises(UserError, match=r"no 'mlp\.fc2'"):
        mlp_output_layer(torch.nn.TransformerEncoderLayer(8, 2))


def test_no_neurons_no_change(built, study, tmp_path):
    path = tmp_path / "registers.json"
    encode.search(study, "ttr_1", data_folder=built.data, backbone=built.backbones["trained_registers"], out=path)
    model = encode.load_encoder(built.backbones["plain"], path)
    pixels = data.load(built.data, "reference").pixels()[:3]
    assert torch.equal(model(pixels), encoders.load(built.backbones["plain"])(pixels))
