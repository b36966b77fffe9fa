"""Try a user's own views on a few images before a run begins, so that errors appear here rather than hours later."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from sdclr.any_progress import AnyProgress
from sdclr.data import Images
from sdclr.data.own_views import OWN_VIEWS
from sdclr.data.views.parameters import ViewSpec
from sdclr.jobs.pretrain.training import Training
from sdclr.run import Run
from sdclr.settings import PretrainConfig

TRIED = 8
"""Images whose views are made twice."""


def own_view_facts(images: Images, config: PretrainConfig, show: AnyProgress) -> dict[str, Any]:
    """For environment.json: the origins of the callables, and whether their random draws are repeatable.

    Empty if the views are the package's. Warns of views that differ between calls for the same image, epoch and seed.
    Raises DataError for errors in the callables.
    """
    views = config.views
    names = {"own": views.own, "own_batch": views.own_batch}
    origins = {key: OWN_VIEWS[name].origin for key, name in names.items() if name is not None}
    if not origins:
        return {}
    some = images.at(np.arange(min(TRIED, len(images)), dtype=np.int64))
    spec = views.spec()
    first, second = (_views(some, spec, config) for _ in range(2))
    escaped = spec.own is not None and spec.own.escapes.found
    repeatable = torch.equal(first, second) and not escaped
    if not repeatable:
        _warn(origins.values())
    else:
        show.print(
            f"views of your own: {', '.join(origins.values())}; their random draws are reproducible"
        )
    return {"own_views": origins | {"repeatable": repeatable}}


def record_escapes(training: Training, run: Run) -> None:
    """If views that were taken to be repeatable turn out not to be, warn and record it in environment.json, once."""
    if not training.escapes.found:
        return
    facts = run.read_json("environment.json")
    resolved = facts.get("resolved", {})
    before = resolved.get("own_views", training.resolved["own_views"])
    now = before | {"repeatable": False}
    if before != now:
        _warn([now[key] for key in ("own", "own_batch") if key in now])
        facts |= {"resolved": resolved | {"own_views": now}}
        run.write_json("environment.json", facts)


def _warn(origins: Iterable[str]) -> None:
    warnings.warn(
        f"the views of {', '.join(origins)} differ from one time to the next for the same image, epoch "
        "and seed: a run that is stopped and resumed differs from one that is not, and the same command does not "
        "give the same run twice. Draw with torch's functions, or take a keyword rng (a numpy Generator) or "
        "generator (a torch one).",
        stacklevel=3,
    )


def _views(images: Images, spec: ViewSpec, config: PretrainConfig) -> torch.Tensor:
    """Views of an epoch that the run never reaches, on the CPU."""
    batch = iter([torch.arange(len(images))])
    (found,) = images.views(batch, spec, seed=config.seed, epoch=config.epochs)
    return torch.cat([found.a, found.b]).cpu()
