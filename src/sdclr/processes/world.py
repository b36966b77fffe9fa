"""Several processes that train one model: who they are, how they agree, how one learns what became of another.

torchrun starts them, or whatever sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT. The first process (rank 0)
prepares the run folder and alone writes to it; the others follow. On one process everything here is the identity.
Tensors go through the process group (NCCL on CUDA, gloo on a CPU); words (ready, failed and why, over) through its
key-value store, which answers also when a process has died. Knows no method and no data.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import re
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import distributed_c10d as c10d
from torch.distributed.distributed_c10d import Store

from sdclr import errors
from sdclr.batch import Share
from sdclr.errors import DistributedError, NonFiniteError, Preempted, SdclrError
from sdclr.processes.environment import environment_number, rank, world_size
from sdclr.processes.signals import StoppedEarly

T = TypeVar("T")

START_SECONDS = 300.0
"""How long a process waits for the others until the first step is done."""
MEET_SECONDS = 60.0
"""How long forming the group may take, once every process is there."""
GRACE_SECONDS = 2.0
"""How long a process waits for what others have to say of a failure before it ends."""
_POLL_SECONDS = 0.05


class World:
    """The processes of a run, as one of them sees them; by itself it is alone."""

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        store: Store | None = None,
        *,
        start_seconds: float = START_SECONDS,
    ) -> None:
        """``start_seconds``: how long this process waits for the others until the first step is done."""
        self.rank, self.size = rank, size
        self.start_seconds = start_seconds
        self.act_as_one = True
        """Whether all processes raise Preempted and NonFiniteError in the same step; else one alone may."""
        self._store = store
        self._patience_seconds = MEET_SECONDS

    @property
    def is_first(self) -> bool:
        """Whether this process prepares, writes and speaks for all."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        return self.size > 1

    def device(self, device: torch.device) -> torch.device:
        """A device of this process's own: of several processes on a machine each takes another GPU.

        A launcher may let each process see one GPU alone; :meth:`connect` makes sure that it is not the same one.
        """
        if self.several and device.type == "mps":
            raise errors.ConfigError("device=mps is for one process; start it without torchrun.")
        if not self.several or device.type != "cuda":
            return device
        local, num_seen = environment_number("LOCAL_RANK", self.rank), torch.cuda.device_count()
        number = 0 if num_seen == 1 else local
        if device.index is not None or number >= num_seen:
            raise errors.ConfigError(
                f"device={device} cannot be given to process {local} of this machine: every process takes a GPU of its "
                f"own, and there are {num_seen}. Use device=cuda, and one process for each GPU."
            )
        own = torch.device("cuda", number)
        torch.cuda.set_device(own)
        return own

    def share(self, total: int) -> Share | None:
        """This process's images of a batch of ``total``: the shares differ by one image at most. None: all of them."""
        if not self.several:
            return None
        size, rest = divmod(total, self.size)
        return Share(self.rank * size + min(self.rank, rest), total)

    def shard(self, batch: Tensor) -> Tensor:
        """The rows of a whole batch [B, ...] that are this process's."""
        if not self.several:
            return batch
        size, rest = divmod(len(batch), self.size)
        share = self.share(len(batch))
        assert share is not None
        return batch[share.first : share.first + size + (self.rank < rest)]

    def require_images(self, smallest_batch: int) -> None:
        """ConfigError unless every process gets an image of every batch."""
        if smallest_batch < self.size:
            raise errors.ConfigError(
                f"a batch of {smallest_batch} images (an epoch's last one) cannot be shared by {self.size} processes. "
                "Change batch_size, or start fewer processes."
            )

    def all_reduce(self, values: Tensor) -> Tensor:
        """The sum of every process's ``values``, the same bits on all of them; the tensor itself is changed."""
        if self.several:
            dist.all_reduce(values)
        return values

    def connect(self, device: torch.device, *, patience: float | None = None) -> None:
        """Form the process group, once every process has built its part.

        ``patience``: seconds an exchange may take until :meth:`set_patience` is called (default: ``start_seconds``).
        Raises ConfigError where two processes have taken one GPU.
        """
        if self.several:
            self.publish(f"built/{self.rank}", {"gpu": _identity_of(device)})
            # here a failure of theirs is heard; forming the group would wait in silence
            gpus = [
                self.wait_for(f"built/{other}", self.start_seconds)["gpu"]
                for other in range(self.size)
            ]
            _require_one_each(gpus)
            dist.init_process_group(
                "nccl" if device.type == "cuda" else "gloo",
                store=c10d.PrefixStore("group", self._words),
                rank=self.rank,
                world_size=self.size,
                timeout=timedelta(seconds=MEET_SECONDS),
            )
            self.set_patience(self.start_seconds if patience is None else patience)

    def set_patience(self, seconds: float) -> None:
        """From now on a process that does not answer for so long is an error."""
        if self.several and seconds != self._patience_seconds:
            # its name before torch 2.14
            set_timeout = getattr(dist, "set_timeout", None) or c10d._set_pg_timeout
            set_timeout(timedelta(seconds=seconds))
            self._patience_seconds = seconds

    def publish(self, key: str, words: dict[str, Any]) -> None:
        """Leave a message for the others."""
        if self.several:
            self._words.set(key, json.dumps(words))

    def wait_for(self, key: str, seconds: float | None = None) -> dict[str, Any]:
        """The message of that name, as soon as somebody has left it; meanwhile a failure of theirs is raised here.

        Waits for ever where ``seconds`` is None: whoever has started the processes ends them when one dies.
        """
        until = None if seconds is None else time.monotonic() + seconds
        try:
            while not self._words.check([key]):
                self._raise_failure()
                if until is not None and time.monotonic() > until:
                    raise DistributedError(
                        f"another process did not get as far in {seconds:g} s ({key}). {_CURE}"
                    )
                time.sleep(_POLL_SECONDS)
            return json.loads(self._words.get(key))
        except dist.DistError:
            raise DistributedError(
                f"process 0, or what started the processes, is gone. {_CURE}"
            ) from None

    def broadcast(self, key: str, words: dict[str, Any]) -> dict[str, Any]:
        """The first process's ``words``, on all of them."""
        if self.is_first:
            self.publish(key, words)
            return words
        return self.wait_for(key, self.start_seconds)

    def claim(self, key: str, words: dict[str, str]) -> dict[str, str]:
        """What the first process has written under ``key``; the first to be there writes ``words``."""
        if self.is_first:
            return json.loads(self._words.compare_set(key, "", json.dumps(words)))
        return self.wait_for(key, self.start_seconds)

    def take_number(self) -> bool:
        """Whether no other process of the same number was here before."""
        return self._words.add(f"taken/{self.rank}", 1) == 1

    @property
    def _words(self) -> Store:
        assert self._store is not None
        return self._store

    def raise_failure(self) -> None:
        """Raise here what another process has failed of, if one has."""
        if self.several:
            self._raise_failure()

    def _raise_failure(self) -> None:
        if self._words.check(["failure"]):
            failure = json.loads(self._words.get("failure"))
            if failure["rank"] != self.rank:
                raise _failure_of(failure)

    def report_failure(self, error: BaseException) -> None:
        """Let the others know why this process ends; only the first to fail is heard."""
        failure = {
            "rank": self.rank,
            "error": type(error).__name__,
            "exit_code": error.exit_code if isinstance(error, SdclrError) else errors.EXIT_BUG,
            "message": str(error),
        }
        _within(GRACE_SECONDS, lambda: self._words.compare_set("failure", "", json.dumps(failure)))

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """Inside, a failed exchange is raised as what it means: another process's failure, or who does not answer.

        So is, in the first process, a signal before the first step, where it came because another process has died.
        """
        try:
            yield
        except StoppedEarly as stopped:
            if self.several and self.is_first and (gone := self._gone()):
                raise DistributedError(
                    f"process{'es' * (len(gone) > 1)} {', '.join(map(str, gone))} of {self.size} ended without a word "
                    f"before the first step (killed, out of memory?), and then this one was {stopped}"
                ) from stopped
            raise
        except RuntimeError as error:
            exchange = isinstance(error, dist.DistError) or _EXCHANGE.search(str(error))
            if not self.several or not exchange:
                raise
            raise self._explanation(error) from error

    def _gone(self) -> list[int]:
        """Who was here, and has no signal to tell of now: a launcher ends all others when one has died."""
        here = {rank for rank in range(1, self.size) if self._words.check([f"taken/{rank}"])}
        until = time.monotonic() + GRACE_SECONDS
        while here and time.monotonic() < until:
            here = {rank for rank in here if not self._words.check([_STOPPED.format(rank)])}
            time.sleep(_POLL_SECONDS)
        return sorted(here)

    def _explanation(self, error: RuntimeError) -> SdclrError:
        # who keeps the store may be who is gone
        told, silent = _within(2 * GRACE_SECONDS, self._reports) or (
            None,
            [0],
        )
        if told is not None:
            return told
        who = (
            f"process{'es' * (len(silent) > 1)} {', '.join(map(str, silent))}"
            if silent
            else "a process"
        )
        what = (
            "does not answer"
            if _TIMEOUT.search(str(error))
            else "ended without a word (killed, out of memory?)"
        )
        reason = next(iter(str(error).splitlines()), "")
        return DistributedError(
            f"{who} of {self.size} {what}. {_CURE} (The exchange said: {reason[:300]})"
        )

    def _reports(self) -> tuple[SdclrError | None, list[int]]:
        """After a failed exchange: what another process has failed of, or else those who have noticed nothing."""
        self._words.set(f"noticed/{self.rank}", "")
        silent, until = list(range(self.size)), time.monotonic() + GRACE_SECONDS
        while silent and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)
            try:
                self._raise_failure()
            except SdclrError as told:
                return told, []
            silent = [other for other in silent if not self._words.check([f"noticed/{other}"])]
        return None, silent

    def wait_until_over(self) -> None:
        """Until the first process has written everything: a launcher ends them all when one has ended with an error."""
        if self.is_first:
            self.publish("over", {})
        else:
            self.wait_for("over", self._patience_seconds)

    def leave(self) -> None:
        """The last thing to do; the first process, if it keeps the store, stays a moment for those who still listen.

        With a launcher's store nobody needs it: who waits for it in an exchange hears of its end when it has ended.
        """
        if not self.is_first:
            _within(GRACE_SECONDS, lambda: self._words.add("left", 1))
        elif not _launcher_keeps_store():
            # twice: a thread that is still in the store when Python ends would abort the process
            _within(2 * GRACE_SECONDS, self._wait_for_the_others)

    def _wait_for_the_others(self) -> int:
        until = time.monotonic() + GRACE_SECONDS
        while (left := self._words.add("left", 0)) < self.size - 1 and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)
        return left


