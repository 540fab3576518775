"""What every configuration shares: errors for people, strict models, merging, digests. Read by the Snakefile, so no torch here."""

import difflib
import hashlib
import json
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Annotated, Any, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    create_model,
    field_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from harness.study.folders import CODE

ROOT = CODE  # as tests call it, which run in a checkout


class UserError(Exception):
    """Something the person at the keyboard can put right: one line that says what, where and what to do. Exit code 2."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.splitlines()))  # what it quotes may have several


Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]  # of something: neither none nor all of it
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]


def _in_one_line(text: str) -> str:
    text = unicodedata.normalize("NFC", text.strip())
    if not text or any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text):
        raise ValueError("a title is one line of text")
    return " ".join(text.split())


Title = Annotated[str, AfterValidator(_in_one_line)]
Interval = tuple[Fraction, Fraction]  # of t
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]


class Strict(BaseModel):
    """No field but the known ones; true and false are no numbers, and nothing else is true or false; numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="wrap")
    @classmethod
    def _as_given(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        """pydantic would take `true` for 1, and `yes` or 1 for true. The words may be texts, as in a CSV."""
        read = handler(value)
        for given, taken in zip(*(v if isinstance(v, list | tuple) else [v] for v in (value, read)), strict=False):
            if isinstance(given, bool) and not isinstance(taken, bool):
                raise ValueError("should be a number, not true or false")
            if isinstance(taken, bool) and isinstance(given, str | int) and str(given).lower() not in ("true", "false"):
                raise ValueError("should be true or false")
        return read


def merge(base: dict[Any, Any], changes: dict[Any, Any]) -> dict[Any, Any]:
    """`base` with `changes` laid over it, mapping by mapping; one of another kind (`kind`; of `data`, `source`) replaces the old whole."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        tag = "source" if key == "data" else "kind"
        if isinstance(value, dict) and isinstance(old, dict) and value.get(tag, old.get(tag)) == old.get(tag):
            merged[key] = merge(old, value)
        else:
            merged[key] = value
    return merged


def _is_seed(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32


def check_seeds(seeds: object) -> list[int]:
    if not isinstance(seeds, list) or not seeds or not all(map(_is_seed, seeds)):
        raise UserError(f"seeds must be a list of one or more whole numbers from 0 up, such as '[0,1,2]'; got {seeds!r}")
    if len(set(seeds)) != len(seeds):
        raise UserError(f"seeds must differ from one another; got {seeds!r}")
    return seeds


T = TypeVar("T")


def nearest(name: T, known: Iterable[T], what: str) -> T:
    """`name` if it is known; otherwise a UserError that names the nearest known one."""
    known = list(known)
    if not known:
        raise UserError(f"unknown {what} '{name}': there is none")
    if name not in known:
        raise UserError(f"unknown {what} '{name}'{did_you_mean(str(name), [str(k) for k in known])}; known: {', '.join(map(str, known))}")
    return name


def check_titles(titles: Iterable[tuple[str, str]], where: str) -> None:
    """UserError for two names, each with its title, that a reader of `where` could not tell apart."""
    seen: dict[str, str] = {}
    for name, title in titles:
        if title in seen:
            raise UserError(f"{where}: '{seen[title]}' and '{name}' have the same title, '{title}'; give one of them another")
        seen[title] = name


def did_you_mean(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f", did you mean '{close[0]}'?" if close else ""


class OneOf:
    """`Annotated[Base, OneOf(KINDS)]`: a field that holds one of the classes of the registry `KINDS`, the one its field `tag` names.

    The registry is read when a study is, so that a kind that is registered later counts too. `base`: a class whose fields every kind has in
    this field of a study, beside its own.
    """

    def __init__(self, kinds: Mapping[str, type[BaseModel]], tag: str = "kind", base: type[BaseModel] | None = None) -> None:
        self.kinds, self.tag, self.base = kinds, tag, base

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._chosen, core_schema.any_schema())

    def models(self) -> dict[str, type[BaseModel]]:
        """The class of each kind, by its name."""
        return {name: _with_base(self.base, kind) if self.base else kind for name, kind in self.kinds.items()}

    def _chosen(self, value: Any) -> BaseModel:
        models, known = self.models(), ", ".join(self.kinds)
        if isinstance(value, BaseModel) and isinstance(value, tuple(models.values())):
            return value
        if not isinstance(value, dict):
            raise PydanticCustomError("kind", "should be a mapping with the field '{tag}': {known}", {"tag": self.tag, "known": known})
        name = value.get(self.tag)
        if not isinstance(name, str) or name not in models:
            near = did_you_mean(name, models) if isinstance(name, str) else ""
            raise PydanticCustomError(
                "kind", "{tag} is '{name}'{near}; known: {known}", {"tag": self.tag, "name": str(name), "near": near, "known": known}
            )
        owners = {field: [kind for kind, model in models.items() if field in model.model_fields] for field in value}
        foreign = [field for field, kinds in owners.items() if kinds and name not in kinds]
        for field in foreign:
            if value[field] is not None:  # null takes an inherited field back
                about = {"tag": self.tag, "name": name, "field": field, "owners": " and ".join(owners[field])}
                raise PydanticCustomError("kind", "{field} belongs to {tag} {owners}, not to {name}", about)
        return models[name].model_validate({field: own for field, own in value.items() if field not in foreign})


@cache
def _with_base(base: type[BaseModel], kind: type[BaseModel]) -> type[BaseModel]:
    return create_model(kind.__name__, __base__=(base, kind), __module__=base.__module__)


def name_in(registry: Mapping[str, Any]) -> AfterValidator:
    """`Annotated[str, name_in(REGISTRY)]`: a field that holds a name of the registry, which is read when a study is."""

    def known(name: str) -> str:
        if name not in registry:
            raise ValueError(f"unknown{did_you_mean(name, registry)}; known: {', '.join(registry)}")
        return name

    return AfterValidator(known)


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first complaint of pydantic in one line, with the nearest valid name for an unknown field."""
    first, *others = error.errors()
    if first["type"] == "missing":  # it may be there under another spelling, which says more
        first = next((other for other in others if other["type"] == "extra_forbidden"), first)
    path, candidates, known = [], [model], list(model.model_fields)
    for part in map(str, first["loc"]):
        owner = next((m for m in candidates if part in m.model_fields), None)
        if owner is not None:
            field = owner.model_fields[part]
            candidates = [m for annotation in (field.annotation, *field.metadata) for m in _models_in(annotation)]
        path.append(part)
        known = [field for m in candidates for field in m.model_fields] or known
    where = ".".join(path)
    if first["type"] == "extra_forbidden":
        return f"unknown field '{where}'{did_you_mean(path[-1], known)}"
    message = first["msg"].removeprefix("Value error, ")
    short = first["type"] == "missing" or isinstance(first["input"], dict)
    return f"{where}: {message}".lstrip(": ") if short or not where else f"{where}: {message} (got {first['input']!r})"


def _models_in(annotation: Any) -> Iterable[type[BaseModel]]:
    """The models that a field's annotation mentions, through unions, lists and mappings."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif isinstance(annotation, OneOf):
        yield from annotation.models().values()
    for inner in get_args(annotation):
        yield from _models_in(inner)


def first_line(error: BaseException) -> str:
    """Of what a library's error says, or its name where it says nothing: a place in a line of our own."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def digest(value: Any) -> str:
    """First 16 hex digits of the SHA-256 of a value's canonical JSON."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]
