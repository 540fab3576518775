import copy
import json

import pytest
import torch
from conftest import error
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from transformers import Dinov2Config, Dinov2Model, SiglipVisionConfig, SiglipVisionModel

from harness.data.stage import load_data
from harness.encoder import tower as tower_model
from harness.encoder import tower_files
from harness.encoder.encode import search_registers
from harness.encoder.register_search import score_neurons, search_rounds
from harness.encoder.test_time_registers import PUBLISHED, TestTimeRegisters, load_neurons, mlp_output_layer, released_neurons
from harness.encoder.token_encoder import load_vision_encoder
from harness.encoder.trained import planted_neurons
from harness.study.method import EncoderRegisters
from harness.study.sections.encoder import Search
from harness.study.typed import UserError

FACTOR = 3.0
SHAPE = {"width": 32, "depth": 4, "heads": 2, "mlp": 64, "patch": 8, "image_size": 32}
TOWERS = {
    "siglip": {"family": "siglip"},
    "siglip_learned_registers": {"family": "siglip", "registers": 2},
    "dinov2": {"family": "dinov2"},
    "dinov2_with_registers": {"family": "dinov2_with_registers", "registers": 4},
}
SEARCH = Search(images=48, batch=16, layer=-1, highest_layer=2, top_k=1, sparsity_filter=True, max_rounds=4)


@pytest.fixture
def encoder(built):
    return tower_files.load_tower(built.backbones["plain"])


@pytest.fixture(scope="session")
def pixels(built):
    return load_data(built.data, "train").pixels()[:96]


@pytest.fixture(params=TOWERS)
def tower(request):
    torch.manual_seed(5)
    return tower_model.build_tower(**TOWERS[request.param], **SHAPE).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def images():
    return torch.randn(48, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.2, 2, 48)[:, None, None, None]


def around(encoder, layer, listed, images, **settings):
    """Activations (B, all tokens, neurons) of a layer before and after its listed neurons are moved; the registers stay."""
    seen, output = {}, mlp_output_layer(encoder.layers[layer])
    handles = [output.register_forward_pre_hook(lambda _m, args: seen.update(before=args[0].clone()))]
    registers = TestTimeRegisters(encoder, {layer: listed}, **settings)
    handles.append(output.register_forward_pre_hook(lambda _m, args: seen.update(after=args[0].clone())))
    encoder(images)
    for handle in handles:
        handle.remove()
    return seen["before"], seen["after"], registers


def grow_outliers(encoder, layer, neuron, images, generator):
    """Make a neuron fire on 3 % of the patches and add a long vector to them."""
    inputs = []
    mlp = encoder.layers[layer].mlp
    handle = mlp.fc1.register_forward_pre_hook(lambda _m, args: inputs.append(encoder.of_patches(args[0])))
    median = encoder.encode(images)[1][:, -1].median()
    handle.remove()
    direction, output = F.normalize(torch.randn(2, encoder.width, generator=generator))
    score = inputs[0].flatten(0, 1) @ direction
    level = score.quantile(0.97)
    gain = 10 / (score[score > level] - level).mean()
    mlp.fc1.weight[neuron], mlp.fc1.bias[neuron] = gain * direction, -gain * level
    mlp.fc2.weight[:, neuron] = median * output


# ------------------------------------------------------------------------------------------------- the authors' behaviour


@pytest.fixture
def released(golden):
    """Encoder, neurons and expected outputs of the authors' code."""
    config, expected = golden("siglip_ttr_1register")
    tower = SiglipVisionModel(SiglipVisionConfig(**config["vision_config"], vision_use_head=False))
    tower.load_state_dict({key.removeprefix("state."): value for key, value in expected.items() if key.startswith("state.")}, strict=True)
    neurons = {int(layer): listed for layer, listed in config["register_neurons"].items()}
    return tower_model.VisionEncoder(tower).eval().requires_grad_(False), neurons, expected


def test_released_variant_agrees_with_the_authors_code(released):
    encoder, neurons, expected = released
    pixels = expected["in.pixel_values"]
    TestTimeRegisters(encoder, neurons, variant="released")
    states = encoder.all_hidden_states(pixels)
    for layer, state in enumerate(states):
        assert error(state, expected[f"ttr.hidden.{layer}"]) < 1e-5
    assert error(states[-1], expected["ttr.pre_layernorm_with_registers"]) < 1e-5
    assert error(encoder.final_norm(states[-1]), expected["ttr.last_hidden_state_with_registers"]) < 1e-5
    assert error(encoder(pixels), expected["ttr.last_hidden_state_with_registers"][:, :-1]) < 1e-5


