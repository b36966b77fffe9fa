"""Let permissions count for a superuser, too: tests often run as one, and none of its files is closed to it."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

import pytest

_VERSION_3 = 0x20080522
_OVERRIDES = 0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Capabilities(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable"))


@contextlib.contextmanager
def permissions_count() -> Iterator[None]:
    """Inside, this thread, and those it starts, are held to permissions; skips where that cannot be had."""
    if os.geteuid() != 0:
        yield
        return
    header, capabilities = _Header(_VERSION_3, 0), (_Capabilities * 2)()
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        failed = libc.capget(ctypes.byref(header), capabilities)
    except (OSError, AttributeError):
        pytest.skip("a superuser, on a system without capabilities")
    before = capabilities[0].effective
    capabilities[0].effective = before & ~_OVERRIDES
    if failed or libc.capset(ctypes.byref(header), capabilities):
        pytest.skip("a superuser that may not give up its capabilities")
    try:
        yield
    finally:
        capabilities[0].effective = before
        assert libc.capset(ctypes.byref(header), capabilities) == 0
