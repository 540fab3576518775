"""A tiny study and one pass of every stage over it, shared by the tests that need real artifacts."""

# ruff: noqa: E402 (numpy and torch read the environment when they are imported)
import gc
import json
import os
from pathlib import Path

gc.disable()  # until all tests are imported: what they are made of stays to the end, and looking through it takes a tenth of the time
os.environ["HF_HUB_CACHE"] = "nowhere"  # models that happen to lie on this machine are none of a test's business
for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # as Snakemake sets them for a job; before numpy is imported
    os.environ.setdefault(threads, "1")

import pytest
import torch
from hypothesis import HealthCheck, settings
from pipeline import Pipeline
from safetensors import safe_open

from harness.machine import device as runtime
from harness.study import typed as config
from harness.study.study import parse_study, read_study

ANY_SPEED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("same", derandomize=True, database=None, max_examples=25, **ANY_SPEED)  # the same examples on every machine
settings.register_profile("random", derandomize=False, max_examples=250, print_blob=True, **ANY_SPEED)  # pytest --hypothesis-profile random
settings.load_profile("same")
DATA = Path(__file__).parent / "data"

TINY = {
    "encoder": {"training": {"steps": 60}},
    "search": {"images": 128},
    "decoder": {"training": {"steps": 10}},
    "denoiser": {"ema": [0.98, 0.9, 0.995], "training": {"steps": 12}},
    "sampling": {"count": 60, "batch": 25, "grid_points": 4, "averages": [0.9, 0.995]},
    "data": {"reference": 60},
    "evaluation": {
        "judge": {"training": {"steps": 30}},
        "clip": {"training": {"steps": 10}},
        "kid_subset": 50,
        "kid_subsets": 3,
        "resamples": 20,
    },
    "outlier_statistics": {"images": 20},
}


@pytest.fixture(autouse=True)
def _set_up():
    runtime.set_up(1)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup():
    """What a fixture or a test draws without a generator of its own does not depend on which tests ran before it."""
    torch.manual_seed(1)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call():
    torch.manual_seed(2)


def tiny_values(**changes):
    """The raw values of the tiny study, for tests that spoil one."""
    return config.merge(config.merge(read_study("digits"), TINY), changes)


@pytest.fixture(scope="session")
def study():
    return parse_study("tiny", tiny_values())


@pytest.fixture(scope="session")
def built(study, tmp_path_factory):
    """The tiny study's data, judge, clip, references, and all encoder variants with latents and decoders."""
    runtime.set_up(1)
    return Pipeline(study, tmp_path_factory.mktemp("results")).prepare(["plain", "ttr_1", "ttr_until_clean", "trained_registers"])


METHODS = ["baseline", "masked", "dsr"]
SEEDS = [0, 1]


@pytest.fixture(scope="session")
def runs(study, built):
    """`built` with denoisers, samples, scores and outlier statistics of three methods and two seeds."""
    for method in METHODS:
        built.run(method, SEEDS)
    return built


@pytest.fixture(scope="session")
def golden():
    """golden(name) -> (config, tensors) of a file with outputs of the authors' code."""

    def load(name):
        with safe_open(DATA / f"{name}.safetensors", "pt") as file:
            return json.loads(file.metadata()["config"]), {key: file.get_tensor(key) for key in file.keys()}

    return load


@pytest.fixture
def measured(benchmark):
    """The `benchmark` fixture, for what takes too long to be run where nothing is measured."""
    if benchmark.disabled:
        pytest.skip("runs with --benchmark-enable")
    return benchmark


def error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Workers take whole files, whose fixtures are shared. It is set where there are workers alone: with it no benchmark may run."""
    if config.getoption("numprocesses", None) and config.option.dist == "no":
        config.option.dist = "loadfile"


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden tables in tests/data")
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow (together some minutes)")


def pytest_collection_modifyitems(config, items):
    for item in items:
        if item.get_closest_marker("slow") and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="runs with --slow"))