def test_described_variant_is_another(released):
    encoder, neurons, expected = released
    TestTimeRegisters(encoder, neurons)
    assert error(encoder(expected["in.pixel_values"]), expected["ttr.last_hidden_state_with_registers"][:, :-1]) > 1e-3


def test_trap4_the_first_patch_is_cleaned_too(tower, images):
    before, after, _ = around(tower, 1, [3, 7], images)
    assert not tower.of_patches(after)[..., [3, 7]].any()
    assert torch.equal(after[:, : tower.prefix], before[:, : tower.prefix])  # CLS and trained registers keep theirs


def test_trap4_released_takes_the_first_token_for_a_cls(tower, images):
    before, after, _ = around(tower, 1, [3, 7], images, variant="released")
    assert torch.equal(after[:, 0], before[:, 0])
    assert not after[:, 1:-1, [3, 7]].any()


@pytest.mark.parametrize("count", [1, 3])
def test_trap5_each_neuron_keeps_its_own_strongest_activation(tower, images, count):
    before, after, _ = around(tower, 1, [7, 3], images, count=count)
    for neuron in (3, 7):
        strongest = before[..., neuron].gather(1, before[..., neuron].abs().argmax(dim=1, keepdim=True))
        assert torch.equal(after[:, -count:, neuron], strongest.expand(-1, count))
    others = [n for n in range(64) if n not in (3, 7)]
    assert torch.equal(after[..., others], before[..., others])


def test_trap5_released_gives_all_neurons_the_same_number(tower, images):
    before, after, _ = around(tower, 1, [3, 7], images, variant="released")
    units = before[..., [3, 7]].flatten(1)
    assert torch.equal(after[:, -1, 3], after[:, -1, 7])
    assert torch.equal(after[:, -1, 3], units.gather(1, units.abs().argmax(dim=1, keepdim=True))[:, 0])


# ----------------------------------------------------------------------------------------------------------- every family


@pytest.mark.parametrize("variant", ["described", "released"])
def test_trap7_registers_of_a_batch_are_each_image_s_own(tower, images, variant):
    TestTimeRegisters(tower, {1: [3, 7], 2: [0]}, variant=variant)
    assert tower(images[:2]).shape == (2, 16, 32)
    assert torch.allclose(tower(images[:7]), torch.cat([tower(images[:2]), tower(images[2:7])]), atol=1e-5)


def test_trap16_hooks_are_registered_once(tower, images):
    def hooks():
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in tower.modules())

    without, plain = hooks(), tower(images)
    registers = TestTimeRegisters(tower, {1: [3], 2: [0]})
    set_up = hooks()
    tower(images)
    tower(images)
    assert hooks() == set_up == without + 2
    registers.remove()
    assert hooks() == without
    assert torch.equal(tower(images), plain)


def test_trap22b_a_deep_copy_keeps_its_registers(tower, images):
    plain = tower(images)
    registers = TestTimeRegisters(tower, {1: [3, 7]})
    expected, twin = tower(images), copy.deepcopy(tower)
    assert not torch.equal(expected, plain)
    registers.remove()
    assert torch.equal(twin(images), expected)
    assert torch.equal(tower(images), plain)


def test_neuron_lists_follow_the_encoder_to_its_device(tower, images):
    TestTimeRegisters(tower, {1: [3, 7]})
    tower(images)
    assert tower.to("meta")(images.to("meta")).shape == (48, 16, 32)


def test_neurons_of_a_swiglu_are_found(images):
    config = Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=32, patch_size=8, use_swiglu_ffn=True
    )
    encoder = tower_model.VisionEncoder(Dinov2Model(config)).eval().requires_grad_(False)
    assert mlp_output_layer(encoder.layers[0]).in_features == 48
    before, after, _ = around(encoder, 0, [5], images)
    assert not encoder.of_patches(after)[..., 5].any()
    assert before[..., 5].any()


# ------------------------------------------------------------------------------------------------------------------ lists


def test_published_lists():
    base, merged = released_neurons("siglip2_base"), released_neurons("siglip2_so400m_recursive")
    assert {layer: len(listed) for layer, listed in base.items()} == {1: 2, 2: 3, 3: 10, 4: 16, 5: 19}
    assert sum(map(len, merged.values())) == 72
    assert len(merged[9]) == 28


