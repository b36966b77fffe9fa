"""Several observers as one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable

from torch import nn

from sdclr.errors import Interrupted, Preempted
from sdclr.observers.observer import EpochDone, Observer, StepDone, TrainingBegins
from sdclr.observers.undisturbed import Undisturbed
from sdclr.processes.signals import StoppedEarly
from sdclr.safe_text import shown


class Observers(Observer):
    """Notifies each of them, in order.

    One that fails is removed with a warning, unless it is required. What the others change of the ``network`` in
    training or of the process is restored (:class:`~sdclr.observers.undisturbed.Undisturbed`).
    """

    required = True

    def __init__(self, observers: Iterable[Observer], network: nn.Module) -> None:
        self._observers = list(observers)
        self._undisturbed = Undisturbed(network)

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
                if observer.required:
                    call(observer)
                    continue
                with self._undisturbed.by(type(observer).__name__):
                    call(observer)
            # raised by a signal, wherever the program is
            except (Preempted, Interrupted, StoppedEarly, KeyboardInterrupt):
                raise
            # sys.exit would end an unfinished run as if it were finished; a cancelled task is no Exception either
            except BaseException as error:
                if observer.required:
                    raise
                self._observers.remove(observer)
                warnings.warn(
                    f"{type(observer).__name__} failed and no longer watches the run: "
                    f"{type(error).__name__}: {shown(str(error))}. The training is not affected.",
                    stacklevel=5,
                )