ALONE = World()
_STOPPED = "stopped/{}"
_runs = itertools.count()  # of this process; all have as many
_CURE = "Nothing that was saved is lost: give the same command again, and it goes on from the last checkpoint."
_EXCHANGE = re.compile(
    r"gloo|nccl|connection (closed|reset|refused)|broken pipe|timed? ?out", re.IGNORECASE
)
_TIMEOUT = re.compile(r"timed? ?out", re.IGNORECASE)


def _identity_of(device: torch.device) -> str | None:
    """What no other GPU of any machine is called; None for a CPU."""
    return None if device.type != "cuda" else str(torch.cuda.get_device_properties(device).uuid)


def _require_one_each(gpus: list[str | None]) -> None:
    """ConfigError where two processes have the same GPU."""
    for number, gpu in enumerate(gpus):
        if gpu is not None and gpu in gpus[:number]:
            raise errors.ConfigError(
                f"processes {gpus.index(gpu)} and {number} have taken one GPU ({gpu}). Start one process for each GPU, "
                "or let the launcher show each process another one (srun --gpus-per-task=1)."
            )


def _failure_of(failure: dict[str, Any]) -> SdclrError:
    """Another process's error, as this one raises it."""
    kinds = {kind.__name__: kind for kind in SdclrError.__subclasses__()} | {
        StoppedEarly.__name__: Preempted
    }
    kind = kinds.get(failure["error"], DistributedError)
    known = failure["error"] in kinds
    message = failure["message"] if known else f"{failure['error']}: {failure['message']}"
    error = kind(f"process {failure['rank']}: {message}")
    error.reported_elsewhere = True
    return error


