"""Test-time registers (TTR): move the activation of the neurons that make outlier tokens into extra tokens.

Jiang et al., "Vision Transformers Don't Need Trained Registers"; DSR release, `src/stage1/encoders/siglip2_tt_reg`. The hooks are
registered once and work on batches of any size. harness.encoder.register_search finds the neurons.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from harness.encoder.tower import VisionEncoder, submodule
from harness.study.typed import UserError, nearest

Neurons = dict[int, list[int]]  # layer -> hidden units of its MLP, both 0-based
Variant = Literal["described", "released"]
PUBLISHED = Path(__file__).parent / "register_neurons"
MLP_OUTPUTS = ("mlp.fc2", "mlp.down_proj")  # the second is that of a SwiGLU (DINOv2-giant)


def mlp_output_layer(layer: nn.Module) -> nn.Linear:
    """The linear layer that follows the MLP activation; its input holds one channel per neuron. UserError where there is none."""
    return submodule(layer, *MLP_OUTPUTS)


class TestTimeRegisters:
    """Appends `count` zero tokens to an encoder and moves the listed neurons into them, until `remove()`.

    After the MLP activation of each listed layer:
    `described`: the registers' listed neurons take that neuron's activation of largest magnitude over all tokens of the image, and the
    patches' become zero; CLS and registers that the encoder was trained with keep theirs.
    `released` (`shared/hook_fn.py:44-74`): all listed neurons of the registers take one number, the activation of largest magnitude over
    all tokens and all listed neurons of the layer; the first token, taken for a CLS, keeps its own, and all others' become zero.

    UserError if the list names a layer or a neuron that the encoder does not have.
    """

    __test__ = False  # not a test, whatever pytest makes of the name

    def __init__(self, encoder: VisionEncoder, neurons: Neurons, count: int = 1, variant: Variant = "described") -> None:
        self.encoder, self.count = encoder, count
        self.listed: dict[int, Tensor] = {}
        outputs = {}
        for index, listed in neurons.items():
            if not 0 <= index < encoder.depth:
                raise UserError(f"register neurons name layer {index}, the encoder has {encoder.depth}: made for another encoder?")
            outputs[index] = mlp_output_layer(encoder.layers[index])
            if not listed or max(listed) >= outputs[index].in_features or min(listed) < 0:
                raise UserError(f"register neurons of layer {index}: {listed} is not a list from 0 to {outputs[index].in_features - 1}")
            self.listed[index] = torch.tensor(sorted(set(listed)))
        move = {"described": self._as_described, "released": self._as_released}[variant]
        # bound methods, because a deep copy of the encoder then gets a copy of these registers, hooks included
        self.handles = [encoder.append_tokens(self._zeros)]
        self.handles += [output.register_forward_pre_hook(partial(self._hook, move, index)) for index, output in outputs.items()]

    def _zeros(self) -> Tensor:
        return next(self.encoder.parameters()).new_zeros(self.count, self.encoder.width)

    def _hook(self, move: Callable[[Tensor, Tensor], None], index: int, _module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        activations = inputs[0].clone()
        if self.listed[index].device != activations.device:
            self.listed[index] = self.listed[index].to(activations.device)
        move(activations, self.listed[index])
        return (activations,)

    def _as_described(self, activations: Tensor, listed: Tensor) -> None:
        units = activations[..., listed]  # (B, tokens, neurons)
        strongest = units.gather(1, units.abs().argmax(dim=1, keepdim=True))
        activations[:, self.encoder.prefix : self.encoder.prefix + self.encoder.patches, listed] = 0
        activations[:, -self.count :, listed] = strongest

    def _as_released(self, activations: Tensor, listed: Tensor) -> None:
        units = activations[..., listed].flatten(1)
        strongest = units.gather(1, units.abs().argmax(dim=1, keepdim=True))
        activations[:, 1 : -self.count, listed] = 0
        activations[:, -self.count :, listed] = strongest.unsqueeze(1)

    def remove(self) -> None:
        """Leave the encoder as it was."""
        for handle in self.handles:
            handle.remove()


def released_neurons(name: str, encoder: VisionEncoder | None = None) -> Neurons:
    """The list that the DSR authors published under `name`: `siglip2_base`, or `siglip2_so400m_recursive` (two rounds in one list)."""
    names = sorted(path.stem for path in PUBLISHED.glob("*.json"))
    return load_neurons(PUBLISHED / f"{nearest(name, names, 'list of register neurons')}.json", encoder)


def load_neurons(path: Path | str, encoder: VisionEncoder | None = None) -> Neurons:
    """{layer: sorted neurons without repeats} of a JSON file with `encoder`, `layers`, `neurons_per_layer` and `neurons`.

    UserError if it is no such file, or if the list was made for an encoder of another depth or MLP width than `encoder`.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        layers, width = int(record["layers"]), int(record["neurons_per_layer"])
        neurons = {int(layer): sorted(set(map(int, listed))) for layer, listed in record["neurons"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a list of register neurons ({type(error).__name__}: {error})") from None
    if encoder is not None:
        depth, own = encoder.depth, mlp_output_layer(encoder.layers[0]).in_features
        if (layers, width) != (depth, own):
            raise UserError(
                f"{path}: register neurons of {record.get('encoder')} ({layers} layers of {width} neurons); "
                f"this encoder has {depth} of {own}"
            )
    return neurons
