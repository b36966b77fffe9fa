"""What a launcher such as torchrun states about this process, read from the environment."""

from __future__ import annotations

import os

from sdclr.errors import DistributedError

LARGEST_PORT = 65535


def world_size() -> int:
    """The number of processes this one was started among. Raises what :func:`check_environment` does."""
    check_environment()
    return environment_number("WORLD_SIZE", 1)


def rank() -> int:
    """This process's number, from 0. Raises what :func:`check_environment` does."""
    check_environment()
    return environment_number("RANK", 0)


def check_environment() -> None:
    """DistributedError where RANK, WORLD_SIZE, LOCAL_RANK or MASTER_PORT is invalid, before any work or wait."""
    size, own = environment_number("WORLD_SIZE", 1), environment_number("RANK", 0)
    if size < 1:
        raise DistributedError(
            f"WORLD_SIZE counts the processes and must be at least 1, got {size}."
        )
    if own >= size:
        raise DistributedError(
            f"RANK={own} must be below WORLD_SIZE={size}: processes are numbered from 0. Start them with torchrun, or "
            "unset both for one process."
        )
    if size == 1:
        return
    here, local = environment_number("LOCAL_WORLD_SIZE", 0), environment_number("LOCAL_RANK", 0)
    if here and local >= here:
        raise DistributedError(f"LOCAL_RANK={local} must be below LOCAL_WORLD_SIZE={here}.")
    port = environment_number("MASTER_PORT", 1)
    if not 1 <= port <= LARGEST_PORT:
        raise DistributedError(f"MASTER_PORT must be from 1 to {LARGEST_PORT}, got {port}.")


def is_first() -> bool:
    """Whether this process is the only one, or the one that reports for all."""
    return rank() == 0


def processes_here() -> int:
    """How many of the processes share this machine, and so its cores."""
    return max(1, environment_number("LOCAL_WORLD_SIZE", 1))


def require_one_process(what: str) -> None:
    """DistributedError for work that only one process can do, where there are several."""
    if world_size() > 1:
        raise DistributedError(
            f"{what} runs on one process; start it without torchrun (WORLD_SIZE={world_size()})."
        )


def environment_number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    if text and not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise DistributedError(
            f"the environment variable {name} must be a whole number, got {text[:40]!r}."
        )
    return int(text) if text else default
