"""A tiny study and one pass of every stage over it, shared by the tests that need real artifacts."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import settings
from safetensors import safe_open

from harness import config, runtime

settings.register_profile("default", deadline=None, max_examples=25)
settings.load_profile("default")
DATA = Path(__file__).parent / "data"

TINY = {
    "encoder": {"training": {"steps": 60}},
    "search": {"images": 128},
    "decoder": {"training": {"steps": 10}},
    "denoiser": {"training": {"steps": 12}},
    "sampling": {"count": 60, "batch": 25, "grid_points": 4},
    "data": {"reference": 60},
    "evaluation": {"judge": {"training": {"steps": 30}}, "clip": {"training": {"steps": 10}}, "kid_subset": 50, "kid_subsets": 3},
    "outlier_statistics": {"images": 20},
}


@pytest.fixture(autouse=True)
def _set_up():
    runtime.set_up(1)


def tiny_values(**changes):
    """The raw values of the tiny study, for tests that spoil one."""
    return config.merge(config.merge(config._read_study("digits"), TINY), changes)


@pytest.fixture(scope="session")
def study():
    return config.parse_study("tiny", tiny_values())


@pytest.fixture(scope="session")
def built(study, tmp_path_factory):
    """Results folder with data, judge, clip, both backbones and all encoder variants with latents and decoders."""
    from harness import data, encode
    from harness.train import decoder, judge
    from harness.train import encoder as train_encoder

    runtime.set_up(1)
    root = tmp_path_factory.mktemp("results")
    paths = SimpleNamespace(root=root, data=root / "data", judge=root / "judge.safetensors", clip=root / "clip", state=root / "state")
    data.make(study.data, paths.data)
    judge.train_judge(study, data_folder=paths.data, state=paths.state, out=paths.judge)
    judge.train_clip(study, data_folder=paths.data, state=paths.state, out=paths.clip)
    paths.backbones = {name: root / "backbones" / name for name in ("plain", "trained_registers")}
    for name, folder in paths.backbones.items():
        train_encoder.train(study, registers=name != "plain", data_folder=paths.data, state=paths.state, out=folder)
    paths.encoders, paths.found = {}, {}
    for key in ("plain", "ttr_1", "ttr_until_clean", "trained_registers"):
        folder = root / "encoders" / key
        backbone = paths.backbones[config.EncoderRegisters.from_key(key).backbone]
        registers = folder / "registers.json" if key.startswith("ttr") else None
        if registers:
            paths.found[key] = encode.search(study, key, data_folder=paths.data, backbone=backbone, out=registers)
        latents, weights = folder / "latents.safetensors", folder / "decoder.safetensors"
        encode.make(study, data_folder=paths.data, backbone=backbone, registers=registers, out=latents)
        decoder.train(study, key=key, data_folder=paths.data, latents_file=latents, state=paths.state, out=weights)
        paths.encoders[key] = SimpleNamespace(latents=latents, decoder=weights, registers=registers)
    return paths


METHODS = ["baseline", "masked", "dsr"]
SEEDS = [0, 1]


@pytest.fixture(scope="session")
def runs(study, built):
    """`built` with denoisers, samples, scores and outlier statistics of three methods and two seeds."""
    from harness import sample
    from harness.evaluate import outliers, scores
    from harness.train import denoiser

    built.runs = {}
    for method in METHODS:
        encoder = built.encoders[config.load_method(method).encoder.key]
        folders = [built.root / "runs" / method / f"seed{seed}" for seed in SEEDS]
        for seed, folder in zip(SEEDS, folders, strict=True):
            weights = folder / "denoiser.safetensors"
            denoiser.train(study, method_name=method, seed=seed, latents_file=encoder.latents, state=built.state, out=weights)
            sample.draw(
                study,
                method_name=method,
                seed=seed,
                denoiser=weights,
                decoder=encoder.decoder,
                latents_file=encoder.latents,
                out=folder / "samples.npz",
            )
        scores.score_runs(
            study,
            method_name=method,
            seeds=SEEDS,
            sample_files=[f / "samples.npz" for f in folders],
            denoiser_files=[f / "denoiser.safetensors" for f in folders],
            decoder=encoder.decoder,
            latents_file=encoder.latents,
            data_folder=built.data,
            judge=built.judge,
            clip=built.clip,
            outs=[f / "scores.json" for f in folders],
        )
        outliers.measure_runs(
            study,
            method_name=method,
            seeds=SEEDS,
            denoiser_files=[f / "denoiser.safetensors" for f in folders],
            latents_file=encoder.latents,
            outs=[f / "outliers.json" for f in folders],
        )
        built.runs[method] = folders
    return built


@pytest.fixture(scope="session")
def golden():
    """golden(name) -> (config, tensors) of a file with outputs of the authors' code."""

    def load(name):
        with safe_open(DATA / f"{name}.safetensors", "pt") as file:
            return json.loads(file.metadata()["config"]), {key: file.get_tensor(key) for key in file.keys()}

    return load


def error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden tables in tests/data")