@contextlib.contextmanager
def joined(job: str = "", *, start_seconds: float = START_SECONDS) -> Iterator[World]:
    """This process among those it was started with; alone where it was started alone.

    ``start_seconds``: how long they wait for each other until the first step is done.
    ``job``: the same words on every process of a job, and others on those of another job: a process that finds another
    job, or another process of its own number, behind its MASTER_PORT ends, and leaves the others alone.
    An error of one process ends the others too, with the same exit code. While they ``act_as_one``, Preempted and
    NonFiniteError are raised by all of them in the same step; nobody leaves before the first process has written
    everything.
    """
    if world_size() == 1:
        yield ALONE
        return
    if dist.is_initialized():
        raise DistributedError(
            "torch.distributed is initialised already; let sdclr.pretrain form the process group."
        )
    world = World(rank(), world_size(), _store(start_seconds), start_seconds=start_seconds)
    _require_own_job(world, job)
    try:
        yield world
        world.wait_until_over()
    except BaseException as error:
        if isinstance(error, StoppedEarly):
            world.publish(_STOPPED.format(world.rank), {})
        agreed = isinstance(error, Preempted | NonFiniteError) and not error.reported_elsewhere
        if (
            agreed and world.act_as_one and not world.is_first
        ):  # the first process raises the same, and has to save
            error.reported_elsewhere = True  # type: ignore[attr-defined]
            try:
                world.wait_until_over()
            except SdclrError as told:
                if type(told) is not type(error):  # it could not save, for example
                    raise told from error
        else:
            world.report_failure(error)
        raise
    finally:
        world.leave()
        if dist.is_initialized():
            dist.destroy_process_group()


