"""A run folder -> what the page of a single run also shows: verdict, rivals, layers, map, alarms, environment.

Reads what other jobs have written; missing parts stay empty, and the page gives the command that creates them.
"""

from __future__ import annotations

import re
import statistics
import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from sdclr.compute.process_state import silenced_warnings
from sdclr.evaluation.probes import PROBES
from sdclr.evaluation.verdict import mean_interval
from sdclr.jobs.report.arms import flatten, setting_text
from sdclr.jobs.report.curves import measured_by_epoch, raised_alarms
from sdclr.methods.table import method_title
from sdclr.presentation.competitor import Competitor, Distribution, Layer
from sdclr.presentation.details import (
    EmbeddingMap,
    FewLabelsRow,
    PlacedImage,
    RaisedAlarm,
    Rival,
    RunDetails,
    labelled_title,
)
from sdclr.presentation.profile import CollectionProfile
from sdclr.presentation.report import Glance
from sdclr.run import Run
from sdclr.run.files import (
    AGAINST_FILE,
    FEW_LABELS_FILE,
    GROUPS_FILE,
    LAYERS_FILE,
    MAP_FILE,
    MINED_FOLDER,
    PROFILE_FILE,
)
from sdclr.run.next_step import evaluate_command, report_command
from sdclr.safe_text import command, counted

_OF_OTHERS = {
    "fingerprint": "other labels, images or split",
    "tested_on": "another way of testing",
    "kept_together": "other groups of images",
    "features_in": "features of another precision",
    "test_contents": "other test images",
}
"""Key in a file beside an evaluation -> its description if the evaluation has another value."""
RIVALS = "untrained,pixels"
"""The rivals that the page proposes to compare a run with."""


def read_details(
    run: Run,
    source: str,
    examined: str,
    why_missing: Mapping[str, str] | None = None,
    protocol: str | None = None,
) -> RunDetails:
    """``source``: what the images are called. ``examined``: what was measured without labels, in a sentence.

    ``why_missing``: name of a section of the page -> why this run cannot have it. ``protocol``: that of the evaluation
    shown; measurements on labels or images other than the evaluation's are left out with a warning.
    """
    entries = measured_by_epoch(run)
    evaluated = {} if protocol is None else _measured_on(run, protocol)
    against = _own(run, AGAINST_FILE, evaluated)
    alarms = _alarms(entries)
    num_checks = sum(any(key.startswith("health_") for key in one) for one in entries)
    groups = run.read_side_file(GROUPS_FILE, optional=True)
    why = dict(why_missing or {})
    if groups.get("why_no_groups"):
        why["Groups in the records of the images"] = str(groups["why_no_groups"])
    if not run.evaluated_protocols():
        why.setdefault("differences", f"{_needs_labels(run)} --against untrained,pixels")
        why.setdefault("classes", _needs_labels(run))
    collection, collection_pictures = _collection(run)
    return RunDetails(
        collection=collection,
        collection_pictures=collection_pictures,
        glance=_glance(run, source, examined, against, alarms, num_checks, entries),
        rivals=_rivals(against),
        few_labels=_few_labels(_own(run, FEW_LABELS_FILE, evaluated)),
        competitor=read_competitor(run),
        map=_map(_own(run, MAP_FILE)),
        alarms=alarms,
        num_checks=num_checks,
        environment=[
            (name, setting_text(value))
            for name, value in flatten(run.read_side_file("environment.json")).items()
        ],
        why_missing=why,
    )


def read_competitor(run: Run) -> Competitor:
    """What is known of the run's competitor; empty if it has none, or if it was not analysed yet."""
    layers = [
        Layer(one["name"], one["density"], one["num_weights"])
        for one in _own(run, LAYERS_FILE).get("layers", [])
    ]
    return Competitor(layers, _distribution(run.read_side_file(GROUPS_FILE, optional=True)))


def _collection(run: Run) -> tuple[CollectionProfile | None, Mapping[str, str]]:
    """The profile of the run's own images, written by sdclr profile, and its pictures."""
    name = f"{MINED_FOLDER}/{PROFILE_FILE}"
    content = run.read_side_file(name, optional=True)
    if content.get("backbone") is None or not _own(run, name):
        return None, {}
    try:
        return CollectionProfile.of_content(content), dict(content["pictures"])
    except (KeyError, TypeError, ValueError):
        warnings.warn(
            f"{run.folder / name} is damaged and is left out. Make it again: "
            f"{command('sdclr', 'profile', run.folder / MINED_FOLDER)}",
            stacklevel=3,
        )
        return None, {}


