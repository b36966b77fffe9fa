"""The health of a run, measured every few epochs in the first process, for metrics.jsonl and the terminal."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from sdclr.any_progress import AnyProgress
from sdclr.errors import Interrupted, Preempted
from sdclr.evaluation import health
from sdclr.evaluation.alarms import Findings, alarms
from sdclr.jobs.pretrain.health_measures import WeightWatch, measure_network, measure_views
from sdclr.jobs.pretrain.health_sample import HealthSample, health_sample
from sdclr.jobs.pretrain.training import Training
from sdclr.observers import EpochDone, Observer, StepDone, TrainingBegins
from sdclr.safe_text import shown

SHARE_OF_TIME = 0.005
"""The share of training time that the check may cost."""
_PASSES = 3
"""Forward passes of the sample: both views, and one more by the competitor."""
_PASSES_OF_TRAINING = 6
"""Cost of an image in an epoch, in forward passes: two views, and a backward pass counts as two forward passes."""
_OVERHEAD = 12
"""Factor by which the check may take longer than its passes: on a fast device the host's arithmetic dominates."""


def every_epochs(num_images: int, num_sampled: int) -> int:
    """Epochs between checks so that they cost SHARE_OF_TIME; computed from counts alone, so that runs are repeatable.

    >>> every_epochs(12406, 256), every_epochs(1_281_167, 55)
    (25, 1)
    """
    share = _OVERHEAD * _PASSES * num_sampled / (_PASSES_OF_TRAINING * num_images)
    return max(math.ceil(share / SHARE_OF_TIME), 1)


class HealthCheck(Observer):
    """Adds measurements to the epochs that it reports to ``inner``. A failing check disables itself, not the run."""

    required = True  # because its inner observers are

    def __init__(
        self,
        training: Training,
        inner: Observer,
        show: AnyProgress,
        before: Callable[[], Sequence[dict[str, Any]]] = tuple,
    ) -> None:
        """``before`` reads the existing lines of metrics.jsonl."""
        self._training, self._inner, self._show = training, inner, show
        self._every = training.config.health_every_epochs
        self._sample: HealthSample | None = None
        self._before = before
        self._untrained: dict[str, float] = {}
        self._first: dict[str, float] = {}
        self._fresh: dict[str, float] = {}
        self._views: dict[str, float] = {}
        self._watch: WeightWatch | None = None
        self._step = 0
        """Step of the last check, or of the start of this session."""
        self._inside_epoch = False
        """Whether the session began inside an epoch, so that the watch started with the masks of that epoch."""

    def on_begin(self, begins: TrainingBegins) -> None:
        self._inner.on_begin(begins)
        if self._every != 0:
            self._guarded(lambda: self._begin(begins.step))

    def on_step(self, done: StepDone) -> None:
        self._inner.on_step(done)

    def on_epoch(self, done: EpochDone) -> None:
        more: dict[str, float] = {}
        if self._sample is not None and self._is_due(done):
            more = self._guarded(lambda: self._check(done)) or {}
        if more:
            done = dataclasses.replace(done, measured={**done.measured, **more})
        self._inner.on_epoch(done)

    def on_end(self, done: EpochDone) -> None:
        self._inner.on_end(done)

    def _begin(self, step: int) -> None:
        training = self._training
        sample = health_sample(training)
        if sample is None:
            return
        if self._every is None:
            self._every = every_epochs(len(training.images), len(sample.views.a))
        self._step = step
        lines = self._before()
        self._untrained = _recorded(lines, "untrained_")
        self._first = _recorded(lines, "health_")
        self._inside_epoch = step % training.steps_per_epoch != 0
        self._views = measure_views(sample)
        self._watch = WeightWatch(training.method)
        if step == 0:
            self._untrained = self._fresh = measure_network(training, sample)
        self._sample = sample  # last: the lines above may fail

    def _is_due(self, done: EpochDone) -> bool:
        assert self._every
        return done.epoch in (1, done.num_epochs) or done.epoch % self._every == 0

    def _check(self, done: EpochDone) -> dict[str, float]:
        assert self._sample is not None
        assert self._watch is not None
        changes, layers = self._watch.look()
        if self._inside_epoch:  # the session began inside an epoch, where masks do not change
            changes.pop("masks_changed", None)
            self._inside_epoch = False
        values = self._views | measure_network(self._training, self._sample) | changes
        num = len(self._sample.views.a)
        found = Findings(
            values,
            layers,
            self._untrained,
            self._first,
            num,
            num_steps=done.step - self._step,
            is_last=done.epoch == done.num_epochs,
        )
        self._step = done.step
        self._first = self._first or values
        raised = alarms(found)
        self._show.print(_line(done.epoch, values, num))
        for alarm in raised:
            warnings.warn(f"epoch {done.epoch}: {alarm.words}", stacklevel=2)
        fresh, self._fresh = self._fresh, {}
        return {
            **{f"health_{name}": value for name, value in values.items()},
            **{f"untrained_{name}": value for name, value in fresh.items()},
            **{f"alarm_{alarm.cause}": 1.0 for alarm in raised},
        }

    def _guarded(self, call: Any) -> Any:
        try:
            return call()
        except (Preempted, Interrupted):
            raise
        except Warning:  # the user has turned warnings into errors
            raise
        except Exception as error:
            self._sample = None
            warnings.warn(
                f"the health of this run cannot be measured, and is skipped from here on: {type(error).__name__}: "
                f"{shown(str(error))}. The training is not affected; health_every_epochs=0 leaves it out.",
                stacklevel=3,
            )
            return None


def _recorded(lines: Sequence[dict[str, Any]], prefix: str) -> dict[str, float]:
    """The values that the first check of a resumed run has written."""
    for line in lines:
        found = {
            name.removeprefix(prefix): value
            for name, value in line.items()
            if name.startswith(prefix) and isinstance(value, int | float)
        }
        if found:
            return found
    return {}


def _line(epoch: int, values: dict[str, float], num: int) -> str:
    chance = health.collapsed_top1(num)
    words = [
        f"views find their partner {values['top1']:.0%} (chance {chance:.1%})",
        f"spread {values['spread']:.2f} of 1",
    ]
    if "rank" in values:
        words.append(f"rank {values['rank']:.1f}")
    if "disagreement" in values:
        words.append(f"disagreement {values['disagreement']:.2f}")
    if "knn" in values:
        groups = [
            f"{name} {values[f'knn_{name}']:.0%}"
            for name in ("many", "medium", "few")
            if f"knn_{name}" in values
        ]
        words.append(f"kNN {values['knn']:.0%} ({', '.join(groups)})")
    return f"health, epoch {epoch}: {', '.join(words)}"
