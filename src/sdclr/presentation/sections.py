"""The sections of a report's page: SECTIONS, one row each, in the order of the page.

A section has a template with its name in ``templates/sections``, or consists only of figures.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from sdclr.presentation.details import RunDetails
from sdclr.presentation.drawings import Figure
from sdclr.presentation.figures import FIGURES, Material, figures_of
from sdclr.presentation.report import Glance, Report
from sdclr.presentation.unlabelled import UnlabelledRun
from sdclr.run.files import MINED_FOLDER
from sdclr.safe_text import command


@dataclass(frozen=True)
class Subject:
    """What a section is about: all the runs of the page, or one of them."""

    material: Material
    run: UnlabelledRun | None

    @property
    def report(self) -> Report | None:
        return self.material.report

    @property
    def details(self) -> RunDetails | None:
        return self.run.details if self.run is not None else None

    @property
    def glance(self) -> Glance | None:
        if self.details is not None:
            return self.details.glance
        return self.report.glance if self.report is not None else None

    def figures(self, section: str) -> list[Figure]:
        """The figures of a run in its own part of the page, otherwise those of all runs."""
        return figures_of(section, self.material)


@dataclass(frozen=True)
class Section:
    """One part of the page."""

    title: str
    shown: Callable[[Subject], bool]
    """Whether there is something to show."""
    hint: str = ""
    """Shown beside the title."""
    of_each_run: bool = False
    """Whether each run has its own if a page has several."""
    needs: str = ""
    """What it needs, as a sentence, if it is missing for a single run; not mentioned if empty."""
    template: str = ""
    """The template's name, if it differs from the section's."""


def _of_figures(section: str) -> Callable[[Subject], bool]:
    return lambda subject: bool(subject.figures(section))


def _needs(section: str) -> str:
    return "; or ".join(row.needs for row in FIGURES.values() if row.section == section)


_IMAGES = (
    "needs the images that the run was trained on. Where they are now: sdclr report RUN --data PATH"
)

SECTIONS: Mapping[str, Section] = {
    "glance": Section("At a glance", lambda subject: subject.glance is not None),
    "results": Section("Results", lambda subject: subject.report is not None),
    "differences": Section(
        "Paired differences",
        lambda subject: bool(
            subject.figures("differences") or (subject.report and subject.report.comparisons)
        ),
        needs=FIGURES["against"].needs,
    ),
    "classes": Section(
        "Accuracy by class frequency",
        _of_figures("classes"),
        needs=_needs("classes"),
    ),
    "few_labels": Section(
        "Few labels",
        _of_figures("few_labels"),
        hint="the few-shot probe on other numbers of labelled images",
        needs=_needs("few_labels"),
    ),
    "prune_ratio": Section("Accuracy against prune ratio", _of_figures("prune_ratio")),
    "groups": Section(
        "Rare and frequent classes while training",
        _of_figures("groups"),
        needs=_needs("groups"),
    ),
    "training": Section(
        "Training",
        lambda subject: bool(
            subject.figures("training") or (subject.run is not None and subject.run.curves)
        ),
    ),
    "competitor": Section(
        "The competitor", _of_figures("competitor"), needs=FIGURES["sparsity_by_layer"].needs
    ),
    "health": Section(
        "Health",
        _of_figures("health"),
        hint="measured without labels, every few epochs",
        needs=_needs("health"),
    ),
    "changed": Section(
        "What training changed",
        lambda subject: subject.run is not None,
        hint="measured without labels",
        of_each_run=True,
    ),
    "neighbours": Section(
        "Nearest neighbours",
        lambda subject: bool(subject.run is not None and subject.run.gallery),
        hint="by the trained features",
        of_each_run=True,
        needs=_IMAGES,
    ),
    "map": Section(
        "Map of the features",
        lambda subject: bool(subject.details is not None and subject.details.map),
        hint="near images are alike to the network",
        of_each_run=True,
        needs=_IMAGES,
    ),
    "views": Section(
        "What the network saw",
        lambda subject: bool(subject.run is not None and subject.run.views),
        hint="two random views of an image",
        of_each_run=True,
        needs=_IMAGES,
    ),
    "images": Section("Images", lambda subject: subject.run is not None, of_each_run=True),
    "collection": Section(
        "The collection as a whole",
        lambda subject: bool(subject.details is not None and subject.details.collection),
        hint="by the trained features, without labels",
        of_each_run=True,
        needs=f"needs the images as a collection: sdclr mine RUN && sdclr profile RUN/{MINED_FOLDER}",
    ),
    "differs": Section(
        "What differs",
        lambda subject: subject.report is not None and len(subject.report.arms) > 1,
        hint="highlighted",
    ),
    "facts": Section(
        "What was done",
        lambda subject: subject.report is not None and len(subject.report.arms) == 1,
        template="differs",
    ),
    "splits": Section(
        "Splits",
        lambda subject: (
            subject.report is not None
            and bool(subject.report.splits)
            and not subject.report.is_as_given
        ),
        hint="images (largest … smallest class)",
    ),
    "labelled": Section(
        "Labelled images",
        lambda subject: subject.report is not None and subject.report.is_as_given,
        hint="images (largest … smallest class)",
        template="splits",
    ),
    "settings": Section("Settings", lambda subject: subject.run is not None, of_each_run=True),
    "provenance": Section(
        "Where the numbers come from", lambda subject: subject.report is not None
    ),
    "run_provenance": Section(
        "Where the numbers come from",
        lambda subject: subject.report is None and subject.run is not None,
        of_each_run=True,
    ),
    "missing": Section(
        "What is not on this page",
        lambda subject: bool(missing(subject)),
        hint="and how to add it",
    ),
}
"""Name -> section; a new one is one row, and a template with that name if it is more than figures."""


def missing(subject: Subject) -> list[tuple[str, str]]:
    """(title, why it is missing or what it needs) of the sections that a single run lacks."""
    run, details = subject.run, subject.details
    if run is None or details is None:
        return []
    rows = []
    for name, section in SECTIONS.items():
        if name != "missing" and section.needs and not section.shown(subject):
            words = details.why_missing.get(name) or section.needs
            rows.append((section.title, _about(run, words)))
    if SECTIONS["groups"].shown(subject) and not FIGURES["records"].make(subject.material):
        rows.append((FIGURES["records"].title, _about(run, FIGURES["records"].needs)))
    # named parts of sections that are partly shown
    rows += [
        (title, _about(run, words))
        for title, words in details.why_missing.items()
        if title not in SECTIONS
    ]
    return rows


def _about(run: UnlabelledRun, words: str) -> str:
    """``words`` with RUN replaced by the folder of the run."""
    folder = command(run.record.folder)
    return re.sub(r"\bRUN\b", lambda _: folder, words)


def arrangement(material: Material) -> Sequence[tuple[str, Subject]]:
    """What the page shows, from top to bottom: (section, its subject).

    For a single run in the order of the table; for several runs, first the common sections, then each run's own.
    """
    runs = material.runs
    if material.report is None and len(runs) > 1:
        found = []
        for run in runs:
            own = Subject(replace(material, runs=[run]), run)
            found += [(name, own) for name, row in SECTIONS.items() if row.shown(own)]
        return found
    everything = Subject(material, runs[0] if len(runs) == 1 else None)
    if len(runs) <= 1:
        return [(name, everything) for name, row in SECTIONS.items() if row.shown(everything)]
    found = [
        (name, everything)
        for name, row in SECTIONS.items()
        if not row.of_each_run and row.shown(everything)
    ]
    for run in runs:
        own = Subject(material, run)
        found += [
            (name, own) for name, row in SECTIONS.items() if row.of_each_run and row.shown(own)
        ]
    return found
