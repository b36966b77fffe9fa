"""Several processes that train one model: their ranks, how they agree, and how each learns of another's failure.

torchrun starts them, or any launcher that sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT. The first process (rank
0) prepares the run folder and is the only one to write to it; the others follow. On one process everything here is the
identity. Tensors go through the process group (NCCL on CUDA, gloo on a CPU); messages (ready, failed and why, over)
through its key-value store, which still answers when a process has died. Knows no method and no data.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import distributed_c10d as c10d
from torch.distributed.distributed_c10d import Store

from sdclr import errors
from sdclr.batch import Share
from sdclr.errors import DistributedError, NonFiniteError, Preempted, SdclrError
from sdclr.processes.environment import environment_number, rank, world_size
from sdclr.processes.heartbeat import heartbeat
from sdclr.processes.messages import Messages
from sdclr.processes.rendezvous import ListeningStore, store_of_all
from sdclr.processes.signals import StoppedEarly

START_SECONDS = 300.0
"""How long a process waits for the others until the first step is done."""
RENDEZVOUS_SECONDS = 60.0
"""How long forming the group may take, once every process is ready."""


class World:
    """The processes of a run, as seen by one of them; by default there is only one."""

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
        """Whether all processes raise Preempted and NonFiniteError in the same step; else a single one may."""
        self.messages = Messages(rank, size, store, start_seconds)
        self._store = store
        self.patience_seconds = RENDEZVOUS_SECONDS

    @property
    def is_first(self) -> bool:
        """Whether this process prepares, writes and reports for all."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        return self.size > 1

    def device(self, device: torch.device) -> torch.device:
        """This process's own device: several processes on a machine each take a different GPU.

        A launcher may let each process see only one GPU; :meth:`connect` checks that these are different.
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
        """This process's rows of a whole batch [B, ...]."""
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
        """The sum of every process's ``values``, the same bits on all of them; modifies the tensor in place."""
        if self.several:
            dist.all_reduce(values)
        return values

    def connect(self, device: torch.device, *, patience: float | None = None) -> None:
        """Form the process group, once every process has built its part.

        ``patience``: seconds an exchange may take until :meth:`set_patience` is called (default: ``start_seconds``).
        Raises ConfigError where two processes have taken one GPU.
        """
        if self.several:
            self.messages.publish(f"built/{self.rank}", {"gpu": _identity_of(device)})
            # failures of others are raised here; forming the group would ignore them
            gpus = [
                self.messages.wait_for(f"built/{other}", self.start_seconds)["gpu"]
                for other in range(self.size)
            ]
            _require_one_each(gpus)
            self._form_group("nccl" if device.type == "cuda" else "gloo")
            self.set_patience(self.start_seconds if patience is None else patience)

    def _form_group(self, backend: str) -> None:
        assert self._store is not None
        store = c10d.PrefixStore("group", self._store)
        listens = backend == "gloo"  # to signals and to others' failures, while the group forms
        dist.init_process_group(
            backend,
            store=ListeningStore(store, self.messages.raise_failure) if listens else store,
            rank=self.rank,
            world_size=self.size,
            timeout=timedelta(seconds=RENDEZVOUS_SECONDS),
        )
        if listens:  # groups that are made later need features that only torch's own store has
            group = dist.group.WORLD
            assert group is not None
            c10d._world.pg_map[group] = ("gloo", store)

    def set_patience(self, seconds: float) -> None:
        """From now on, a process that does not answer for ``seconds`` is an error."""
        if self.several and seconds != self.patience_seconds:
            # its name before torch 2.14
            set_timeout = getattr(dist, "set_timeout", None) or c10d._set_pg_timeout
            set_timeout(timedelta(seconds=seconds))
            self.patience_seconds = seconds

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """Inside the block, a failed exchange raises its cause: another process's failure, or which does not answer.

        The same holds for a signal before the first step that came because another process has died.
        """
        try:
            yield
        except StoppedEarly as stopped:
            self.messages.require_none_gone(stopped)
            raise
        except RuntimeError as error:
            exchange = isinstance(error, dist.DistError) or _EXCHANGE.search(str(error))
            if not self.several or not exchange:
                raise
            raise self.messages.explanation(error) from error


ALONE = World()
_EXCHANGE = re.compile(
    r"gloo|nccl|connection (closed|reset|refused)|broken pipe|timed? ?out", re.IGNORECASE
)


def _identity_of(device: torch.device) -> str | None:
    """A GPU's globally unique name; None for a CPU."""
    return None if device.type != "cuda" else str(torch.cuda.get_device_properties(device).uuid)


