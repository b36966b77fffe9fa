"""A report as one JSON object for scripts: fractions in full precision, null for unknown values."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sdclr.presentation.evaluated import EvaluatedReport
from sdclr.presentation.report import Glance, Report
from sdclr.presentation.unlabelled import UnlabelledReport, UnlabelledRun

JSON_MARK = '{"sdclr_report": 1'
"""The start of our JSON reports; the number is the version of their format."""


def to_json(report: EvaluatedReport | UnlabelledReport) -> str:
    """One object on one line."""
    if isinstance(report, UnlabelledReport):
        content = _unlabelled(report)
    else:
        content = _evaluated(report.numbers)
        if report.runs:
            content["without_labels"] = [_unlabelled_run(run) for run in report.runs]
    return json.dumps({"sdclr_report": 1, **without_nan(content)}, allow_nan=False) + "\n"


def _evaluated(report: Report) -> dict[str, Any]:
    """Everything except the data of figures."""
    rows = []
    for row in report.rows:
        values = {key: {"mean": one.mean, "std": one.spread} for key, one in row.values.items()}
        rows.append({"probe": row.probe, "arm": row.arm, "n": row.n, **values})
    return {
        "title": report.title,
        "description": report.description,
        "dataset": report.dataset,
        "protocol": report.protocol,
        "group_convention": report.group_convention,
        "chance": report.chance,
        "arms": list(report.arms),
        "probes": dict(report.probes),
        "over": report.over,
        "rows": rows,
        "comparisons": [_comparison(asdict(one)) for one in report.comparisons],
        "facts": {fact.name: list(fact.values) for fact in report.facts},
        "runs": [asdict(run) for run in report.runs],
        "versions": dict(report.versions),
        **_glance_fields(report.glance),
    }


def _glance_fields(glance: Glance | None) -> dict[str, Any]:
    """The verdict as shown on the page, and whether it is good, bad or open."""
    if glance is None:
        return {}
    sentences = [glance.verdict, *glance.more]
    return {"verdict": {"kind": glance.kind, "sentences": sentences, "next": glance.command}}


def _comparison(fields: dict[str, Any]) -> dict[str, Any]:
    interval = fields.pop("interval") or (fields["single"] if fields["n"] > 1 else None, None, None)
    return {**fields, **dict(zip(("difference", "low", "high"), interval, strict=True))}


def _rival(fields: dict[str, Any]) -> dict[str, Any]:
    names = ("difference", "low", "high")
    for name in ("all", "few"):
        fields[name] = fields[name] and dict(zip(names, fields[name], strict=True))
    return fields


def _unlabelled(report: UnlabelledReport) -> dict[str, Any]:
    return {"title": report.title, "runs": [_unlabelled_run(run) for run in report.runs]}


def _unlabelled_run(run: UnlabelledRun) -> dict[str, Any]:
    """A run without pictures and curves."""
    measures = {}
    for one in run.measures:
        measures[one.key] = {
            "before": one.before,
            "before_half_width": one.before_half_width,
            "after": one.after,
            "after_half_width": one.after_half_width,
        }
    details: dict[str, Any] = {}
    if run.details is not None:
        details = _glance_fields(run.details.glance)
        details["against"] = [_rival(asdict(one)) for one in run.details.rivals]
        details["alarms"] = [asdict(one) for one in run.details.alarms]
    return {
        "run": run.record.folder,
        "description": run.description,
        "num_images": run.num_images,
        "num_sampled": run.num_sampled,
        "measures": measures,
        "lists": [asdict(one) for one in run.lists],
        "choices": [asdict(one) for one in run.choices],
        "settings": dict(run.settings),
        "command": run.record.command,
        "hardware": run.hardware,
        "versions": dict(run.versions),
        **details,
    }


def without_nan(value: Any) -> Any:
    """Replace nan with None, as JSON cannot represent it."""
    if isinstance(value, Mapping):
        return {key: without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value
