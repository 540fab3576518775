"""Where the files of a study are: a derived study takes what does not differ from its base from the base's folder. Imports no torch."""

from functools import cache
from pathlib import Path

from harness.study import study as studies
from harness.study.study import Study

# part -> what it is made from: parts, and fields of the study. `encoder`: backbones, registers, latents.
PARTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "data": ((), ("data",)),
    "judge": (("data",), ("evaluation.judge",)),
    "clip": (("data",), ("evaluation.clip",)),
    "references": (("judge",), ("evaluation.references", "evaluation.reconstruction")),
    "encoder": (("data",), ("encoder", "outliers", "planted", "search", "latents", "outlier_statistics.factor")),
    "decoder": (("encoder",), ("decoder",)),
}


def home(study: Study, part: str) -> str:
    """The study in whose folder a part of `study` (a key of PARTS) is made and kept: the first of its ancestors with the same settings.

    Ancestors are what its file extends (the first where it lists several), then what the study named as the family extends, and that
    itself.
    """
    wanted = settings(study, part)
    return next((name for name in ancestors(study.name) if settings(study_named(name), part) == wanted), study.name)


def folder(results: Path, study: Study, name: str) -> Path:
    """The results of the study `name`, where `results` are those of `study`."""
    return Path(results) if name == study.name else Path(results).parent / name


def settings(study: Study, part: str) -> list[object]:
    """What decides a part."""
    parts, fields = PARTS[part]
    return [value for inner in parts for value in settings(study, inner)] + [field(study, name) for name in fields]


def field(study: Study, name: str) -> object:
    """A field by its dotted name; None where a section has none of that name."""
    value: object = study
    for part in name.split("."):
        value = getattr(value, part, None)
    return value


def ancestors(name: str) -> list[str]:
    """Studies that `name` may share with, the one nearest to the root first; none for a study without a file."""
    return list(_ancestors(name, studies.STUDIES))


def study_named(name: str) -> Study:
    """`load_study`, each file read once."""
    return _study_named(name, studies.STUDIES)


@cache
def _study_named(name: str, folder: Path) -> Study:  # the folder is part of the key
    return studies.load_study(name)


@cache
def _ancestors(name: str, folder: Path) -> tuple[str, ...]:
    known = studies.study_names()
    if name not in known:
        return ()
    family, above = studies.family(name), _chain(name)[:-1]
    if family in known and family != name:
        above += _chain(family)
    return tuple(dict.fromkeys(above))


def _chain(name: str) -> list[str]:
    """Studies from the root to `name`; files that are no study of their own (`_smoke`) left out."""
    chain = [name]
    while parents := [parent for parent in studies.bases(chain[0]) if not parent.startswith("_")]:
        chain.insert(0, parents[0])
    return chain