def _alarms(entries: Sequence[Mapping[str, Any]]) -> list[RaisedAlarm]:
    raised = raised_alarms(entries)
    if not raised:
        return []
    from sdclr.evaluation.alarms import (
        CAUSES,  # imports torch, which a report of a healthy run does not need
    )

    return [
        RaisedAlarm(epoch, cause, CAUSES[cause].remedy if cause in CAUSES else "see docs/health.md")
        for epoch, cause in raised
    ]


def _measured_on(run: Run, protocol: str) -> dict[str, Any]:
    """What an evaluation was measured on, under the names that files beside it use."""
    with silenced_warnings():  # about damaged probes: the code that shows them warns
        content = run.read_evaluation(protocol)
    names = ("kept_together", "features_in", "test_contents")
    return {
        "fingerprint": content["split"]["fingerprint"],
        "tested_on": content.get("tested_on", "test set"),
        **{name: content.get(name) for name in names},
    }


def _own(run: Run, name: str, evaluated: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """A side file about the current backbone; empty for another backbone's, with a warning.

    Likewise if it differs from the data that were ``evaluated``, where both record them.
    """
    content = run.read_side_file(name, optional=True)
    measured = content.get("backbone")
    is_known = measured is not None and run.backbone_path.is_file()
    if is_known and measured != run.backbone_identity():
        warnings.warn(
            f"{run.folder / name} was measured on another backbone and is not shown.", stacklevel=3
        )
        return {}
    differs = []
    for key, value in (evaluated or {}).items():
        is_compared = key in content
        if key == "test_contents":  # an earlier version did not write them
            is_compared = None not in (content.get(key), value)
        if is_compared and content[key] != value:
            differs.append(_OF_OTHERS[key])
    if differs:
        warnings.warn(
            f"{run.folder / name} was measured otherwise than the evaluation ({', '.join(differs)}) and is not shown.",
            stacklevel=3,
        )
        return {}
    return content


def _needs_labels(run: Run) -> str:
    return f"needs labels for some of the images: {evaluate_command(run, labels=True)}"


def _rivals(against: Mapping[str, Any]) -> list[Rival]:
    return [
        Rival(
            PROBES[pair["probe"]].display_name if pair["probe"] in PROBES else pair["probe"],
            pair["rival"],
            pair["ours"],
            pair["theirs"],
            _interval(pair["all"]),
            _interval(pair["few"]) if pair.get("few") else None,
            pair["num_tested"],
            pair["verdict"],
            pair.get("num_few_tested"),
            pair.get("num_ways"),
            against.get("num_groups"),
        )
        for pair in against.get("pairs", [])
    ]


def _few_labels(content: Mapping[str, Any]) -> list[FewLabelsRow]:
    rows = []
    for one in content.get("points", []):
        accuracies = one["accuracies"]
        mean, interval = mean_interval(accuracies)
        known = [value for value in one["few"] if value is not None]
        rows.append(
            FewLabelsRow(
                one["protocol"],
                one["probe"],
                one["kind"],
                labelled_title(one["kind"], one.get("value"), one.get("source")),
                one["num_labelled"],
                one["num_labelled"] / one["num_classes"],
                accuracies,
                mean,
                interval,
                statistics.fmean(known) if known else None,
            )
        )
    return sorted(rows, key=lambda row: (row.protocol, row.kind, row.per_class))


def _interval(found: Mapping[str, float]) -> tuple[float, float, float]:
    return found["difference"], found["low"], found["high"]


def _distribution(groups: Mapping[str, Any]) -> Distribution | None:
    found = groups.get("disagreement") or {"edges": [], "counts": {}}
    edges, counts = found["edges"], found["counts"]
    rises = all(low < high for low, high in pairwise(edges))
    fits = all(len(one) == len(edges) - 1 for one in counts.values())
    return Distribution(edges, counts) if edges and rises and fits else None


def _map(content: Mapping[str, Any]) -> EmbeddingMap | None:
    if not content.get("images"):
        return None
    images = [
        PlacedImage(
            one["path"],
            one.get("label") or "",
            one["x"],
            one["y"],
            f"data:image/jpeg;base64,{one['picture']}",
        )
        for one in content["images"]
    ]
    return EmbeddingMap(images, content["explained"])


def _glance(
    run: Run,
    source: str,
    examined: str,
    against: Mapping[str, Any],
    alarms: Sequence[RaisedAlarm],
    num_checks: int,
    entries: Sequence[Mapping[str, Any]],
) -> Glance:
    verdict, kind, answer = _verdict(run, examined, against)
    verdict, *more = re.split(r"(?<= images\.) ", verdict)  # one sentence per rival
    settings = flatten(run.settings())
    environment = run.read_side_file("environment.json")
    health = "not measured"
    if num_checks:
        named = ", ".join(dict.fromkeys(one.cause.replace("_", " ") for one in alarms))
        health = f"{counted(len(alarms), 'alarm')} ({named})" if alarms else "no alarm"
        health += f" in {counted(num_checks, 'check')}"
    rows = [
        ("What was trained", _network(settings)),
        ("On what", _images(run, settings, source)),
        ("How long", _time(settings, environment, entries)),
        ("How it went", f"{_loss(entries)}; health: {health}"),
        ("Run", str(run.folder)),
    ]
    more = [one[:1].upper() + one[1:] for one in more]
    return Glance(verdict[:1].upper() + verdict[1:], kind, answer, rows, more)


def _verdict(run: Run, examined: str, against: Mapping[str, Any]) -> tuple[str, Any, str]:
    """The sentence, its outcome, and the command that answers an open question."""
    if against.get("pairs"):
        first = against["pairs"][0]["probe"]
        verdicts = {one["verdict"] for one in against["pairs"] if one["probe"] == first}
        kind = "bad" if "worse" in verdicts else "good" if verdicts == {"better"} else "open"
        leaks = against.get("num_leaks") or 0
        leak = f" Beware: {counted(leaks, 'test image')} are near-copies of training images."
        return f"{against['verdict']}{leak if leaks else ''}", kind, ""
    if against.get("without_labels") and not run.evaluated_protocols():
        return str(against["verdict"]), "open", str(against["next"])
    if run.evaluated_protocols():
        advised = evaluate_command(run, more=["--against", RIVALS])
        return (
            "Whether pre-training paid off is not known: the run was compared with nothing.",
            "open",
            f"{advised} && {report_command(run)}",
        )
    labels = "Whether the classes are told apart cannot be known without labels; some hundred of them are enough."
    return f"{examined} {labels}".lstrip(), "open", evaluate_command(run, labels=True)


def _network(settings: Mapping[str, Any]) -> str:
    width = settings.get("backbone.width")
    named = f"{settings.get('backbone.name')}" + (f" (width {width})" if width else "")
    return f"{named}, by {method_title(settings)}"


def counts_trained_on(split: Mapping[str, Any], settings: Mapping[str, Any]) -> list[int]:
    """The images of each class in the subset that a run trained on, by its split.json; empty if not recorded."""
    subset = str(settings.get("data.subset"))
    name = "train" if subset == "all" else subset
    return (split.get("counts") or {}).get(name) or []


def _images(run: Run, settings: Mapping[str, Any], source: str) -> str:
    counts = counts_trained_on(run.read_side_file("split.json"), settings)
    if not counts:
        return source
    words = f"{source}: {sum(counts):,} images of {len(counts):,} classes"
    if min(counts) > 0:
        words += f", {max(counts):,} of the largest and {min(counts):,} of the smallest"
        words += f" (imbalance ratio {max(counts) / min(counts):.4g})"
    return words


def _time(
    settings: Mapping[str, Any],
    environment: Mapping[str, Any],
    entries: Sequence[Mapping[str, Any]],
) -> str:
    words = [counted(settings.get("epochs"), "epoch")]
    if seconds := sum(one.get("seconds") or 0.0 for one in entries):
        words.append(duration(seconds))
    if speeds := [one["views_per_second"] for one in entries if one.get("views_per_second")]:
        words.append(f"{statistics.median(speeds):,.0f} views/s (median)")
    if environment.get("device"):
        words.append(f"on {environment['device']}")
    if environment.get("created"):
        words.append(f"begun {environment['created']}")
    return ", ".join(words)


def duration(seconds: float) -> str:
    """A readable duration: 12 s, 3 min, 2 h 05 min."""
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"


def _loss(entries: Sequence[Mapping[str, Any]]) -> str:
    losses = [one["loss"] for one in entries if one.get("loss") is not None]
    if not losses:
        return "no loss is recorded"
    return f"the loss went from {losses[0]:.3f} to {losses[-1]:.3f}"
