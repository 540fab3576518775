"""What looks at samples from outside: the judge, and the CLIP model, from a file or from a study's results."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

from pydantic import Field, ValidationError

from harness.data.captions import captions
from harness.data.registry import source_of
from harness.evaluation.clip.base import LoadedClip
from harness.evaluation.clip.published import import_published, load_published
from harness.evaluation.clip.stage import load_clip
from harness.evaluation.extractors.registry import load_extractor
from harness.evaluation.features import Extractor, FeaturePass
from harness.evaluation.judge.inception import InceptionExtractor
from harness.store import artifacts, foreign
from harness.study import places
from harness.study.names import OF_STUDY
from harness.study.sections.asset import Weights
from harness.study.sections.evaluation import LOCAL, Inception, JudgeSection, OpenClip
from harness.study.sections.extractors import EXTRACTORS
from harness.study.study import Study, load_study
from harness.study.typed import Count, Strict, UserError, explain, nearest

INCEPTIONS = {"inception": 2048, "inception-768": 768, "inception-192": 192, "inception-64": 64}  # by the layer whose features count


class Protocol(Strict):
    """How features become scores, as a study's section `evaluation` says it; here as the literature does."""

    kid_subset: Count = 1000
    kid_subsets: Count = 100
    neighbours: Count = 3  # k of precision and recall
    resamples: Annotated[int, Field(ge=20)] = 200


@dataclass(frozen=True)
class Judge:
    """The network whose features, `width` of them, scores use, and the protocol by which they do.

    `note`: what it is, in words; `usual`: whether its distances are what papers call FID and KID; `study`: whose it is, None for one in a
    file.
    """

    extract: FeaturePass
    protocol: Protocol
    width: int
    note: str
    usual: bool
    study: Study | None = None

    @property
    def classes(self) -> int | None:
        """How many labels it tells apart, where its logits are of the samples' labels."""
        return self.study.classes if self._trained and not self.study.data.prompts else None

    @property
    def side(self) -> int | None:
        """Of the only images that it can look at, in pixels."""
        return self.study.data.image_size if self._trained else None

    @property
    def has_logits(self) -> bool:
        """Those that the Inception Score uses."""
        return "logits" in self.extract.layers

    @property
    def _trained(self) -> bool:
        return self.study is not None and self.study.evaluation.judge.classifies


def part_of(study: Study, part: str, name: str, results: Path) -> Path:
    """A file of a study's results, which may be in those of its base."""
    return places.folder(results / study.name, study, places.home(study, part)) / name


def open_judge(told: str, results: Path, changes: dict[str, int]) -> Judge:
    """`inception=PATH`, torch-fidelity's published file; `EXTRACTOR=PATH`, one of EXTRACTORS; or `study:NAME`. `changes`: of the protocol.

    UserError where there is none, or it is of another architecture.
    """
    if told.startswith(OF_STUDY):
        study = load_study(told.removeprefix(OF_STUDY))
        section, own = study.evaluation.judge, study.evaluation.model_dump(include={*Protocol.model_fields})
        extract = Extractor(study, part_of(study, "judge", "judge.safetensors", results))
        return Judge(extract, protocol_of(own | changes), section.feature_width, section.note, _usual(section), study)
    name, given, where = told.partition("=")
    if not given or not where:
        raise UserError(f"--judge {told}: expected inception=PATH (torch-fidelity's weights) or study:NAME (the judge of its results)")
    protocol, path = protocol_of(changes), Path(where)
    if nearest(name, [*INCEPTIONS, *EXTRACTORS], "judge") not in INCEPTIONS:
        network = load_extractor(name, path)
        extract = FeaturePass(network, {layer: layer for layer in network.provided}, network.source.sha256)
        return Judge(extract, protocol, network.info.width, f"{name}, {network.info.network}, {network.info.width} features", False)
    features = INCEPTIONS[name]
    layers = {"features": str(features), "logits": "logits_unbiased"}
    inception = InceptionExtractor(name, [*layers.values()], foreign.read_weights(path), path)
    section = Inception(kind="inception", weights=Weights(path=where, source="torch-fidelity's releases"), features=features)
    return Judge(FeaturePass(inception, layers, artifacts.sha256(path)), protocol, features, section.note, _usual(section))


def _usual(section: JudgeSection) -> bool:
    return section.name == "inception"  # at 2048 features


def protocol_of(values: dict[str, int]) -> Protocol:
    """UserError for a number that cannot be."""
    try:
        return Protocol.model_validate(values)
    except ValidationError as error:
        raise UserError(explain(error, Protocol)) from None


@dataclass(frozen=True)
class Clip:
    """An open_clip model, and the SHA-256 of its file or folder. `study`: whose it is, with its data set; None for a published one."""

    loaded: LoadedClip
    sha256: str
    study: Study | None = None
    data: Path | None = None

    def captions_of(self, labels: list[int]) -> tuple[list[str], str]:
        """(What the study says of images of these labels, where that is from in words)."""
        if self.study is None:
            raise ValueError("a published model has no captions")
        return captions(self.study.data, labels, self.data), source_of(self.study.data).caption_source(self.data)


def open_clip_model(told: str, results: Path) -> Clip:
    """`study:NAME`, an open_clip folder, or `MODEL=PATH`: open_clip's name of the architecture and a file of weights."""
    if told.startswith(OF_STUDY):
        study = load_study(told.removeprefix(OF_STUDY))
        if study.evaluation.clip is None:
            raise UserError(f"--clip {told}: the study has no CLIP model (evaluation.clip is null)")
        folder = part_of(study, "clip", "clip", results)
        return Clip(load_clip(study, folder), artifacts.checked(folder), study, part_of(study, "data", "data", results))
    model, given, where = told.rpartition("=")
    path = Path(where)
    if not path.exists():
        raise UserError(f"--clip {told}: {path}: no such file or folder; expected an open_clip folder, MODEL=FILE or study:NAME")
    section = OpenClip(kind="open_clip", model=model if given else LOCAL, weights=Weights(path=where, source="open_clip"))
    with TemporaryDirectory() as folder:
        import_published(section, path, Path(folder))
        return Clip(load_published(Path(folder)), artifacts.sha256(path))
