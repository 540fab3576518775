"""Tiny denoisers for tests, and those of the authors' stored outputs."""

import pytest
import torch

from harness.denoiser.diffusionbench import DiffusionBenchDDT
from harness.denoiser.ditdh import DiTDH
from harness.denoiser.lightningdit import LightningDiT
from harness.denoiser.registry import ARCHITECTURES
from harness.denoiser.text import WordStates

SIZES = {"input_size": 4, "in_channels": 8, "hidden_size": 32, "depth": 3, "num_heads": 2, "num_classes": 10, "patch_size": 1}
EXTRA = {
    "lightningdit": {},
    "ditdh": {"head_width": 48, "head_depth": 2, "head_heads": 3},
    "sit": {},
    "jit": {"bottleneck": 6, "in_context_len": 3, "in_context_start": 1},
    "repa": {},
    "lightningdit_hustvl": {},
    "ddt": {"head_depth": 2},
    "diffusionbench_ddt": {"head_width": 48, "head_depth": 2, "head_heads": 3, "time_tokens": 2, "condition_tokens": 3},
}
EXTRA["diffusionbench_ddt of text"] = EXTRA["diffusionbench_ddt"] | {"condition": "text", "context_width": 12}
WORDS = torch.tensor([[1 + i % 4, 5 + i // 4, 0] for i in range(10)] + [[0, 0, 0]])  # of 10 prompts and the null prompt


def of_text(**options):
    words = WordStates(WORDS, options["context_width"], options["condition_tokens"])
    model = DiffusionBenchDDT(**options)
    model.y_embedder = words
    return model


KINDS = ARCHITECTURES | {"diffusionbench_ddt of text": of_text}


def in_context(name, index):
    """How many tokens beside patches and registers a tiny denoiser's block has."""
    if name == "jit":
        return 3 if index >= 1 else 0
    return 5 if name.startswith("diffusionbench") and index < SIZES["depth"] else 0


HEADED = {"ditdh", "ddt", "diffusionbench_ddt", "diffusionbench_ddt of text"}  # their registers are of two kinds
REGISTERS = {
    "lightningdit": {"register_tokens", "register_pos_embed", "feat_rope_incontext.freqs_cos", "feat_rope_incontext.freqs_sin"},
    "ditdh": {
        f"{side}_{name}"
        for side in ("enc", "dec")
        for name in ("register_tokens", "register_pos_embed", "feat_rope_incontext.freqs_cos", "feat_rope_incontext.freqs_sin")
    },
    "sit": {"register_tokens", "register_pos_embed"},
    "jit": {"register_tokens", "register_pos_embed"},
    "repa": {"register_tokens", "register_pos_embed"},
    "lightningdit_hustvl": {"register_tokens", "register_pos_embed", "feat_rope_incontext.freqs_cos", "feat_rope_incontext.freqs_sin"},
    **{
        name: {f"{side}_register_{what}" for side in ("enc", "dec") for what in ("tokens", "pos_embed")}
        for name in ("ddt", "diffusionbench_ddt", "diffusionbench_ddt of text")
    },
}
every_architecture = pytest.mark.parametrize("name", list(KINDS))


def make(name, *, seed=0, spread=0.0, **changes):
    """A tiny denoiser; `spread` moves every weight away from its first value, so that no path is closed by a zero."""
    torch.manual_seed(seed)
    model = KINDS[name](**SIZES | EXTRA.get(name, {}) | changes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    return model


def inputs(batch=2, channels=8, side=4):
    generator = torch.Generator().manual_seed(1)
    x, t = torch.randn(batch, channels, side, side, generator=generator), torch.rand(batch, generator=generator)
    return x, t, torch.tensor([0, 10, 3, 7])[:batch]


def on_meta(architecture, **sizes):
    with torch.device("meta"):
        return architecture(**sizes)


def build(config, tensors):
    kwargs = config["kwargs"]
    registers = {"registers": kwargs.get("register_len", 0), "register_start": kwargs.get("register_start", 0)}
    sizes = {name: kwargs[name] for name in ("input_size", "in_channels", "num_classes", "mlp_ratio")}
    if config["model"] == "DiTwDDTHead":
        wide = {f"head_{name}": kwargs[key][1] for name, key in (("width", "hidden_size"), ("depth", "depth"), ("heads", "num_heads"))}
        deep = {key: kwargs[key][0] for key in ("hidden_size", "depth", "num_heads", "patch_size")}
        model = DiTDH(**sizes, **deep, **wide, **registers)
    else:
        model = LightningDiT(**sizes, **{key: kwargs[key] for key in ("hidden_size", "depth", "num_heads", "patch_size")}, **registers)
    model.load_state_dict({key.removeprefix("state."): value for key, value in tensors.items() if key.startswith("state.")}, strict=True)
    return model.eval()


GOLDEN = ["lightningdit_plain", "lightningdit_registers9_start2", "ditdh_plain", "ditdh_registers4_start1"]
