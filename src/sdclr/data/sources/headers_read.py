"""Shows how much of some shards has been searched for their headers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

from sdclr.any_progress import late_task

MEGABYTE = 10**6


@contextmanager
def headers_read(
    what: str, sizes: Mapping[str, int], done: Collection[str] = ()
) -> Iterator[Callable[[str, int], None]]:
    """Display progress as ``what`` if it takes long; yields a function to call with a shard and the byte reached in it.

    ``sizes``: in bytes, by shard. ``done``: the shards that need not be read. Any thread may call the function.
    """
    ends = {shard: sizes[shard] for shard in done}
    num_bytes = sum(ends.values())
    lock = threading.Lock()
    total, begun = sum(sizes.values()) // MEGABYTE, num_bytes // MEGABYTE
    with late_task(what, total, "MB", begun) as task:

        def reach(shard: str, end: int) -> None:
            nonlocal num_bytes
            with lock:
                before = num_bytes
                num_bytes += max(0, min(end, sizes[shard]) - ends.get(shard, 0))
                ends[shard] = max(end, ends.get(shard, 0))
                task.advance(num_bytes // MEGABYTE - before // MEGABYTE)

        yield reach
