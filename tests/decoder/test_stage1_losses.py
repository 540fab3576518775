"""RAE's perceptual and adversarial losses at toy size: values by hand or from another implementation, gradients, draws, refusals."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness.decoder import discriminator as d
from harness.decoder.perceptual import Perceptual
from harness.study.typed import UserError

WIDTHS = (4, 6, 8, 10, 12)
TOY = {"size": 16, "patch": 4, "width": 32, "depth": 4, "attention_heads": 2, "blocks": (1, 2, 3), "kernel": 5}


def images(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def perceptual(widths=WIDTHS):
    """With heads that are not negative, as the published ones are."""
    torch.manual_seed(0)
    model = Perceptual(widths)
    for weight in model.heads.parameters():
        weight.abs_()
    return model


def published(model, folder, **changes):
    """The two files that `Perceptual.from_files` reads, of a random model; VGG's with a part that is not used."""
    vgg = {**model.vgg.state_dict(), "classifier.0.bias": torch.zeros(3)} | changes
    torch.save(vgg, folder / "vgg16.pth")
    torch.save(model.heads.state_dict(), folder / "vgg.pth")
    return folder / "vgg16.pth", folder / "vgg.pth"


# ------------------------------------------------------------------------------------------------------------------ perceptual


def test_distance_of_an_image_to_itself_is_zero_and_to_another_is_positive():
    a, b = images(3, 3, 32, 32), images(3, 3, 32, 32, seed=1)
    model = perceptual()
    assert model(a, a).tolist() == [0, 0, 0]
    assert (model(a, b) > 0).all()
    torch.testing.assert_close(model(a, b), model(b, a))
    torch.testing.assert_close(model(a, b)[1:], model(a[1:], b[1:]))


def test_gradient_reaches_the_image_and_no_weight():
    a = images(2, 3, 32, 32).requires_grad_()
    model = perceptual()
    model(a, images(2, 3, 32, 32, seed=1)).mean().backward()
    assert a.grad.abs().amax((1, 2, 3)).min() > 0
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())


def test_train_mode_changes_nothing():
    a, b = images(2, 3, 32, 32), images(2, 3, 32, 32, seed=1)
    model = perceptual()
    torch.testing.assert_close(model.train()(a, b), model.eval()(a, b), rtol=0, atol=0)


def test_agrees_with_torch_fidelity_on_the_same_weights(monkeypatch):
    import torchvision
    from torch_fidelity import sample_similarity_lpips as theirs

    ours = perceptual((64, 128, 256, 512, 512))
    vgg = nn.Module()
    vgg.features = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
    vgg.load_state_dict(ours.vgg.state_dict())
    monkeypatch.setattr(theirs, "torchvision_load_pretrained_vgg16", lambda: vgg)
    monkeypatch.setattr(theirs, "load_state_dict_from_url", lambda *_, **__: ours.heads.state_dict())
    reference = theirs.SampleSimilarityLPIPS("lpips")
    a, b = images(2, 3, 32, 48), images(2, 3, 32, 48, seed=1)
    torch.testing.assert_close(ours(a, b), reference((a + 1) * 127.5, (b + 1) * 127.5), rtol=1e-4, atol=1e-9)


def test_published_files_are_loaded(tmp_path):
    model = perceptual()
    files = published(model, tmp_path)
    loaded = Perceptual.from_files(*files, widths=WIDTHS)
    a, b = images(2, 3, 32, 32), images(2, 3, 32, 32, seed=1)
    torch.testing.assert_close(loaded(a, b), model(a, b), rtol=0, atol=0)
    assert not any(p.requires_grad for p in loaded.parameters())


