"""Mutated studies, methods and artifacts: each ends in one line that says so, or in what the sound one gives; never in a traceback."""

import hashlib
import json
import math
import shutil
from dataclasses import fields, is_dataclass

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.data.stage import load_data
from harness.denoiser.build import load_denoiser
from harness.denoiser.sample import load_samples
from harness.encoder.latents import load_held_out
from harness.encoder.tower_files import load_tower
from harness.evaluation import references
from harness.evaluation.clip.stage import load_clip
from harness.evaluation.judge.registry import judge_of
from harness.report import figure_specs, rows
from harness.results.scores import scores_of
from harness.store import artifacts, assets, foreign
from harness.store.files import write_json
from harness.store.tensors import load_tensors, save_tensors
from harness.study import study as studies
from harness.study.fits import check_fits
from harness.study.method import METHODS, Method, load_method
from harness.study.typed import UserError
from harness.workflow import config as run_config
from harness.workflow.run import Run

many, EACH = settings(suppress_health_check=list(HealthCheck)), settings.default.max_examples
STUDIES = ("digits", "smoke", "imagenet256_siglip2_b", "imagenet256_sit_xl")
ODD_TEXT = st.sampled_from(
    ["", " ", "nan", "1e999", "\0", "é\u202e", "\ud800", "../..", "/", "a" * 5000, "kind", "none", "[0]", "${x}", "{", "\n"]
)
ODD_NUMBER = st.sampled_from(
    [0, -1, 1, 3, 2**31, 2**64, 10**400, -(10**400), 0.5, 1e-300, 1e308, math.nan, math.inf, -math.inf, True, False]
)
ODD = st.recursive(
    st.none() | ODD_NUMBER | ODD_TEXT | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ODD_TEXT | st.text(max_size=4) | st.integers(), inner, max_size=3),
    max_leaves=6,
)


def one_line(work, *expected):
    """What `work` returns; None where it ends in a UserError, which is one line."""
    try:
        return work()
    except (UserError, *expected) as error:
        lines = str(error).splitlines()
    assert len(lines) == 1
    return None


# ----------------------------------------------------------------------------------------------------------------- studies


def places(values, where=()):
    """Paths of every field of nested mappings and lists."""
    paths = [where] if where else []
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in items:
        paths += places(value, (*where, key))
    return paths


@st.composite
def mutated(draw):
    """(name of a study, its values with one to three changes)."""
    name = draw(st.sampled_from(STUDIES))
    values = json.loads(json.dumps(studies.read_study(name)))
    for _ in range(draw(st.integers(1, 3))):
        where = draw(st.sampled_from(places(values)))
        parent = values
        for key in where[:-1]:
            parent = parent[key]
        how, last = draw(st.sampled_from(["change", "delete", "add", "rename", "exchange"])), where[-1]
        if how == "delete":
            del parent[last]
        elif how == "add" and isinstance(parent, dict):
            parent[draw(ODD_TEXT)] = draw(ODD)
        elif how == "rename" and isinstance(parent, dict):
            parent[draw(ODD_TEXT | st.just(str(last)[:-1]))] = parent.pop(last)
        elif how == "exchange":
            other = values
            for key in draw(st.sampled_from(places(values))):
                other = other[key]
            parent[last] = json.loads(json.dumps(other))
        else:
            parent[last] = draw(ODD)
        if not places(values):
            break
    return name, values


def used(study, root):
    """What the Snakefile asks of a study."""
    run = Run(study, study.seeds, ["baseline"])
    known = [
        run.config(),
        run.encoders,
        run.other_averages,
        run.averages("x.json"),
        run.records("data", "encoder"),
        tuple(figure_specs.figure_names(study)),
    ]
    for method in study.methods or ["baseline", "masked", "dsr"]:
        check_fits(study, method)
    return [
        *known,
        assets.missing(study, root),
        scores_of(study),
        [run.asset(name) for name in study.assets],
        study.model_dump_json(),
    ]


@settings(many, max_examples=16 * EACH)
@given(mutated())
def test_a_mutated_study_is_valid_or_refused(tmp_path_factory, changed):
    study = one_line(lambda: studies.parse_study(*changed))
    if study is not None:
        one_line(lambda: used(study, tmp_path_factory.getbasetemp()))


