"""Which weights of a checkpoint are meant: its containers, averages first, under names without what wrappers put before them.

A container is a mapping of names to tensors at the top, one or two levels below it, or side by side with others under prefixes of its
names (`model.*` and `ema.*` in one mapping). It is called by its keys, joined by dots; the top itself is called `.`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

from torch import Tensor

from harness.study.typed import UserError

TOP = "."
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")  # of a name: EMAModel, modelEma and model_ema1 have the word ema, cinema has not
AVERAGES = {"ema", "emas", "average", "averages", "averaged"}
NEGATIONS = {"no", "non", "not", "without", "un"}  # non_ema, without_ema
MAYBE = re.compile(r"(?<!non)(?<!no)(?<!un)(?<!without)(?<!sch)(?<!cin)(ema$|average)|^ema")  # a word that may be two: modelema
# keys of what an optimiser and the like keep: its moments are tensors by name, too
NO_WEIGHTS = re.compile(r"optimi[sz]er|(^|_)opt(ims?)?(_|$)|sched|^(grad_|amp_)?scaler$|(^|_)rng(_|$)")
WRAPPERS = {"module", "_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"}  # DDP, compile, checkpointing, FSDP: anywhere
PREFIXES = ("model.", "net.", "decoder.")  # of all names: Lightning's, JiT's and RAE's classes
COUNTER = "n_averaged"  # of PyTorch's AveragedModel
NAME_ONE = "name the one that is meant with --container (in a study: container:)"
SHOWN = 12  # containers that a message lists

Tensors = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Container:
    """Tensors by their names there; `average` where its name, or AveragedModel's counter in it, says so."""

    name: str
    tensors: Tensors
    average: bool


def choose(content: object, path: Path, wanted: str | None = None) -> tuple[Tensors, str, dict[str, int]]:
    """(tensors by name; the container's name; the names of the others, each with its number of tensors).

    `wanted`: a container's name, or the end or the beginning of it. UserError, with a list, where that or the rule leaves no one of them.
    """
    found = containers(content)
    if not found:
        raise UserError(f"{path}: no mapping of names to tensors, also not one or two levels down; is it a checkpoint?")
    if wanted is None and (unread := _unread_average(content, found)):
        raise UserError(
            f"{path}: '{unread}' is called an average, but is no mapping of names to tensors; there are {_list(found)}; {NAME_ONE}"
        )
    left = _averages_first(found) if wanted is None else _named(found, content, wanted)
    if not left:
        raise UserError(f"{path}: has no container '{wanted}'; there are {_list(found)}")
    if len(left) > 1:
        what = "several averages" if left[0].average else "several containers, none of them alone an average by its name"
        raise UserError(f"{path}: {what}: {_list(left)}; {NAME_ONE}")
    [taken] = left
    others = {one.name: len(one.tensors) for one in found if one is not taken} if any(one is taken for one in found) else {}
    return unwrapped(taken.tensors, path), taken.name, others


def containers(content: object) -> list[Container]:
    """All that hold weights, outermost first: floating tensors of one dimension or more; where there are none, any tensors at all."""
    found = [part for _, name, inner in _mappings(content) if (tensors := _tensors(inner)) for part in _side_by_side(name, tensors)]
    found = [one for one in found if _are_weights(one.tensors)] or found
    nested = len(found) > 1 and found[0].name == TOP and not any("." in key for key in found[0].tensors)
    return found[1:] if nested else found  # a mean or a loss beside containers of weights is none


def unwrapped(tensors: Tensors, path: Path) -> Tensors:
    """Without AveragedModel's counter, the names of wrappers at any depth, and a prefix that all names share."""
    if len(tensors) > 1:
        tensors = {name: value for name, value in tensors.items() if name != COUNTER}
    plain: Tensors = {}
    for name, value in tensors.items():
        *folders, leaf = name.split(".")
        short = ".".join([part for part in folders if part not in WRAPPERS] + [leaf])
        if short in plain:
            raise UserError(f"{path}: two tensors are '{short}' once wrappers' names are off; save one set of weights alone")
        plain[short] = value
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in plain)), None):
        plain = {name.removeprefix(prefix): value for name, value in plain.items()}
    return plain


def _mappings(content: object) -> Iterator[tuple[int, str, Mapping[Any, Any]]]:
    """(level, name, mapping): the top and what is one or two levels below, without what optimisers and the like keep."""
    level = [(TOP, content)] if isinstance(content, Mapping) else []
    for depth in range(3):
        yield from ((depth, name, mapping) for name, mapping in level)
        level = [
            (_join(name, key), inner)
            for name, mapping in level
            for key, inner in mapping.items()
            if isinstance(inner, Mapping) and _may_hold_weights(key)
        ]


def _may_hold_weights(key: object) -> bool:
    return isinstance(key, str) and not NO_WEIGHTS.search(_words(key))


