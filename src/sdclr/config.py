"""Strict, frozen settings: one model next to the code it configures, errors that name field, value and remedy.

A setting is written `section.key=value` on the command line, as YAML in a run folder, or as a keyword in Python; all
three pass through the same validation. This file knows no particular setting.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ValidationError,
    ValidationInfo,
)
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, core_schema

from sdclr.addresses import Address, Place, is_address, local_path, redacted, without_secrets
from sdclr.errors import ConfigError, MissingInputError
from sdclr.outside import Table
from sdclr.safe_text import shown
from sdclr.storage.documents import parse_json, read_yaml_file, to_yaml

Fraction = Annotated[float, Field(ge=0, le=1, json_schema_extra={"fraction": True})]
"""A share in [0, 1], never a percentage."""

ProperFraction = Annotated[float, Field(ge=0, lt=1, json_schema_extra={"fraction": True})]
"""A share in [0, 1)."""

LARGEST_SEED = 2**63 - 1
"""Beyond 64 bits two seeds would draw the same numbers."""

INCIDENTAL: dict[str, Any] = {"incidental": True}
"""``json_schema_extra`` of a field that affects no result: where something is, how fast it is done, what is kept."""


class Section(BaseModel):
    """Base of every group of settings: frozen, no unknown keys, no silent conversions."""

    is_foreign: ClassVar[bool] = False
    """Whether it represents an entry that is in no table."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        validate_default=True,
        use_attribute_docstrings=True,
    )

    @classmethod
    def parse(cls, values: Mapping[str, Any], *, foreign: bool = False) -> Self:
        """Validate plain nested values. Raises ConfigError that names every offending field.

        ``foreign``: entries that are in no table (a method from outside the package) are allowed; such settings can
        only be read.
        """
        try:
            # through JSON: strict, yet lists become tuples and ints become floats, as YAML and flags need
            return cls.model_validate_json(
                json.dumps(values, default=_plain), context={_FOREIGN: foreign}
            )
        except ValidationError as error:
            if names := list(_not_text(values)):
                raise ConfigError(
                    f"{names[0]} must be text in UTF-8, and has bytes that are not. Rename the file or folder."
                ) from None
            # a default that depends on another field is not a mistake of its own
            mistakes = [e for e in error.errors() if e["type"] != "default_factory_not_called"]
            raise ConfigError("\n".join(_explanations(cls, mistakes))) from None
        except RecursionError:
            raise ConfigError("the settings nest too deep.") from None
        except (TypeError, ValueError) as error:  # of another type, or one that contains itself
            raise ConfigError(f"a setting is not a plain value: {error}.") from None

    def with_overrides(self, overrides: Iterable[str]) -> Self:
        """A copy with ``section.key=value`` assignments applied and everything validated again.

        Of two assignments to the same setting the later one counts, so that lists can be concatenated.
        """
        return self.with_values(dict(map(parse_assignment, overrides)))

    def with_values(self, values: Mapping[str, Any]) -> Self:
        """A copy with dotted names set to plain values, validated again."""
        settings = self.to_dict()
        for name, value in values.items():
            target = settings
            *sections, key = name.split(".")
            for section in sections:
                target = target.setdefault(section, {})
                if not isinstance(target, dict):
                    raise ConfigError(
                        f"{name} is not a setting: {section} is a value, not a section."
                    )
            target[key] = value
        foreign = any(
            getattr(getattr(self, name), "is_foreign", False) for name in type(self).model_fields
        )
        return self.parse(settings, foreign=foreign)

    @classmethod
    def completed(cls, saved: Mapping[str, Any]) -> dict[str, Any]:
        """Settings saved by an earlier version, with defaults for the fields it lacked; unreadable ones as they are."""
        try:
            return cls.parse(saved, foreign=True).to_dict()
        except (ConfigError, TypeError, ValueError, RecursionError):
            return dict(saved)

    def differences(self, saved: Mapping[str, Any]) -> list[str]:
        """Lines ``field: saved -> here`` for every setting that affects results, against saved, perhaps older, ones."""
        lines = differing_fields(self.completed(saved), self.to_dict())
        return [line for line in lines if line.partition(":")[0] not in self.incidental()]

    @classmethod
    def incidental(cls) -> set[str]:
        """Dotted names of all fields marked INCIDENTAL."""
        return _incidental(cls)

    def to_dict(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        return to_yaml(self.to_dict())

    @classmethod
    def from_yaml(cls, path: Path, *, foreign: bool = False) -> Self:
        """Read a saved config. Raises MissingInputError or ConfigError, naming the file. ``foreign``: see parse."""
        try:
            values = read_yaml_file(path)
        except FileNotFoundError:
            raise MissingInputError(f"config file {path} does not exist.") from None
        except (OSError, ValueError) as error:
            raise ConfigError(f"config file {path} cannot be read as YAML: {error}") from None
        if not isinstance(values, dict):
            raise ConfigError(
                f"config file {path} must hold a mapping of settings, got {type(values).__name__}."
            )
        try:
            return cls.parse(values, foreign=foreign)
        except (ConfigError, TypeError, ValueError, RecursionError) as error:
            raise ConfigError(f"in config file {path}:\n{error}") from None


_FOREIGN = "foreign"


def _plain(value: object) -> object:
    """Paths as text, and NumPy's numbers as Python's; TypeError for values that are not settings."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        plain = value.item()
        return plain if isinstance(plain, bool | int | float | str) else float(plain)
    raise TypeError(f"{shown(repr(value), 60)} is of type {type(value).__name__}")


def allows_foreign(info: ValidationInfo) -> bool:
    """Whether the settings are only read, so that they may contain an entry that is in no table."""
    return bool((info.context or {}).get(_FOREIGN))


class OneOf:
    """Annotation of a field that holds one of several sections, distinguished by their ``name``.

    They are looked up when a value is validated, so an entry may be added while the program runs. ``foreign``: the
    section for a name that is not in the table, where ``parse`` allows one.
    """

    def __init__(
        self, what: str, table: Table[Any] | Callable[[], Table[Any]], foreign: type[Section]
    ) -> None:
        """``table``: a function where a row of the table itself has such a field."""
        self._what, self._given, self._foreign = what, table, foreign

    @property
    def _table(self) -> Table[Any]:
        return self._given() if callable(self._given) else self._given

    def sections(self) -> list[type[Section]]:
        return [row.config for row in self._table.values()]

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.with_info_plain_validator_function(
            self._section,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda one: one.model_dump(mode="json")
            ),
        )

    def _section(self, value: Any, info: ValidationInfo) -> Section:
        if isinstance(value, Section):
            return value
        if not isinstance(value, Mapping):
            raise ValueError(f"must be a group of settings with a name, got {value!r}")
        name = value.get("name")
        if not isinstance(name, str):
            raise self._mistake(value, InitErrorDetails(type="missing", loc=("name",), input=value))
        section = self._table[name].config if name in self._table else self._foreign
        if section is self._foreign and not allows_foreign(info):
            unknown = ValueError(
                f"there is no {self._what} {shown(repr(name))}. {self._table.choice(name)}"
            )
            details = InitErrorDetails(
                type="value_error", loc=("name",), input=name, ctx={"error": unknown}
            )
            raise self._mistake(value, details)
        try:
            return section.model_validate_json(json.dumps(value), context=info.context)
        except ValidationError as error:
            raise self._mistake(value, *(_located(one, name) for one in error.errors())) from None

    def _mistake(self, value: Any, *details: InitErrorDetails) -> ValidationError:
        return ValidationError.from_exception_data(self._what, list(details))


def _located(error: Any, tag: str) -> InitErrorDetails:
    """An error inside the section of this name, as that of its field in the settings around it."""
    details = InitErrorDetails(type=error["type"], loc=(tag, *error["loc"]), input=error["input"])
    if "ctx" in error:
        details["ctx"] = error["ctx"]
    return details


def parse_assignment(text: str) -> tuple[str, Any]:
    """``"a.b=0.5"`` -> ("a.b", 0.5). Values are JSON where they parse as JSON, else plain text."""
    name, equals, raw = text.partition("=")
    if not equals or not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(
            f"cannot read the setting {text!r}; write section.key=value, for example epochs=2."
        )
    try:
        value = parse_json(raw)
    except json.JSONDecodeError:
        value = raw  # plain text
    except ValueError as error:
        raise ConfigError(f"cannot read the value of {name}: {error}.") from None
    return name, value


def parse_assignments(texts: Iterable[str]) -> dict[str, Any]:
    """The settings that a user typed: ``["a.b=0.5", "c=x"]`` -> {"a.b": 0.5, "c": "x"}.

    ConfigError for a setting that is given twice.
    """
    values: dict[str, Any] = {}
    for name, value in map(parse_assignment, texts):
        if name in values:
            raise ConfigError(
                f"{name} is given twice, as {values[name]!r} and as {value!r}. Give it once."
            )
        values[name] = value
    return values


def require_once(given: Collection[str], options: Mapping[str, str]) -> None:
    """ConfigError where a setting that was given by an option is also ``given`` by its name.

    ``options``: setting -> the option that was used, as typed.
    """
    for name, option in options.items():
        if name in given:
            raise ConfigError(f"{option} and {name}=... say the same thing. Give one of them.")


_ONE_SLASH = re.compile(r"(https?|s3a?|gs):/(?!/)", re.IGNORECASE)


def require_on_disk(text: str) -> None:
    """ConfigError for an address, where only files on a disk are read or written."""
    if is_address(text):
        raise ConfigError(
            f"{shown(redacted(text))} is an address, and a path on this machine is needed. Only images in shards are "
            "read from other machines."
        )


def user_path(text: str) -> Path:
    """A path as a user writes it, with ~ and ~name for home folders.

    ConfigError where there is no such user, and for an address: only shards are read from other machines.
    """
    require_on_disk(text)
    try:
        return Path(text).expanduser()
    except RuntimeError:
        name = text.partition("/")[0]
        raise ConfigError(
            f"{shown(text)}: no home folder is known for {shown(name)}. Write ./{shown(name)} for a file of this name."
        ) from None


def user_place(text: str) -> Place:
    """A path as a user writes it, or an address such as s3://bucket/train.tar, without its secrets.

    ConfigError for an empty text, which a shell makes of an unset variable.
    """
    if not text.strip():
        raise ConfigError(
            "a path is empty. Name a file or folder; the folder you are in is called ."
        )
    if is_address(text):
        return Address(without_secrets(text))
    if (found := _ONE_SLASH.match(text)) and not os.path.lexists(found[0]):
        raise ConfigError(
            f"{shown(redacted(text))}: an address has two slashes, {found[0]}/ and so on. For a folder that is called "
            f"{found[1]}: write ./{found[1]}:"
        )
    return user_path(local_path(text))


def absolute_place(text: str) -> str:
    """The same place from anywhere: an absolute path, or an address."""
    place = user_place(text)
    return str(place if isinstance(place, Address) else place.absolute())


def differing_fields(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Lines ``field: value in a -> value in b`` for every leaf in which two nested mappings differ."""
    lines: list[str] = []
    for key in [*a, *(k for k in b if k not in a)]:
        left, right = a.get(key), b.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            lines += differing_fields(left, right, f"{prefix}{key}.")
        elif left != right:
            lines.append(f"{prefix}{key}: {left!r} -> {right!r}")
    return lines


def _incidental(
    section: type[BaseModel], prefix: str = "", around: tuple[type[BaseModel], ...] = ()
) -> set[str]:
    """The names marked INCIDENTAL in a section. ``around``: the enclosing sections, which are not entered again."""
    names: set[str] = set()
    around = (*around, section)
    for name, field in section.model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("incidental"):
            names.add(f"{prefix}{name}")
        for part in _sections_of(field):
            if part not in around:
                names |= _incidental(part, f"{prefix}{name}.", around)
    return names


def _sections_of(field: FieldInfo) -> list[type[BaseModel]]:
    """Every settings model that a field may hold."""
    named = [
        section
        for marker in field.metadata
        if isinstance(marker, OneOf)
        for section in marker.sections()
    ]
    return [*named] or _sections(field.annotation)


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """Every settings model inside an annotation (unions and Annotated unwrapped)."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, Annotated):
        return [section for part in typing.get_args(annotation) for section in _sections(part)]
    return []


COMMON_WORDS = {
    "lr": "optimizer.learning_rate",
    "learning_rate": "optimizer.learning_rate",
    "wd": "optimizer.weight_decay",
    "weight_decay": "optimizer.weight_decay",
    "momentum": "optimizer.momentum",
    "warmup": "optimizer.warmup_epochs",
    "warmup_epochs": "optimizer.warmup_epochs",
    "opt": "optimizer.name",
    "model": "backbone.name",
    "arch": "backbone.name",
    "architecture": "backbone.name",
    "network": "backbone.name",
    "encoder": "backbone.name",
    "width": "backbone.width",
    "pretrained": "backbone.pretrained",
    "channels": "data.channels",
    "in_chans": "data.channels",
    "in_channels": "data.channels",
    "transform": "views.own",
    "transforms": "views.own",
    "augmentation": "views.own",
    "workers": "data.num_workers",
    "num_workers": "data.num_workers",
    "dataset": "data.name",
    "labels": "data.labels",
    "split": "data.split",
    "on_error": "data.on_error",
    "imbalance_ratio": "data.imbalance_ratio",
    "imb_factor": "data.imbalance_ratio",
    "batch": "batch_size",
    "bs": "batch_size",
    "batchsize": "batch_size",
    "epoch": "epochs",
    "max_epochs": "epochs",
    "num_epochs": "epochs",
    "size": "views.size",
    "image_size": "views.size",
    "img_size": "views.size",
    "input_size": "views.size",
    "resolution": "views.size",
    "crop": "views.area",
    "temperature": "method.temperature",
    "temp": "method.temperature",
    "tau": "method.temperature",
    "prune_ratio": "method.prune_ratio",
    "prune": "method.prune_ratio",
    "sparsity": "method.prune_ratio",
    "amp": "precision",
    "fp16": "precision",
    "bf16": "precision",
    "dtype": "precision",
    "gpu": "device",
    "random_seed": "seed",
}
"""Other tools' names of a setting -> its name here."""


def _likely(model: type[BaseModel], name: str, valid: list[str]) -> str:
    """The setting that an invalid name may mean, or the few that are valid at its level."""
    head, dot, last = name.rpartition(".")
    close = difflib.get_close_matches(last, valid, n=1)
    if close:
        return f"did you mean {head}{dot}{close[0]}?"
    if _has(model, name):  # of another member of a union
        return f"it belongs to another {head}.name; valid here: {', '.join(sorted(valid))}."
    if meant := setting_meant(model, last.lower()):
        return f"did you mean {meant}?"
    if len(valid) <= 12:
        return f"valid here: {', '.join(sorted(valid))}."
    return f"there are {len(valid)} settings here; `sdclr recipes show NAME` prints them all."


def setting_meant(model: type[BaseModel], word: str) -> str | None:
    """The setting of ``model`` that a word of a command line means, such as batch-size or lr; None where there is none.

    >>> from sdclr import PretrainConfig
    >>> [setting_meant(PretrainConfig, word) for word in ("epochs", "batch-size", "lr", "width", "colour")]
    ['epochs', 'batch_size', 'optimizer.learning_rate', 'backbone.width', None]
    """
    name = word.replace("-", "_")
    if _has(model, name):
        return name
    meant = COMMON_WORDS.get(name)
    if meant is not None and _has(model, meant):
        return meant
    section = _section_with(model, name)
    return None if section is None else f"{section}.{name}"


def _has(model: type[BaseModel], name: str) -> bool:
    """Whether a dotted name is a setting of ``model``."""
    sections = [model]
    for part in name.split("."):
        fields = [one.model_fields[part] for one in sections if part in one.model_fields]
        if not fields:
            return False
        sections = [section for field in fields for section in _sections_of(field)]
    return True


def _section_with(model: type[BaseModel], word: str) -> str | None:
    """The first section of ``model`` that has a setting of this name."""
    for section, field in model.model_fields.items():
        if any(word in one.model_fields for one in _sections_of(field)):
            return section
    return None


def _not_text(values: object, name: str = "") -> Iterator[str]:
    """The dotted names of what no JSON text can hold: paths with bytes that are not UTF-8."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from _not_text(value, f"{name}.{key}" if name else str(key))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _not_text(value, name)
    elif isinstance(values, str | os.PathLike):
        try:
            str(values).encode()
        except UnicodeEncodeError:
            yield name


def _explanations(model: type[BaseModel], mistakes: Sequence[Any]) -> list[str]:
    """A sentence for each mistake; a value that fits none of several types is one mistake."""
    by_setting: dict[tuple[int | str, ...], list[Any]] = {}
    for mistake in mistakes:
        kinds = _kinds(model, mistake["loc"])
        place = mistake["loc"][: kinds[0]] if kinds else mistake["loc"]
        by_setting.setdefault(place, []).append(mistake)
    sentences = []
    for place, found in by_setting.items():
        deepest = max(len(one["loc"]) for one in found)
        # in a list with a wrong entry, the entry is the mistake, not that the list is not a number
        meant = [one for one in found if len(one["loc"]) == deepest]
        if meant[0]["loc"] == place:
            sentences += [_explain(model, one) for one in meant]
            continue
        wanted = list(dict.fromkeys(one["msg"].replace("Input should be ", "") for one in meant))
        words = " or ".join(filter(None, [", ".join(wanted[:-1]), wanted[-1]]))
        kinds = _kinds(model, meant[0]["loc"])
        location = tuple(part for at, part in enumerate(meant[0]["loc"]) if at not in kinds)
        joined = {**meant[0], "loc": location, "msg": f"Input should be {words}"}
        sentences.append(_explain(model, joined))
    return sentences


def _kinds(model: type[BaseModel], location: tuple[int | str, ...]) -> list[int]:
    """Positions in a location with the type of a value, such as "int" of int | str, in place of a setting's name."""
    sections, within = [model], False
    found = []
    for at, part in enumerate(location):
        fields = [one.model_fields[part] for one in sections if part in one.model_fields]
        if within and isinstance(part, str):
            found.append(at)
        if fields:
            sections = [section for field in fields for section in _sections_of(field)]
            within = not sections
    return found


def _locate(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[str, list[str], bool]:
    """Dotted name, the names valid at its level, and whether the field is a fraction."""
    sections, names, fraction = [model], [], False
    valid = list(model.model_fields)
    for part in location:
        fields = {
            name: field for section in sections for name, field in section.model_fields.items()
        }
        if (
            isinstance(part, str)
            and part not in fields
            and any(part == _tag(section) for section in sections)
        ):
            # a union's tag, not a field
            sections = [section for section in sections if part == _tag(section)]
            valid = [name for section in sections for name in section.model_fields]
            continue
        valid = list(fields) or valid
        names.append(str(part))
        field = fields.get(str(part))
        extra = field.json_schema_extra if field else None
        fraction = isinstance(extra, dict) and bool(extra.get("fraction"))
        if field:
            sections = _sections_of(field)
    return ".".join(names), valid, fraction


def _tag(section: type[BaseModel]) -> str | None:
    """The literal value of a section's ``name`` field, where it has exactly one."""
    field = section.model_fields.get("name")
    values = typing.get_args(field.annotation) if field else ()
    return values[0] if len(values) == 1 else None


def _explain(model: type[BaseModel], error: Any) -> str:
    """One pydantic error as a sentence: field, value, remedy."""
    name, valid, fraction = _locate(model, error["loc"])
    kind, value = error["type"], error.get("input")
    if kind == "extra_forbidden":
        return f"{name} is not a setting; {_likely(model, name, valid)}"
    if kind == "missing":
        return f"{name} is missing; it must be given."
    if kind == "value_error":
        message = str(error["ctx"]["error"])
        return f"{name}: {message}" if name else message
    message = error["msg"].replace("Input should be", "must be")
    text = f"{name} {message}, got {value!r}."
    if fraction and isinstance(value, (int, float)) and 1 < value < 100:
        return f"{text} It is a fraction; did you mean {value / 100:g}?"
    return text
