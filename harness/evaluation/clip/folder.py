"""open_clip's `local-dir:` folders: a configuration and weights."""

from pathlib import Path

import open_clip
from torch import nn

from harness.machine.device import device
from harness.store.files import write_json
from harness.store.tensors import save_tensors
from harness.training.network import Network

WEIGHTS, CONFIG = "open_clip_model.safetensors", "open_clip_config.json"


def save_folder(folder: Path, model: nn.Module, config: dict, preprocess: dict) -> None:
    """`config` and `preprocess` are open_clip's `model_cfg` and `preprocess_cfg`."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / WEIGHTS, model.state_dict())
    write_json(folder / CONFIG, {"model_cfg": config, "preprocess_cfg": preprocess})


def network_of(config: dict) -> Network:
    """One image through the image tower of open_clip's `model_cfg`."""
    side = config["vision_cfg"]["image_size"]
    return Network(lambda: open_clip.CLIP(**config), (1, 3, side, side), lambda model, x: model.encode_image(x))


def load_folder(folder: Path) -> nn.Module:
    """The model, frozen, on the device of the run."""
    return open_clip.create_model(f"local-dir:{folder}").to(device()).eval().requires_grad_(False)
