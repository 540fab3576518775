"""The one reader of YAML: studies, tables, figures, claims, the paper's values, Snakemake's configuration.

Scalars are those of YAML 1.2's core schema (yaml.org/spec/1.2.2, section 10.3): `010` is ten, `1e-3` a number, `1:40` and `yes` are texts.
"""

import copy
import re
from collections.abc import Hashable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from harness.study.typed import UserError

MERGE = "tag:yaml.org,2002:merge"  # `<<`, which 1.2 has no more and the files here use
INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
TRUTH = {word: truth for truth in (True, False) for text in (str(truth),) for word in (text.lower(), text, text.upper())}
SCALARS = {  # tag -> what is of it where nothing says so, and the characters that it begins with ("": no characters at all)
    "tag:yaml.org,2002:null": (re.compile("|~|null|Null|NULL"), ["", *"~nN"]),
    "tag:yaml.org,2002:bool": (re.compile("|".join(TRUTH)), list("tTfF")),
    "tag:yaml.org,2002:int": (INTEGER, list("-+0123456789")),
    "tag:yaml.org,2002:float": (FLOAT, list("-+.0123456789")),
    MERGE: (re.compile("<<"), ["<"]),
}


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of 1.2, in which no key stands twice."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Checked here, since merging changes the node later."""
        node = super().compose_mapping_node(anchor)
        lines: dict[Hashable, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            name = key.value if key.tag == MERGE else self.construct_object(key, deep=True)
            if not isinstance(name, Hashable):
                raise yaml.MarkedYAMLError(problem="a key must be a word or a number", problem_mark=key.start_mark)
            if name in lines:
                problem = f"'{key.value}' stands there twice, first in line {lines[name]}; leave one"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            lines[name] = line
        return node


def _number(loader: _Loader, node: yaml.ScalarNode) -> int | float:
    text = loader.construct_scalar(node)
    if INTEGER.fullmatch(text) and not node.tag.endswith(":float"):
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if FLOAT.fullmatch(text) and not node.tag.endswith(":int"):
        return float(re.sub(r"\.(?=[a-zA-Z])", "", text))  # Python's nan and inf have no dot
    raise yaml.MarkedYAMLError(problem=f"'{text}' is no such number", problem_mark=node.start_mark)


def _truth(loader: _Loader, node: yaml.ScalarNode) -> bool:
    text = loader.construct_scalar(node)
    if text not in TRUTH:
        raise yaml.MarkedYAMLError(problem=f"'{text}' is neither true nor false", problem_mark=node.start_mark)
    return TRUTH[text]


_Loader.yaml_implicit_resolvers = {}
_Loader.yaml_constructors = {None: yaml.SafeLoader.construct_undefined}
for _tag, (_pattern, _first) in SCALARS.items():
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern.pattern})\Z"), _first)
for _kind, _construct in {
    "null": lambda loader, node: None,
    "bool": _truth,
    "int": _number,
    "float": _number,
    "str": lambda loader, node: loader.construct_scalar(node),
    "seq": lambda loader, node: loader.construct_sequence(node, deep=True),
    "map": lambda loader, node: loader.construct_mapping(node, deep=True),
}.items():
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _construct)


@cache
def _parsed(text: str) -> object:
    return yaml.load(text, _Loader)


def read_mapping(path: Path, what: str = "fields") -> dict[str, Any]:
    """The file's mapping of `what`. UserError, in one line with the place, for a file that is none."""
    return mapping(read_text(path), str(path), what)


def read_text(path: Path) -> str:
    """UserError, in one line, for a file that is not there or not in UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a readable text in UTF-8: {error}") from None


def mapping(text: str, where: str, what: str = "fields") -> dict[str, Any]:
    """Of a YAML text, from `where`. UserError as `read_mapping`."""
    try:
        values = copy.deepcopy(_parsed(text))
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{where}{line}: not valid YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"{where}: expected a mapping of {what}")
    return values