def test_vgg_of_another_width_or_without_a_layer_is_refused(tmp_path):
    vgg, heads = published(perceptual(), tmp_path)
    with pytest.raises(UserError, match=r"vgg16.pth: weights of another architecture: 'features.0.weight' is \(4, 3, 3, 3\)"):
        Perceptual.from_files(vgg, heads)
    state = torch.load(heads)
    del state["lin3.model.1.weight"]
    torch.save(state, heads)
    with pytest.raises(UserError, match=r"vgg.pth: weights of another architecture: 'lin3.model.1.weight' is nothing in the file"):
        Perceptual.from_files(vgg, heads, widths=WIDTHS)
    with pytest.raises(UserError, match=r"'features.99.weight' is .* nothing in the model"):
        Perceptual.from_files(*published(perceptual(), tmp_path, **{"features.99.weight": torch.zeros(1)}), widths=WIDTHS)


# --------------------------------------------------------------------------------------------------------------- discriminator


@pytest.fixture
def toy():
    torch.manual_seed(0)
    return d.Discriminator(**TOY)


def test_only_the_heads_train_and_the_vit_stays_in_eval_mode(toy):
    trained = {name for name, p in toy.named_parameters() if p.requires_grad}
    assert trained == {f"heads.{name}" for name, _ in toy.heads.named_parameters()}
    toy.train()
    assert toy.heads.training
    assert not any(module.training for module in toy.backbone.modules())


def test_features_are_those_of_the_released_formula(toy):
    """The ViT written out: pre-norm blocks, GELU by its tanh formula, no final norm; the first head reads the last block."""
    weights = dict(toy.backbone.named_parameters())
    with torch.no_grad():
        for p in weights.values():
            p.add_(0.1 * torch.randn(p.shape))
    x = images(2, 3, 24, 20)

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-6)

    def linear(x, name):
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    small = F.interpolate(x, size=(16, 16), mode="bilinear", align_corners=False)
    pixels = (small / 2 + 0.5 - torch.tensor(d.MEAN).view(3, 1, 1)) / torch.tensor(d.DEVIATION).view(3, 1, 1)
    tokens = F.conv2d(pixels, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], stride=4).flatten(2).mT
    tokens = torch.cat([weights["cls_token"].expand(2, -1, -1), tokens], 1) + weights["pos_embed"]
    after = []
    for i in range(4):
        block = f"blocks.{i}"
        query, key, value = linear(norm(tokens, f"{block}.norm1"), f"{block}.attn.qkv").view(2, 17, 3, 2, 16).permute(2, 0, 3, 1, 4)
        mixed = (query @ key.mT / 4).softmax(-1) @ value
        tokens = tokens + linear(mixed.transpose(1, 2).flatten(2), f"{block}.attn.proj")
        hidden = F.gelu(linear(norm(tokens, f"{block}.norm2"), f"{block}.mlp.fc1"), approximate="tanh")
        tokens = tokens + linear(hidden, f"{block}.mlp.fc2")
        after.append(tokens[:, 1:].mT)
    assert len(toy.heads) == 4
    torch.testing.assert_close(torch.stack(toy.features(x)), torch.stack([after[i] for i in (3, 1, 2, 3)]), rtol=1e-4, atol=1e-4)


def test_the_bias_of_the_keys_has_no_effect(toy):
    """The released code zeroes it; here it stays."""
    x = images(2, 3, 16, 16)
    before = toy.features(x)
    for block in toy.backbone.blocks:
        block.attn.qkv.bias[32:64] = torch.randn(32)
    torch.testing.assert_close(torch.stack(toy.features(x)), torch.stack(before), rtol=1e-4, atol=1e-5)


def test_logits_have_one_value_per_head_and_patch_and_do_not_mix_images(toy):
    x = images(3, 3, 20, 20)
    logits = toy.eval()(x)
    assert logits.shape == (3, 4 * 16)
    torch.testing.assert_close(toy(x[1:]), logits[1:])


def test_spectral_norms_move_in_train_mode_only(toy):
    def state():
        return {name: x.clone() for name, x in toy.heads.state_dict().items()}

    x, before = images(2, 3, 16, 16), state()
    toy.eval()(x)
    assert all(torch.equal(before[name], value) for name, value in state().items())
    toy.train()(x)
    moved = {name.rpartition(".")[2] for name, value in state().items() if not torch.equal(before[name], value)}
    assert moved == {"weight_u", "weight_v"}


