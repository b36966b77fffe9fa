"""A grid's file: which arms on which splits with which seeds, and the question that they should answer.

    base: digits_sdclr                      # the recipe that every arm starts from
    overrides: {epochs: 20}                 # settings of all arms
    arms:
      simclr: {recipe: digits_simclr}       # an arm may start from another recipe,
      sdclr:                                # have its own settings
        settings: {method.prune_ratio: 0.5}
        splits: [1-3, generated 101-105]    # and its own splits
    splits: [1-3]
    question: {baseline: simclr, d: 1.0}    # fixed before the first run

A mistake is one ConfigError that names the file and the key. Reading a file imports no torch.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from sdclr.compute.device_choices import require_device_name
from sdclr.config import Section, differing_fields, parse_assignment, user_path
from sdclr.errors import ConfigError, MissingInputError
from sdclr.evaluation.probes import PROBES, PROTOCOLS, Protocol, probes_under, published_probes
from sdclr.recipes import RECIPES, recipe
from sdclr.safe_text import shown
from sdclr.settings import PretrainConfig
from sdclr.storage.documents import parse_yaml
from sdclr.workflows.grid.records import key_of, lasting
from sdclr.workflows.matrix import PlannedArm, SplitChoice
from sdclr.workflows.own_entries import with_own_entries
from sdclr.workflows.reproduce import parse_numbers

Metric = Literal["all", "many", "medium", "few", "worst_class"]
_ARM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,59}")
_DECIDED = {"seed": "seeds", "data.split": "splits", "data.splits_dir": "splits and --splits-dir"}
_ORIGINS = ("authors", "generated")


class QuestionFile(Section):
    """Which arms are compared, by which number, and the smallest relevant difference: fixed before the first run."""

    text: str = ""
    """The question in words."""
    baseline: str
    """The arm with which the others are compared."""
    compare: tuple[str, ...] = ()
    """The arms that are compared with it; empty: all others."""
    probe: str = "linear"
    """The probe whose accuracy decides."""
    metric: Metric = "all"
    """Which accuracy: "all" is the mean over the classes."""
    d: Annotated[float, Field(gt=0, le=100)]
    """Smallest difference that matters, in percentage points."""


class SweepFile(Section):
    """A table and a figure of accuracy against one setting."""

    setting: str
    """Dotted name of the numeric setting."""
    arms: tuple[str, ...] = ()
    """The arms that differ only in it; empty: all that have it."""


class ArmFile(Section):
    """An arm: how it differs from the others."""

    recipe: str | None = None
    """The recipe or config.yaml that it starts from, if not the file's base."""
    title: str | None = None
    """Its name in tables."""
    settings: dict[str, Any] | list[str] = Field(default_factory=dict)
    """Settings of this arm: ``name: value``, or texts ``name=value``."""
    splits: list[int | str] | int | str | None = None
    """Its splits, if not the file's."""
    seeds: list[int | str] | int | str | None = None
    """Its seeds, if not the file's."""


class GridFile(Section):
    """The whole file; the keys are those of the module's example."""

    title: str = ""
    """Heading of the report."""
    base: str
    """The recipe that arms start from, or the config.yaml of a run."""
    overrides: dict[str, Any] | list[str] = Field(default_factory=dict)
    """Settings of all arms: ``name: value``, or texts ``name=value``."""
    arms: Annotated[dict[str, Any], Field(min_length=1)]
    """Name -> arm; they run in this order."""
    splits: list[int | str] | int | str = 1
    """Numbers and ranges, such as [1-5, generated 101-110]. "authors 1-5" requires the authors' lists, "generated 1-5"
    draws from the seed even if lists are given, and for "1-5" --splits-dir decides."""
    seeds: list[int | str] | int | str | None = None
    """Numbers and ranges; by default the recipe's single seed."""
    protocol: str = "cached"
    """How the runs are evaluated."""
    probes: list[str] | None = None
    """Which probes; by default those of the paper, or all of another paper's protocol."""
    untested: Literal["raise", "leave_out"] = "raise"
    """How a class without a usable test or training image is handled, as in sdclr evaluate: an error before the first
    run, or it has no accuracy and counts in no mean."""
    out: str | None = None
    """Folder of the runs, if --out is not given."""
    question: QuestionFile | None = None
    """What the grid should answer, and by which rule."""
    sweep: SweepFile | None = None
    """Accuracy against one setting."""

    @field_validator("protocol")
    @classmethod
    def _is_protocol(cls, value: str) -> str:
        if value not in PROTOCOLS:
            raise ValueError(f"must be one of {', '.join(PROTOCOLS)}, got {shown(repr(value))}.")
        return value