def test_layer_9_stands_twice_in_the_published_so400m_list():
    neurons = json.loads((PUBLISHED / "siglip2_so400m_recursive.json").read_text(encoding="utf-8"))["neurons"]
    assert sum(map(len, neurons.values())) == 100
    assert sorted(neurons["9"][:28]) == sorted(neurons["9"][28:])


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("siglip2_base", {"width": 768, "depth": 12, "heads": 12, "mlp": 3072, "patch": 16, "image_size": 256}),
        ("siglip2_so400m_recursive", {"width": 1152, "depth": 27, "heads": 16, "mlp": 4304, "patch": 14, "image_size": 224}),
    ],
)
def test_published_lists_fit_their_encoders(name, shape):
    with torch.device("meta"):
        encoder = tower_model.build_tower("siglip", **shape)
        TestTimeRegisters(encoder, released_neurons(name, encoder))
        assert encoder(torch.empty(1, 3, 256, 256)).shape == (1, 256, shape["width"])


def test_a_published_list_for_another_encoder_is_refused(tower):
    with pytest.raises(
        UserError, match=r"google/siglip2-base-patch16-256 \(12 layers of 3072 neurons\); this encoder has 4 of 64"
    ) as refusal:
        released_neurons("siglip2_base", tower)
    assert "\n" not in str(refusal.value)


def test_an_unknown_list_is_refused():
    with pytest.raises(UserError, match="siglip2_base"):
        released_neurons("siglip2_bas")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"layers": 4, "neurons_per_layer": 64, "neurons": {"a": [1]}}'])
def test_a_file_that_is_no_list_is_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="not a list of register neurons"):
        load_neurons(tmp_path / "x.json")


# ----------------------------------------------------------------------------------------------------------------- search


@pytest.fixture
def outliers(tower, images):
    """A tower of each family with two register neurons, (2, 5) and (1, 9)."""
    generator = torch.Generator().manual_seed(1)
    grow_outliers(tower, 2, 5, images, generator)
    grow_outliers(tower, 1, 9, images, generator)
    return tower


def test_search_recurses_in_every_family(outliers, images):
    rounds, neurons, left = search_rounds(outliers, images, EncoderRegisters(kind="test_time", rounds=2), SEARCH, 2.5)
    assert [len(one.neurons) for one in rounds] == [1, 1]
    assert neurons == {1: [9], 2: [5]}
    assert left < 0.2 * rounds[0].outlier_share


def test_trap13_recursion_searches_with_the_registers_in_place(outliers, images):
    seen = {1: [], 2: []}
    tokens = outliers.all_hidden_states(images[:1])[0].shape[1]
    for layer, record in seen.items():
        mlp_output_layer(outliers.layers[layer]).register_forward_hook(lambda _m, args, _o, record=record: record.append(args[0]))
    rounds, _, _ = search_rounds(outliers, images, EncoderRegisters(kind="test_time", rounds=1), SEARCH, 2.5)
    [(layer, neuron, _)] = rounds[0].neurons
    half = len(seen[layer]) // 2
    first, second = seen[layer][:half], seen[layer][half:]
    assert {activations.shape[1] for activations in first} == {tokens}
    assert {activations.shape[1] for activations in second} == {tokens + 1}
    for activations in second:
        assert not outliers.of_patches(activations)[..., neuron].any()  # of no patch, the last one included
        assert activations[:, -1, neuron].max() > 1


def test_a_threshold_gives_what_the_same_multiple_of_the_median_gives(outliers, images):
    two_passes = score_neurons(outliers, images, SEARCH, 2.5)
    one_pass = score_neurons(outliers, images, SEARCH.model_copy(update={"threshold": two_passes.threshold}), 1.0)
    assert one_pass == two_passes
    assert one_pass.outlier_share > 0


@pytest.mark.parametrize(("threshold", "passes"), [(None, 2), (20.0, 1)])
def test_images_may_come_in_batches(outliers, images, threshold, passes):
    asked = []

    def batches():
        asked.append(len(asked))
        yield from images.split(SEARCH.batch)

    search = SEARCH.model_copy(update={"threshold": threshold})
    assert score_neurons(outliers, batches, search, 2.5) == score_neurons(outliers, images, search, 2.5)
    assert len(asked) == passes


def test_only_patches_are_outliers(tower, images):
    def lengthen(_module, _inputs, embeddings):
        return torch.cat([embeddings[:, : tower.prefix] * 1e4, embeddings[:, tower.prefix :]], dim=1)

    tower.tower.embeddings.register_forward_hook(lengthen)
    assert score_neurons(tower, images, SEARCH, 20.0).outlier_share == 0
    assert score_neurons(tower, images, SEARCH.model_copy(update={"threshold": 1e3}), 1.0).neurons == []