def test_gradient_reaches_the_image_and_no_weight_of_the_vit(toy):
    x = images(2, 3, 20, 20).requires_grad_()
    d.generator_loss(toy.eval()(x)).backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().amax((1, 2, 3)).min() > 0
    assert all(p.grad is None for p in toy.backbone.parameters())


def test_a_few_steps_separate_real_from_fake(toy):
    """Real: bright on the left, dark on the right, with noise. Fake: noise alone. The spectral norms keep the logits small."""

    def batch(seed):
        sides = torch.tensor([0.5, -0.5]).repeat_interleave(8)
        return sides + 0.5 * images(16, 3, 16, 16, seed=2 * seed), images(16, 3, 16, 16, seed=2 * seed + 1)

    vit = {name: p.clone() for name, p in toy.backbone.state_dict().items()}
    optimiser = torch.optim.Adam([p for p in toy.parameters() if p.requires_grad], lr=1e-2)
    losses, generator = [], torch.Generator().manual_seed(0)
    for step in range(40):
        loss = d.hinge_loss(*(toy(d.diff_augment(x, generator)) for x in batch(step)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 < losses[0]
    real, fake = (toy.eval()(x).mean(1) for x in batch(99))
    assert real.min() > fake.max()
    assert all(torch.equal(vit[name], p) for name, p in toy.backbone.state_dict().items())


def test_published_vit_is_loaded_strictly(tmp_path, toy):
    path = tmp_path / "dino.pth"
    torch.save(toy.backbone.state_dict(), path)
    loaded = d.Discriminator.from_file(path, **TOY)
    x = images(2, 3, 16, 16)
    torch.testing.assert_close(torch.stack(loaded.features(x)), torch.stack(toy.features(x)), rtol=0, atol=0)
    assert not any(p.requires_grad for p in loaded.backbone.parameters())
    with pytest.raises(UserError, match=r"dino.pth: weights of another architecture: 'cls_token' is \(1, 1, 32\) in the file"):
        d.Discriminator.from_file(path, **TOY | {"width": 48})


def test_default_sizes_are_those_of_dino_vit_s_8():
    with torch.device("meta"):
        vit = d.Discriminator().backbone
    shapes = {name: tuple(p.shape) for name, p in vit.state_dict().items()}
    assert len(shapes) == 6 + 12 * 12
    assert shapes["pos_embed"] == (1, 28 * 28 + 1, 384)
    assert shapes["patch_embed.proj.weight"] == (384, 3, 8, 8)
    assert shapes["blocks.11.mlp.fc1.weight"] == (1536, 384)
    assert vit.blocks[0].attn.num_heads == 6


def test_heads_follow_the_released_formula():
    torch.manual_seed(0)
    head, x = d.Head(8, 5), torch.randn(2, 8, 12)
    for block in (head.first, head.residual):
        nn.init.normal_(block.norm.weight)
        nn.init.normal_(block.norm.bias)

    def formula(x, module):
        normal = module.conv.weight_orig / torch.linalg.matrix_norm(module.conv.weight_orig.flatten(1), 2)
        side = normal.shape[-1] // 2
        x = F.conv1d(torch.cat([x[..., 12 - side :], x, x[..., :side]], -1), normal, module.conv.bias)
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-6).sqrt()
        return F.leaky_relu(x * module.norm.weight[:, None] + module.norm.bias[:, None], 0.2)

    for _ in range(200):  # until the power iteration has converged
        head.train()(x)
    first = formula(x, head.first)
    final = (first + formula(first, head.residual)) / math.sqrt(2)
    weight = head.logit.weight_orig / head.logit.weight_orig.norm()
    torch.testing.assert_close(head.eval()(x), F.conv1d(final, weight, head.logit.bias)[:, 0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(40, 40), (9, 30), (16, 16)])
def test_resize_is_bilinear_interpolation(shape):
    x = images(2, 3, *shape)
    expected = F.interpolate(x, size=(16, 16), mode="bilinear", align_corners=False)
    torch.testing.assert_close(d.resize(x, 16), expected, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------------------------------------- augmentation and losses


def test_augmentation_follows_its_generator_and_not_the_rest_of_the_batch():
    x = images(33, 3, 16, 24)

    def augmented(count, seed):
        return d.diff_augment(x[:count], torch.Generator().manual_seed(seed))

    assert torch.equal(augmented(33, 5), augmented(33, 5))
    assert not torch.equal(augmented(33, 5), augmented(33, 6))
    for count in (1, 7, 32):
        torch.testing.assert_close(augmented(count, 5), augmented(33, 5)[:count], rtol=0, atol=1e-6)


def test_augmentation_is_the_released_formula():
    """Draw by draw: shift, brightness, saturation about the grey of each pixel, contrast about the level of the image."""
    x = images(1, 3, 16, 24)
    for seed in range(10):
        draws = torch.rand(5, generator=torch.Generator().manual_seed(seed)).tolist()
        down, across = math.floor(draws[0] * 5) - 2, math.floor(draws[1] * 7) - 3
        shifted = torch.zeros(1, 3, 16, 24)
        for row in range(16):
            for column in range(24):
                if 0 <= row + down < 16 and 0 <= column + across < 24:
                    shifted[..., row, column] = x[..., row + down, column + across]
        bright = shifted + draws[2] - 0.5
        grey = bright.mean(1, keepdim=True)
        saturated = (bright - grey) * draws[3] * 2 + grey
        expected = (saturated - saturated.mean()) * (draws[4] + 0.5) + saturated.mean()
        torch.testing.assert_close(d.diff_augment(x, torch.Generator().manual_seed(seed)), expected, rtol=1e-4, atol=1e-5)


def test_augmentation_passes_the_gradient_on():
    x = images(2, 3, 16, 16).requires_grad_()
    d.diff_augment(x, torch.Generator().manual_seed(0)).square().sum().backward()
    assert (x.grad != 0).float().mean() > 0.5


def test_discretise_gives_the_levels_of_a_stored_image():
    x = torch.tensor([-3.0, -1.0, -0.9999, 0.0, 0.999, 2.0], requires_grad=True)
    stored = ((x.detach().clamp(-1, 1) + 1) / 2 * 255).round().byte()
    discrete = d.discretise(x)
    torch.testing.assert_close(discrete, stored / 127.5 - 1)
    assert not discrete.requires_grad


def test_hinge_and_generator_losses_by_hand():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-2.0, 0.5])
    assert d.hinge_loss(real, fake).item() == pytest.approx(0.5 * ((0 + 0.5 + 2) / 3 + (0 + 1.5) / 2))
    assert d.generator_loss(fake).item() == pytest.approx(0.75)


def test_adaptive_weight_is_the_ratio_of_the_gradient_norms():
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    reconstruction, adversarial = (weight * torch.tensor([3.0, 4.0])).sum(), 0.5 * weight[0, 0]
    factor = d.adaptive_weight(reconstruction, adversarial, weight)
    assert factor.item() == pytest.approx(math.sqrt(2 * (9 + 16)) / (0.5 + 1e-6))
    assert not factor.requires_grad
    assert weight.grad is None
    (reconstruction + factor * adversarial).backward()
    assert weight.grad[0, 0].item() == pytest.approx(3 + 0.5 * factor.item())


def test_adaptive_weight_is_limited():
    weight = torch.ones(3, requires_grad=True)
    assert d.adaptive_weight(weight.sum(), 0 * weight.sum(), weight).item() == 1e4
    assert d.adaptive_weight(weight.sum(), weight.sum(), weight, max_weight=0.5).item() == 0.5
