"""Every paper-scale study end to end at toy size: same stages, same code, only sizes differ."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from dry_run import DryRuns
from pipeline import Pipeline
from pydantic_core import to_jsonable_python
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from toy import WORDNET_IDS, make_assets, toy_study, toy_values

from harness.denoiser import released
from harness.denoiser.build import build_shape
from harness.denoiser.sample import draw_samples, weak_model
from harness.report.figure_specs import figure_names, load_figure, part
from harness.report.figures import render_figures
from harness.report.rows import from_csv
from harness.report.specs import Part
from harness.report.table import render_table
from harness.report.trace import trace_score
from harness.results.scores import scores_of
from harness.store import artifacts
from harness.store.assets import record_asset
from harness.store.tensors import load_tensors
from harness.study import typed as config
from harness.study.method import load_method
from harness.study.seeds import PUBLISHED
from harness.study.study import parse_study, study_names
from harness.study.typed import UserError


def same_toys():
    """Study -> the first study whose toy is the same."""
    first, first_of = {}, {}
    for name in study_names():
        if name.startswith("imagenet256_"):
            toy = toy_study(name).model_dump(exclude={"name", "title", "methods"})
            first_of[name] = first.setdefault(config.digest(to_jsonable_python(toy)), name)
    return first_of


TOYS = same_toys()
QUICK = (
    "imagenet256_dinov2_b",
    "imagenet256_sit_xl",
    "imagenet256_jit_h",
    "imagenet256_siglip2_b_released",
)  # each kind of encoder and decoder


@pytest.fixture(autouse=True)
def _small_inception(monkeypatch):
    monkeypatch.setattr(FeatureExtractorInceptionV3, "INPUT_IMAGE_SIZE", 75)


@pytest.fixture(scope="session")
def asset_root(tmp_path_factory):
    """Assets of all toy studies; those of one path are shared, as the real ones are."""
    return tmp_path_factory.mktemp("assets")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in sorted(set(TOYS.values()))]
)
def test_study_runs_end_to_end_at_toy_size(name, asset_root, tmp_path):
    study = toy_study(name)
    pipeline = Pipeline(study, tmp_path, make_assets(study, asset_root / name))
    methods = study.methods if name == "imagenet256_siglip2_b" else [study.methods[0], study.methods[-1]]
    pipeline.prepare(sorted({load_method(method).encoder.key for method in methods}))
    for method in methods:
        pipeline.run(method, [0])
    rendered = render(study, methods, tmp_path)
    rows = pd.read_csv(rendered / "table1.csv")
    assert set(rows["score"]) == set(scores_of(study))
    told = "Captions of the CLIP score: ImageNet's words for the classes' WordNet ids."
    assert told in (rendered / "table1.md").read_text(encoding="utf-8")
    assert set(rows["method"]) == set(methods)
    fids = rows[(rows["score"] == "fid") & (rows["ema"] == study.ema)].set_index("method")["value"]
    assert fids.nunique() == len(methods)  # whatever a method changes reaches its samples
    if name in ("imagenet256_siglip2_b_ditdh", "imagenet256_sit_xl"):  # drawing takes longer than the rest
        drawn = own_figures(study, methods)
        for figure in drawn:
            render_figures(study, methods=methods, seeds=[0], results=tmp_path, out=rendered, figures=[figure])
        assert {path.stem for path in rendered.glob("*.png")} == set(drawn) >= {"samples", "fid", "intervals"}
    weights = [load_tensors(path)[0] for path in sorted((tmp_path / "runs" / "baseline" / "seed0").glob("denoiser*.safetensors"))]
    assert len(weights) == len(study.denoiser.ema)
    assert any(not torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name == "published_sit" else pytest.mark.slow)
        for name in study_names()
        if name.startswith("published_")
    ],
)
def test_published_weights_are_scored_at_toy_size(name, asset_root, tmp_path, monkeypatch):
    """Study, samples, scores, outliers, maps, table, with the weights of a file; of random ones, so that one step would refuse them."""
    monkeypatch.setattr(released, "LARGEST", float("inf"))
    study = toy_study(name)
    pipeline = Pipeline(study, tmp_path, make_assets(study, asset_root / name)).prepare(["plain"])
    for method in study.methods:
        pipeline.run(method, [0])
    assert {path.parent.name for path in tmp_path.glob("runs/*/*/*")} == {"published"}
    page = render(study, study.methods, tmp_path)
    rows, text = from_csv(page / "table1.csv"), (page / "table1.md").read_text(encoding="utf-8")
    assert set(rows["score"]) == set(scores_of(study))
    assert (set(rows["seed"]), set(rows["ema"]), set(rows["step"])) == ({PUBLISHED}, {0.0}, {0})
    for method, weights in study.denoiser.released.items():
        asset = asset_root / name / weights.path
        file = f"of published weights {asset.name} (sha256 {artifacts.sha256(asset)}, container "
        own = rows[rows["method"] == method]
        assert own["sampled"].str.contains(file, regex=False).all()
        assert file.removeprefix("of ") in text
        assert f"{weights.source}; convention {weights.convention}" in text
        assert own.loc[own["score"] == "filtered_share", "status"].tolist() == ["skipped"]
        assert np.load(tmp_path / "runs" / method / "published" / "samples.npz")["images"].shape == (66, 32, 32, 3)
        assert ("| Published |" in text) == any(one.printed for one in study.denoiser.released.values())
    assert "has one run, paired with none" in text
    drawn = own_figures(study, study.methods)
    if name == "published_sit":
        for figure in drawn:
            render_figures(study, methods=study.methods, seeds=[0], results=tmp_path, out=page, figures=[figure])
        text, problems = trace_score(page / "table1.csv", method="baseline", score="fid", results=tmp_path)
        assert not problems
        assert study.denoiser.released["baseline"].path.rpartition("/")[2] in text or "denoiser.released.baseline" in text


def own_figures(study, methods):
    """Those that need no more than the runs that are there."""
    specs = {name: load_figure(name) for name in figure_names(study, methods)}
    return [
        name for name, spec in specs.items() if part(spec, study, methods) == Part(study, methods) and not {"maps", "steps"} & {*spec.needs}
    ]


def render(study, methods, root):
    """The table of a run, as the rule renders it."""
    out = root / "report"
    render_table(
        study, methods=methods, seeds=[0], results=root, spec=config.ROOT / "reports" / "tables" / "table1.yaml", out=out / "table1.md"
    )
    return out


def test_studies_that_are_not_run_differ_in_length_and_size_alone():
    """Sizes scale a study that is run, so that their toys are one and the same."""
    assert {name: toy for name, toy in TOYS.items() if name != toy} == {
        **dict.fromkeys([f"imagenet256_siglip2_b_{size}" for size in ("800ep", "dit_b", "dit_l", "dit_s")], "imagenet256_siglip2_b"),
        "imagenet256_siglip2_b_ditdh_800ep": "imagenet256_siglip2_b_ditdh",
    }


def test_autoguidance_and_random_labels(tmp_path):
    """A weaker model from a file, read and checked as every other asset."""
    weak = {
        "architecture": "lightningdit",
        "width": 32,
        "depth": 1,
        "heads": 2,
        "mlp_ratio": 2.0,
        "weights": {"path": "weak.pt", "source": "toy"},
        "classes": {"path": "weak.txt", "source": "toy"},
    }
    values = config.merge(toy_values("imagenet256_siglip2_b"), {"sampling": {"labels": "random", "guidance": {"scale": 2.0, "weak": weak}}})
    guided = parse_study("guided", values)
    root = make_assets(toy_study("imagenet256_siglip2_b"), tmp_path / "assets")
    torch.manual_seed(0)
    model = build_shape(guided, guided.sampling.guidance.weak)
    torch.nn.init.normal_(model.final_layer.linear.weight)
    torch.save({"ema": model.state_dict()}, root / "weak.pt")
    (root / "weak.txt").write_text("\n".join(WORDNET_IDS), encoding="utf-8")
    pipeline = Pipeline(guided, tmp_path / "results", root).prepare(["plain"])
    pipeline.run("baseline", [0])
    samples = tmp_path / "results" / "runs" / "baseline" / "seed0" / "samples.npz"
    labels = np.load(samples)["labels"]
    assert set(labels) == {0, 1, 2}
    assert labels.tolist() != [i % 3 for i in range(len(labels))]
    assert any(path.endswith("sampling.guidance.weak.weights.json") for path in artifacts.meta(samples)["inputs"])
    taken = {"container": "ema", "other_containers": {}}
    assert artifacts.meta(samples)["weights"] == {"sampling.guidance.weak.weights": taken}
    (root / "weak.txt").write_text("\n".join(reversed(WORDNET_IDS)), encoding="utf-8")
    name, latents = "sampling.guidance.weak.classes", pipeline.encoders["plain"].latents
    record_asset(guided, name=name, assets=root, out=pipeline.records[name])
    with pytest.raises(UserError, match=f"label 0 is class '{WORDNET_IDS[2]}' there and '{WORDNET_IDS[0]}' in the study's data set"):
        weak_model(guided, [*pipeline.records.values()], latents)
    (root / "weak.txt").write_text("\n".join(WORDNET_IDS), encoding="utf-8")
    record_asset(guided, name=name, assets=root, out=pipeline.records[name])
    unguided = parse_study("plain", config.merge(values, {"sampling": {"guidance": {"scale": 1.0}}}))
    images = np.load(samples)["images"]
    encoder = pipeline.encoders["plain"]
    draw_samples(
        unguided, method="baseline", seeds=[0], denoisers=[samples.with_name("denoiser.safetensors")], decoder=encoder.decoder,
        latents=encoder.latents, records=[*pipeline.records.values()], state=pipeline.state, out=[tmp_path / "x.npz"],
    )  # fmt: skip
    assert (np.load(tmp_path / "x.npz")["images"] != images).mean() > 0.01


@pytest.mark.slow
def test_rules_take_a_study_from_its_assets_to_samples_and_rerun_what_uses_a_changed_asset(tmp_path):
    """Through Snakemake itself, in a copy of the project; references and scores, whose rules `smoke` runs, would take minutes."""
    tracked = subprocess.run(["git", "ls-files"], cwd=config.ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in tracked:
        if name.startswith(("harness/", "baselines/", "profiles/", "envs/", "reports/tables/", "reports/figures", "Snakefile")):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(config.ROOT / name, tmp_path / name)
    study = toy_study("imagenet256_siglip2_b")
    (tmp_path / "harness" / "studies" / "toy.yaml").write_text(yaml.safe_dump(toy_values("imagenet256_siglip2_b")), encoding="utf-8")
    root = make_assets(study, tmp_path / "some where")
    results = [f"results/toy/{name}" for name in ("runs/dsr/seed0/samples.npz", "clip")]

    dry_runs = DryRuns(tmp_path)

    def words():
        return ("--cores", "2", "--config", "study=toy", f"assets={root.name}")

    def snakemake():
        environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        command = [sys.executable, "-m", "snakemake", *words(), "--", *results]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr

    def planned():
        """Jobs by rule, before anything has run."""
        done = dry_runs(*words(), "-n", "--", *results)
        assert done.returncode == 0, done.stdout + done.stderr
        return {} if "Nothing to be done" in done.stderr else dict(re.findall(r"^(\w+) +(\d+)$", done.stdout, re.MULTILINE))

    snakemake()
    assert np.load(tmp_path / results[0])["images"].shape == (66, 32, 32, 3)
    assert planned() == {}
    for path in root.rglob("*"):
        os.utime(path)
    assert planned() == {}  # the same content
    shutil.copytree(root, tmp_path / "elsewhere")
    shutil.rmtree(root)
    root = tmp_path / "elsewhere"
    assert planned() == {}

    clip, image = root / study.assets["evaluation.clip.weights"].path, min((root / study.assets["data.train"].path).rglob("*.JPEG"))
    (clip / "README.md").write_text("another file in the folder", encoding="utf-8")
    assert planned() == {"asset": "1", "clip": "1", "total": "2"}
    snakemake()
    assert planned() == {}
    jpeg = image.read_bytes()
    at = jpeg.index(b"\xff\xda") + 20  # in the pixels
    image.write_bytes(jpeg[:at] + bytes([jpeg[at] ^ 1]) + jpeg[at + 1 :])
    every = {"data", "latents", "registers", "decoder", "denoiser", "samples"}
    assert every | {"asset"} <= set(planned())
    image.write_bytes(jpeg)
    assert planned() == {}  # as it was
    image.write_bytes(jpeg[:at] + bytes([jpeg[at] ^ 1]) + jpeg[at + 1 :])
    data = artifacts.checked(tmp_path / "results" / "toy" / "data")
    before = (tmp_path / results[1]).stat().st_mtime_ns
    snakemake()
    assert artifacts.checked(tmp_path / "results" / "toy" / "data") != data
    assert (tmp_path / results[1]).stat().st_mtime_ns == before
    assert planned() == {}
    dry_runs.close()