def test_a_layer_that_is_not_there_is_refused(tower, images):
    with pytest.raises(UserError, match=r"search\.layer 7: the encoder has 4 layers"):
        score_neurons(tower, images, SEARCH.model_copy(update={"layer": 7}), 2.5)


# --------------------------------------------------------------------------------------------------- of an embedded study


def test_one_round_finds_the_first_population_and_recursion_both(built, study):
    one, until_clean = built.searches["ttr_1"], built.searches["ttr_until_clean"]
    assert one["precision"] == 1.0
    assert one["recall"] == 0.5
    assert set(one["neurons"]) == {str(study.planted[0].layer)}
    assert until_clean["precision"] == until_clean["recall"] == 1.0
    assert [len(r["found"]) for r in until_clean["rounds"]] == [2, 2]
    assert until_clean["outlier_share_left"] < 0.1 * until_clean["rounds"][0]["outlier_share_before"]


def test_the_control_encoder_is_left_as_it_is(built, study, pixels):
    encoder = tower_files.load_tower(built.backbones["trained_registers"])  # not planted
    rounds, neurons, left = search_rounds(encoder, pixels, EncoderRegisters(kind="test_time"), study.search, FACTOR)
    assert (rounds, neurons, left) == ([], {}, 0.0)


@given(split=st.integers(1, 7))
def test_interventions_do_not_depend_on_the_batch(built, pixels, split):
    encoder = tower_files.load_tower(built.backbones["plain"])
    TestTimeRegisters(encoder, {2: [0, 3]})
    together = encoder(pixels[:8])
    apart = torch.cat([encoder(pixels[:split]), encoder(pixels[split:8])])
    assert torch.allclose(together, apart, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 7, 96])
def test_search_does_not_depend_on_the_batch(encoder, pixels, study, batch):
    whole = score_neurons(encoder, pixels, study.search, FACTOR)
    parts = score_neurons(encoder, pixels, study.search.model_copy(update={"batch": batch}), FACTOR)
    assert [n[:2] for n in whole.neurons] == [n[:2] for n in parts.neurons]
    assert [n[2] for n in whole.neurons] == pytest.approx([n[2] for n in parts.neurons], rel=1e-5)
    assert whole.outlier_share == parts.outlier_share


def test_scores_are_the_mean_over_images_of_the_mean_over_outliers(encoder, pixels, study):
    result = score_neurons(encoder, pixels, study.search.model_copy(update={"top_k": 5, "sparsity_filter": False}), FACTOR)
    activations = {}
    for index, layer in enumerate(encoder.layers):
        mlp_output_layer(layer).register_forward_pre_hook(lambda _m, args, index=index: activations.update({index: args[0]}))
    norms = encoder.hidden_states(pixels)[-1].norm(dim=-1)
    for layer, neuron, score in result.neurons:
        means = [
            activations[layer][i, norms[i] > result.threshold, neuron].abs().mean()
            for i in range(len(pixels))
            if (norms[i] > result.threshold).any()
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
    truth = planted_neurons(built.backbones["plain"])
    assert {layer for layer, _ in truth} == {p.layer for p in study.planted}
    assert len(truth) == sum(p.neurons for p in study.planted)
    assert planted_neurons(built.backbones["trained_registers"]) == set()


def test_planted_share_is_near_what_was_asked_for(built, study, pixels):
    norms = tower_files.load_tower(built.backbones["plain"]).hidden_states(pixels)[-1].norm(dim=-1)
    share = (norms > FACTOR * norms.median()).float().mean().item()
    assert 0.3 * sum(p.share for p in study.planted) < share < 2 * sum(p.share for p in study.planted)


def test_outliers_are_few_tokens_of_many_images(built, pixels):
    norms = tower_files.load_tower(built.backbones["plain"]).hidden_states(pixels)[-1].norm(dim=-1)
    counts = (norms > FACTOR * norms.median()).sum(dim=1)
    assert (counts > 0).float().mean() > 0.2
    assert counts[counts > 0].float().mean() < 3  # of 16


def test_an_encoder_without_such_mlps_is_refused():
    with pytest.raises(UserError, match=r"no 'mlp\.fc2'"):
        mlp_output_layer(torch.nn.TransformerEncoderLayer(8, 2))


def test_no_neurons_no_change(built, study, tmp_path):
    path = tmp_path / "registers.json"
    search_registers(study, encoder="ttr_1", data=built.data, backbone=built.backbones["trained_registers"], out=path)
    model = load_vision_encoder(study, built.backbones["plain"], path)
    pixels = load_data(built.data, "reference").pixels()[:3]
    assert torch.equal(model(pixels), tower_files.load_tower(built.backbones["plain"])(pixels))
