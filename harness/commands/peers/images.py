"""Rows on all scores of images: ours in one pass beside torch-fidelity, clean-fid and open_clip one after another, with the same networks.

The networks have random weights, of the real architectures: the published Inception is nobody's to download here, and speed needs none.
"""

import io
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import open_clip
import torch
from cleanfid.fid import frechet_distance
from torch import Tensor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric
from torch_fidelity.utils import get_featuresdict_from_dataset

from harness.commands.peers.measure import Line, Pair, Values, alternate
from harness.data.captions import captions
from harness.evaluation.clip.base import LoadedClip
from harness.evaluation.clip.trained import WordTokenizer, model_config
from harness.evaluation.clip_score import clip_scores
from harness.evaluation.features import BATCH, Images
from harness.evaluation.fid import fid
from harness.evaluation.inception_score import inception_score_value
from harness.evaluation.judge.classifier import Classifier, ClassifierExtractor
from harness.evaluation.judge.inception import InceptionExtractor
from harness.evaluation.kid import kid_value
from harness.evaluation.precision_recall import precision_and_recall
from harness.evaluation.reference_statistics import ReferenceStatistics
from harness.machine.device import set_up
from harness.machine.memory import peak_memory
from harness.machine.streams import seed_initialisation, stream
from harness.study.study import load_study

SIZES = (500, 1000, 2000, 4000)  # images, of the row on memory
LAYERS = {"inception": ("192", "logits_unbiased"), "digits": ("features", "logits")}
SIDES = {"inception": 75, "digits": 16}


