"""Views of a user's own: called for each image in threads, or on the views of a batch, with reproducible draws.

B images, C channels, S side of a view. Draws are a function of (seed, epoch, image index, view number), as for all
views: torch's functions draw from a generator of the call's own (in this thread only, so that the training step is not
affected), albumentations gets its seed, a function that takes ``rng`` or ``generator`` gets one. For functions that
draw from ``random`` or ``numpy.random`` these are seeded, one call at a time. Draws of torch that bypass all of this
are detected, not corrected.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import inspect
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from sdclr.compute.process_state import default_generators
from sdclr.compute.stateless_random import Stream, derive
from sdclr.data.own_views import OwnViewsRow
from sdclr.data.views.torch_draws import DrawsFrom, Escapes, default_state
from sdclr.errors import ConfigError, DataError, SdclrError
from sdclr.safe_text import shown
from sdclr.stills import Picture, whole

LOWEST, HIGHEST = -0.5, 1.5
"""The range accepted of views in [0, 1]: a resize that sharpens edges overshoots; values beyond it were normalised."""
Kind = Literal["torch", "albumentations", "function"]
_BATCH = 2
"""A number that no view has, for the draws of a module on a whole batch."""


@dataclass(frozen=True)
class OwnView:
    """A callable that makes a view of an image."""

    name: str
    transform: Callable[..., Any]
    kind: Kind
    keywords: frozenset[str] = frozenset()
    """Those of "rng" and "generator" that it takes."""
    copies: threading.local = field(default_factory=threading.local)
    """One copy per thread of a transform that contains its generator."""
    escapes: Escapes = field(default_factory=Escapes)
    """Draws of views that cannot be reproduced."""

    @classmethod
    def of(cls, row: OwnViewsRow) -> OwnView:
        """Raises ConfigError where it cannot be made."""
        transform = _made(row)
        if type(transform).__module__.partition(".")[0] == "albumentations":
            return cls(row.name, transform, "albumentations")
        if isinstance(transform, nn.Module):
            return cls(row.name, transform, "torch")
        return cls(row.name, transform, "function", _keywords(transform))

    def view(
        self,
        picture: Picture,
        name: str,
        size: int,
        *,
        seed: int,
        epoch: int,
        draw: int,
        number: int,
    ) -> npt.NDArray[np.float32]:
        """float32 [C, S, S] in [0, 1]: view ``number`` of an image; ``name`` is for errors, which are DataErrors."""
        pixels = whole(picture)
        key = derive(seed, Stream.OWN_VIEWS, epoch, number, draw)
        where = f"views.own={self.name} on image {shown(name)}"
        before = default_state()
        view = self._view(pixels, key, size, where)
        if self.escapes.to_be_compared(before):
            again = self._view(pixels, key, size, where)
            self.escapes.found |= not torch.equal(view, again)
        return view.numpy()

    def _view(self, pixels: npt.NDArray[np.uint8], key: int, size: int, where: str) -> Tensor:
        try:
            found = self._called(np.array(pixels), key)
        except SdclrError:
            raise
        except Exception as error:  # it is the user's, and may raise anything
            raise DataError(
                f"{where} failed: {type(error).__name__}: {shown(error, 400)}. It is called with "
                f"{_input_words(self.kind, pixels.shape)}."
            ) from error
        return _checked(_channels_first(found, where), (pixels.shape[2], size, size), where)

    def _called(self, pixels: npt.NDArray[np.uint8], key: int) -> Any:
        if self.kind == "albumentations":
            return self._seeded_copy(key)(image=pixels)["image"]
        if self.kind == "torch":
            return self._drawing(pixels, key)
        if not self.keywords or self.escapes.from_globals:
            with _seeded(key):
                return self._drawing(pixels, key)
        # A function that is given a generator seldom draws from those of the process, so it is called without seeding
        # them, in parallel with other threads. If they have moved, it is called again, alone and seeded: if it was
        # this function that drew, that is remembered, and their state is restored.
        with _GLOBALS.reading():
            # shared by concurrent readers: any of them may move it
            before = _GLOBALS.at_first_reader
            found = self._drawing(pixels, key)
            moved = _GlobalState.now() != before
            if moved:
                _GLOBALS.is_to_write()
        if not moved:
            return found
        with _GLOBALS.writing(promised=True):
            with _seeded(key):
                seeded = _GlobalState.now()
                found = self._drawing(pixels, key)
                drew = _GlobalState.now() != seeded  # else another thread did
            if drew:  # concurrent functions that drew restore the same state
                self.escapes.from_globals = True
                before.restore()
        return found

    def _drawing(self, pixels: npt.NDArray[np.uint8], key: int) -> Any:
        generator = torch.Generator().manual_seed(key)
        # a copy: what writes into its image may be called again with the same pixels
        image = (
            torch.from_numpy(pixels).permute(2, 0, 1).clone(memory_format=torch.contiguous_format)
        )
        given: dict[str, Any] = {"rng": np.random.default_rng(key), "generator": generator}
        keywords = {name: given[name] for name in self.keywords}
        with torch.no_grad(), DrawsFrom(generator):
            return self.transform(image, **keywords)

    def _seeded_copy(self, key: int) -> Any:
        """This thread's copy of the transform, seeded: it contains its generator, and several threads call it."""
        if not hasattr(self.copies, "transform"):
            self.copies.transform = copy.deepcopy(self.transform)
        mine = self.copies.transform
        if hasattr(mine, "set_random_seed"):
            mine.set_random_seed(key % (1 << 32))
        return mine


