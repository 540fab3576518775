"""Which weights of a checkpoint are taken: averages by their name, one alone, or the one that is named; otherwise none."""

from pathlib import Path

import pytest
import torch

from harness.store.containers import choose
from harness.study.typed import UserError

AVERAGE = {"blocks.0.w": torch.arange(6.0).reshape(2, 3), "head.b": torch.ones(2)}
RAW = {name: value + 10 for name, value in AVERAGE.items()}
ONE = torch.tensor(1.0)
ITSELF: list = [torch.ones(2)]
ITSELF.append(ITSELF)


def under(prefix, weights):
    return {prefix + name: value for name, value in weights.items()}


def averaged(weights):
    """As PyTorch's AveragedModel saves them."""
    return {"n_averaged": torch.tensor(3), **under("module.", weights)}


# file -> the container that is taken of it; its weights are AVERAGE's
TAKEN = {
    "a state dict": (AVERAGE, "."),
    "DiT, SiT, RAE": ({"model": RAW, "ema": AVERAGE, "opt": {"state": {0: {"exp_avg": torch.ones(2)}}}, "step": 3}, "ema"),
    "ema without a wrapper's name": ({"model": RAW, "ema": {"module": AVERAGE}}, "ema.module"),
    "model_ema": ({"model": RAW, "model_ema": AVERAGE}, "model_ema"),
    "ema_model": ({"model": RAW, "ema_model": AVERAGE}, "ema_model"),
    "ModelEma": ({"model": RAW, "ModelEmaV2": under("module.", AVERAGE)}, "ModelEmaV2"),
    "timm": ({"state_dict": RAW, "state_dict_ema": AVERAGE, "amp_scaler": {"scale": torch.ones(1)}}, "state_dict_ema"),
    "ema_state_dict": ({"state_dict": RAW, "ema_state_dict": AVERAGE}, "ema_state_dict"),
    "averaged": ({"model": RAW, "averaged_model": AVERAGE}, "averaged_model"),
    "two levels": ({"checkpoint": {"model": RAW, "ema": AVERAGE}}, "checkpoint.ema"),
    "ema of two levels": ({"model": RAW, "ema": {"model": AVERAGE, "decay": 0.9}}, "ema.model"),
    "one of JiT's two": ({"model": RAW, "model_ema1": under("net.", AVERAGE)}, "model_ema1"),
    "AveragedModel": (averaged(AVERAGE), "."),
    "AveragedModel beside the model": ({"model": RAW, "swa": averaged(AVERAGE)}, "swa"),
    "open_clip": ({"epoch": 3, "name": "x", "state_dict": under("module.", AVERAGE), "optimizer": {"exp_avg": RAW}}, "state_dict"),
    "Lightning": ({"state_dict": under("model.", AVERAGE), "callbacks": {"x": {"best": ONE}}}, "state_dict"),
    "compiled Lightning": ({"state_dict": under("model._orig_mod.net.", AVERAGE)}, "state_dict"),
    "Lightning with both": (
        {"state_dict": {**under("model.net.", RAW), **under("ema.net.", AVERAGE), "loss.w": torch.ones(2)}},
        "state_dict.ema",
    ),
    "Lightning with both in the model": ({"state_dict": under("model.net.", RAW) | under("model.ema.", AVERAGE)}, "state_dict.model.ema"),
    "DDT": ({"state_dict": under("denoiser.", RAW) | under("ema_denoiser.", AVERAGE) | {"vae.q.w": ONE}}, "state_dict.ema_denoiser"),
    "side by side": (under("model.", RAW) | under("ema.", AVERAGE), "ema"),
    "side by side, averaged": (under("model.", RAW) | under("swa.", averaged(AVERAGE)), "swa"),
    "side by side in DDP": (under("module.model.", RAW) | under("module.ema.", AVERAGE), "ema"),
    "an average beside names without a prefix": (RAW | under("ema.", AVERAGE), "ema"),
    "ema-pytorch": ({"initted": ONE, **under("online_model.", RAW), **under("ema_model.", averaged(AVERAGE))}, "ema_model"),
    "wrappers inside": ({"blocks.0._orig_mod.w": AVERAGE["blocks.0.w"], "module.head.b": AVERAGE["head.b"]}, "."),
    "all of a prefix": (under("ema.", AVERAGE), "ema"),
    "a mean beside them": ({"model": AVERAGE, "latents_mean": torch.ones(3), "loss": ONE}, "model"),
    "EMAModel": ({"model": RAW, "EMAModel": AVERAGE}, "EMAModel"),
    "modelEMA": ({"model": RAW, "modelEMA": AVERAGE}, "modelEMA"),
    "emas with decays": ({"model": RAW, "ema0.9999": AVERAGE}, "ema0.9999"),
    "non_ema_state_dict": ({"non_ema_state_dict": RAW, "ema_state_dict": AVERAGE}, "ema_state_dict"),
    "without an average": ({"NonEma": RAW, "no-ema": RAW, "model_without_ema": RAW, "nonema": RAW, "model.ema": AVERAGE}, "model.ema"),
    "not averaged": ({"not_averaged": RAW, "averaged": AVERAGE}, "averaged"),
    "only raw weights, and called so": ({"non_ema_state_dict": AVERAGE, "schema": {}, "cinema": {}}, "non_ema_state_dict"),
    "cinema beside an average": ({"cinema": RAW, "ema": AVERAGE}, "ema"),
    "no average after all": ({"model": AVERAGE, "ema": None, "ema_decay": 0.9999}, "model"),
    "random states": ({"model": AVERAGE, "rng": {"cpu": torch.ones(5)}, "rng_state": torch.ones(5)}, "model"),
}


