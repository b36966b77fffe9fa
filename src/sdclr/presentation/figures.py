"""The figures that can be drawn for runs: FIGURES, one row each, with the command that creates missing inputs.

The page shows them in its sections (``sections``), ``sdclr figures`` writes each to files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from sdclr.presentation.competitor import Competitor
from sdclr.presentation.details import FewLabelsRow, Rival, RunDetails
from sdclr.presentation.drawings import (
    Bars,
    Dots,
    Figure,
    Forest,
    Histogram,
    Interval,
    Layers,
    Line,
    Lines,
)
from sdclr.presentation.report import HEADERS, ArmCurves, Curves, Report
from sdclr.presentation.unlabelled import UnlabelledRun
from sdclr.safe_text import command


@dataclass(frozen=True)
class Material:
    """The data to draw from."""

    report: Report | None
    """The report of evaluated runs."""
    runs: Sequence[UnlabelledRun]
    """Each run that has more to show than numbers."""
    colours: Mapping[str, str]
    """Arm -> colour, the same in every figure."""
    group_colours: Mapping[str, str]

    @property
    def details(self) -> RunDetails | None:
        """The details of a single run; None for several."""
        return self.runs[0].details if len(self.runs) == 1 else None

    @property
    def competitors(self) -> Mapping[str, Competitor]:
        """Arm -> the competitor of its first run that has one."""
        if self.report is not None and self.report.competitors:
            return self.report.competitors
        found: dict[str, Competitor] = {}
        for run in self.runs:
            if run.details is not None:
                found.setdefault(run.record.arm, run.details.competitor)
        return found

    @property
    def curves(self) -> Sequence[Curves]:
        if self.report is not None:
            return self.report.curves
        return self.runs[0].curves if len(self.runs) == 1 else ()


@dataclass(frozen=True)
class FigureRow:
    """One figure, or several of one kind."""

    section: str
    """The section of the page it belongs to."""
    title: str
    make: Callable[[Material], Sequence[Figure]]
    """Returns an empty list if the runs do not have what it needs."""
    needs: str
    """What it needs, as a sentence with a command, with RUN as a placeholder for a run."""


def comparison_forest(material: Material) -> list[Figure]:
    """Paired differences between arms over the splits that they share."""
    report = material.report
    if report is None:
        return []
    rows = [
        Interval(
            f"{c.arm} - {c.baseline}, {report.probes[c.probe].lower()}",
            HEADERS[c.measure] + (" (lower is better)" if c.measure == "group_std" else ""),
            *c.interval,
            c.n,
            c.measure == "group_std",
        )
        for c in report.comparisons
        if c.interval is not None
    ]
    caption = f"95 % t-intervals over the {report.over}; green is better, orange worse, grey shows no difference."
    drawing = Forest(rows, "Difference (percentage points)")
    return [Figure("paired_differences", "Paired differences", drawing, caption)] if rows else []


def rivals_forest(material: Material) -> list[Figure]:
    """The run compared with the alternatives to it."""
    if material.details is None or not material.details.rivals:
        return []
    rivals = material.details.rivals
    names = dict.fromkeys(rival.rival for rival in rivals)
    rows = []
    for rival in sorted(rivals, key=lambda one: [*names].index(one.rival)):
        group, num = f"against {rival.rival}", rival.num_tested
        rows.append(Interval(group, rival.probe, *rival.all, num))
        if rival.few is not None:
            of_few = rival.num_few_tested
            rows.append(Interval(group, f"{rival.probe}, few classes", *rival.few, of_few))
    caption = (
        "Accuracy (mean over the classes) of this run less that of its rival, by the same probe on the same n test "
        "images. 95 % intervals of what other images would give, and other ways to deal the folds; what another "
        f"training run would give is not in them.{_groups(rivals)}{_ways(rivals)} Green is better, orange worse, grey "
        "shows no difference."
    )
    drawing = Forest(rows, "This run less its rival (percentage points)")
    return [Figure("against", "Did pre-training pay off?", drawing, caption)]


def _groups(rivals: Sequence[Rival]) -> str:
    """What was resampled, if not single images."""
    nums = sorted({rival.num_groups for rival in rivals if rival.num_groups is not None})
    return f" Intervals resample {nums[0]} groups, not single images." if nums else ""


def _ways(rivals: Sequence[Rival]) -> str:
    """How often folds were dealt, and why the numbers differ from those of the results."""
    ways = sorted({rival.num_ways for rival in rivals if rival.num_ways is not None} - {1})
    if not ways:
        return ""
    description = " or ".join(map(str, ways))
    return (
        f" There is no test set: accuracies are means over {description} ways to deal the folds; those under "
        "Results are of the first way."
    )


_SETS = {
    "labels_per_class": "a fixed number of each class",
    "label_share": "a share of each class",
    "file": "given lists",
}


def few_labels(material: Material) -> list[Figure]:
    """Accuracy against the number of labels, one figure per protocol: their numbers are never mixed."""
    rows = material.details.few_labels if material.details is not None else ()
    palette = [*material.group_colours.values(), "#0072B2"]
    figures = []
    for number, protocol in enumerate(dict.fromkeys(row.protocol for row in rows), start=1):
        own = [row for row in rows if row.protocol == protocol]
        lines = []
        for colour, (kind, label) in zip(palette, _SETS.items(), strict=False):
            if curves := _curves_of_draws([row for row in own if row.kind == kind]):
                lines.append(Line(label, colour, curves))
        title = f"Accuracy with few labels, {own[0].probe.lower()}, protocol {protocol}"
        drawing = Lines(
            lines,
            "Labelled images of a class (mean)",
            "Accuracy (%)",
            percent=True,
            whole_x=False,
        )
        caption = "Mean over the classes. A thin line is one draw of the labelled images, the thick one their mean."
        figures.append(Figure(f"few_labels_{number}", title, drawing, caption))
    return figures


def _curves_of_draws(rows: Sequence[FewLabelsRow]) -> list[list[tuple[float, float]]]:
    """A curve for each draw of the labelled images: (labels per class, accuracy)."""
    curves: dict[int, list[tuple[float, float]]] = {}
    for row in rows:
        for drawn, accuracy in enumerate(row.accuracies):
            curves.setdefault(drawn, []).append((row.per_class, accuracy))
    return list(curves.values())


def class_bars(material: Material) -> list[Figure]:
    """A figure for each probe."""
    report = material.report
    if report is None:
        return []
    if report.classes:
        caption = "Classes from the most to the fewest training images; accuracy on the test images of each."
    elif report.over == "seeds":
        caption = "Classes from the most to the fewest training images. Whiskers: population std over the seeds."
    else:
        caption = (
            "Classes sorted from the most to the fewest training images in each split; what is averaged over the "
            "splits is the rank, not the class. Whiskers: population std over the splits."
        )
    figures = []
    for number, bars in enumerate(report.bars):
        description = caption if bars is report.bars[-1] else ""  # once, below all of them
        name = f"accuracy_by_class_{number + 1}"
        drawing = Bars(bars, material.colours)
        title = f"Accuracy by class, {report.probes[bars.probe].lower()}"
        figures.append(Figure(name, title, drawing, description))
    return figures


def balancedness(material: Material) -> list[Figure]:
    """Many, medium and few of each arm, a figure for each probe."""
    report = material.report
    if report is None:
        return []
    figures = []
    for number, (probe, heading) in enumerate(report.probes.items()):
        arms = {
            row.arm: [row.values[key] for key in ("many", "medium", "few", "all")]
            for row in report.rows
            if row.probe == probe
        }
        drawing = Dots(["Many", "Medium", "Few", "All"], arms, material.colours, "Accuracy (%)")
        caption = f"Mean and population std over the {report.over}. A level row is a balanced representation."
        title = f"Balancedness, {heading.lower()}"
        figures.append(Figure(f"balancedness_{number + 1}", title, drawing, caption))
    return figures


def prune_ratios(material: Material) -> list[Figure]:
    """Accuracy against the prune ratio, a line for each kind of norms, for arms that differ in it."""
    report = material.report
    if report is None:
        return []
    facts = {fact.name: fact.values for fact in report.facts}
    ratios, norms = facts.get("prune ratio", ()), facts.get("norms", ())
    places = {
        arm: (float(ratio), norm)
        for arm, ratio, norm in zip(report.arms, ratios, norms, strict=False)
        if ratio != "-"
    }
    figures = []
    for number, (probe, heading) in enumerate(report.probes.items()):
        lines = []
        for index, norm in enumerate(dict.fromkeys(norm for _, norm in places.values())):
            points = sorted(
                (places[row.arm][0], row.values["all"].mean)
                for row in report.rows
                if row.probe == probe and row.arm in places and places[row.arm][1] == norm
            )
            if len({ratio for ratio, _ in points}) > 1:
                colour = list(material.group_colours.values())[index % 4]
                lines.append(Line(f"{norm} norms", colour, [points]))
        if lines:
            drawing = Lines(lines, "Prune ratio", "Accuracy (%)", percent=True, whole_x=False)
            title = f"Accuracy against prune ratio, {heading.lower()}"
            figures.append(Figure(f"prune_ratio_{number + 1}", title, drawing))
    return figures


def curve_figures(section: str) -> Callable[[Material], list[Figure]]:
    """The curves of the table that belong to a section."""

    def make(material: Material) -> list[Figure]:
        chosen = [one for one in material.curves if one.curve.section == section]
        return [curve_figure(one, material) for one in chosen]

    return make


def curve_figure(curves: Curves, material: Material) -> Figure:
    """One curve of all arms; for a curve with parts, a line for each of them."""
    curve = curves.curve
    arms = list(dict.fromkeys(arm.arm for arm in curves.arms))
    is_alone = len(arms) == 1
    caption = (curve.caption_alone if is_alone else "") or curve.caption
    if any(len(arm.runs) > 1 for arm in curves.arms):
        caption = f"{caption} Thin lines are runs, thick ones their mean.".lstrip()
    drawing = Lines(
        [_line(arm, curves, material, is_alone=is_alone) for arm in curves.arms],
        "Epoch",
        curve.ylabel,
        curve.percent,
        curves.marks,
        curves.reference,
    )
    small = curve.section == "health"
    return Figure(curve.key, curve.title, drawing, caption, small)


def _line(arm: ArmCurves, curves: Curves, material: Material, *, is_alone: bool) -> Line:
    parts = curves.curve.parts
    if not arm.part:
        return Line(arm.arm, material.colours[arm.arm], arm.runs)
    place = list(parts).index(arm.part)
    if is_alone:
        colours = list(material.group_colours.values())
        colour = material.group_colours.get(arm.part, colours[place % len(colours)])
        return Line(parts[arm.part], colour, arm.runs)
    return Line(f"{arm.arm}, {parts[arm.part]}", material.colours[arm.arm], arm.runs, place)


def layers(material: Material) -> list[Figure]:
    """The weights that the competitor prunes, layer by layer; for several runs, the first of each arm."""
    arms = {
        arm: [(one.name, 1 - one.density, one.num_weights) for one in found.layers]
        for arm, found in material.competitors.items()
        if found.layers
    }
    if not arms:
        return []
    drawing = Layers(arms, material.colours, "Weights removed (%)")
    caption = "Share of each prunable layer's weights that the competitor does without, first layer to last."
    if len(arms) < len(material.competitors) or len(material.runs) > 1 or len(arms) > 1:
        caption += " Of the first run of each arm that has a competitor."
    return [Figure("sparsity_by_layer", "Sparsity by layer", drawing, caption)]


def disagreement(material: Material) -> list[Figure]:
    """The disagreement of the images of each group at the end, one figure per arm."""
    arms = {
        arm: found.disagreement
        for arm, found in material.competitors.items()
        if found.disagreement is not None and found.disagreement.edges
    }
    figures = []
    for number, (arm, found) in enumerate(arms.items(), start=1):
        colours = {name: material.group_colours.get(name, "#0072B2") for name in found.counts}
        drawing = Histogram(found.edges, found.counts, colours, "Disagreement (1 - cosine)")
        caption = "Of the training images in the last epoch; each group's bars add up to 100 %."
        name, title = "disagreement", "Distribution of disagreement"
        if len(arms) > 1:
            name, title = f"{name}_{number}", f"{title}, {arm}"
            caption = f"{caption} Of the first run of each arm." if number == len(arms) else ""
        figures.append(Figure(name, title, drawing, caption))
    return figures


_EVALUATE = f"needs labels and an evaluation: {command('sdclr', 'evaluate', 'RUN')}"
_RECORDS = "needs a run with records of its images: sdclr pretrain RECIPE (or PHOTOS) record_images=true --out ANOTHER"
_HEALTH = "needs a run whose health was measured, as it is unless health_every_epochs=0"
_COMPETITOR = "needs a run with a competitor: sdclr pretrain RECIPE method.name=sdclr --out RUN"

FIGURES: Mapping[str, FigureRow] = {
    "against": FigureRow(
        "differences",
        "Did pre-training pay off?",
        rivals_forest,
        "needs one run and its rivals: sdclr evaluate RUN --against untrained,pixels",
    ),
    "paired_differences": FigureRow(
        "differences",
        "Paired differences",
        comparison_forest,
        "needs runs of two arms over at least two splits (sdclr reproduce DATASET --out RUNS), or two seeds of one "
        "(sdclr pretrain RECIPE seed=2 --out ANOTHER)",
    ),
    "accuracy_by_class": FigureRow("classes", "Accuracy by class", class_bars, _EVALUATE),
    "balancedness": FigureRow("", "Balancedness", balancedness, _EVALUATE),
    "few_labels": FigureRow(
        "few_labels",
        "Accuracy with few labels",
        few_labels,
        "needs one run measured with few labels on a labelled test set: sdclr evaluate RUN --labels-per-class 1,5,10 "
        "(of labels that came later: with --labels FILE data.test_path=FOLDER)",
    ),
    "prune_ratio": FigureRow(
        "prune_ratio",
        "Accuracy against prune ratio",
        prune_ratios,
        "needs evaluated runs that differ in method.prune_ratio, with shared and own norms: sdclr pretrain RECIPE "
        "method.prune_ratio=RATIO method.norms=NORMS --out RUN",
    ),
    "groups": FigureRow(
        "groups", "Groups over the epochs", curve_figures("groups"), f"{_HEALTH}, and labels"
    ),
    "records": FigureRow(
        "groups",
        "Loss, disagreement and mining share of each group by epoch",
        curve_figures("records"),
        f"{_RECORDS}, and labels",
    ),
    "training": FigureRow(
        "training", "Training", curve_figures("training"), "needs metrics.jsonl of a run"
    ),
    "sparsity_by_layer": FigureRow("competitor", "Sparsity by layer", layers, _COMPETITOR),
    "disagreement": FigureRow("competitor", "Distribution of disagreement", disagreement, _RECORDS),
    "health": FigureRow("health", "Health", curve_figures("health"), _HEALTH),
}
"""Name -> figure, in the order in which they are written; a new figure is one row."""


def figures_of(section: str, material: Material) -> list[Figure]:
    """All figures of a section of the page."""
    found: list[Figure] = []
    for row in FIGURES.values():
        if row.section == section:
            found += row.make(material)
    return found


def missing_figures(material: Material) -> dict[str, str]:
    """Title -> what it needs, for every figure that these runs do not allow."""
    return {row.title: row.needs for row in FIGURES.values() if not row.make(material)}


def all_figures(material: Material) -> list[Figure]:
    """Every figure that the runs allow, all in full size, each under its own name."""
    return [
        replace(figure, small=False) for row in FIGURES.values() for figure in row.make(material)
    ]
