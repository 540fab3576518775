"""What samples from outside are compared with: images, statistics files of other programs, or a study's own references."""

import codecs
import pickle
import zipfile
from pathlib import Path

import numpy as np
import torch

from harness.evaluation.adm_batches import arrays_of, checked_statistic, given, readable, statistic
from harness.evaluation.features import FeaturePass, Seen
from harness.evaluation.outside.doors import NAMES, open_images
from harness.evaluation.outside.image_set import ImageSet, Watched, check_same_size
from harness.evaluation.outside.judges import Judge, part_of
from harness.evaluation.reference_statistics import ReferenceStatistics
from harness.evaluation.references import load_references
from harness.store import artifacts
from harness.store.foreign import load_values
from harness.study.names import OF_STUDY
from harness.study.study import load_study
from harness.study.typed import UserError, first_line

NAME = "reference"  # of the only one
SYMMETRIC = 1e-4  # relative: how far a covariance may be from its transpose
# numpy's, by the names that its versions have given them: what torch may make of a file of statistics, all of them values
ARRAYS = [
    (np._core.multiarray._reconstruct, "numpy._core.multiarray._reconstruct"),
    (np._core.multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),
    np.ndarray, np.dtype, np.dtypes.Float32DType, np.dtypes.Float64DType, codecs.encode,
]  # fmt: skip


def open_references(told: str, judge: Judge, samples: ImageSet, results: Path) -> dict[str, ReferenceStatistics]:
    """By name; the first is that of a score's plain name. `told`: a path, or `study:NAME`.

    Images become the judge's features here. UserError for statistics of another width, or references that another judge looked at.
    """
    if told.startswith(OF_STUDY):
        study = load_study(told.removeprefix(OF_STUDY))
        return _of_study(part_of(study, "references", "references.safetensors", results), judge)
    path = Path(told)
    if path.suffix == ".safetensors":
        return _of_study(path, judge)
    if path.suffix == ".npz" and path.is_file():
        return {NAME: _of_npz(path, judge, samples)}
    if path.suffix == ".pt" and path.is_file():
        mu, sigma = (checked_statistic(array, path, which, judge.width) for which, array in _torch_fidelity(path).items())
        return {NAME: _statistics(path, mu, sigma, judge.extract)}
    features, content = see(open_images(path, image_size=samples.image_size), judge.extract, samples, NAME)
    return {NAME: ReferenceStatistics.of_features(NAME, features, content, judge.extract.sha256, content)}


def see(images: ImageSet, extract: FeaturePass, samples: ImageSet, what: str) -> tuple[torch.Tensor, str]:
    """((n, D) features, SHA-256 of the pixels) of images of the samples' size."""
    check_same_size(samples, images)
    seen = Seen(images)
    return extract(Watched(seen, what))["features"], seen.sha256


def _of_study(path: Path, judge: Judge) -> dict[str, ReferenceStatistics]:
    references = load_references(path)
    for one in references.values():
        if one.extractor != judge.extract.sha256:
            raise UserError(
                f"{path}: made with another judge ({one.extractor[:16]}... instead of {judge.extract.sha256[:16]}...): features of one do "
                "not compare with those of the other; name the judge of the same study with --judge"
            )
    return references


def _of_npz(path: Path, judge: Judge, samples: ImageSet) -> ReferenceStatistics:
    """ADM's batches, clean-fid's and others' statistics. Given ones are taken where there are any: images beside them are only a part."""
    with readable(path), zipfile.ZipFile(path) as archive:
        arrays = arrays_of(archive)
        if ("mu" in arrays) != ("sigma" in arrays):
            raise UserError(f"{path}: has {', '.join(sorted(arrays))}; statistics are both mu and sigma")
        mu, sigma = (statistic(archive, path, arrays, which, judge.width) for which in ("mu", "sigma"))
    sha256 = artifacts.sha256(path)
    if mu is None or sigma is None:
        features, content = see(open_images(path, image_size=samples.image_size), judge.extract, samples, NAME)
        return ReferenceStatistics.of_features(NAME, features, sha256, judge.extract.sha256, content)
    _check_covariance(path, sigma)
    if not arrays.keys() & NAMES.keys():
        return _statistics(path, mu, sigma, judge.extract)
    features, content = see(open_images(path, image_size=samples.image_size), judge.extract, samples, NAME)
    return given(NAME, mu, sigma, features, sha256, judge.extract.sha256, content)


def _statistics(path: Path, mu: np.ndarray, sigma: np.ndarray, extract: FeaturePass) -> ReferenceStatistics:
    """Of no images that are known."""
    _check_covariance(path, sigma)
    return given(NAME, mu, sigma, torch.zeros(0, len(mu)), artifacts.sha256(path), extract.sha256)


def _check_covariance(path: Path, sigma: np.ndarray) -> None:
    if np.abs(sigma - sigma.T).max() > SYMMETRIC * np.abs(sigma).max() or np.diag(sigma).min() < 0:
        raise UserError(f"{path}: sigma is no covariance: it is not symmetric, or has a negative variance; get the file again")


def _torch_fidelity(path: Path) -> dict[str, np.ndarray]:
    """`mu` (D,) and `sigma` (D, D) of a file in torch-fidelity's cache, NAME-EXTRACTOR-stat-fid-LAYER.pt, read as values alone."""
    try:
        content = load_values(path, ARRAYS)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: holds more than arrays, so it is not opened ({' '.join(str(error).split())[:200]})") from None
    except Exception as error:  # of a damaged file torch raises nearly anything
        raise UserError(f"{path}: not readable as statistics of torch-fidelity ({first_line(error)}); get the file again") from None
    if not isinstance(content, dict) or not {"mu", "sigma"} <= content.keys():
        raise UserError(f"{path}: has no mu and sigma; torch-fidelity calls such a file NAME-EXTRACTOR-stat-fid-LAYER.pt")
    return {which: np.asarray(content[which]) for which in ("mu", "sigma")}