@pytest.mark.parametrize("kind", TAKEN)
def test_the_average_or_the_only_one_is_taken(kind):
    content, container = TAKEN[kind]
    tensors, name, _ = choose(content, Path("x.pt"))
    assert name == container
    assert tensors.keys() == AVERAGE.keys()
    assert all(torch.equal(tensors[key], AVERAGE[key]) for key in AVERAGE)


@pytest.mark.parametrize(
    ("content", "wanted", "container"),
    [
        ({"model": RAW, "model_ema1": AVERAGE, "model_ema2": RAW}, "model_ema1", "model_ema1"),
        ({"model": AVERAGE, "ema": RAW}, "model", "model"),
        ({"student": RAW, "teacher": AVERAGE}, "teacher", "teacher"),
        ({"model": RAW, "emas": {"0.9999": AVERAGE, "0.999": RAW}}, "0.9999", "emas.0.9999"),
        ({"a": {"model": RAW, "ema": AVERAGE}, "b": {"ema": RAW}}, "a", "a.ema"),
        ({"state_dict": under("model.", AVERAGE) | under("ema.", RAW)}, "model", "state_dict.model"),
        ({"state_dict": under("model.", AVERAGE) | {"loss.w": torch.ones(2)}}, "state_dict.model", "state_dict.model"),
        (under("model.", AVERAGE), "model", "model"),
        (AVERAGE | under("ema.", RAW), ".", "."),
        ({"model": AVERAGE, "ema": {"shadow_params": [torch.ones(3)]}}, "model", "model"),
    ],
)
def test_the_one_that_is_named_is_taken(content, wanted, container):
    tensors, name, _ = choose(content, Path("x.pt"), wanted)
    assert name == container
    assert all(torch.equal(tensors[key], AVERAGE[key]) for key in AVERAGE)


@pytest.mark.parametrize(
    ("content", "wanted", "says"),
    [
        ({"model": RAW, "model_ema1": AVERAGE, "model_ema2": RAW}, None, "several averages: 'model_ema1' (2 tensors), 'model_ema2' (2 "),
        ({"student": RAW, "teacher": AVERAGE}, None, "none of them alone an average by its name: 'student' (2 tensors), 'teacher' (2 "),
        ({"schema": RAW, "semantic": AVERAGE}, None, "none of them alone an average"),
        ({"model": RAW, "cinema": AVERAGE}, None, "none of them alone an average by its name: 'model' (2 tensors), 'cinema' (2 tensors)"),
        ({"state_dict": RAW, "non_ema_state_dict": RAW}, None, "none of them alone an average by its name: 'state_dict' (2 tensors)"),
        ({"model": RAW, "modelema": AVERAGE}, None, "none of them alone an average by its name: 'model' (2 tensors), 'modelema' (2 "),
        (under("net.", RAW) | under("netema.", AVERAGE), None, "none of them alone an average by its name: 'netema' (2 tensors), 'net' "),
        ({"model": RAW, "modelema": [torch.ones(3)]}, None, "'modelema' is called an average, but is no mapping"),
        ({"model": RAW, "ema": AVERAGE}, "em", "has no container 'em'; there are 'model' (2 tensors), 'ema' (2 tensors)"),
        ({"a": {"w": RAW}, "b": {"w": AVERAGE}}, "w", "several containers"),
        ({"model": RAW, "ema": {"shadow_params": [torch.ones(3)]}}, None, "'ema' is called an average, but is no mapping"),
        ({"model": RAW, "ema": torch.ones(3)}, None, "'ema' is called an average, but is no mapping"),
        ({"model": RAW, "ema": ITSELF}, None, "'ema' is called an average, but is no mapping"),
        ({"model": RAW, "ema": {}}, None, "'ema' is called an average, but is no mapping"),
        ({"model": RAW, "ema": {"a": {"b": AVERAGE}}}, None, "'ema' is called an average, but is no mapping"),
        ({"state_dict": RAW, "callbacks": {"EMACallback": {"a": {"s": AVERAGE}}}}, None, "'callbacks.EMACallback' is called an average"),
        (AVERAGE | under("module.", RAW), None, "two tensors are 'blocks.0.w'"),
        ({"params": {f"block{i}": AVERAGE for i in range(20)}}, None, "and 8 more"),
        ([AVERAGE, RAW], None, "no mapping of names to tensors"),
    ],
)
def test_where_it_is_not_clear_none_is_taken_and_all_are_listed(content, wanted, says):
    with pytest.raises(UserError) as refused:
        choose(content, Path("x.pt"), wanted)
    assert str(refused.value).startswith("x.pt: ")
    assert says in str(refused.value)
