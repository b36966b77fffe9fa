"""Evaluated run folders, read back and grouped into arms: runs of one configuration over splits and seeds.

Arms differ in their settings; the runs of an arm only in split, seed, device and paths. Rejects runs whose numbers do
not belong in one table.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from sdclr.errors import ConfigError, DataError, MissingInputError
from sdclr.evaluation.balancedness import Balancedness, GroupConvention
from sdclr.evaluation.probes import PROBES
from sdclr.evaluation.results import Evaluation, ProbeResult
from sdclr.jobs.report.comparable import require_comparable
from sdclr.jobs.report.curves import measured_by_epoch, share_of_few
from sdclr.jobs.report.run_folder import RunFolder
from sdclr.presentation.report import Over
from sdclr.run import Run
from sdclr.run.consistency import foreign_metrics, require_own_backbone, require_own_evaluation
from sdclr.run.next_step import evaluate_command
from sdclr.safe_text import command, shown
from sdclr.settings import PretrainConfig

_NOT_THE_ARM = (
    frozenset({"seed", "device", "data.split", "record_images"}) | PretrainConfig.incidental()
)
"""Settings that may differ among the runs of an arm."""


@dataclass(frozen=True)
class Arm:
    """Runs of one configuration that differ only in split and seed."""

    label: str
    runs: Sequence[RunFolder]
    over: Over = "splits"
    """The repeats: seeds of one split, or splits, each averaged over its seeds first."""

    @property
    def method(self) -> str:
        return self.runs[0].method

    def summaries(self, probe: str, *, beside: Arm | None = None) -> dict[int, Balancedness]:
        """Split number or seed -> balancedness, averaged over the seeds of a split.

        ``beside``: an arm that this one is compared with. Of a split, only the seeds that both have count; all of
        them where none is common.
        """
        repeats = self.repeats(probe)
        if beside is not None:
            others = beside.repeats(probe)
            repeats = {
                number: _with_seeds_of(others.get(number, []), runs)
                for number, runs in repeats.items()
            }
        return {
            number: _mean_balancedness([_balancedness(run, probe) for run in runs])
            for number, runs in repeats.items()
        }

    def repeats(self, probe: str) -> dict[int, list[RunFolder]]:
        """Split number -> its runs (seeds) with this probe; or seed -> its run."""
        found: dict[int, list[RunFolder]] = {}
        for run in sorted(self.runs, key=lambda run: (run.split_number, run.seed)):
            if probe in run.evaluation.probes:
                number = run.seed if self.over == "seeds" else run.split_number
                found.setdefault(number, []).append(run)
        return found


def read_arms(
    runs: Sequence[Path | str],
    protocol: str | None = None,
    groups: GroupConvention | None = None,
    *,
    over: Over = "splits",
) -> tuple[list[Arm], str]:
    """The arms in the order given, and the protocol that all of them were evaluated with.

    ``over``: with ``seeds``, seeds are counted instead of splits if all runs are of one split and some arm has several.
    ``groups``: ``thirds`` or ``thresholds`` instead of the data set's own convention. Raises MissingInputError for a
    folder that is missing, is not a run or was never evaluated, and ConfigError for runs whose numbers do not belong in
    one table: another data set, another split under the same number, the same split and seed twice, or several
    protocols with none chosen.
    """
    paths = [Path(run) for run in runs]
    if not paths:
        raise ConfigError("report needs at least one run folder.")
    protocol = _common_protocol(paths, protocol)
    folders = [_read_run(path, protocol, groups) for path in paths]
    require_comparable(folders)
    arms = _group_into_arms(folders)
    one_split = len({run.split_number for run in folders}) == 1
    if over == "seeds" and one_split and any(len(arm.runs) > 1 for arm in arms):
        arms = [replace(arm, over="seeds") for arm in arms]
    return arms, protocol


def _how_to_evaluate(path: Path) -> str:
    if Run(path).read_side_file("split.json", optional=True).get("source") != "unlabelled":
        return f"run `{evaluate_command(Run(path))}` first."
    return (
        f"its images have no labels. Once some have: `{evaluate_command(Run(path), labels=True)}`; until then "
        f"`{command('sdclr', 'report', path)}` shows this run alone."
    )


def _common_protocol(paths: Sequence[Path], wanted: str | None) -> str:
    """The protocol that every run was evaluated with. Protocols are never mixed in one table."""
    found = {}
    for path in paths:
        found[path] = Run(path).require().evaluated_protocols()
        if not found[path]:
            raise MissingInputError(f"{path} has no evaluation; {_how_to_evaluate(path)}")
    if wanted is not None:
        for path, have in found.items():
            if wanted not in have:
                raise MissingInputError(
                    f"{path} has no evaluation under protocol {wanted!r}, only {', '.join(sorted(have))}; "
                    f"run `{evaluate_command(Run(path), more=['--protocol', wanted])}` first."
                )
        return wanted
    shared = set.intersection(*found.values())
    if not shared:
        each = "; ".join(f"{path}: {', '.join(sorted(have))}" for path, have in found.items())
        raise ConfigError(
            f"the runs share no evaluation protocol ({each}). `sdclr evaluate RUN --protocol ...` adds one."
        )
    if len(shared) > 1:
        raise ConfigError(
            f"the runs have several protocols: {', '.join(sorted(shared))}; choose one, such as --protocol "
            f"{min(shared)}."
        )
    return shared.pop()


def _read_run(path: Path, protocol: str, groups: GroupConvention | None) -> RunFolder:
    run = Run(path)
    require_own_backbone(run)
    content, settings = run.read_evaluation(protocol), flatten(run.settings())
    require_own_evaluation(run, protocol, content)
    evaluation = Evaluation.of_content(content, run.evaluation_path(protocol))
    if foreign := foreign_metrics(run):
        warnings.warn(f"{foreign} Its curves are shown as they are.", stacklevel=3)
    if not isinstance(settings.get("seed"), int) or "method.name" not in settings:
        raise DataError(f"{run.config_path} is damaged: it has no seed or no method.name.")
    return RunFolder(
        path=path,
        settings=settings,
        split=_split(run, evaluation),
        environment=run.read_side_file("environment.json"),
        metrics=measured_by_epoch(run),
        share_of_few=share_of_few(run),
        evaluation=evaluation.grouped_by(groups) if groups else evaluation,
    )


def _split(run: Run, evaluation: Evaluation) -> Mapping[str, Any]:
    """The run's split; as recorded in the evaluation if that has its own labels or test set.

    Likewise if split.json is missing or damaged.
    """
    if evaluation.labels is None:
        made = run.read_side_file("split.json")
        if made.keys() >= {"class_names", "counts", "fingerprint", "source", "name", "seed"}:
            return made
        if made:
            warnings.warn(
                f"{run.folder / 'split.json'} lacks facts of a split; the evaluation's own are shown.",
                stacklevel=4,
            )
        source, part = "as the evaluation says", "long_tail"
    else:
        source, part = f"labels of {evaluation.labels.source}", "labelled"
    counts = {part: evaluation.train_counts}
    tested = [probe.num_test for probe in evaluation.probes.values() if probe.num_test]
    if tested:
        counts["test"] = tested[0]
    return {
        "class_names": evaluation.class_names,
        "counts": counts,
        "fingerprint": evaluation.split.fingerprint,
        "source": source,
        "name": evaluation.split.name or "",
        "seed": None,
    }


def probe_headings(arms: Sequence[Arm]) -> dict[str, str]:
    """Name -> heading of every probe that was measured, in the order of the table of probes.

    Probes from outside the package come last; they are shown from the results files, without importing
    their code. Warns if one name was used for different probes.
    """
    runs = [run for arm in arms for run in arm.runs]
    measured: dict[str, list[tuple[Path, ProbeResult]]] = {}
    for run in runs:
        for name, result in run.evaluation.probes.items():
            measured.setdefault(name, []).append((run.path, result))
    for name, results in measured.items():
        _warn_of_different_probes(name, results)
    known = [name for name in PROBES if name in measured]
    others = [name for name in measured if name not in PROBES]
    return {name: _heading(name, measured[name]) for name in [*known, *others]}


def _heading(name: str, results: Sequence[tuple[Path, ProbeResult]]) -> str:
    if name in PROBES:
        return PROBES[name].display_name
    recorded = [result.display_name for _, result in results if result.display_name]
    return shown(recorded[0] if recorded else name)


def _warn_of_different_probes(name: str, results: Sequence[tuple[Path, ProbeResult]]) -> None:
    first_path, first = results[0]
    for path, result in results[1:]:
        if (result.origin, result.settings) == (first.origin, first.settings) or None in (
            result.display_name,
            first.display_name,  # an earlier version wrote neither
        ):
            continue
        warnings.warn(
            f"probe {shown(name)} is not the same in all runs: {shown(first.origin or 'ours')} "
            f"with {shown(first.settings or {})} in {first_path}, {shown(result.origin or 'ours')} with "
            f"{shown(result.settings or {})} in {path}. Their numbers are not comparable.",
            stacklevel=4,
        )
        return


def source_name(settings: Mapping[str, Any], dataset: str) -> str:
    """What the images are called: the folder or file of the user's own images, or the name of the data set."""
    place = settings.get("data.path")
    is_own = settings.get("data.name") in ("images", "arrays")
    return Path(str(place)).name if is_own and place is not None else dataset


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings -> dotted names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= (
            flatten(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else {f"{prefix}{key}": value}
        )
    return flat


def _group_into_arms(runs: Sequence[RunFolder]) -> list[Arm]:
    """Group the runs, in the order given, and give each group a distinct name."""
    groups: dict[str, list[RunFolder]] = {}
    for run in runs:
        same = {
            key: value
            for key, value in run.settings.items()
            if key not in _NOT_THE_ARM and value is not None
        }
        groups.setdefault(json.dumps(same, sort_keys=True, default=str), []).append(run)
    for group in groups.values():
        for a, b in combinations(group, 2):
            if (a.split_number, a.seed) == (b.split_number, b.seed):
                raise ConfigError(
                    f"{a.path} and {b.path} are the same thing twice: same settings, split {a.split_number} and "
                    f"seed {a.seed}. Give one of them."
                )
    settings = [group[0].settings for group in groups.values()]
    names = [group[0].method for group in groups.values()]
    labels = [
        _label(
            name, mine, [one for other, one in zip(names, settings, strict=True) if other == name]
        )
        for name, mine in zip(names, settings, strict=True)
    ]
    return [Arm(label, group) for label, group in zip(labels, groups.values(), strict=True)]


def _label(name: str, mine: Mapping[str, Any], of_this_method: Sequence[Mapping[str, Any]]) -> str:
    """The method's name and, if several arms share the method, the settings in which they differ."""
    fields = differing_settings(of_this_method)
    last = [field.rpartition(".")[2] for field in fields]
    words = [
        f"{leaf if leaf != 'name' and last.count(leaf) == 1 else field} {setting_text(mine.get(field))}"
        for field, leaf in zip(fields, last, strict=True)
    ]
    return f"{name} ({', '.join(words)})" if words else name


def differing_settings(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The dotted names of the settings in which some arms differ."""
    names = dict.fromkeys(key for mine in settings for key in mine if key not in _NOT_THE_ARM)
    return [key for key in names if any(mine.get(key) != settings[0].get(key) for mine in settings)]


def setting_text(value: Any) -> str:
    """A setting in a few characters; "-" if the arm has no such setting."""
    return "-" if value is None else str(value)


def _with_seeds_of(others: Sequence[RunFolder], runs: list[RunFolder]) -> list[RunFolder]:
    seeds = {run.seed for run in others}
    return [run for run in runs if run.seed in seeds] or runs


def _balancedness(run: RunFolder, probe: str) -> Balancedness:
    try:
        return run.evaluation.balancedness(probe)
    except DataError as error:
        raise DataError(f"{run.path / 'evaluation'}, probe {probe}: {error}") from None


def _mean_balancedness(seeds: Sequence[Balancedness]) -> Balancedness:
    fields = [asdict(one) for one in seeds]
    return Balancedness(**{key: float(np.mean([one[key] for one in fields])) for key in fields[0]})
