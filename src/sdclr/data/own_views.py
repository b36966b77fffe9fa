"""OWN_VIEWS: a user's own view transforms, by their names in settings. Imports no torch."""

from __future__ import annotations

from typing import Any, NamedTuple

from sdclr.errors import ConfigError
from sdclr.outside import Table, is_outside, load_outside, plain_name, summary_of
from sdclr.safe_text import shown


class OwnViewsRow(NamedTuple):
    """One callable that makes or changes views."""

    name: str
    summary: str
    own: Any
    """The callable, or a class that is called without arguments and makes one."""
    origin: str = ""
    """ "module:Name"; for an object without a qualified name, that of its class."""

    def made(self) -> Any:
        """The callable itself."""
        return self.own() if isinstance(self.own, type) else self.own


OWN_VIEWS: Table[OwnViewsRow] = Table("view transform", [])
"""Name -> row; all rows are from outside the package."""


def register_views(own: Any, name: str | None = None) -> str:
    """Add views of your own to :data:`OWN_VIEWS`; returns their name, for views.own or views.own_batch.

    ``own``: for views.own a callable that makes a view of one image: a torchvision v2 transform, an albumentations one,
    or a function; for views.own_batch an ``nn.Module`` on the finished views of a batch. Or a class that makes one of
    these when called without arguments. ``name``: its name in settings; default: that of the function or class in lower
    case. Raises ConfigError for an object that cannot be called and for a name that is taken or not plain. See
    docs/own-views.md.

    >>> def upside_down(image):
    ...     "Every image upside down, cut to 8 x 8."
    ...     return image.flip(1)[:, :8, :8]
    >>> with OWN_VIEWS.temporarily():
    ...     register_views(upside_down)
    'upside_down'
    """
    return _register(own, name, None)


def _register(own: Any, name: str | None, origin: str | None) -> str:
    if problem := why_no_views(own):
        raise ConfigError(f"{shown(repr(own))} cannot make views: {problem}.")
    known = own if hasattr(own, "__qualname__") else type(own)
    name = name or str(known.__name__).lower()
    own_origin = origin or f"{known.__module__}:{known.__qualname__}"
    OWN_VIEWS.add(OwnViewsRow(name, summary_of(own), own, own_origin))
    return name


def why_no_views(found: Any) -> str:
    """What keeps an object from being registered as views, in words; empty where nothing does."""
    return "" if callable(found) else "it cannot be called"


def named_views(text: str) -> str:
    """The name of views that a user typed: a plain name, or "module:name", which is registered."""
    if not is_outside(text):
        return text
    return use_views(load_outside(text, "view transform", why_no_views), text)


def use_views(found: Any, text: str) -> str:
    """Register the object loaded from ``text``, "module:name", under that name in lower case."""
    return _register(found, plain_name(text), text)