@st.composite
def spoiled_bytes(draw, content):
    """`content` with bytes flipped, cut off, put in, or zeroed."""
    at = draw(st.integers(0, len(content)))
    length = draw(st.integers(1, 64))
    how = draw(st.sampled_from(["flip", "cut", "insert", "zeros", "remove", "twice"]))
    if how == "flip" and at < len(content):
        return content[:at] + bytes([content[at] ^ 1 << draw(st.integers(0, 7))]) + content[at + 1 :]
    if how == "cut":
        return content[:at]
    if how == "insert":
        return content[:at] + draw(st.binary(min_size=1, max_size=16)) + content[at:]
    if how == "zeros":
        return content[:at] + bytes(len(content[at : at + length])) + content[at + length :]
    return (
        content[:at] + content[at + length :] if how == "remove" else content[:at] + content[at : at + length] * 2 + content[at + length :]
    )


@pytest.fixture
def study_folder(tmp_path, monkeypatch):
    for path in studies.STUDIES.glob("*.yaml"):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(studies, "STUDIES", tmp_path)
    return tmp_path


@settings(many, max_examples=6 * EACH)
@given(st.data())
def test_a_mutated_study_file_is_valid_or_refused(study_folder, tmp_path_factory, draws):
    path = study_folder / f"{draws.draw(st.sampled_from(STUDIES))}.yaml"
    sound = path.read_bytes()
    path.write_bytes(draws.draw(spoiled_bytes(sound)))
    try:
        study = one_line(lambda: studies.load_study(path.stem))
        if study is not None:
            one_line(lambda: used(study, tmp_path_factory.getbasetemp()))
    finally:
        path.write_bytes(sound)


@pytest.mark.parametrize(
    "text", ["extends: digits", "extends: smoke", "extends: [digits]", "extends: {a: 1}", "? [a]\n: 1", "1: 2", "- a", "a: &a [*a]", ""]
)
def test_a_study_that_cannot_be_is_refused(study_folder, text):
    (study_folder / "digits.yaml").write_text(text, encoding="utf-8")
    assert one_line(lambda: studies.load_study("digits")) is None


class Stopped(Exception):  # noqa: N818
    pass


@settings(many, max_examples=4 * EACH)
@given(
    st.dictionaries(
        st.sampled_from(run_config.KEYS) | ODD_TEXT,
        ODD | st.sampled_from(["smoke", ["baseline"], ["0"], [0, 1], ["baseline", "dsr"]]),
        max_size=4,
    ),
    st.booleans(),
)
def test_a_mutated_snakemake_config_is_valid_or_refused(monkeypatch, values, named):
    def stop(message):
        raise Stopped(message)

    monkeypatch.setattr(run_config, "stop", stop)
    run = one_line(lambda: run_config.checked_config({"study": "smoke", **values} if named else values), Stopped)
    assert run is None or run.methods[0] == "baseline"


# ----------------------------------------------------------------------------------------------------------------- methods


@settings(many, max_examples=6 * EACH)
@given(st.data())
def test_a_mutated_method_file_is_valid_or_refused(tmp_path, monkeypatch, draws):
    path = METHODS / f"{draws.draw(st.sampled_from(['baseline', 'masked', 'dsr', 'recursive_ttr']))}.py"
    lines = path.read_bytes().splitlines(keepends=True)
    number = draws.draw(st.integers(0, len(lines) - 1))
    lines[number] = draws.draw(spoiled_bytes(lines[number]))
    (tmp_path / "mine.py").write_bytes(b"".join(lines))
    with monkeypatch.context() as patch:
        patch.setattr("harness.study.method.METHODS", tmp_path)
        method = one_line(lambda: load_method("mine"))
    assert method is None or isinstance(method, Method)


# --------------------------------------------------------------------------------------------------------------- artifacts


def plain(value):
    """Tensors, arrays, modules and dataclasses as bytes and builtins."""
    if isinstance(value, torch.nn.Module):
        return plain(value.state_dict())
    if isinstance(value, torch.Tensor):
        return plain(value.detach().cpu().contiguous().numpy())
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def fingerprint(value):
    return hashlib.sha256(repr(plain(value)).encode()).hexdigest()


