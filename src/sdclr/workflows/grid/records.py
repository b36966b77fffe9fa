"""The record of a finished cell: a small JSON file without weights, by which the grid counts it as done.

Records are independent of machines: they can be stored anywhere and combined again. A record belongs to a cell by its
fingerprint, which covers everything that decides the cell's numbers. An arm that was changed has other fingerprints,
and so it is a new arm.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from sdclr.compute.process_state import collected_warnings, silenced_warnings
from sdclr.data.config import DataConfig
from sdclr.errors import DataError, SdclrError
from sdclr.evaluation.probes import PROBES, Protocol
from sdclr.evaluation.results import Evaluation
from sdclr.presentation.grid import JSON_KIND
from sdclr.run.records import Count, Record, Share, Text, check
from sdclr.safe_text import shown
from sdclr.settings import PretrainConfig
from sdclr.storage.documents import read_json_file
from sdclr.storage.durable_files import make_folder, storage_errors, write_atomically
from sdclr.workflows.matrix import Cell, SplitChoice, SplitOrigin

KIND = "sdclr grid record"
_NOT_RESULTS = frozenset({"device"}) | PretrainConfig.incidental()
"""Settings that a record leaves out: places, and those that only affect speed."""


Key = tuple[str, int, int]
"""The actual source of a split, its number, the seed."""


class MiningEpoch(Record):
    """How well the image records of one epoch identify the images of few-shot classes."""

    epoch: Count
    auroc: dict[str, Share]
    """Column of image_records -> area under the ROC curve of few against all other images; 0.5 is chance."""


class CellRecord(Record):
    """One finished cell."""

    kind: Literal["sdclr grid record"]
    fingerprint: Text
    arm: Text
    split: Count
    split_origin: SplitOrigin
    split_source: Text
    """The actual source of the split: generated, authors, or own images as they are."""
    seed: Count
    method: Text
    """Its name in tables."""
    config: dict[str, Any]
    """The settings that decide the numbers."""
    data: Text
    """Fingerprint of images, labels and split."""
    evaluation: dict[str, Any]
    """Like evaluation/<protocol>.json, with only the grid's probes."""
    loss: list[float | None]
    """By epoch."""
    mining: list[MiningEpoch] = Field(default_factory=list)
    """Only for runs with record_images=true."""
    seconds: dict[str, float]
    """Duration of the training and of each probe."""
    environment: dict[str, Any]
    """Versions and hardware."""

    @property
    def key(self) -> Key:
        """What pairs it with a record of another arm: its split and its seed."""
        return self.split_source, self.split, self.seed

    def measured(self) -> Evaluation:
        """The accuracies. Raises DataError if they are damaged."""
        where = Path(f"record {self.fingerprint} of {self.arm}")
        return Evaluation.of_content(self.evaluation, where)


def fingerprint(cell: Cell, protocol: Protocol, probes: Sequence[str]) -> str:
    """16 hex digits over everything that decides the numbers of a cell."""
    measured = {
        name: {"origin": PROBES[name].origin, "settings": PROBES[name].settings(protocol)}
        for name in probes
    }
    source = split_source(cell.split, cell.config.data)
    return _fingerprint(lasting(cell.config), source, protocol, measured)


def current_fingerprint(record: CellRecord, probes: Sequence[str]) -> str | None:
    """The fingerprint that the record's cell would have today, with these probes.

    Settings that are newer than the record have their defaults. None if a probe was not measured.
    """
    evaluation = record.evaluation
    protocol, recorded = str(evaluation.get("protocol")), evaluation["probes"]
    if any(name not in recorded for name in probes):
        return None
    config = _without(PretrainConfig.completed(record.config), "")
    measured = {}
    for name in probes:
        probe = recorded[name]
        settings = PROBES[name].completed_settings(probe.get("settings") or {}, protocol)
        measured[name] = {"origin": probe.get("origin") or "", "settings": settings}
    return _fingerprint(config, record.split_source, protocol, measured)


def _fingerprint(
    config: Mapping[str, Any], source: str, protocol: str, probes: Mapping[str, Any]
) -> str:
    training = {"config": {**config, "recipe": ""}, "split": source}
    return _digest({"training": training, "protocol": protocol, "probes": probes})


