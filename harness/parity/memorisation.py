"""Vendi score, AuthPct and C_T of dgm-eval@74c79f7."""

import math

import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from torch import Tensor
from torch.nn.functional import normalize

from harness.evaluation.memorisation import LEAST, authenticity, c_t, copying
from harness.evaluation.vendi import vendi, vendi_per_class
from harness.parity.base import Described, Format, number
from harness.parity.files import GoldenFile, Tensors

RESAMPLES = 2  # of intervals, which no file has
WIDEST = 64  # dimensions of the original's k-means


def outputs(file: GoldenFile, _config: Described) -> Tensors:
    """Of features (N, D): scores (), by class (classes,); in cells that the file has, and in those of k-means."""
    return diversity(file) | authentic(file) | copied(file)


def diversity(file: GoldenFile) -> Tensors:
    """Vendi scores of `vendi.X` (N, D), normalised; of rows that are orthogonal, and of rows that are the same."""
    x, labels = file.take("vendi.X", "vendi.labels")
    x = normalize(x.double())
    orders = {"q1": 1.0, "float64_q1": 1.0, "q2": 2.0, "qinf": math.inf}
    classes = torch.tensor([one.value for one in vendi_per_class(x, labels, RESAMPLES).values()], dtype=torch.float64)
    values = {name: number(vendi(x, RESAMPLES, order).value) for name, order in orders.items()}
    values |= {"per_class": classes, "mean_per_class": classes.mean()}
    values |= {"orthogonal_rows": number(vendi(torch.eye(7).to(x), RESAMPLES).value)}
    values |= {"identical_rows": number(vendi(x[:1].expand(5, -1), RESAMPLES).value)}
    return {f"values.vendi.{name}": value for name, value in values.items()}


def authentic(file: GoldenFile) -> Tensors:
    """AuthPct, in %, with copies of training images among the samples, and of images that the training set has twice."""
    train, gen, copies, twice = file.take("auth.train", "auth.gen", "auth.gen_with_copies", "auth.train_with_duplicates")
    pairs = {
        "main": (gen, train),
        "with_copies": (copies, train),
        "train_duplicates": (gen, twice),
        "train_duplicates_and_copies": (copies, twice),
        "gen_is_train": (train, train),
    }
    values = {name: number(100 * authenticity(*pair).value) for name, pair in pairs.items()}
    return {f"values.authpct.{name}.{program}": value for name, value in values.items() for program in ("dgm_eval", "float64")}


def copied(file: GoldenFile) -> Tensors:
    """Z_U of all images and by cell, C_T in given cells and in those of k-means."""
    train, test, gen, copies, few = file.take("ct.train", "ct.test", "ct.gen", "ct.gen_copying", "ct.gen_few_in_cell2")
    wide = file.take("ct.gen72", "ct.test72", "ct.train72")
    cells = tuple(file.take("ct.gen_cells", "ct.test_cells", "ct.train_cells"))
    by_cell = [copying(*(rows[of == cell] for rows, of in zip((gen, test, train), cells, strict=True))) for cell in cells[2].unique()]
    first, second = test.tensor_split(2)
    values = {
        "Zu_global": copying(gen, test, train),
        "Zu_global_copying": copying(copies, test, train),
        "C_T_given_cells_tau_20_over_m": c_t(gen, test, train, cells, LEAST).value,
        "C_T_given_cells_tau_.25": c_t(gen, test, train, cells, 0.25 * len(gen)).value,
        "kmeans_a_cell_with_10_generated_left_out": in_k_means(few, test, train),
        "mem_train_and_gen_swapped": in_k_means(train, test, gen),
        "mode_test_halves": in_k_means(gen, second, first),
    }
    tensors = {name: number(value) for name, value in values.items()} | {"Zu_cells": torch.tensor(by_cell, dtype=torch.float64)}
    repeats = {"kmeans": (3, (gen, test, train)), "kmeans_copying": (3, (copies, test, train)), "kmeans_72_dims_after_PCA64": (2, wide)}
    tensors |= {name: number(in_k_means(*sets)).expand(times) for name, (times, sets) in repeats.items()}
    return {f"values.ct.{name}": value for name, value in tensors.items()}


def in_k_means(samples: Tensor, held_out: Tensor, training: Tensor) -> float:
    """C_T of (N, D), (M, D) and (L, D) as dgm-eval has its cells: three, by k-means of the training features."""
    arrays = [rows.cpu().numpy() for rows in (samples, held_out, training)]
    if arrays[2].shape[1] > WIDEST:
        smaller = PCA(n_components=WIDEST).fit(arrays[2])
        arrays = [smaller.transform(array) for array in arrays]
    clusters = KMeans(n_clusters=3, n_init=10, random_state=0).fit(arrays[2])
    cells = tuple(torch.from_numpy(clusters.predict(array)) for array in arrays)
    return c_t(*map(torch.from_numpy, arrays), cells).value


LEFT_OUT = {
    "values.vendi.polynomial": "not compared: a kernel of all pairs of images at once, which is not offered here",
    "values.vendi.unnormalised": "not compared: meaningless, refused here",
}
FORMAT = Format(Described, outputs, inputs=("vendi.*", "auth.*", "ct.*"), left_out=LEFT_OUT)