@dataclass(frozen=True)
class Grid:
    """A grid's file, read and validated."""

    name: str
    """The file's name without its suffix."""
    text: str
    file: GridFile
    arms: Sequence[PlannedArm]
    titles: Mapping[str, str]
    """Arm -> its name in tables."""
    protocol: Protocol
    probes: Sequence[str]

    @property
    def compared(self) -> Sequence[str]:
        """The arms that the question compares with its baseline."""
        question = self.file.question
        if question is None:
            return ()
        return question.compare or [a.name for a in self.arms if a.name != question.baseline]


SHIPPED = Path(__file__).parent / "files"
"""Folder of the grids in the package, which can be given by the name of their file."""


def shipped_grids() -> list[str]:
    """The names of the grids that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def find_grid(name: Path | str) -> Path:
    """The named file: a path, or the name of a grid in the package.

    Raises MissingInputError, listing the available grids.
    """
    path = Path(name)
    if path.is_file():
        return path
    if str(name) not in shipped_grids():
        close = difflib.get_close_matches(str(name), shipped_grids(), n=1)
        meant = f" Did you mean {close[0]}?" if close else ""
        raise MissingInputError(
            f"there is no grid file {shown(path)}. Give a YAML file (docs/grid.md), or one that comes with sdclr: "
            f"{', '.join(shipped_grids())}.{meant}"
        )
    return SHIPPED / f"{name}.yaml"


def read_grid(name: Path | str, values: Mapping[str, Any] | None = None) -> Grid:
    """Read a grid's file; ``values``: settings that depend on the machine, such as the place of the images.

    ``name``: see :func:`find_grid`. Raises MissingInputError, or ConfigError that names the file and the key, before
    any work.
    """
    path = find_grid(name)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"grid file {shown(path)} cannot be read: {error}.") from None
    return parse_grid(text, path.stem, values, str(path))


def parse_grid(
    text: str, name: str, values: Mapping[str, Any] | None = None, where: str = "the grid"
) -> Grid:
    """The grid of a file's ``text``; ``where`` is the file's name, for messages."""
    try:
        content = parse_yaml(text)
    except ValueError as error:
        raise ConfigError(f"grid file {shown(where)} cannot be read as YAML: {error}.") from None
    if not isinstance(content, dict):
        raise ConfigError(
            f"grid file {shown(where)} must hold a mapping (base, arms, splits, ...), "
            f"got {type(content).__name__}."
        )
    try:
        return _grid(content, text, name, values or {})
    except ConfigError as error:
        raise ConfigError(f"in grid file {shown(where)}: {error}") from None


def _grid(content: Mapping[str, Any], text: str, name: str, values: Mapping[str, Any]) -> Grid:
    file = GridFile.parse(content)
    arms = {arm: _arm_file(arm, given) for arm, given in file.arms.items()}
    splits = _splits(file.splits, "splits")
    seeds = None if file.seeds is None else _numbers(file.seeds, "seeds")
    planned = []
    for arm, own in arms.items():
        where = f"arms.{arm}"
        planned.append(
            PlannedArm(
                arm,
                _config(file, arm, own, values),
                splits if own.splits is None else _splits(own.splits, f"{where}.splits"),
                seeds if own.seeds is None else _numbers(own.seeds, f"{where}.seeds"),
            )
        )
    for one in planned:
        _check_origins(one)
        _check_numbers(one)
        _within(f"arms.{one.name}", partial(require_device_name, one.base.device))
    _check_distinct(planned)
    _check_images(planned)
    protocol: Protocol = next(known for known in PROTOCOLS if known == file.protocol)
    probes = _probes(file, protocol)
    _check_question(file, list(arms), probes)
    _check_pairs(file, planned)
    _check_sweep(file, planned)
    titles = {arm: own.title or arm for arm, own in arms.items()}
    if doubled := [title for title in titles.values() if list(titles.values()).count(title) > 1]:
        raise ConfigError(f"two arms have the title {shown(repr(doubled[0]))}; tell them apart.")
    return Grid(name, text, file, planned, titles, protocol, probes)


def _arm_file(arm: str, given: Any) -> ArmFile:
    if not _ARM_NAME.fullmatch(arm):
        raise ConfigError(
            f"arms: {shown(repr(arm))} cannot be an arm's name, which names folders: write letters, "
            "digits, _ . + and -, at most 60, and give it a title for tables."
        )
    given = {} if given is None else given
    if not isinstance(given, Mapping):
        raise ConfigError(f"arms.{arm} must be a mapping (recipe, settings, ...), got {given!r}.")
    return _within(f"arms.{arm}", lambda: ArmFile.parse(given))


def _within(where: str, work: Any) -> Any:
    """The result of ``work``; a ConfigError is prefixed with ``where``."""
    try:
        return work()
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _config(file: GridFile, arm: str, own: ArmFile, values: Mapping[str, Any]) -> PretrainConfig:
    base = _within(
        "base" if own.recipe is None else f"arms.{arm}.recipe",
        lambda: _base(own.recipe or file.base),
    )
    # module:Name is imported, as on the command line of pretrain
    shared = _within("overrides", lambda: with_own_entries(_settings(file.overrides)))
    mine = _within(f"arms.{arm}.settings", lambda: with_own_entries(_settings(own.settings)))
    for given, where in ((shared, "overrides"), (mine, f"arms.{arm}.settings")):
        for name, by in _DECIDED.items():
            if name in given:
                raise ConfigError(f"{where}: {name} is decided by {by}; leave it out.")
    config = _within("overrides", lambda: base.with_values(shared))
    config = _within(f"arms.{arm}.settings", lambda: config.with_values(mine))
    found: PretrainConfig = config.with_values(values)
    return found


def _base(name: str) -> PretrainConfig:
    """The settings of a recipe, or of the config.yaml of a run."""
    path = user_path(name)
    if name not in RECIPES and (path.suffix in (".yaml", ".yml") or path.is_file()):
        return PretrainConfig.from_yaml(path)
    if name == CHOSEN_SETTINGS:
        raise ConfigError(
            f"{CHOSEN_SETTINGS} is not a recipe: it is what `sdclr pretrain FOLDER` chooses for the images of a "
            "folder. Train one such run, and give its config.yaml: base: RUN/config.yaml."
        )
    return recipe(name)


CHOSEN_SETTINGS = "own_images"
"""The recipe name in the config of a run whose settings were chosen for the user's own images."""


