"""What stays of a finished cell: a small JSON file without weights, by which the grid counts it as done.

Machines come and go, records can be kept anywhere and put together again. A record belongs to a cell by its
fingerprint: everything that decides the cell's numbers. An arm that was changed has other fingerprints, and so it is a
new arm.
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
"""Settings that a record leaves out: where things lie, how fast they are done."""


Key = tuple[str, int, int]
"""Where a split really comes from, its number, the seed."""


class MiningEpoch(Record):
    """How well the few-shot classes' images can be told in one epoch by what training recorded of each image."""

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
    """Where the split really came from: generated, authors, or own images as they are."""
    seed: Count
    method: Text
    """As tables write it."""
    config: dict[str, Any]
    """The settings that decide the numbers."""
    data: Text
    """Fingerprint of images, labels and split."""
    evaluation: dict[str, Any]
    """As evaluation/<protocol>.json, of the grid's probes alone."""
    loss: list[float | None]
    """By epoch."""
    mining: list[MiningEpoch] = Field(default_factory=list)
    """Of runs with record_images=true."""
    seconds: dict[str, float]
    """Of the training, and of each probe."""
    environment: dict[str, Any]
    """Versions and hardware."""

    @property
    def key(self) -> Key:
        """What pairs it with a record of another arm: its split and its seed."""
        return self.split_source, self.split, self.seed

    def measured(self) -> Evaluation:
        """The accuracies. DataError where they are damaged."""
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

    Settings that are newer than the record have their defaults. None where a probe was not measured.
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
    """8 hex digits over everything that decides the weights of a cell: the name of its folder has them."""
    source = split_source(cell.split, cell.config.data)
    return _digest({"config": lasting(cell.config), "split": source})[:8]


def key_of(split: SplitChoice, data: DataConfig, seed: int) -> Key:
    """The key of a cell's record."""
    return split_source(split, data), split.number, seed


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def split_source(split: SplitChoice, data: DataConfig) -> str:
    """Where a split comes from: the lists of the authors, the seed, or the images as they are."""
    if split.origin:
        return split.origin
    if data.splits == "generated":
        return "generated" if data.splits_dir is None else "authors"
    return data.splits


def lasting(config: PretrainConfig) -> dict[str, Any]:
    """The settings that decide results, nested; without paths, devices and what is only about speed."""
    return _without(config.to_dict(), "")


def _without(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {
        key: _without(value, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in values.items()
        if f"{prefix}{key}" not in _NOT_RESULTS
    }


@dataclass(frozen=True)
class Records:
    """The records of a folder; those of other grids may lie there, too."""

    folder: Path
    _warned_of: set[str] = field(default_factory=set, compare=False)
    """Warnings, each of which is said once."""

    def path(self, cell: Cell, fingerprint: str) -> Path:
        """Where the record of a cell is written."""
        return self.folder / f"{name_of(cell)}-{fingerprint}.json"

    def has(self, cell: Cell, fingerprint: str, probes: Sequence[str]) -> bool:
        """Whether the cell has a sound record under its own name: one of this cell, with these probes."""
        path = self.path(cell, fingerprint)
        if not path.is_file():
            return False
        try:
            with silenced_warnings():  # said by read()
                return current_fingerprint(read_record(path), probes) == fingerprint
        except SdclrError:  # said by read(), and written anew
            return False

    def read(
        self, probes: Sequence[str], wanted: Mapping[Path, str] | None = None
    ) -> dict[str, CellRecord]:
        """Fingerprint -> record, of the records that have these probes.

        A file that is damaged is left out with a warning, and its cell is run again; so is one of ``wanted`` (file ->
        fingerprint of its cell) that holds something else. Of two records of one cell the one that is named after it
        counts.
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
        """The fingerprint of today, and the content, of every sound record here; None where it lacks a probe."""
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
    """ "sdclr-split1-seed10": how a cell is called on the command line and in names of files."""
    kind = "generated" if cell.split.origin == "generated" else "split"
    return f"{cell.arm}-{kind}{cell.split.number}-seed{cell.config.seed}"


def _numbers(record: CellRecord, probes: Sequence[str]) -> dict[str, Any]:
    """What two records of one cell must agree in; how long it took is not among it."""
    measured = record.evaluation["probes"]
    counts = record.evaluation.get("train_counts")
    return {name: [measured[name].get("per_class_accuracy"), counts] for name in probes}


class NoRecordError(DataError):
    """A report, which lies among records."""


def read_record(path: Path) -> CellRecord:
    """DataError where the file is damaged or no record; of a report, NoRecordError."""
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
    """DataError where a record says two things of its cell: it was changed by hand, or put together."""
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
