"""Which runs a table rests on: those without a probe, and splits with different numbers of seeds."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

from sdclr.jobs.report.arms import Arm
from sdclr.jobs.report.run_folder import RunFolder
from sdclr.safe_text import command, first_of, shown


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
        one = command("sdclr", "evaluate", runs[rows[0]].path, "--protocol", protocol)
        one += f" {command('--probes', ','.join(probes))}"
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
    paired = "; a difference between arms is over the seeds of a split that both have"
    return [
        f"Not every split has as many seeds ({'; '.join(found)}). A mean over splits counts each split once"
        f"{paired if len(arms) > 1 else ''}."
    ]


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"
