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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from sdclr.errors import DataError
from sdclr.evaluation.probes import PROBES, Protocol
from sdclr.evaluation.results import Evaluation
from sdclr.run.records import Count, Record, Share, Text, check
from sdclr.safe_text import shown
from sdclr.settings import PretrainConfig
from sdclr.storage.documents import read_json_file
from sdclr.storage.durable_files import make_folder, storage_errors, write_atomically
from sdclr.workflows.matrix import Cell, SplitOrigin

KIND = "sdclr grid record"
_NOT_RESULTS = frozenset({"device"}) | PretrainConfig.incidental()
"""Settings that a record leaves out: where things lie, how fast they are done."""


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
    def key(self) -> tuple[str, int]:
        """What pairs it with a record of another arm: its split and its seed."""
        split = f"generated {self.split}" if self.split_origin == "generated" else str(self.split)
        return split, self.seed

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
    return _fingerprint(lasting(cell.config), split_source(cell), protocol, measured)


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
    return _digest({"config": lasting(cell.config), "split": split_source(cell)})[:8]


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def split_source(cell: Cell) -> str:
    """Where the split of a cell comes from: the lists of the authors, the seed, or the images as they are."""
    if cell.split.origin:
        return cell.split.origin
    data = cell.config.data
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

    def path(self, cell: Cell, fingerprint: str) -> Path:
        """Where the record of a cell is written."""
        return self.folder / f"{cell.run.folder.name.rpartition('-')[0]}-{fingerprint}.json"

    def has(self, cell: Cell, fingerprint: str) -> bool:
        """Whether the cell has a sound record under its own name."""
        path = self.path(cell, fingerprint)
        if not path.is_file():
            return False
        try:
            read_record(path)
        except DataError:  # said by read(), and written anew
            return False
        return True

    def read(self, probes: Sequence[str]) -> dict[str, CellRecord]:
        """Fingerprint -> record, of the records that have these probes.

        A file that is damaged is left out with a warning, and its cell is run again.
        """
        found: dict[str, CellRecord] = {}
        if not self.folder.is_dir():
            return found
        for path in sorted(self.folder.glob("*.json")):
            try:
                record = read_record(path)
            except DataError as error:
                warnings.warn(f"{error} Its cell counts as not done.", stacklevel=2)
                continue
            mark = current_fingerprint(record, probes)
            if mark is None:
                continue
            before = found.get(mark)
            if before is not None and before.evaluation != record.evaluation:
                warnings.warn(
                    f"{shown(path)} is of the same cell as another record, with other numbers; "
                    "the first one counts. Remove one of them.",
                    stacklevel=2,
                )
            found.setdefault(mark, record)
        return found

    def write(self, cell: Cell, fingerprint: str, content: Mapping[str, Any]) -> None:
        make_folder(self.folder)
        path = self.path(cell, fingerprint)
        write_atomically(path, json.dumps(content, indent=1) + "\n")


def read_record(path: Path) -> CellRecord:
    """DataError where the file is damaged or no record."""
    try:
        with storage_errors(path):
            content = read_json_file(path)
    except ValueError as error:
        raise DataError(f"{shown(path)} is damaged, it cannot be read as JSON: {error}.") from None
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise DataError(f"{shown(path)} is no record of a grid.")
    check(CellRecord, content, shown(path))
    record = CellRecord.model_validate(content)
    evaluation = record.measured()  # a damaged probe is left out, with a warning
    return record.model_copy(update={"evaluation": evaluation.to_dict()})


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
    kept = ("sdclr", "torch", "torchvision", "numpy", "python", "device", "precision", "commit")
    seconds = {"training": round(sum(float(e.get("seconds") or 0) for e in metrics), 1)}
    for name, probe in evaluation["probes"].items():
        seconds[name] = round(float(probe.get("seconds") or 0), 1)
    return {
        "kind": KIND,
        "fingerprint": fingerprint,
        "arm": cell.arm,
        "split": cell.split.number,
        "split_origin": cell.split.origin,
        "split_source": split_source(cell),
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