@contextlib.contextmanager
def shared_work(job: str) -> Iterator[World]:
    """Processes of which the first one does a job, and the others help where it lets them.

    The first one calls ``publish(BEGUN, {})`` once it may write; until then the others wait here, so that what it
    refuses is refused before they do anything. They stay until it has finished, however long that takes. A program that
    has formed a process group of its own shares its work out itself: its process is alone here.
    """
    if dist.is_initialized():
        yield ALONE
        return
    with joined(job) as world:
        world.act_as_one = False
        if not world.is_first:
            world.wait_for(BEGUN)
        yield world
        if world.is_first:
            world.publish(_FINISHED, {})
        else:
            world.wait_for(_FINISHED)


BEGUN, _FINISHED = "the first process may write", "the first process has written"


def _require_own_job(world: World, job: str) -> None:
    """DistributedError where this process has come to another job's port. Says nothing to whoever is there."""
    where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    ours = {name: os.environ.get(name, "") for name in ("TORCHELASTIC_RUN_ID", "SLURM_JOB_ID")}
    ours |= {"job": job, "WORLD_SIZE": str(world.size)}
    found = world.claim("job", ours)
    names = [name for name in ours if ours[name] != found.get(name)]
    if names:
        differences = [f"{name} {found.get(name)!r} there, {ours[name]!r} here" for name in names]
        raise DistributedError(
            f"another job uses MASTER_ADDR and MASTER_PORT, {where}: {'; '.join(differences)}. Give one of the two "
            "another MASTER_PORT."
        )
    if not world.take_number():
        raise DistributedError(
            f"another process {world.rank} has joined the job at {where} already. Give every process a RANK of its "
            "own, and every job a MASTER_PORT of its own."
        )


def _within(seconds: float, action: Callable[[], T]) -> T | None:
    """What ``action`` returns; None when it fails or takes longer: a store whose keeper hangs never answers."""
    results: list[T] = []

    def act() -> None:
        with contextlib.suppress(RuntimeError):
            results.append(action())

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(seconds)
    return results[0] if results else None


def _launcher_keeps_store() -> bool:
    """Whether the store outlives every process, as torchrun's does."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _store(start_seconds: float) -> Store:
    """The key-value store all processes see; one name space for each run of theirs in each attempt of torchrun."""
    return c10d.PrefixStore(
        f"sdclr/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{next(_runs)}",
        _connection(start_seconds),
    )


_connections: list[Store] = []


def _connection(start_seconds: float) -> Store:
    """The one of this process, which it keeps."""
    if not _connections:
        _connections.append(_connected(start_seconds))
    return _connections[0]


def _connected(start_seconds: float) -> Store:
    """Kept from run to run: another process may already use it for the next one."""
    try:
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        keeps = rank() == 0 and not _launcher_keeps_store()
        options: dict[str, Any] = {}
        if keeps and (listening := _listen(host, port)) is not None:
            options["master_listen_fd"] = listening
        return dist.TCPStore(  # type: ignore[attr-defined]
            host,
            port,
            world_size(),
            is_master=keeps,
            timeout=timedelta(seconds=start_seconds),
            wait_for_workers=False,  # in the store's own code, no signal would be heard
            **options,
        )
    except (KeyError, ValueError):
        raise DistributedError(
            f"WORLD_SIZE={world_size()} needs RANK, MASTER_ADDR and MASTER_PORT too. Start the processes with "
            "torchrun --nproc-per-node N -m sdclr pretrain ..."
        ) from None
    except (dist.DistError, RuntimeError) as error:
        raise DistributedError(
            f"the {world_size()} processes do not find each other: {error}"
        ) from None


def _listen(host: str, port: int) -> int | None:
    """A listening socket at ``host`` alone: by itself the store would listen on every interface of this machine.

    None, with a warning, where no interface has that address, behind a service's name for example.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise DistributedError(
            f"MASTER_ADDR={host!r} names no machine: {error.strerror}."
        ) from None
    listening = socket.socket(family)
    try:
        # a port that an ended job used is free at once; elsewhere the option means more
        if os.name == "posix":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(1024)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRNOTAVAIL:
            warnings.warn(
                f"no interface of this machine has the address MASTER_ADDR={host}: the processes meet on port {port} "
                "of every interface.",
                stacklevel=2,
            )
            return None
        raise DistributedError(
            f"port {port} at {host} cannot be used: {error.strerror}. Another job may use it; choose another "
            "MASTER_PORT."
        ) from None
    return listening.detach()