def _require_one_each(gpus: list[str | None]) -> None:
    """ConfigError where two processes have the same GPU."""
    for number, gpu in enumerate(gpus):
        if gpu is not None and gpu in gpus[:number]:
            raise errors.ConfigError(
                f"processes {gpus.index(gpu)} and {number} have taken one GPU ({gpu}). Start one process for each GPU, "
                "or let the launcher show each process another one (srun --gpus-per-task=1)."
            )


@contextlib.contextmanager
def joined(job: str = "", *, start_seconds: float = START_SECONDS) -> Iterator[World]:
    """The world of this process and those it was started with; ALONE where it is the only one.

    ``start_seconds``: how long they wait for each other until the first step is done. ``job``: a text that is the same
    on every process of a job, and differs between jobs: a process that finds another job, or another process of its own
    rank, behind its MASTER_PORT ends without disturbing the others. An error of one process ends the others too, with
    the same exit code. While they ``act_as_one``, Preempted and NonFiniteError are raised by all of them in the same
    step; no process leaves before the first one has written everything.
    """
    if world_size() == 1:
        yield ALONE
        return
    if dist.is_initialized():
        raise DistributedError(
            "torch.distributed is initialised already; let sdclr.pretrain form the process group."
        )
    store = store_of_all(start_seconds)
    world = World(rank(), world_size(), store, start_seconds=start_seconds)
    _require_own_job(world, job)
    with heartbeat(world.rank, store):
        yield from _together(world)


def _together(world: World) -> Iterator[World]:
    """The rest of :func:`joined`, once the others are known."""
    try:
        yield world
        world.messages.wait_until_over(world.patience_seconds)
    except BaseException as error:
        if isinstance(error, StoppedEarly):
            world.messages.report_stop()
        agreed = isinstance(error, Preempted | NonFiniteError) and not error.reported_elsewhere
        # the first process raises the same error, and has to save
        if agreed and world.act_as_one and not world.is_first:
            error.reported_elsewhere = True  # type: ignore[attr-defined]
            try:
                world.messages.wait_until_over(world.patience_seconds)
            except SdclrError as reported:
                if type(reported) is not type(error):  # it could not save, for example
                    raise reported from error
        else:
            world.messages.report_failure(error)
            # in an exchange the first one would wait for this one's end
            own = isinstance(error, SdclrError) and not error.reported_elsewhere
            if isinstance(error, KeyboardInterrupt) and not world.is_first:
                error.reported_elsewhere = True  # type: ignore[attr-defined]  # the first one speaks
            elif own and not dist.is_initialized() and world.messages.first_says(error):
                error.reported_elsewhere = True  # type: ignore[attr-defined]
        raise
    finally:
        world.messages.leave()
        if dist.is_initialized():
            dist.destroy_process_group()


@contextlib.contextmanager
def shared_work(job: str) -> Iterator[World]:
    """Processes whose first one does a job, while the others help where it lets them.

    The first one calls ``publish(MAY_WRITE, {})`` once it may write; until then the others wait here, so that the
    errors it raises come before they do anything. They stay until it has finished, however long that takes; one that
    sends no heartbeat for messages.SILENT_SECONDS ends them all. A program that has formed a process group of its own
    distributes its work itself: its process is alone here.
    """
    if dist.is_initialized():
        yield ALONE
        return
    with joined(job) as world:
        world.act_as_one = False
        if not world.is_first:
            world.messages.wait_for(MAY_WRITE)
        yield world
        if world.is_first:
            world.messages.publish(_FINISHED, {})
        else:
            world.messages.wait_for(_FINISHED)


MAY_WRITE, _FINISHED = "the first process may write", "the first process has written"


def _require_own_job(world: World, job: str) -> None:
    """DistributedError where this process uses another job's port; that job is not disturbed."""
    where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    ours = {name: os.environ.get(name, "") for name in ("TORCHELASTIC_RUN_ID", "SLURM_JOB_ID")}
    ours |= {"job": job, "WORLD_SIZE": str(world.size)}
    found = world.messages.claim("job", ours)
    names = [name for name in ours if ours[name] != found.get(name)]
    if names:
        differences = [f"{name} {found.get(name)!r} there, {ours[name]!r} here" for name in names]
        raise DistributedError(
            f"another job uses MASTER_ADDR and MASTER_PORT, {where}: {'; '.join(differences)}. Give one of the two "
            "another MASTER_PORT."
        )
    if not world.messages.take_number():
        raise DistributedError(
            f"another process {world.rank} has joined the job at {where} already. Give every process a RANK of its "
            "own, and every job a MASTER_PORT of its own."
        )
