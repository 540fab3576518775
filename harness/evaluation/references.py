"""Stage `references`: what samples are compared with, computed once for all methods.

`held_out` is the study's held-out images. The others are ADM reference batches (guided-diffusion, evaluations): `.npz` files with `mu` and
`sigma` of a whole training set, and in `arr_0` the images for precision, recall and KID.
"""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics

from harness.data.stage import load_data
from harness.evaluation.features import Extractor
from harness.results.scores import HELD_OUT, references_of
from harness.store import artifacts
from harness.store.assets import locate, record_of
from harness.store.tensors import load_tensors, save_tensors
from harness.study.study import Study
from harness.study.typed import UserError

GIVEN = "given"
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


@dataclass(frozen=True)
class ReferenceStatistics:
    """`mu` (D,) and `sigma` (D, D) for FID, `features` (n, D) float32 for KID, precision and recall; `sha256` of the source.

    `statistics` says where mu and sigma come from: `given`, or `from n images`. `extractor` is the sha256 of the judge's weights.
    """

    name: str
    mu: np.ndarray
    sigma: np.ndarray
    features: Tensor
    sha256: str
    statistics: str
    extractor: str

    @property
    def n(self) -> int:
        """Images that the features are of."""
        return len(self.features)

    @cached_property
    def root(self) -> Tensor:
        """Square root (D, D) of sigma, float64."""
        return symmetric_root(torch.from_numpy(self.sigma).double())

    @classmethod
    def of_features(cls, name: str, features: Tensor, sha256: str = "", extractor: str = "") -> "ReferenceStatistics":
        """Mean and covariance of (n, D) features. UserError if they are too few for a covariance of full rank."""
        if len(features) <= features.shape[1]:
            raise UserError(
                f"reference {name}: FID needs more reference images than features: got {len(features)} for {features.shape[1]} features"
            )
        found = fid_features_to_statistics(features)
        return cls(name, found["mu"], found["sigma"], features, sha256, f"from {len(features)} images", extractor)


