"""SIGKILL pre-training runs at random instants, resume each, and compare its end with a run that nobody killed.

    python benchmarks/kill_campaign.py [--kills 1000] [--seed 0] [--thread] [--json FILE]

The run: SDCLR on scikit-learn's digits, 9 steps in 3 epochs, a checkpoint after every step. Each kill has a fresh run
folder and its own ending. Processes are forked from one that has imported torch and computed nothing yet. Instants are
uniform over the time that an undisturbed run takes; every third kill is aimed: it waits for a save of a random number
and falls within the time that a save takes. "Inside a save" is what the run itself noted in shared memory. Equal means
equal sha256 over every tensor of the last checkpoint (weights, both norm branches, masks, optimiser), over the trained
backbone, and over the losses of all epochs. With --thread the killed runs leave their writing to a thread, as they
would beside a CUDA device; the undisturbed run does not.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import mmap
import os
import random
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from sdclr import PretrainConfig, Run, pretrain, recipe
from sdclr.compute.device import describe_device
from sdclr.errors import CheckpointError
from sdclr.jobs.pretrain import checkpoint_writer
from sdclr.jobs.status import read_status
from sdclr.storage.checkpoint import CheckpointFolder
from sdclr.storage.tensor_files import read_tensors

SETTINGS = [
    "backbone.width=2",
    "views.size=8",
    "batch_size=150",
    "epochs=3",
    "checkpoint_every_minutes=1e-9",
]
SAVES = 10
"""Of one run: before the first step, and after each."""
FAILED = 70


def config() -> PretrainConfig:
    return recipe("digits_sdclr").with_overrides(SETTINGS)


def state_hash(folder: Path) -> str:
    """sha256 over everything a finished run holds."""
    run = Run(folder)
    newest = run.checkpoints.newest()
    assert newest is not None
    digest = hashlib.sha256(str(newest.step).encode())
    for tensors in (newest.tensors, read_tensors(run.backbone_path)[0]):
        for name, tensor in sorted(tensors.items()):
            digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    for line in run.metrics():
        digest.update(
            repr((line["epoch"], line["step"], line["loss"], line.get("mask_churn"))).encode()
        )
    return digest.hexdigest()


def forked(action: Callable[[], object]) -> int:
    """The process number of a child that does ``action`` and ends: with 0, or with FAILED and a traceback."""
    with warnings.catch_warnings():
        # of forking a process that once had threads
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child:
        return child
    code = FAILED
    try:
        torch.set_num_threads(1)
        action()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """Exit code of a child, or minus the number of the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _over(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


class Saves:
    """What a forked run notes of its saves, in shared memory: how many were begun, and how many are over."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, 2)  # shared with every child forked after this

    @property
    def begun(self) -> int:
        return self.memory[0]

    @property
    def inside(self) -> bool:
        return self.memory[0] != self.memory[1]

    def noted(self, save: Callable[..., None]) -> Callable[..., None]:
        def noted_save(*arguments: Any, **keywords: Any) -> None:
            self.memory[0] += 1
            save(*arguments, **keywords)
            self.memory[1] += 1

        return noted_save


@dataclass
class Figures:
    """What came of a campaign."""

    kills: int = 0
    inside_a_save: int = 0
    before_the_first_checkpoint: int = 0
    unreadable_checkpoints: int = 0
    told_truly: int = 0
    """Of the kills that left a run folder; or as done, where the backbone was saved already."""
    run_folders: int = 0
    equal_endings: int = 0
    at_step: dict[int, int] = field(default_factory=dict)
    """Step of the newest checkpoint at the kill -> number of kills."""


def campaign(folder: Path, kills: int, seed: int, *, thread: bool = False) -> Figures:
    """Kill ``kills`` runs below ``folder`` and let each go on to its end; ``thread``: one writes their checkpoints."""
    rng, figures = random.Random(seed), Figures()
    assert ended(forked(lambda: pretrain(config(), folder / "warm"))) == 0, (
        "the undisturbed run failed"
    )
    begun = time.perf_counter()
    assert ended(forked(lambda: pretrain(config(), folder / "whole"))) == 0
    whole_seconds, expected = time.perf_counter() - begun, state_hash(folder / "whole")
    while figures.kills < kills:
        out, saves = folder / f"run-{figures.kills}", Saves()
        instant = rng.uniform(0, whole_seconds)
        aimed = rng.randrange(1, SAVES + 1) if figures.kills % 3 == 2 else None

        def run(out: Path = out, saves: Saves = saves) -> None:
            CheckpointFolder.save = saves.noted(CheckpointFolder.save)  # type: ignore[method-assign]
            if thread:
                checkpoint_writer.BESIDE_DEVICES = ("cpu",)
            pretrain(config(), out)

        child = forked(run)
        if aimed is None:
            time.sleep(instant)
        else:
            while saves.begun < aimed and not _over(child):
                time.sleep(0.0002)
            time.sleep(rng.uniform(0, 0.012))
        os.kill(child, signal.SIGKILL)
        if ended(child) == -signal.SIGKILL:
            _account(figures, out, saves, expected)
        _remove(out)  # a run that was over before its kill does not count
    return figures


def _account(figures: Figures, out: Path, saves: Saves, expected: str) -> None:
    figures.kills += 1
    figures.inside_a_save += saves.inside
    steps = Run(out).checkpoints.steps()
    figures.before_the_first_checkpoint += not steps
    if steps:
        figures.at_step[steps[0]] = figures.at_step.get(steps[0], 0) + 1
    for path in (out / "checkpoints").glob("ckpt-*"):
        try:
            read_tensors(path)
        except CheckpointError:
            figures.unreadable_checkpoints += 1
    if Run(out).exists:
        figures.run_folders += 1
        found, state = (
            read_status(out),
            "done" if Run(out).backbone_path.is_file() else "interrupted",
        )
        figures.told_truly += (found.state, found.checkpoint_step) == (
            state,
            steps[0] if steps else None,
        )
    if ended(forked(lambda: pretrain(config(), out))) == 0:
        figures.equal_endings += state_hash(out) == expected


def _remove(out: Path) -> None:
    for path in sorted(out.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    with contextlib.suppress(FileNotFoundError):
        out.rmdir()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--thread", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        figures = campaign(Path(folder), arguments.kills, arguments.seed, thread=arguments.thread)
    facts = {
        "hardware": describe_device(torch.device("cpu")),
        "torch": torch.__version__,
        "setting": {"kills": arguments.kills, "seed": arguments.seed, "thread": arguments.thread},
        **asdict(figures),
        "seconds": round(time.perf_counter() - begun, 1),
    }
    facts["at_step"] = dict(sorted(figures.at_step.items()))
    print(json.dumps(facts, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
