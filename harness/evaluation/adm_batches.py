"""ADM reference batches (guided-diffusion, evaluations): `.npz` with `mu` and `sigma` of a whole training set, and images in `arr_0`."""

import hashlib
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from torch import Tensor

from harness.evaluation.features import Extractor, Seen
from harness.evaluation.reference_statistics import GIVEN, ReferenceStatistics
from harness.study.study import Study
from harness.study.typed import UserError, first_line

HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def batch_statistics(study: Study, name: str, path: Path, sha256: str, extract: Extractor) -> ReferenceStatistics:
    """An ADM reference batch. Its `mu` and `sigma` are taken where it has them: `arr_0` is only a part of what they are of."""
    with zipfile_of(path) as archive:
        arrays = arrays_of(archive)
        if "arr_0" not in arrays or ("mu" in arrays) != ("sigma" in arrays):
            raise UserError(
                f"{path}: has {', '.join(sorted(arrays)) or 'no arrays'}; a reference needs arr_0 (images, for precision, recall and KID), "
                "and either both mu and sigma (for FID) or neither"
            )
        mu, sigma = (statistic(archive, path, arrays, which, study.features) for which in ("mu", "sigma"))
        with closing(ArchivedImages(archive, path, arrays["arr_0"], study.data.image_size)) as images:
            seen = Seen(images)
            features = extract(seen)["features"]
    if mu is None or sigma is None:
        return ReferenceStatistics.of_features(name, features, sha256, extract.sha256, seen.sha256)
    return given(name, mu, sigma, features, sha256, extract.sha256, seen.sha256)


def given(
    name: str, mu: np.ndarray, sigma: np.ndarray, features: Tensor, sha256: str, extractor: str, images: str = ""
) -> ReferenceStatistics:
    """Of mu (D,), sigma (D, D) and the features (n, D) of images beside them, whose content has the hash `images`; n may be 0."""
    content = hashlib.sha256(images.encode() + mu.tobytes() + sigma.tobytes())
    return ReferenceStatistics(name, mu, sigma.astype(np.float64), features, sha256, GIVEN, extractor, content.hexdigest())


def arrays_of(archive: zipfile.ZipFile) -> dict[str, str]:
    """Name of each array -> member of the archive."""
    return {member.removesuffix(".npy"): member for member in archive.namelist() if member.endswith(".npy")}


def statistic(archive: zipfile.ZipFile, path: Path, arrays: dict[str, str], which: str, width: int) -> np.ndarray | None:
    """`mu` (D,) or `sigma` (D, D), checked; None where the file has none."""
    if which not in arrays:
        return None
    with readable(path), archive.open(arrays[which]) as file:
        return checked_statistic(npy.read_array(file, allow_pickle=False), path, which, width)


def checked_statistic(array: np.ndarray, path: Path, which: str, width: int) -> np.ndarray:
    """`array`, if it can be `mu` (D,) or `sigma` (D, D) of features of this width; UserError otherwise."""
    wanted = (width,) if which == "mu" else (width, width)
    if array.shape != wanted:
        raise UserError(
            f"{path}: {which} has shape {array.shape}, the judge's {width} features need {wanted}; take statistics of the same layer"
        )
    if array.dtype not in (np.float32, np.float64) or not np.isfinite(array).all():
        raise UserError(f"{path}: {which} is not a finite float array ({array.dtype}); get the file again")
    return array


class ArchivedImages:
    """The images (N, H, W, 3) uint8 of an archive's member, read one by one: the whole of it may not fit into memory.

    `image_size`: of a side that they must have; None: any.
    """

    def __init__(self, archive: zipfile.ZipFile, path: Path, member: str, image_size: int | None) -> None:
        self.path = path
        with readable(path):
            self.file = archive.open(member)
        try:
            self._read_header(member, image_size)
        except UserError:
            self.close()
            raise

    def _read_header(self, member: str, image_size: int | None) -> None:
        with readable(self.path):
            self.shape, fortran, dtype = HEADERS[npy.read_magic(self.file)](self.file)
            self.start = self.file.tell()
        sides = (image_size, image_size) if image_size else self.shape[1:3]
        if len(self.shape) != 4 or self.shape[1:] != (*sides, 3) or dtype != np.uint8 or fortran:
            order = " in Fortran order" if fortran else ""
            wanted = (
                f"this study compares with images (N, {image_size}, {image_size}, 3) uint8"
                if image_size
                else "images are (N, H, W, 3) uint8: make them so as your sampler does when it saves images (how floats are rounded counts)"
            )
            raise UserError(f"{self.path}: {member} is {self.shape} {dtype}{order}; {wanted}")

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
        raise UserError(
            f"{path}: not a readable .npz file ({first_line(error)}); truncated? get it again and run the same command again"
        ) from None
