"""Two hosts on one machine: two network namespaces, and a relay of packets between them that delays and can be cut.

Each namespace has a TUN device, whose packets the relay, a process of its own, takes out of one and puts into the other
some milliseconds later. Cut, it drops them: connections are not closed, as when a cable is pulled. Linux only; needs no
root where user namespaces are allowed.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from patience import wait_until

ADDRESSES = ("10.77.0.1", "10.77.0.2")
DEVICE = "relayed"
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI, _CLONE_NEWNET = 0x400454CA, 0x0001, 0x1000, 0x40000000
_LARGEST_PACKET = 65536


class TwoHosts:
    """The namespaces, and the relay's process."""

    def __init__(self, holders: Sequence[subprocess.Popen[bytes]], relay: Any) -> None:
        self._holders, self._relay = holders, relay

    def start(self, host: int, command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """A process on host 0 or 1."""
        return subprocess.Popen([*_inside(self._holders[host]), *command], text=True, **options)

    def cut(self) -> None:
        """From now on nothing arrives."""
        self._relay.send_signal(signal.SIGUSR1)

    def mend(self) -> None:
        self._relay.send_signal(signal.SIGUSR2)


def can_be_made() -> bool:
    """Whether this machine lets us."""
    if sys.platform != "linux" or not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return False
    with contextlib.suppress(OSError):
        tried = ["unshare", "-Urn", "ip", "tuntap", "add", DEVICE, "mode", "tun"]
        return subprocess.run(tried, check=False, capture_output=True).returncode == 0
    return False


@contextlib.contextmanager
def two_hosts(delay_seconds: float) -> Iterator[TwoHosts]:
    """Two of them; ``delay_seconds``: how long every packet takes, in either direction."""
    with contextlib.ExitStack() as stack:
        first = _started(stack, ["unshare", "-Urn", "sleep", "3600"])
        _wait_for_namespace(first, os.getpid())
        second = _started(stack, [*_inside(first), "unshare", "-n", "sleep", "3600"])
        _wait_for_namespace(second, first.pid)
        holders = (first, second)
        relay = _started(
            stack,
            [*_inside(first), sys.executable, __file__, str(second.pid), str(delay_seconds)],
            stdout=subprocess.PIPE,
        )
        assert relay.stdout is not None
        assert relay.stdout.readline() == b"ready\n"
        for holder, own, other in zip(holders, ADDRESSES, reversed(ADDRESSES), strict=True):
            for words in (
                ["link", "set", "lo", "up"],
                ["addr", "add", own, "peer", other, "dev", DEVICE],
                ["link", "set", DEVICE, "up"],
            ):
                subprocess.run([*_inside(holder), "ip", *words], check=True)
        yield TwoHosts(holders, relay)


def _inside(holder: subprocess.Popen[bytes]) -> list[str]:
    return ["nsenter", "-t", str(holder.pid), "-U", "-n", "--preserve-credentials"]


def _started(
    stack: contextlib.ExitStack, command: Sequence[str], **options: Any
) -> subprocess.Popen[bytes]:
    process = stack.enter_context(subprocess.Popen(command, **options))
    stack.callback(process.kill)
    return process


def _wait_for_namespace(process: subprocess.Popen[bytes], other: int) -> None:
    """Until it has a network of its own, another than the process ``other`` has."""

    def apart() -> bool:
        with contextlib.suppress(OSError):
            asleep = Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n"
            links = (os.readlink(f"/proc/{one}/ns/net") for one in (process.pid, other))
            return asleep and len(set(links)) == 2
        return False

    wait_until(apart, "no network namespace is made")


# What the relay's process does.


def _tun() -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH", DEVICE.encode(), _IFF_TUN | _IFF_NO_PI))
    return device


def _enter(process: int) -> None:
    namespace = os.open(f"/proc/{process}/ns/net", os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class _Relay:
    """Packets on their way, each with the time at which it arrives."""

    def __init__(self, delay_seconds: float) -> None:
        self._delay, self._is_cut = delay_seconds, False
        self._waiting: list[tuple[float, int, int, bytes]] = []
        self._number = 0
        signal.signal(signal.SIGUSR1, lambda *_: self._set(is_cut=True))
        signal.signal(signal.SIGUSR2, lambda *_: self._set(is_cut=False))

    def _set(self, *, is_cut: bool) -> None:
        self._is_cut = is_cut

    def run(self, devices: Sequence[int]) -> None:
        other = dict(zip(devices, reversed(devices), strict=True))
        while True:
            due = self._waiting[0][0] - time.monotonic() if self._waiting else 1.0
            readable, _, _ = select.select(devices, [], [], max(due, 0.0))
            for device in readable:
                with contextlib.suppress(OSError):  # not up yet
                    self._take(os.read(device, _LARGEST_PACKET), other[device])
            while self._waiting and self._waiting[0][0] <= time.monotonic():
                _, _, device, packet = heapq.heappop(self._waiting)
                with contextlib.suppress(OSError):
                    os.write(device, packet)

    def _take(self, packet: bytes, device: int) -> None:
        if self._is_cut:
            return
        self._number += 1
        arrives = time.monotonic() + self._delay
        heapq.heappush(self._waiting, (arrives, self._number, device, packet))


if __name__ == "__main__":
    _first = _tun()
    _enter(int(sys.argv[1]))
    _both = (_first, _tun())
    print("ready", flush=True)
    _Relay(float(sys.argv[2])).run(_both)