@dataclass(frozen=True)
class OwnBatch:
    """A module on the finished views of a batch."""

    name: str
    module: Callable[[Tensor], Any]

    @classmethod
    def of(cls, row: OwnViewsRow) -> OwnBatch:
        """Raises ConfigError where it cannot be made."""
        return cls(row.name, _made(row))

    @torch.no_grad()
    def views(
        self, x: Tensor, draws: Tensor, *, seed: int, epoch: int, names: Sequence[str] = ()
    ) -> Tensor:
        """[V * B, C, S, S] from the same shape; ``draws`` [B]: of the batch; ``names``: of all images, for errors.

        The host waits for the device. Draws depend on the first image of the batch, so that several processes, each
        with a part of a batch, draw differently from a single one.
        """
        module = self.module.to(x.device) if isinstance(self.module, nn.Module) else self.module
        key = derive(seed, Stream.OWN_VIEWS, epoch, _BATCH, int(draws[0]))
        where = f"views.own_batch={self.name}"
        try:
            # in the order in which views lock them in their threads, to avoid a deadlock
            with _seeded(key), default_generators(key, x.device):
                found = module(x)
        except SdclrError:
            raise
        except Exception as error:  # it is the user's, and may raise anything
            first = _named(int(draws[0]), names)
            raise DataError(
                f"{where} failed on the batch that begins with image {first}: {type(error).__name__}: "
                f"{shown(error, 400)}. It is called with a float tensor {list(x.shape)} in [0, 1]."
            ) from error
        if isinstance(found, Tensor) and found.shape == x.shape and found.is_floating_point():
            bad = (~found.isfinite()).flatten(1).any(dim=1).nonzero().flatten()
            if len(bad):
                image = _named(int(draws[int(bad[0]) % len(draws)]), names)
                raise DataError(f"{where} made numbers that are not finite from image {image}.")
        return _checked(found, tuple(x.shape), where).to(x.dtype)


def _made(row: OwnViewsRow) -> Any:
    try:
        made = row.made()
    except Exception as error:
        raise ConfigError(
            f"{row.origin}() failed, which is called without arguments: {type(error).__name__}: {shown(error)}. Mend "
            "it; where it needs arguments, name an object instead: mine = Mine(...), then module:mine."
        ) from error
    if not callable(made):
        raise ConfigError(f"{row.origin} makes a {type(made).__name__}, which cannot be called.")
    return made


def _keywords(transform: Callable[..., Any]) -> frozenset[str]:
    try:
        known = inspect.signature(transform).parameters
    except (TypeError, ValueError):  # some callables have no signature
        return frozenset()
    return frozenset({"rng", "generator"} & known.keys())


def _input_words(kind: Kind, shape: tuple[int, ...]) -> str:
    if kind == "albumentations":
        return f"image=<uint8 array {list(shape)}>"
    height, width, channels = shape
    return f"a uint8 tensor {[channels, height, width]}"


def _channels_first(found: Any, where: str) -> Any:
    """A tensor [C, h, w] from a transform's result."""
    if isinstance(found, Image.Image):
        found = np.array(found)
    if isinstance(found, np.ndarray):
        found = torch.from_numpy(found if found.ndim != 2 else found[:, :, None])
        return found.permute(2, 0, 1) if found.ndim == 3 else found
    if not isinstance(found, Tensor):
        raise DataError(
            f"{where} returned a {type(found).__name__}; a view is a tensor, an array or a PIL image."
        )
    return found.as_subclass(Tensor)