@pytest.fixture(scope="module")
def readers(study, runs, tmp_path_factory):
    """A copy of the results: {artifact: what the stages read it with}, and what each one gives."""
    root = tmp_path_factory.mktemp("fuzz") / "results"
    shutil.copytree(runs.root, root)
    run, variant = root / "runs" / "dsr" / "seed0", root / "encoders" / "ttr_until_clean"
    record = root / "assets" / "weights.json"
    asset = root / "weights.pt"
    asset.write_bytes(b"weights")
    with artifacts.artifact(record, stage="asset", module="harness.store.assets", path=str(asset)) as path:
        write_json(path, {"name": "weights", "sha256": artifacts.sha256(asset), "bytes": 7})
    readings = {
        root / "data": lambda path: load_data(path, "reference").labels,
        root / "backbones" / "plain": load_tower,
        variant / "registers.json": lambda path: artifacts.read_json(path)["neurons"],
        variant / "latents.safetensors": load_held_out,
        variant / "decoder.safetensors": lambda path: load_tensors(path)[0],
        run / "denoiser.safetensors": lambda path: [load_denoiser(study, "dsr", path), artifacts.meta(path)["filtered_share"]],
        run / "samples.npz": load_samples,
        run / "scores.json": lambda path: rows._read(path).model_dump_json(),
        run / "outliers.json": lambda path: rows._read(path).model_dump_json(),
        run / "outliers.parquet": artifacts.checked,
        root / "judge.safetensors": lambda path: judge_of(study).extractor(path),
        root / "clip": lambda path: load_clip(study, path).model,
        root / "references.safetensors": references.load_references,
        record: lambda path: [str(assets.locate(path)), artifacts.read_json(path)],
    }
    return [(path, read, fingerprint(read(path))) for path, read in readings.items()]


@st.composite
def edited(draw, record):
    """A sidecar's values with something else in the place of one, without one, with one more; or something else altogether."""
    values = json.loads(json.dumps(record))
    key = draw(st.sampled_from(sorted(values)))
    how = draw(st.sampled_from(["change", "change", "delete", "add", "replace"]))
    if how == "replace":
        return draw(ODD)
    if how == "delete":
        del values[key]
    else:
        values[key if how == "change" else draw(ODD_TEXT)] = draw(ODD)
    return values


@settings(many, max_examples=24 * EACH)
@given(st.data())
def test_a_mutated_artifact_is_refused_or_read_as_before(readers, draws):
    path, read, wanted = draws.draw(st.sampled_from(readers))
    others = [other for other, *_ in readers if other != path and other.is_file()]
    inside = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    how = draws.draw(st.sampled_from(["bytes", "bytes", "bytes", "record's bytes", "record", "another's file", "another's record"]))
    file = draws.draw(st.sampled_from(inside)) if how in ("bytes", "another's file") else artifacts.sidecar(path)
    sound = file.read_bytes()
    if how == "record":
        spoiled = json.dumps(draws.draw(edited(json.loads(sound)))).encode()
    elif how.startswith("another"):
        other = draws.draw(st.sampled_from(others))
        spoiled = (other if how == "another's file" else artifacts.sidecar(other)).read_bytes()
    else:
        spoiled = draws.draw(spoiled_bytes(sound))
    file.write_bytes(spoiled)
    try:
        content = one_line(lambda: read(path))
        assert content is None or fingerprint(content) == wanted
        assert content is None or how in ("bytes", "record's bytes", "record")
    finally:
        file.write_bytes(sound)


@pytest.fixture(scope="module")
def foreign_files(tmp_path_factory):
    folder, tensors = tmp_path_factory.mktemp("foreign"), {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}
    torch.save({"ema": tensors, "step": 3}, folder / "x.pt")
    torch.save(tensors, folder / "old.pth", _use_new_zipfile_serialization=False)
    save_tensors(folder / "x.safetensors", tensors)
    return folder


@settings(many, max_examples=8 * EACH)
@given(st.data())
def test_mutated_weights_from_elsewhere_are_read_or_refused(foreign_files, draws):
    sound = draws.draw(st.sampled_from(sorted(path for path in foreign_files.iterdir() if not path.stem.startswith("spoiled"))))
    path = sound.with_stem("spoiled")
    path.write_bytes(draws.draw(spoiled_bytes(sound.read_bytes())))
    weights = one_line(lambda: foreign.read_weights(path))
    assert weights is None or all(isinstance(value, torch.Tensor) for value in weights.values())
