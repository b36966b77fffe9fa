"""How often two processes exchange something in a step: each exchange is time in which every device waits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from killing import config
from sdclr import finetune, pretrain
from sdclr.batch import Views
from sdclr.data import DataConfig
from sdclr.jobs.finetune import loop as finetune_loop
from sdclr.jobs.pretrain import step as step_module
from sdclr.jobs.pretrain.training import Training, TrainingState
from sdclr.processes.synchronised_norm import SynchronisedBatchNorm
from several_processes import codes, started

pytestmark = pytest.mark.processes

PASSES_BACKWARD = 2
"""Forward and backward."""
OF_A_NORM = 2
OF_THE_LOSS = 3
"""Projections, normalisers, the gradient of the loss."""
OF_THE_NUMBERS = 1
"""Loss, whether it is finite, whether somebody is to stop."""
BUCKETS = 1
"""Of gradients; this network's fit into one."""

LAYING_OUT = 2
"""In the first step alone: torch's DistributedDataParallel agrees on the layout of its buckets."""


def num_exchanges() -> int:
    """Collectives of this process so far, those of torch's DistributedDataParallel among them."""
    group = dist.distributed_c10d._get_default_group()
    return int(group._get_sequence_number_for_group())


@pytest.mark.parametrize("method", ["simclr", "sdclr"])
def test_a_step_on_two_processes_has_the_exchanges_that_are_written_down_and_no_more(
    tmp_path: Path, method: str
) -> None:
    def act(rank: int) -> None:
        train_step = step_module.train_step
        found: list[tuple[int, int, int]] = []

        def counted(training: Training, state: TrainingState, views: Views) -> None:
            passes = 0

            def count(*_: Any) -> None:
                nonlocal passes
                passes += 1

            norms = [m for m in training.method.modules() if isinstance(m, SynchronisedBatchNorm)]
            hooks = [norm.register_forward_hook(count) for norm in norms]
            before = num_exchanges()
            train_step(training, state, views)
            found.append((state.step, num_exchanges() - before, passes))
            for hook in hooks:
                hook.remove()

        step_module.train_step = counted
        run = config().with_values({"epochs": 1, "method": {"name": method}})
        pretrain(run, tmp_path / "x")
        (tmp_path / f"{rank}.json").write_text(json.dumps(found))

    assert codes(started(2, act)) == [0, 0]
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert len(found) >= 3
        for step, exchanges, passes in found:
            assert passes > 0
            of_norms = passes * OF_A_NORM * PASSES_BACKWARD
            laid_out_anew = LAYING_OUT if step == 1 else 0
            assert exchanges == (of_norms + OF_THE_LOSS + BUCKETS + OF_THE_NUMBERS + laid_out_anew)


def test_a_step_of_fine_tuning_on_two_processes_has_two_exchanges(tmp_path: Path) -> None:
    run = pretrain(config().with_values({"epochs": 1}), tmp_path / "run")
    data = DataConfig(name="digits", validation_per_class=18)

    def act(rank: int) -> None:
        train_step = finetune_loop.train_step
        found: list[int] = []

        def counted(*arguments: Any) -> None:
            before = num_exchanges()
            train_step(*arguments)
            found.append(num_exchanges() - before)

        finetune_loop.train_step = counted
        finetune(run, data, tmp_path / "m", mode="full", epochs=1, batch_size=100)
        (tmp_path / f"{rank}.json").write_text(json.dumps(found))

    assert codes(started(2, act)) == [0, 0]
    assert json.loads((tmp_path / "0.json").read_text()) == [2, 2, 2], "gradients, and numbers"
