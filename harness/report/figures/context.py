"""What a figure is drawn from: a study's files, through one object."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.data.images import Split
from harness.data.stage import load_data
from harness.report import rows as row_files
from harness.report.figure_specs import FigureSpec
from harness.store import artifacts
from harness.study import places
from harness.study.seeds import noise_seed, run_name
from harness.study.study import Study


@dataclass(frozen=True)
class Context:
    """The study that a figure shows, with its results folder. `rows`: its long table; empty where the figure needs none."""

    study: Study
    methods: list[str]
    seeds: list[int]
    results: Path
    rows: pd.DataFrame
    spec: FigureSpec

    @property
    def table(self) -> pd.DataFrame:
        """Rows of the weights that every score is of: one EMA decay, the last step, the study's own guidance."""
        return row_files.of_view(self.rows, self.study)

    @property
    def noise_seed(self) -> int:
        """That of the samples that are shown: the first one's, and 0 of published weights."""
        return noise_seed(self.study.seeds_of(self.methods[0], self.seeds)[0])

    def run(self, method: str, seed: int) -> Path:
        """The folder of a run; of published weights that of their only one."""
        (own,) = self.study.seeds_of(method, [seed])
        return self.results / "runs" / method / run_name(own)

    def samples(self, method: str, seed: int) -> "Samples":
        """Those of a run, compared with their record."""
        path = self.run(method, seed) / "samples.npz"
        artifacts.checked(path)
        return Samples(path)

    def latents(self, encoder: str) -> Path:
        """The latents file of an encoder variant, compared with its record."""
        return self._of_encoder(encoder, "latents.safetensors")

    def encoder_maps(self, encoder: str) -> Path:
        """The token maps of an encoder variant, compared with their record."""
        return self._of_encoder(encoder, "maps.npz")

    def registers(self, encoder: str) -> dict[str, Any]:
        """What the search for register neurons found for an encoder variant."""
        return artifacts.read_json(self._home("encoder") / "encoders" / encoder / "registers.json")

    def reference(self) -> Split:
        """The held-out images."""
        return load_data(self._home("data") / "data", "reference")

    def _of_encoder(self, encoder: str, name: str) -> Path:
        path = self._home("encoder") / "encoders" / encoder / name
        artifacts.checked(path)
        return path

    def _home(self, part: str) -> Path:
        return places.folder(self.results, self.study, places.home(self.study, part))

    def outliers(self, method: str) -> pd.DataFrame:
        """Outlier statistics of a method's runs: a line a seed, part, layer and noise level."""
        tables = []
        for seed in self.study.seeds_of(method, self.seeds):
            path = self.run(method, seed) / "outliers.parquet"
            artifacts.checked(path)
            tables.append(pd.read_parquet(path).assign(seed=seed))
        return pd.concat(tables)


class Samples:
    """A samples file, of which no more is read than is asked for: at paper scale it has 10 GB."""

    def __init__(self, path: Path) -> None:
        self.path, self.status = path, artifacts.meta(path).get("status", "ok")
        with np.load(path, allow_pickle=False) as file:
            self.labels = file["labels"]  # (N,)

    def first(self, count: int) -> np.ndarray:
        """The first `count` images, (count, H, W, 3) uint8."""
        with zipfile.ZipFile(self.path) as archive, archive.open("images.npy") as file:
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            shape = (min(count, shape[0]), *shape[1:])
            return np.frombuffer(file.read(int(np.prod(shape)) * dtype.itemsize), dtype).reshape(shape)


def status_text(table: pd.DataFrame, method: str, score: str) -> str:
    """What stands in the place of a method that has a seed without a value, such as `diverged, 1 of 3 seeds`; nothing for any other."""
    rows = table[(table["method"] == method) & (table["score"] == score)]
    bad = rows[rows["status"] != "ok"]
    if bad.empty:
        return ""
    return ", ".join(dict.fromkeys(bad["status"])) + (f", {len(bad)} of {len(rows)} seeds" if len(rows) > 1 else "")