class Scored:
    """Random images, a judge, a CLIP model and a reference, and two ways to all scores."""

    def __init__(self, judge: str, n: int) -> None:
        seed_initialisation(0)
        study, side, generator = load_study("digits"), SIDES[judge], stream(0, "benchmark images")
        self.evaluation = study.evaluation.model_copy(update={"kid_subset": min(200, n)})
        self.layers = LAYERS[judge]
        self.extractor = _extractor(judge)
        self.images = torch.randint(256, (n, side, side, 3), generator=generator, dtype=torch.uint8).numpy()
        real = (0.8 * torch.randint(256, (max(n, 600), side, side, 3), generator=generator)).to(torch.uint8).numpy()
        texts = captions(study.data, range(study.classes))
        self.captions, words = [texts[i % len(texts)] for i in range(n)], WordTokenizer.of(texts)
        model = open_clip.CLIP(**model_config(study.evaluation.clip, side // 4 * 4, words)).eval().requires_grad_(False)
        self.clip = LoadedClip(model, words, lambda batch: _pixels(batch[:, : side // 4 * 4, : side // 4 * 4]))
        self.reference = ReferenceStatistics.of_features("benchmark", self.seen(real)[0])

    def seen(self, images: np.ndarray) -> tuple[Tensor, Tensor]:
        """Features and logits, in one pass."""
        outputs = get_featuresdict_from_dataset(Images(images), self.extractor, BATCH, cuda=False, save_cpu_ram=True, verbose=False)
        return outputs[self.layers[0]], outputs[self.layers[1]]

    def ours(self) -> Values:
        """FID, clean-fid's, IS, KID, precision, recall, CLIP score, without intervals, which the peers have none of."""
        features, logits = self.seen(self.images)
        distances = fid(features, self.reference)
        settings = self.evaluation
        near = precision_and_recall(features, self.reference.features, settings.neighbours)
        score = clip_scores(self.images, self.captions, *self.clip).mean().item()
        value, _ = kid_value(features, self.reference.features, settings)
        return [*distances.values(), inception_score_value(logits), value, *near, score]

    def theirs(self, *, clean: bool = True) -> Values:
        """The same; `clean`: with clean-fid, which as a tool of its own extracts the features once more."""
        (features, logits), reference, settings = self.seen(self.images), self.reference, self.evaluation
        moments, quiet = {"mu": reference.mu, "sigma": reference.sigma}, {"verbose": False}
        first = float(fid_statistics_to_metric(fid_features_to_statistics(features), moments, **quiet)[KEY_METRIC_FID])
        second = first
        if clean:
            own = fid_features_to_statistics(self.seen(self.images)[0])
            second = float(frechet_distance(own["mu"], own["sigma"], reference.mu, reference.sigma))
        subsets = {"kid_subset_size": settings.kid_subset, "kid_subsets": settings.kid_subsets}
        near = prc_features_to_metric(features, reference.features, prc_neighborhood=settings.neighbours, save_cpu_ram=True, **quiet)
        return [
            first,
            second,
            isc_features_to_metric(logits, splits=10)[KEY_METRIC_ISC_MEAN],
            kid_features_to_metric(features, reference.features, **subsets, **quiet)[KEY_METRIC_KID_MEAN],
            near[KEY_METRIC_PRECISION],
            near[KEY_METRIC_RECALL],
            self._open_clip(),
        ]

    @torch.no_grad()
    def _open_clip(self) -> float:
        """Mean over the images, each with its own caption, as open_clip's example computes it."""
        total = 0.0
        for first in range(0, len(self.images), BATCH):
            image = self.clip.model.encode_image(self.clip.preprocess(self.images[first : first + BATCH]), normalize=True)
            text = self.clip.model.encode_text(self.clip.tokenizer(self.captions[first : first + BATCH]), normalize=True)
            total += (100 * (image * text).sum(-1)).clamp(min=0).double().sum().item()
        return total / len(self.images)


def _pixels(images: np.ndarray) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def _extractor(judge: str) -> FeatureExtractorBase:
    study = load_study("digits")
    if judge == "digits":
        classifier = Classifier(study.evaluation.judge.width, study.classes, SIDES[judge])
        return ClassifierExtractor(list(LAYERS[judge]), classifier).eval().requires_grad_(False)
    extractor = InceptionExtractor("inception", list(LAYERS[judge]), random_inception(), Path("random weights"))
    extractor.INPUT_IMAGE_SIZE = SIDES[judge]  # its least, where 299 takes sixteen times as long on both sides
    return extractor.eval().requires_grad_(False)


@cache
def random_inception() -> dict[str, Tensor]:
    """Tensors like the published file's: no counters of the batch norms, scales that keep the signal alive."""

    class Blank(FeatureExtractorInceptionV3):
        def load_state_dict(self, *_args: object, **_options: object) -> None:
            return None

    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    torch.manual_seed(0)
    tensors = Blank("blank", ["2048"], feature_extractor_weights_path=empty).state_dict()
    tensors = {key: value for key, value in tensors.items() if not key.endswith("num_batches_tracked")}
    return {key: value * 2.2 if key.endswith("bn.weight") else value for key, value in tensors.items()}


def inception(rounds: int, n: int = 500) -> list[Line]:
    """All scores under an Inception of random weights, at its 192 features: 500 images are too few for 2,048."""
    scored = Scored("inception", n)
    work = f"all image scores, Inception (random weights, 192 features), {SIDES['inception']} px, N = {n:,}, without intervals"
    return [alternate(Pair(work, "torch-fidelity + clean-fid + open_clip", "2", scored.ours, scored.theirs), min(rounds, 3))]


def digits(rounds: int, n: int = 1000) -> list[Line]:
    """All scores of the study `digits`."""
    scored = Scored("digits", n)
    work = f"all image scores of `digits`, N = {n:,}, without intervals"
    both = Pair(work, "torch-fidelity + clean-fid + open_clip", "2", scored.ours, scored.theirs)
    one = Pair(work, "torch-fidelity + open_clip", "1.2", scored.ours, lambda: scored.theirs(clean=False))
    return [alternate(both, rounds), alternate(one, rounds)]


def memory(_rounds: int, sizes: tuple[int, ...] = SIZES) -> list[Line]:
    """Peak memory of a process that makes all scores of n images, each in a process of its own, once."""
    lines = []
    for n in sizes:
        command = [sys.executable, "-m", __name__, str(n), str(torch.get_num_threads())]
        peak = float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        lines.append(Line(f"peak memory of all image scores of `digits`, N = {n:,}", "", "flat in N", "MiB", [peak], []))
    return lines


if __name__ == "__main__":
    set_up(int(sys.argv[2]))
    Scored("digits", int(sys.argv[1])).ours()
    print(peak_memory())
