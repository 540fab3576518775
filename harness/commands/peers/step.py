"""Rows on training steps: our LightningDiT beside plain PyTorch of the same network with the same weights; seeds as a stack or in turn."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.commands.peers.measure import Line, Pair, Values, alternate
from harness.denoiser.build import build_denoiser
from harness.denoiser.lightningdit import LightningDiT
from harness.denoiser.loss import loss_of, parts_of
from harness.denoiser.stack import stacked_descent
from harness.encoder.latents import Batch
from harness.machine.streams import seed_initialisation, stream
from harness.study.study import load_study
from harness.training.loop import by_itself

SHAPE = {"input_size": 8, "in_channels": 16, "hidden_size": 128, "depth": 4, "num_heads": 4, "num_classes": 10}  # 64 tokens
BATCH = 32


def _norm(x: Tensor, weight: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * weight


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    one, two = x[..., ::2], x[..., 1::2]
    return x * cos + torch.stack([-two, one], dim=-1).reshape(x.shape) * sin


def plain(model: LightningDiT, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
    """The forward pass as one writes it down: RMSNorm, adaLN, rotary embedding, attention and SwiGLU, with the weights of `model`."""
    condition = model.t_embedder(t) + model.y_embedder(y)
    h = model.x_embedder.proj(x).flatten(2).transpose(1, 2) + model.pos_embed
    cos, sin = model.feat_rope.freqs_cos, model.feat_rope.freqs_sin
    for block in model.blocks:
        linear: nn.Linear = block.adaLN_modulation[1]
        parts = linear(F.silu(condition))[:, None].chunk(6, dim=-1)
        a = _norm(h, block.norm1.weight) * (1 + parts[1]) + parts[0]
        batch, tokens, width = a.shape
        qkv = block.attn.qkv(a).reshape(batch, tokens, 3, block.attn.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = _turned(qkv[0], cos, sin), _turned(qkv[1], cos, sin), qkv[2]
        a = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width)
        h = h + parts[2] * block.attn.proj(a)
        a = _norm(h, block.norm2.weight) * (1 + parts[4]) + parts[3]
        gate, up = block.mlp.w12(a).chunk(2, dim=-1)
        h = h + parts[5] * block.mlp.w3(F.silu(gate) * up)
    last = model.final_layer
    shift, scale = last.adaLN_modulation[1](F.silu(condition))[:, None].chunk(2, dim=-1)
    return model.unpatchify(last.linear(_norm(h, last.norm_final.weight) * (1 + scale) + shift))


def step(rounds: int, batch: int = BATCH) -> list[Line]:
    """Forward and backward of a batch; both sides' loss and norm of the gradient are compared."""
    seed_initialisation(0)
    model, generator = LightningDiT(**SHAPE), stream(0, "benchmark step")
    for parameter in model.parameters():  # fresh ones are zero where adaLN opens the blocks, so that these would not be computed
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    x, noise = (torch.randn(batch, SHAPE["in_channels"], 8, 8, generator=generator) for _ in range(2))
    t, y = torch.rand(batch, generator=generator), torch.arange(batch) % SHAPE["num_classes"]

    def side(forward: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Values:
        model.zero_grad(set_to_none=True)
        loss = F.mse_loss(forward(x, t, y), noise)
        loss.backward()
        norm = torch.stack([p.grad.double().square().sum() for p in model.parameters() if p.grad is not None]).sum().sqrt()
        return [loss.item(), norm.item()]

    work = f"training step of a DiT, width 128, depth 4, 64 tokens, batch {batch}"
    pair = Pair(work, "plain PyTorch", "1.1", lambda: side(model), lambda: side(lambda *a: plain(model, *a)), 1e-5)
    return [alternate(pair, rounds)]


def seeds(rounds: int, count: int = 6) -> list[Line]:
    """Forward and backward of `digits`' denoisers, with and without registers, for `count` seeds: stacked, and one after the other."""
    return [_seeds(method, rounds, count) for method in ("baseline", "dsr")]


def _seeds(method: str, rounds: int, count: int) -> Line:
    study, infinite = load_study("digits"), float("inf")
    size = study.denoiser.training.batch

    def batch_of(seed: int) -> Callable[[int], Batch]:
        latents = torch.randn((size, *study.latent_shape), generator=stream(seed, "benchmark"))
        return lambda _: Batch(latents, torch.arange(size) % study.classes, {}, None)

    def models() -> list[nn.Module]:
        made = []
        for seed in range(count):
            seed_initialisation(seed)
            made.append(build_denoiser(study, method))
        return made

    batches, apart = [batch_of(seed) for seed in range(count)], models()
    together = stacked_descent(models(), [parts_of(study, None, infinite, batch) for batch in batches])
    in_turn = [by_itself(one, loss_of(study, None, infinite, batch, one)) for one, batch in zip(apart, batches, strict=True)]

    def generators() -> list[torch.Generator]:
        return [stream(seed, "step", 0) for seed in range(count)]

    work = f"training step of digits' {method}, {count} seeds as a stack"
    return alternate(
        Pair(
            work,
            "ours, one after the other",
            "1.3" if method == "baseline" else "1.15",
            lambda: [loss.item() for loss in together(0, generators())],
            lambda: [one(0, [of])[0].item() for one, of in zip(in_turn, generators(), strict=True)],
            1e-5,
        ),
        rounds,
    )
