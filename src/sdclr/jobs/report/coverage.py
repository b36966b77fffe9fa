"""Which runs a table rests on: those without a probe, splits with different numbers of seeds, arms with other seeds."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

from sdclr.jobs.report.arms import Arm
from sdclr.jobs.report.run_folder import RunFolder
from sdclr.run import Run
from sdclr.run.next_step import evaluate_command
from sdclr.safe_text import first_of, shown


def coverage_remarks(arms: Sequence[Arm], headings: Mapping[str, str], protocol: str) -> list[str]:
    """Sentences for the notes of a report. Warns of runs that are left out, which a table of numbers cannot show.

    ``headings``: name -> heading of each probe.
    """
    left_out = _left_out([run for arm in arms for run in arm.runs], headings, protocol)
    for sentence in left_out:
        warnings.warn(sentence, stacklevel=3)
    return [*left_out, *_unequal_seeds(arms, headings)]


def _left_out(runs: Sequence[RunFolder], headings: Mapping[str, str], protocol: str) -> list[str]:
    probes_of: dict[tuple[int, ...], list[str]] = {}
    for probe in headings:
        lacking = [row for row, run in enumerate(runs) if probe not in run.evaluation.probes]
        if lacking:
            probes_of.setdefault(tuple(lacking), []).append(probe)
    sentences = []
    for rows, probes in probes_of.items():
        names = [shown(runs[row].path) for row in rows]
        options = ["--protocol", protocol, "--probes", ",".join(probes)]
        one = evaluate_command(Run(runs[rows[0]].path), more=options)
        sentences.append(
            f"{', '.join(headings[probe] for probe in probes)}: {len(rows)} of {len(runs)} runs have no result and "
            f"are left out ({first_of(names)}); `{one}` adds it."
        )
    return sentences


def _unequal_seeds(arms: Sequence[Arm], headings: Mapping[str, str]) -> list[str]:
    if any(arm.over == "seeds" for arm in arms):
        return []
    found = []
    for probe, heading in headings.items():
        counts = {
            arm.label: [len(runs) for runs in arm.repeats(probe).values()]
            for arm in arms
            if arm.repeats(probe)
        }
        if len({number for numbers in counts.values() for number in numbers}) > 1:
            texts = [f"{label} {_range(numbers)}" for label, numbers in counts.items()]
            found.append(f"{heading}: {', '.join(texts)}")
    if not found:
        return []
    return [
        f"Not every split has as many seeds ({'; '.join(found)}). A mean over splits counts each split once."
    ]


def difference_remarks(arms: Sequence[Arm], probes: Sequence[str]) -> list[str]:
    """What the differences from the first arm are over where an arm has other splits or seeds; else nothing."""
    differ: set[str] = set()
    without_common: set[int] = set()
    with_common: set[int] = set()
    for probe in probes:
        ours, *others = (_seeds_by_repeat(arm, probe) for arm in arms)
        for theirs in others:
            common = ours.keys() & theirs.keys()
            if common and ours.keys() != theirs.keys():
                differ.add(arms[0].over)
            for number in common:
                if ours[number] != theirs[number]:
                    differ.add("seeds")
                have_common = bool(ours[number] & theirs[number])
                (with_common if have_common else without_common).add(number)
    if not differ:
        return []
    if differ == {"seeds"} and not with_common:
        return [
            f"In no split has another arm a seed of {arms[0].label}: a difference is over all seeds of a split."
        ]
    what = " and ".join(sorted(differ, reverse=True))
    words = f"The arms do not have the same {what}. A difference is over those that both have"
    if without_common:
        numbers = ", ".join(map(str, sorted(without_common)))
        words += f", and over all seeds of a split where none is common (split {numbers})"
    return [f"{words}; it can differ from the difference of the means."]


def _seeds_by_repeat(arm: Arm, probe: str) -> dict[int, set[int]]:
    """Split number -> its seeds; or each seed -> itself."""
    return {number: {run.seed for run in runs} for number, runs in arm.repeats(probe).items()}


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"
