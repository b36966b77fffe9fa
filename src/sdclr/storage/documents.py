"""JSON and YAML read within bounds: what a file may cost is limited before it is parsed.

YAML is read like JSON: true and false, numbers in JSON's notation, everything else is text. Anchors, aliases and tags
are refused, and so is a repeated key. Python objects are never made.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable, Hashable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import yaml

LARGEST_YAML = 256 * 1024
"""Bytes; a complete config has 3 KB."""
LARGEST_JSON = 256 * 1024 * 1024
"""Bytes; the longest JSON of a run lists files, a hundred bytes each."""
DEEPEST = 32
"""The most levels of nested sections."""


def parse_json(text: str | bytes, number: Callable[[str], float] = float) -> Any:
    """The value of a JSON text. ValueError for text that is not JSON, nests too deep or repeats a key.

    ``number``: makes a number from text with a point or an exponent.
    """
    try:
        return json.loads(
            text,
            object_pairs_hook=_without_repetition,
            parse_constant=_refuse_constant,
            parse_float=partial(_finite, number),
        )
    except RecursionError:
        raise ValueError("it nests too deep") from None
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        raise ValueError(_plainly(error)) from None


def _refuse_constant(word: str) -> float:
    raise ValueError(f"{word} is not a JSON number")


def _finite(number: Callable[[str], float], text: str) -> float:
    value = number(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _plainly(error: ValueError) -> str:
    """The error's message; Python's own for a number of thousands of digits is about a setting of Python."""
    return (
        "a number has too many digits" if "integer string conversion" in str(error) else str(error)
    )


def read_json_file(path: Path) -> Any:
    """The value in a JSON file. OSError and ValueError, as open and :func:`parse_json` raise them."""
    return parse_json(_bounded(path, LARGEST_JSON))


def _bounded(path: Path, limit: int) -> str:
    if not path.is_file():
        raise FileNotFoundError(2, "it does not exist or is not a file", str(path))
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"it is larger than {limit:,} bytes")
    return content.decode("utf-8")


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"{twice[:80]!r} is given twice")
    return found


def read_yaml_file(path: Path) -> Any:
    """The value in a YAML file. OSError and ValueError, as open and :func:`parse_yaml` raise them."""
    return parse_yaml(_bounded(path, LARGEST_YAML))


def parse_yaml(text: str) -> Any:
    """The value of a YAML text; ValueError describes what is wrong and in which line."""
    if len(text) > LARGEST_YAML:
        raise ValueError(f"it is larger than {LARGEST_YAML:,} bytes")
    return copy.deepcopy(_parsed(text))


@lru_cache(maxsize=16)
def _parsed(text: str) -> Any:
    """Cached: a command reads the settings of its run several times, and each parse takes tens of milliseconds."""
    try:
        return yaml.load(text, Loader=_PlainLoader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("it nests too deep") from None
    except ValueError as error:
        raise ValueError(_plainly(error)) from None


class _PlainLoader(yaml.SafeLoader):
    """Resolves only the types of JSON."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - the name and the kind are PyYAML's

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Refuse what turns a small text into a large value, or a word into something other than it looks like."""
        event = self.peek_event()
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise ValueError(f"line {line} has an anchor or alias (& or *); write the value out")
        if getattr(event, "tag", None) is not None:
            raise ValueError(f"line {line} has a tag (!); write the plain value")
        if self._depth == DEEPEST and isinstance(event, yaml.CollectionStartEvent):
            raise ValueError(f"line {line} nests more than {DEEPEST} levels deep")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys: set[str] = set()
        for key_node, _ in node.value:
            key = key_node.value
            line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise ValueError(f"line {line} has a key that is not a word")
            if key in keys:
                raise ValueError(f"{key[:80]!r} is given twice, the second time in line {line}")
            keys.add(key)
            key_node.tag = "tag:yaml.org,2002:str"  # 1 and null are names here, as in JSON
        return super().construct_mapping(node, deep)


def _construct_float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return _finite(float, node.value)


_PlainLoader.add_constructor("tag:yaml.org,2002:float", _construct_float)
_NUMBER = r"-?(?:0|[1-9][0-9]*)"
_STARTS_OF_NUMBERS = list("-0123456789")
_PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:null", re.compile(r"^(?:null|~|)$"), ["n", "~", ""]
)
_PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), ["t", "f"]
)
_PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(rf"^{_NUMBER}$"), _STARTS_OF_NUMBERS
)
_PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(rf"^{_NUMBER}(?:\.[0-9]+(?:[eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)$"),
    _STARTS_OF_NUMBERS,
)


def to_yaml(value: Any) -> str:
    """YAML that :func:`parse_yaml` and any other reader of YAML read as the same ``value``."""
    return yaml.dump(value, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True)


class _PlainDumper(yaml.SafeDumper):
    """Also quotes words that only JSON reads as numbers, such as 1e5."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_PlainDumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", _PlainLoader.yaml_implicit_resolvers["-"][-1][1], _STARTS_OF_NUMBERS
)