def _checked(found: Any, shape: tuple[int, ...], where: str) -> Tensor:
    """Floats in [0, 1] of this shape; DataError that describes what is wrong with others."""
    if not isinstance(found, Tensor):
        raise DataError(f"{where} returned a {type(found).__name__}, and not a tensor.")
    if tuple(found.shape) != shape:
        raise DataError(
            f"{where} returned the shape {list(found.shape)}; it must be {list(shape)} (views.size={shape[-1]})."
        )
    if found.dtype == torch.uint8:
        return found.float() / 255
    if not found.is_floating_point():
        raise DataError(
            f"{where} returned numbers of {found.dtype}; a view is uint8, or floats in [0, 1]."
        )
    found = found.detach().float()
    low, high = (float(one) for one in found.aminmax())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError(f"{where} returned numbers that are not finite.")
    if low < LOWEST or high > HIGHEST:
        raise DataError(
            f"{where} returned values from {low:.3g} to {high:.3g}; views lie in [0, 1]. Leave normalisation out: the "
            "network does that itself."
        )
    return found.clamp(0, 1)


def _named(draw: int, names: Sequence[str]) -> str:
    return shown(names[draw % len(names)]) if len(names) else str(draw)


class _ReadersWriterLock:
    """Many threads read at the same time, or one writes; a waiting writer has priority over new readers.

    ``look``: called when a first reader enters; its result is ``at_first_reader`` for all concurrent readers.
    """

    at_first_reader: Any = None

    def __init__(self, look: Callable[[], Any]) -> None:
        self._changed, self._look = threading.Condition(), look
        self._num_readers = self._num_waiting_writers = self._depth = 0
        self._writer: int | None = None

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """No thread writes inside the block."""
        with self._changed:
            self._changed.wait_for(lambda: self._writer is None and not self._num_waiting_writers)
            if not self._num_readers:
                self.at_first_reader = self._look()
            self._num_readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_readers -= 1
                self._changed.notify_all()

    def is_to_write(self) -> None:
        """Announce that a reader is going to write: until it has, there are no new readers."""
        with self._changed:
            self._num_waiting_writers += 1

    @contextlib.contextmanager
    def writing(self, *, promised: bool = False) -> Iterator[None]:
        """No other thread reads or writes inside; the writer may re-enter. ``promised``: by :meth:`is_to_write`."""
        me = threading.get_ident()
        with self._changed:
            if self._writer != me:
                self._num_waiting_writers += not promised
                try:
                    self._changed.wait_for(lambda: self._writer is None and not self._num_readers)
                finally:
                    self._num_waiting_writers -= 1
                self._writer = me
            self._depth += 1
        try:
            yield
        finally:
            with self._changed:
                self._depth -= 1
                if not self._depth:
                    self._writer = None
                    self._changed.notify_all()


@contextlib.contextmanager
def _seeded(key: int) -> Iterator[None]:
    """``random`` and ``numpy.random`` draw from this key inside the block, and continue as before afterwards."""
    # a user's function may draw from the legacy generator
    with _GLOBALS.writing():
        before, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
        random.seed(key)
        np.random.seed(key % (1 << 32))  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(before)
            np.random.set_state(legacy)  # noqa: NPY002


class _GlobalState(NamedTuple):
    """The state of ``random`` and ``numpy.random``, to detect whether they have moved; read for every view."""

    python: tuple[Any, ...]
    numpy: bytes

    @classmethod
    def now(cls) -> _GlobalState:
        of_numpy = np.random.mtrand.get_bit_generator()
        numbers = b""
        if isinstance(of_numpy, np.random.MT19937):
            # a fortieth of the time of get_state: read from the address that NumPy gives
            numbers = ctypes.string_at(of_numpy.ctypes.state_address, _BYTES_OF_NUMPY)
        return cls(random.getstate(), numbers)

    def restore(self) -> None:
        random.setstate(self.python)
        if self.numpy:
            numbers = np.frombuffer(self.numpy, np.uint32)
            legacy = np.random.get_state()  # noqa: NPY002
            assert isinstance(legacy, tuple)
            state = ("MT19937", numbers[:-1], int(numbers[-1]), legacy[3], legacy[4])
            np.random.set_state(state)  # noqa: NPY002


_BYTES_OF_NUMPY = 4 * 625
"""The state of a Mersenne twister: 624 numbers and the position among them."""


_GLOBALS = _ReadersWriterLock(_GlobalState.now)
"""The lock of ``random`` and ``numpy.random``, of which a process has one each."""