def symmetric_root(matrix: Tensor) -> Tensor:
    """Of a positive semi-definite (D, D)."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def make_references(study: Study, *, data: Path, judge: Path, records: list[Path] = (), out: Path) -> dict:
    """Write the references of a study in the order of `references_of`; returns what each is made of."""
    names, extract = references_of(study), Extractor(study, judge)
    batches = {name: record_of(records, f"evaluation.references.{name}.file") for name in names if name != HELD_OUT}
    inputs = [judge, data, *batches.values()]
    with artifacts.artifact(out, stage="references", module=__name__, config=study.evaluation, inputs=inputs) as path:
        made = []
        for name in names:
            if name == HELD_OUT:
                images = load_data(data, "reference")
                made.append(ReferenceStatistics.of_features(name, extract(images)["features"], artifacts.checked(data), extract.sha256))
            else:
                source = artifacts.read_json(batches[name])["sha256"]
                made.append(of_batch(study, name, locate(batches[name]), source, extract))
            _enough_images(study, made[-1])
        tensors = {}
        for one in made:
            tensors |= {
                f"{one.name}.mu": torch.from_numpy(one.mu),
                f"{one.name}.sigma": torch.from_numpy(one.sigma),
                f"{one.name}.features": one.features,
            }
        facts = {one.name: {"sha256": one.sha256, "statistics": one.statistics, "images": one.n} for one in made}
        listed = [{"name": name, **one} for name, one in facts.items()]  # a list, because the file sorts the keys of a mapping
        save_tensors(path, tensors, references=listed, extractor=extract.sha256)
    return facts


def load_references(path: Path) -> dict[str, ReferenceStatistics]:
    """By name, in the order of `references_of`."""
    tensors, facts = load_tensors(path)
    return {
        one["name"]: ReferenceStatistics(
            one["name"],
            *(tensors[f"{one['name']}.{which}"].numpy() for which in ("mu", "sigma")),
            tensors[f"{one['name']}.features"],
            one["sha256"],
            one["statistics"],
            facts["extractor"],
        )
        for one in facts["references"]
    }


def _enough_images(study: Study, reference: ReferenceStatistics) -> None:
    least = max(study.evaluation.kid_subset, study.evaluation.neighbours + 1)
    if reference.n < least:
        raise UserError(f"reference {reference.name} has {reference.n} images; evaluation.kid_subset and neighbours need at least {least}")


# ------------------------------------------------------------------------------------------------------------ ADM's batches


def of_batch(study: Study, name: str, path: Path, sha256: str, extract: Extractor) -> ReferenceStatistics:
    """An ADM reference batch. Its `mu` and `sigma` are taken where it has them: `arr_0` is only a part of what they are of."""
    with zipfile_of(path) as archive:
        arrays = {member.removesuffix(".npy"): member for member in archive.namelist() if member.endswith(".npy")}
        if "arr_0" not in arrays or ("mu" in arrays) != ("sigma" in arrays):
            raise UserError(
                f"{path}: has {', '.join(sorted(arrays)) or 'no arrays'}; a reference needs arr_0 (images, for precision, recall and KID), "
                "and either both mu and sigma (for FID) or neither"
            )
        mu, sigma = (_statistic(archive, path, arrays, which, study.features) for which in ("mu", "sigma"))
        with closing(ArchivedImages(archive, path, arrays["arr_0"], study.data.image_size)) as images:
            features = extract(images)["features"]
    if mu is None or sigma is None:
        return ReferenceStatistics.of_features(name, features, sha256, extract.sha256)
    return ReferenceStatistics(name, mu, sigma.astype(np.float64), features, sha256, GIVEN, extract.sha256)


def _statistic(archive: zipfile.ZipFile, path: Path, arrays: dict[str, str], which: str, width: int) -> np.ndarray | None:
    """`mu` or `sigma`, checked; None where the file has none."""
    if which not in arrays:
        return None
    wanted = (width,) if which == "mu" else (width, width)
    with readable(path), archive.open(arrays[which]) as file:
        array = npy.read_array(file, allow_pickle=False)
    if array.shape != wanted:
        raise UserError(
            f"{path}: {which} has shape {array.shape}, the judge's {width} features need {wanted}; take statistics of the same layer"
        )
    if array.dtype not in (np.float32, np.float64) or not np.isfinite(array).all():
        raise UserError(f"{path}: {which} is not a finite float array ({array.dtype}); get the file again")
    return array


class ArchivedImages:
    """The images (N, H, W, 3) uint8 of an archive's member, read one by one: the whole of it may not fit into memory."""

    def __init__(self, archive: zipfile.ZipFile, path: Path, member: str, image_size: int) -> None:
        self.path = path
        with readable(path):
            self.file = archive.open(member)
        try:
            self._read_header(member, image_size)
        except UserError:
            self.close()
            raise

    def _read_header(self, member: str, image_size: int) -> None:
        with readable(self.path):
            self.shape, fortran, dtype = HEADERS[npy.read_magic(self.file)](self.file)
            self.start = self.file.tell()
        if self.shape[1:] != (image_size, image_size, 3) or dtype != np.uint8 or fortran:
            order = " in Fortran order" if fortran else ""
            raise UserError(
                f"{self.path}: {member} is {self.shape} {dtype}{order}; "
                f"this study compares with images (N, {image_size}, {image_size}, 3) uint8"
            )

    def close(self) -> None:
        self.file.close()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> np.ndarray:
        size = int(np.prod(self.shape[1:]))
        with readable(self.path):
            self.file.seek(self.start + index * size)
            return np.frombuffer(self.file.read(size), np.uint8).reshape(self.shape[1:])


@contextmanager
def zipfile_of(path: Path) -> Iterator[zipfile.ZipFile]:
    with readable(path):
        archive = zipfile.ZipFile(path)
    with archive:
        yield archive


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """What a spoiled .npz file raises, as one line that names it."""
    try:
        yield
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: not a readable .npz file ({reason}); truncated? get it again and run the same command again") from None
