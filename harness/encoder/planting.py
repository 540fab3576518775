"""Write register neurons of known place and size into a trained encoder, so that the truth is known.

Each population fires on the tokens that score highest along one direction of the MLP's input: the first along "background minus ink",
the next along the background's principal components. What tells whole images apart is taken out of these directions, so that a few tokens
of many images fire rather than most tokens of one class. A population adds a large vector of its own to the residual stream of those
tokens.
"""

import torch
from torch import Tensor

from harness.data.images import brightness
from harness.encoder.test_time_registers import mlp_output_layer
from harness.encoder.tower import VisionEncoder
from harness.results.outlier_rule import median_norm
from harness.study.sections.encoder import Population
from harness.study.typed import UserError

IMAGE_DIRECTIONS = 9  # principal components of the images' mean tokens that are taken out; ten classes span nine
JITTER = 0.05  # how far the input directions of one population's neurons differ


@torch.no_grad()
def plant(encoder: VisionEncoder, pixels: Tensor, populations: list[Population], generator: torch.Generator) -> list[dict]:
    """Plant `populations` in place, calibrated on `pixels` (N, 3, H, W); returns one record per population: layer, neurons, facts.

    UserError where no token stands out, as of images of one colour.
    """
    inputs, activations = _mlp_records(encoder, pixels)
    median = median_norm(encoder.hidden_states(pixels)[-1].norm(dim=-1)).item()
    background = _background(pixels, encoder.side)
    used: list[Tensor] = []  # input directions, as seen from the residual stream: no planted output may drive them
    records = []
    for place, population in enumerate(populations):
        layer = encoder.layers[population.layer]
        tokens = inputs[population.layer]
        direction = _direction(tokens, background, place, encoder.side**2)
        used.append(layer.layer_norm2.weight * direction)
        importance = activations[population.layer] * layer.mlp.fc2.weight.norm(dim=0)
        free = [
            n
            for n in importance.argsort().tolist()
            if (population.layer, n) not in {(r["layer"], m) for r in records for m in r["neurons"]}
        ]
        records.append({"layer": population.layer, "neurons": sorted(free[: population.neurons]), "share": population.share,
                        "strength": population.strength, "activation": population.activation, "direction": direction})  # fmt: skip
    for record in records:
        layer = encoder.layers[record["layer"]]
        tokens = inputs[record["layer"]]
        for neuron in record["neurons"]:
            direction = record["direction"] + JITTER * _unit(torch.randn(encoder.width, generator=generator))
            score = tokens @ _unit(direction)
            threshold = score.quantile(1 - record["share"]).item()
            if not (score > threshold).any():
                raise UserError(
                    f"planted layer {record['layer']}: patches of the training images are too much alike for outliers on "
                    f"{100 * record['share']:g} % of them; take other images, or set outliers to none"
                )
            gain = record["activation"] / (score[score > threshold] - threshold).mean().item()
            layer.mlp.fc1.weight[neuron] = gain * _unit(direction)
            layer.mlp.fc1.bias[neuron] = -gain * threshold
            output = _orthogonal(torch.randn(encoder.width, generator=generator), [torch.ones(encoder.width), *used])
            scale = record["strength"] * median / record["activation"] / len(record["neurons"]) ** 0.5
            mlp_output_layer(layer).weight[:, neuron] = scale * output
    return [{k: v for k, v in record.items() if k != "direction"} for record in records]


def _mlp_records(encoder: VisionEncoder, pixels: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Per layer: the MLP's inputs (tokens, C), and the mean |activation| of each neuron."""
    inputs, activations, handles = [], [], []
    for layer in encoder.layers:
        handles.append(layer.mlp.fc1.register_forward_pre_hook(lambda _m, args: inputs.append(args[0].flatten(0, 1))))
        handles.append(mlp_output_layer(layer).register_forward_pre_hook(lambda _m, args: activations.append(args[0].abs().mean((0, 1)))))
    encoder(pixels)
    for handle in handles:
        handle.remove()
    return inputs, activations


def _background(pixels: Tensor, side: int) -> Tensor:
    """(N * P,) mask of the third of all patches with the least ink."""
    ink = brightness(pixels, side).flatten()
    return ink <= ink.quantile(1 / 3)


def _direction(tokens: Tensor, background: Tensor, place: int, patches: int) -> Tensor:
    means = tokens.unflatten(0, (-1, patches)).mean(1)
    images = torch.linalg.svd((means - means.mean(0)).double(), full_matrices=False).Vh[:IMAGE_DIRECTIONS].float()
    tokens = tokens - tokens @ images.T @ images
    mean = _unit(tokens[background].mean(0) - tokens[~background].mean(0))
    if place == 0:
        return mean
    rest = tokens[background] - tokens[background].mean(0)
    rest = rest - (rest @ mean)[:, None] * mean
    component = torch.linalg.svd(rest.double(), full_matrices=False).Vh[place - 1].float()
    return component * (component @ (tokens - tokens.mean(0)).pow(3).mean(0)).sign()  # the heavier tail fires


def _unit(vector: Tensor) -> Tensor:
    return vector / vector.norm()


def _orthogonal(vector: Tensor, others: list[Tensor]) -> Tensor:
    basis = torch.linalg.qr(torch.stack(others, dim=1).double()).Q.float()
    return _unit(vector - basis @ (basis.T @ vector))