def _settings(given: Mapping[str, Any] | Sequence[str]) -> dict[str, Any]:
    """Dotted names -> values; nested mappings are sections."""
    if isinstance(given, Mapping):
        return _dotted(given)
    found: dict[str, Any] = {}
    for name, value in map(parse_assignment, given):
        if name in found:
            raise ConfigError(f"{name} is given twice.")
        found[name] = value
    return found


def _is_section(name: str) -> bool:
    """Whether the mapping at this dotted name contains settings, rather than being the value of one."""
    # a method that wraps another one has it as its base
    part = PretrainConfig.model_fields.get(re.sub(r"^method(\.base)+$", "method", name))
    annotation = None if part is None else part.annotation
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _dotted(given: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in given.items():
        name = f"{prefix}{key}"
        inner = (
            _dotted(value, f"{name}.")
            if isinstance(value, Mapping) and _is_section(name)
            else {name: value}
        )
        if twice := found.keys() & inner.keys():
            raise ConfigError(f"{min(twice)} is given twice.")
        found |= inner
    return found


def _listed(given: Sequence[int | str] | int | str) -> list[str]:
    return [str(one) for one in (given if isinstance(given, list | tuple) else [given])]


def _numbers(given: Sequence[int | str] | int | str, where: str) -> list[int]:
    return _required(
        list(dict.fromkeys(n for one in _listed(given) for n in parse_numbers(one, where))), where
    )


def _splits(given: Sequence[int | str] | int | str, where: str) -> list[SplitChoice]:
    found = []
    for entry in _listed(given):
        word, _, rest = entry.strip().partition(" ")
        if not rest:
            found += [SplitChoice(number) for number in parse_numbers(entry.strip(), where)]
        elif word == "authors":
            found += [SplitChoice(n, "authors") for n in parse_numbers(rest.strip(), where)]
        elif word == "generated":
            found += [SplitChoice(n, "generated") for n in parse_numbers(rest.strip(), where)]
        else:
            close = difflib.get_close_matches(word, _ORIGINS, n=1)
            meant = f" Did you mean {close[0]}?" if close else ""
            raise ConfigError(
                f"{where}: cannot read {shown(repr(entry))}; write 1-5, authors 1-5 or "
                f"generated 101-110.{meant}"
            )
    numbers = list(dict.fromkeys(found))
    both = {one.number for one in numbers if not one.origin} & {
        one.number for one in numbers if one.origin
    }
    if both:
        raise ConfigError(
            f"{where}: split {min(both)} is named with and without its origin; name it once."
        )
    return _required(numbers, where)


def _required(found: list[Any], where: str) -> list[Any]:
    if not found:
        raise ConfigError(f"{where} is empty: there is nothing to run. Write for example [1-5].")
    return found


def _check_origins(arm: PlannedArm) -> None:
    """Raise ConfigError if a split is not available from the given origin."""
    row = arm.base.data.row
    for split in arm.splits:
        if split.origin == "authors" and not row.authors_lists:
            raise ConfigError(
                f"arms.{arm.name}: there are no authors' lists of {row.name}; write the splits "
                "without the word authors."
            )
        if split.origin == "generated" and arm.base.data.splits != "generated":
            raise ConfigError(
                f"arms.{arm.name}: splits of {row.name} are not generated; write their numbers alone."
            )


def _check_numbers(arm: PlannedArm) -> None:
    """Raise ConfigError for a split or seed that the settings do not accept."""
    for split in (min(arm.splits), max(arm.splits)):
        _within(f"splits of {arm.name}", partial(arm.base.with_values, split.settings()))
    for seed in (min(arm.seeds), max(arm.seeds)) if arm.seeds else ():
        _within(f"seeds of {arm.name}", partial(arm.base.with_values, {"seed": seed}))


def _check_distinct(arms: Sequence[PlannedArm]) -> None:
    """Raise ConfigError if two arms would have the same records."""
    seen: dict[str, PlannedArm] = {}
    for arm in arms:
        same = json.dumps({**lasting(arm.base), "recipe": ""})
        before = seen.setdefault(same, arm)
        if before is arm:
            continue
        pair = f"arms {before.name} and {arm.name}"
        lines = differing_fields(before.base.to_dict(), arm.base.to_dict())
        names = [line.partition(":")[0] for line in lines]
        if others := [name for name in names if name != "recipe"]:
            raise ConfigError(
                f"{pair} differ in {', '.join(others)} alone, by which records are not told apart: they are one "
                "arm. Give one of them other settings, or a grid of its own."
            )
        raise ConfigError(
            f"{pair} have the same settings: they are one arm. "
            "Give one of them other settings, or leave it out."
        )


_READING = ("subset", "exif_rotation", "grey_bits", "on_error", "max_skipped")
"""Data settings in which arms may differ: which images are trained on, and how a file is read."""


def _check_images(arms: Sequence[PlannedArm]) -> None:
    """Raise ConfigError if arms use different images or splits of them: their numbers do not belong in one table."""
    seen = [(arm, lasting(arm.base)["data"] | {"splits": arm.base.data.splits}) for arm in arms]
    first, theirs = seen[0]
    for arm, ours in seen[1:]:
        names = [name for name in ours if name not in _READING and ours[name] != theirs[name]]
        if not names:
            continue
        if names == ["splits"]:
            names = ["subset"]  # for arrays, all of them is another set than a tail drawn from them
        what = ", ".join(f"data.{name}" for name in names)
        raise ConfigError(
            f"arms {first.name} and {arm.name} are of other images: they differ in {what}, so their numbers are not "
            "comparable. Give all arms the same, or a grid to each."
        )


def _check_pairs(file: GridFile, arms: Sequence[PlannedArm]) -> None:
    """Raise ConfigError if an arm of the question has no split and seed in common with its baseline."""
    question = file.question
    if question is None:
        return
    keys = {
        arm.name: {
            key_of(split, arm.base.data, seed)
            for split in arm.splits
            for seed in (arm.seeds if arm.seeds is not None else [arm.base.seed])
        }
        for arm in arms
    }
    for name in question.compare or [arm.name for arm in arms if arm.name != question.baseline]:
        if not keys[name] & keys[question.baseline]:
            raise ConfigError(
                f"question: {name} has no split and seed in common with {question.baseline}, and effects are paired. "
                "Give both the same splits and seeds, or leave the arm out of question.compare."
            )


def _probes(file: GridFile, protocol: Protocol) -> Sequence[str]:
    if file.probes is not None:
        names = list(dict.fromkeys(file.probes))
    else:
        names = list(published_probes(protocol))
        if set(names) != set(published_probes()):
            names = list(probes_under(protocol))  # another paper's protocol, with its own probes
    if not names:
        raise ConfigError(f"probes is empty; choose from {', '.join(PROBES)}.")
    for name in names:
        PROBES.require(name).require(protocol)
    return names


def _check_question(file: GridFile, arms: Sequence[str], probes: Sequence[str]) -> None:
    question = file.question
    if question is None:
        return
    _require_arm("question.baseline", question.baseline, arms)
    for arm in question.compare:
        _require_arm("question.compare", arm, arms)
        if arm == question.baseline:
            raise ConfigError(f"question.compare: {arm} is the baseline itself; leave it out.")
    if len(set(question.compare)) < len(question.compare):
        raise ConfigError("question.compare names an arm twice; name it once.")
    if not question.compare and len(arms) < 2:
        raise ConfigError("question needs an arm besides its baseline; this grid has one arm.")
    if question.probe not in probes:
        raise ConfigError(
            f"question.probe is {shown(repr(question.probe))}, and the grid measures "
            f"{', '.join(probes)}. Add it to probes, or choose one of them."
        )


def _check_sweep(file: GridFile, arms: Sequence[PlannedArm]) -> None:
    sweep = file.sweep
    if sweep is None:
        return
    names = [arm.name for arm in arms]
    for name in sweep.arms:
        _require_arm("sweep.arms", name, names)
    chosen = [arm for arm in arms if not sweep.arms or arm.name in sweep.arms]
    having = [arm for arm in chosen if setting_of(arm.base, sweep.setting) is not None]
    if sweep.arms and len(having) < len(chosen):
        missing = next(arm.name for arm in chosen if arm not in having)
        raise ConfigError(f"sweep: arm {missing} has no number as {shown(sweep.setting)}.")
    if len({setting_of(arm.base, sweep.setting) for arm in having}) < 2:
        raise ConfigError(
            f"sweep.setting: {shown(sweep.setting)} is not a number that differs among the arms."
        )


def setting_of(config: PretrainConfig, name: str) -> float | None:
    """A numeric setting by its dotted name; None if the config has no such number."""
    value: Any = config.to_dict()
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _require_arm(where: str, name: str, arms: Sequence[str]) -> None:
    if name in arms:
        return
    close = difflib.get_close_matches(name, arms, n=1)
    meant = f"did you mean {close[0]}?" if close else f"the arms are {', '.join(arms)}."
    raise ConfigError(f"{where}: there is no arm {shown(repr(name))}; {meant}")
