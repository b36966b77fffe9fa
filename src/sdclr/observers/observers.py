"""Several observers as one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable

from sdclr.errors import Interrupted, Preempted
from sdclr.observers.observer import EpochDone, Observer, StepDone, TrainingBegins
from sdclr.safe_text import shown


class Observers(Observer):
    """Notifies each of them, in order. One that fails is removed with a warning, unless it is required."""

    required = True

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._observers = list(observers)

    def on_begin(self, begins: TrainingBegins) -> None:
        self._notify(lambda one: one.on_begin(begins))

    def on_step(self, done: StepDone) -> None:
        self._notify(lambda one: one.on_step(done))

    def on_epoch(self, done: EpochDone) -> None:
        self._notify(lambda one: one.on_epoch(done))

    def on_end(self, done: EpochDone) -> None:
        self._notify(lambda one: one.on_end(done))

    def _notify(self, call: Callable[[Observer], None]) -> None:
        for observer in list(self._observers):
            try:
                call(observer)
            except (Preempted, Interrupted):  # raised by a signal, wherever the program is
                raise
            except Exception as error:
                if observer.required:
                    raise
                self._observers.remove(observer)
                warnings.warn(
                    f"{type(observer).__name__} failed and no longer watches the run: "
                    f"{type(error).__name__}: {shown(str(error))}. The training is not affected.",
                    stacklevel=5,
                )