def training_fingerprint(cell: Cell) -> str:
    """8 hex digits over everything that decides the weights of a cell; they are in the name of its folder."""
    source = split_source(cell.split, cell.config.data)
    return _digest({"config": lasting(cell.config), "split": source})[:8]


def key_of(split: SplitChoice, data: DataConfig, seed: int) -> Key:
    """The key of a cell's record."""
    return split_source(split, data), split.number, seed


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def split_source(split: SplitChoice, data: DataConfig) -> str:
    """The source of a split: the authors' lists, the seed, or the images as they are."""
    if split.origin:
        return split.origin
    if data.splits == "generated":
        return "generated" if data.splits_dir is None else "authors"
    return data.splits


def lasting(config: PretrainConfig) -> dict[str, Any]:
    """The settings that decide results, nested; without paths, devices and settings that only affect speed."""
    return _without(config.to_dict(), "")


def _without(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {
        key: _without(value, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in values.items()
        if f"{prefix}{key}" not in _NOT_RESULTS
    }


@dataclass(frozen=True)
class Records:
    """The records in a folder, which may also contain those of other grids."""

    folder: Path
    _warned_of: set[str] = field(default_factory=set, compare=False)
    """Warnings already given; each is given once."""

    def path(self, cell: Cell, fingerprint: str) -> Path:
        """The file of a cell's record."""
        return self.folder / f"{name_of(cell)}-{fingerprint}.json"

    def has(self, cell: Cell, fingerprint: str, probes: Sequence[str]) -> bool:
        """Whether the cell has a valid record under its own name: of this cell, with these probes."""
        path = self.path(cell, fingerprint)
        if not path.is_file():
            return False
        try:
            with silenced_warnings():  # read() gives them
                return current_fingerprint(read_record(path), probes) == fingerprint
        except SdclrError:  # reported by read(), and rewritten
            return False

    def read(
        self, probes: Sequence[str], wanted: Mapping[Path, str] | None = None
    ) -> dict[str, CellRecord]:
        """Fingerprint -> record, for the records that have these probes.

        A damaged file is left out with a warning, and its cell is run again; so is a file of ``wanted`` (file ->
        fingerprint of its cell) with other content. Of two records of one cell, the one named after the cell counts.
        """
        marks = self._marks(probes)
        of_cell: dict[str, list[Path]] = {}
        for path, (mark, _) in marks.items():
            if mark is not None:
                of_cell.setdefault(mark, []).append(path)
        found: dict[str, CellRecord] = {}
        for mark, paths in of_cell.items():
            named = [path for path in paths if path.stem.endswith(mark)]
            first = (named or paths)[0]
            found[mark] = marks[first][1]
            for other in paths:
                if _numbers(marks[other][1], probes) != _numbers(found[mark], probes):
                    self._warn(
                        f"{shown(other)} is of the same cell as {shown(first.name)}, which counts, with other numbers. "
                        "Remove one of them."
                    )
        for path, mark in (wanted or {}).items():
            if path in marks and mark not in found:
                self._warn(
                    f"{shown(path)} is not the record of its cell with the probes {', '.join(probes)}: it was changed, "
                    "or is a copy of another one. The cell counts as not done."
                )
        return found

    def _marks(self, probes: Sequence[str]) -> dict[Path, tuple[str | None, CellRecord]]:
        """The current fingerprint (None if it lacks a probe) and the content of every valid record here."""
        found: dict[Path, tuple[str | None, CellRecord]] = {}
        if not self.folder.is_dir():
            return found
        for path in sorted(self.folder.glob("*.json")):
            try:
                with collected_warnings() as texts:
                    record = read_record(path)
                for text in texts:
                    self._warn(f"{shown(path)}: {text}")
                found[path] = current_fingerprint(record, probes), record
            except NoRecordError:
                continue
            except SdclrError as error:
                self._warn(f"{error} Its cell counts as not done.")
        return found

    def _warn(self, text: str) -> None:
        if text not in self._warned_of:
            self._warned_of.add(text)
            warnings.warn(text, stacklevel=3)

    def write(self, cell: Cell, fingerprint: str, content: Mapping[str, Any]) -> None:
        make_folder(self.folder)
        path = self.path(cell, fingerprint)
        write_atomically(path, json.dumps(content, indent=1) + "\n")


def name_of(cell: Cell) -> str:
    """For example "sdclr-split1-seed10": the name of a cell on the command line and in file names."""
    kind = "generated" if cell.split.origin == "generated" else "split"
    return f"{cell.arm}-{kind}{cell.split.number}-seed{cell.config.seed}"


def _numbers(record: CellRecord, probes: Sequence[str]) -> dict[str, Any]:
    """The numbers in which two records of one cell must agree; durations may differ."""
    measured = record.evaluation["probes"]
    counts = record.evaluation.get("train_counts")
    return {name: [measured[name].get("per_class_accuracy"), counts] for name in probes}


class NoRecordError(DataError):
    """The file is a report, stored among records."""


def read_record(path: Path) -> CellRecord:
    """Read a record. Raises DataError if the file is damaged or not a record, and NoRecordError for a report."""
    try:
        with storage_errors(path):
            content = read_json_file(path)
    except ValueError as error:
        raise DataError(f"{shown(path)} is damaged, it cannot be read as JSON: {error}.") from None
    if isinstance(content, dict) and content.get("kind") == JSON_KIND:
        raise NoRecordError(f"{shown(path)} is the report of a grid.")
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise DataError(f"{shown(path)} is not a record of a grid.")
    check(CellRecord, content, shown(path))
    record = CellRecord.model_validate(content)
    try:  # a damaged probe is left out, with a warning
        evaluation = record.measured().to_dict()
    except DataError as error:
        raise DataError(f"{shown(path)} is damaged: {error}") from None
    _require_one_cell(record, path)
    return record.model_copy(update={"evaluation": evaluation})


def _require_one_cell(record: CellRecord, path: Path) -> None:
    """Raise DataError for a record that contradicts itself: it was changed by hand, or assembled."""
    tested = record.evaluation.get("split") or {}
    compared = {
        "seed": (record.seed, record.config.get("seed", record.seed)),
        "split": (record.split, tested.get("number", record.split)),
        "data": (record.data, tested.get("fingerprint", record.data)),
    }
    for name, (here, there) in compared.items():
        if here != there:
            raise DataError(
                f"{shown(path)} is damaged: it gives {name} {shown(repr(here))}, and later {shown(repr(there))}."
            )


def record_of(
    cell: Cell,
    fingerprint: str,
    protocol: Protocol,
    probes: Sequence[str],
    mining: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The content of a finished cell's record, from its run folder; ``mining``: its mining signal by epoch."""
    run = cell.run
    evaluation = run.read_evaluation(protocol)
    evaluation["probes"] = {name: evaluation["probes"][name] for name in probes}
    metrics, facts = run.metrics(), run.read_side_file("environment.json")
    kept = (
        "sdclr",
        "torch",
        "torchvision",
        "numpy",
        "python",
        "device",
        "precision",
        "compile",
        "commit",
    )
    seconds = {"training": round(sum(float(e.get("seconds") or 0) for e in metrics), 1)}
    for name, probe in evaluation["probes"].items():
        seconds[name] = round(float(probe.get("seconds") or 0), 1)
    return {
        "kind": KIND,
        "fingerprint": fingerprint,
        "arm": cell.arm,
        "split": cell.split.number,
        "split_origin": cell.split.origin,
        "split_source": split_source(cell.split, cell.config.data),
        "seed": cell.config.seed,
        "method": str(facts.get("method", cell.config.method.name)),
        "config": lasting(cell.config),
        "data": evaluation["split"]["fingerprint"],
        "evaluation": evaluation,
        "loss": [_rounded(entry.get("loss")) for entry in metrics],
        "mining": mining,
        "seconds": seconds,
        "environment": {name: facts.get(name) for name in kept},
    }


def _rounded(value: Any) -> float | None:
    return None if value is None else round(float(value), 5)