def _words(name: str) -> str:
    """Lower case; ModelEma is model_ema."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _tensors(mapping: Mapping[Any, Any]) -> Tensors:
    return {key: value for key, value in mapping.items() if isinstance(key, str) and isinstance(value, Tensor)}


def _are_weights(tensors: Tensors) -> bool:
    return any(value.dim() and (value.is_floating_point() or value.is_complex()) for value in tensors.values())


def _is_average(name: str, tensors: Tensors) -> bool:
    return _called_average(name) or COUNTER in tensors


def _called_average(name: str) -> bool:
    """Whether a whole word of it says so, and the one before does not deny it."""
    words = ["", *(word.lower() for word in WORD.findall(name))]
    return any(word in AVERAGES and before not in NEGATIONS for before, word in pairwise(words))


def _perhaps_average(name: str) -> bool:
    """As `_called_average`, or a word that may be two says so."""
    return _called_average(name) or any(MAYBE.search(word.lower()) for word in WORD.findall(name) if word.lower() not in AVERAGES)


def _join(name: str, key: str) -> str:
    return key if name == TOP else f"{name}.{key}"


def _groups(name: str, tensors: Tensors, keys: dict[str, str] | None = None) -> list[tuple[Container, set[str]]]:
    """Tensors by the first part of their names, each with its names in `tensors`; wrappers and Lightning's `model.` are seen through.

    `keys`: short name -> name in `tensors`.
    """
    inner_keys: dict[str, dict[str, str]] = {}
    for short, key in (keys or {key: key for key in tensors}).items():
        parts = short.split(".")
        while len(parts) > 2 and parts[0] in WRAPPERS:
            parts = parts[1:]
        if len(parts) > 1:
            inner_keys.setdefault(parts[0], {})[".".join(parts[1:])] = key
    groups = []
    for first, of in inner_keys.items():
        inner = {short: tensors[key] for short, key in of.items()}
        groups.append((Container(_join(name, first), inner, _is_average(first, inner)), {*of.values()}))
    if len(groups) == 1 and f"{(first := next(iter(inner_keys)))}." in PREFIXES and len(inner_keys[first]) == len(tensors):
        below = _groups(_join(name, first), tensors, inner_keys[first])
        return below if any(one.average for one, _ in below) else groups
    return groups


def _side_by_side(name: str, tensors: Tensors) -> list[Container]:
    """The averages among a mapping's prefixes, each with what it is the average of; the mapping as it is where there are none.

    A prefix that may be an average's (modelema) is told apart where another one has the same names; its container is no average by name.
    """
    groups = _groups(name, tensors)
    twins = {one.name for one, other in permutations([one for one, _ in groups], 2) if one.tensors.keys() == other.tensors.keys()}
    averages = [
        (one, keys)
        for one, keys in groups
        if (one.average or (one.name in twins and _perhaps_average(one.name.rpartition(".")[2]))) and _are_weights(one.tensors)
    ]
    if not averages:
        return [Container(name, tensors, _is_average(name, tensors))]
    rest = {key: value for key, value in tensors.items() if not any(key in keys for _, keys in averages)}
    if any(key in rest for one, _ in averages for key in one.tensors):  # the weights themselves have no prefix
        return [*(one for one, _ in averages), Container(name, rest, False)]
    return [one for one, _ in [*averages, *(pair for pair in groups if pair not in averages)]]


def _averages_first(found: list[Container]) -> list[Container]:
    return [one for one in found if one.average] or found


def _named(found: list[Container], content: object, wanted: str) -> list[Container]:
    """The one of that name, or whose name ends in it; within the one of that name, averages first; or tensors under that prefix."""
    named = [one for one in found if one.name == wanted] or [one for one in found if one.name.endswith(f".{wanted}")]
    if named := named or _averages_first([one for one in found if one.name.startswith(f"{wanted}.")]):
        return named
    parts = [one for _, name, inner in _mappings(content) for one, _ in _groups(name, _tensors(inner)) if _are_weights(one.tensors)]
    return [one for one in parts if one.name == wanted or one.name.endswith(f".{wanted}")]


def _unread_average(content: object, found: list[Container]) -> str | None:
    """The first entry of one level or two that is called an average, holds tensors or nothing, and is no container and has none."""
    weights = {(one.name, key) for one in found for key in one.tensors}
    for level, name, mapping in _mappings(content):
        for key, value in mapping.items() if level < 2 else ():
            if isinstance(value, Tensor) and ("." in str(key) or (name, key) in weights):
                continue
            if _may_hold_weights(key) and _perhaps_average(key) and (_holds_tensors(value) or value in ({}, [])):
                place = _join(name, key)
                if not any(one.name == place or one.name.startswith(f"{place}.") for one in found):
                    return place
    return None


def _holds_tensors(value: object) -> bool:
    """Of one dimension or more, at any depth; a pickle may hold itself."""
    waiting, seen = [value], set()
    while waiting:
        one = waiting.pop()
        if isinstance(one, Tensor) and one.dim():
            return True
        if isinstance(one, Mapping | list | tuple) and id(one) not in seen:
            seen.add(id(one))
            waiting += one.values() if isinstance(one, Mapping) else one
    return False


def _text(one: Container) -> str:
    return f"'{one.name}' ({len(one.tensors)} tensor{'s' * (len(one.tensors) != 1)})"


def _list(found: list[Container]) -> str:
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(map(_text, found[:SHOWN])) + more
