"""Frechet distances, FDr6 and Inception Scores of diffusionbench-evals@01c437f and FD-Loss@2f22479."""

import numpy as np
import torch
from torch import Tensor
from torch_fidelity.metric_isc import KEY_METRIC_ISC_STD, isc_features_to_metric

from harness.evaluation.fdr6 import VALIDATION, mean_ratio, ratios
from harness.evaluation.fid import symmetric_distance
from harness.evaluation.frechet import exact_distance
from harness.evaluation.inception_score import SPLITS, inception_score
from harness.evaluation.mind import distance
from harness.parity.base import Described, Format
from harness.parity.files import GoldenFile, Tensors
from harness.parity.sfid import distance_of_moments, number

SETS = ("main", "rank_deficient", "dead_dimension", "same")
NAMES = {  # what FD-Loss calls our extractors
    "FID(ADM)": "inception",
    "convnext": "convnext_fdr6",
    "dinov2_cls": "dinov2_fdr6",
    "mae_cls": "mae_fdr6",
    "siglip_cls": "siglip_fdr6",
    "clip_cls": "clip_fdr6",
}
STATISTICS = {  # of diffusionbench-evals: FDr6's Inception is compared with ADM's, its FID with JiT's
    "inception": "guided_diffusion",
    "convnext": "convnext_in256_t224",
    "dinov2_cls": "vit_large_patch14_dinov2_lvd142m_in256_t256",
    "mae_cls": "vit_large_patch16_224_mae_in256_t224",
    "siglip_cls": "vit_so400m_patch16_siglip_256_v2_webli_in256_t224",
    "clip_cls": "vit_large_patch14_clip_224_openai_in256_t256",
}
FID = "imagenet_256_fid"


class Values(Described):
    """What is given to FDr6: six distances by name."""

    fdr6: dict


class FDr6Config(Described):
    """Beside arrays."""

    values: Values


def outputs(file: GoldenFile, config: FDr6Config) -> Tensors:
    """Distances () of sets (N, D), ratios () of given distances and their mean, Inception Scores () of logits (N, classes); and all of
    these of images (N, H, W, 3) by networks that are a matrix (H W 3, D).
    """
    computed = {}
    for name in SETS:
        x, y = file.take(f"{name}.X", f"{name}.Y")
        computed[f"values.{name}.exact_psd"] = number(exact_distance(x, y))
        computed |= {f"values.{name}.{program}": number(distance_of_moments(x, y)) for program in ("fdeval", "fd_loss")}
    (x,) = file.take("main.X")
    computed |= {"main.mu_X": x.double().mean(0), "main.sigma_X": x.double().T.cov()}
    return computed | of_distances(config.values.fdr6["fd"]) | of_logits(file) | of_images(file)


def of_distances(given: dict[str, float]) -> Tensors:
    """By the extractors' names in the file: ratios, and their mean of all six and of five."""
    of = {NAMES[name]: value for name, value in given.items()}
    by_extractor = ratios(of)
    computed = {f"values.fdr6.ratios.{name}": number(by_extractor[NAMES[name]]) for name in given}
    computed |= {f"values.fdr6.val_fd.{name}": number(VALIDATION[NAMES[name]]) for name in given}
    for name, some in (("fdr6", of), ("fdr6_if_one_missing", dict(list(of.items())[1:]))):
        value = mean_ratio(some)
        computed[f"values.fdr6.{name}"] = torch.empty(0, dtype=torch.float64) if value is None else number(value)
    return computed


def of_logits(file: GoldenFile) -> Tensors:
    """Of one set of logits, by either rule; of FD-Loss with the deviation over splits."""
    (logits,) = file.take("is.logits")
    theirs = [inception_score(logits, 2).value, isc_features_to_metric(logits, splits=SPLITS)[KEY_METRIC_ISC_STD]]
    other = inception_score(logits, 2, rule="diffusionbench-evals").value
    start = "values.inception_score"
    return {f"{start}.fd_loss_seed2020": number(theirs), f"{start}.fdeval_seed0_floor_chunks": number(other)}


def of_images(file: GoldenFile) -> Tensors:
    """What diffusionbench-evals prints of samples: FID, Inception Score, FDr6 with its ratios, and MIND beside images of a reference."""
    samples, reference = ((images.float() / 255).flatten(1) for images in file.take("e2e.gen", "e2e.ref_images"))
    networks = dict(zip(STATISTICS, file.take(*(f"e2e.W.{name}" for name in STATISTICS)), strict=True))
    values, distances = {}, {}
    for name, network in networks.items():
        features, its = samples @ network, reference @ network
        distances[NAMES.get(name, "inception")] = against(file, features, STATISTICS[name])
        values[f"mind_{name}"] = distance(features, its)[0]
        if name == "inception":
            values["fid"] = against(file, features, FID)
            values["inception_score"] = inception_score(3 * features, 2, rule="diffusionbench-evals").value
    by_extractor = ratios(distances)
    values |= {f"fdr_{name}": by_extractor[NAMES.get(name, "inception")] for name in networks}
    values["fdr6"] = mean_ratio(distances)
    return {f"values.e2e_fdeval.{name}": number(value) for name, value in values.items()}


def against(file: GoldenFile, features: Tensor, statistics: str) -> float:
    """Frechet distance of (N, D) to mean and covariance in the file."""
    mu, sigma = (tensor.double().cpu().numpy() for tensor in file.take(*(f"e2e.ref.{statistics}_stats.{part}" for part in ("mu", "sigma"))))
    rows = features.double().cpu().numpy()
    return symmetric_distance(rows.mean(0), np.cov(rows, rowvar=False), mu, sigma)


INPUTS = ("*.X", "*.Y", "is.logits", "e2e.*", "values.inception_score.splits", "values.fdr6.fd.*")
FORMAT = Format(FDr6Config, outputs, inputs=INPUTS, sizes={"values.same.*": 1.0})
