"""Every paper-scale study end to end at toy size: same stages, same code, only sizes differ."""

import pandas as pd
import pytest
import torch
from pipeline import Pipeline
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from toy import make_assets, toy_study

from harness import artifacts, config
from harness.dag import figures_of
from harness.report import figures, table
from harness.schema import scores_of
from harness.study import study_names

STUDIES = [name for name in study_names() if name.startswith("imagenet256_")]


@pytest.fixture(autouse=True)
def _small_inception(monkeypatch):
    monkeypatch.setattr(FeatureExtractorInceptionV3, "INPUT_IMAGE_SIZE", 75)


@pytest.fixture(scope="session")
def asset_root(tmp_path_factory):
    """Assets of all toy studies; those of one path are shared, as the real ones are."""
    return tmp_path_factory.mktemp("assets")


@pytest.mark.parametrize("name", STUDIES)
def test_study_runs_end_to_end_at_toy_size(name, asset_root, tmp_path):
    study = toy_study(name)
    pipeline = Pipeline(study, tmp_path, make_assets(study, asset_root / name))
    methods = study.methods if name == "imagenet256_siglip2_b" else [study.methods[0], study.methods[-1]]
    pipeline.prepare(sorted({config.load_method(method).encoder.key for method in methods}))
    for method in methods:
        pipeline.run(method, [0])
    rendered = render(study, methods, tmp_path)
    rows = pd.read_csv(rendered / "table1.csv")
    assert set(rows["score"]) == set(scores_of(study))
    assert set(rows["method"]) == set(methods)
    fids = rows[rows["score"] == "fid"].set_index("method")["value"]
    assert fids.nunique() == len(methods)  # whatever a method changes reaches its samples
    if name in ("imagenet256_siglip2_b", "imagenet256_sit_xl"):  # drawing takes longer than the rest
        figures.render(study, methods=methods, seeds=[0], results=tmp_path, out=rendered)
        assert {path.stem for path in rendered.glob("*.png")} == set(figures_of(study))
    weights = [artifacts.load_tensors(path)[0] for path in sorted((tmp_path / "runs" / "baseline" / "seed0").glob("denoiser*.safetensors"))]
    assert len(weights) == len(study.denoiser.ema)
    assert any(not torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def render(study, methods, root):
    """The table of a run, as the rule renders it."""
    out = root / "report"
    table.render(study, methods=methods, seeds=[0], results=root, spec=config.ROOT / "reports" / "table1.yaml", out=out / "table1.md")
    return out
