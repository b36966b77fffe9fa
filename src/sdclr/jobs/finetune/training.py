"""The parts of a fine-tuning, one step of it, and its conversion to and from a checkpoint.

B images of a batch or of this process's shard of it, C classes, F feature dim.

The head sees features standardised by the mean and standard deviation of the starting backbone's features,
so that one learning rate suits every network; the saved head takes plain features.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdclr.backbones import Backbone
from sdclr.compute.device import autocast, in_float64
from sdclr.compute.optim import learning_rate, restore_state, state_names, state_of, step_if
from sdclr.compute.process_state import default_generators
from sdclr.compute.stateless_random import Stream, derive
from sdclr.data.collections.images import Images
from sdclr.data.epoch_order import epoch_draws
from sdclr.data.views.parameters import ViewSpec
from sdclr.errors import CheckpointError
from sdclr.jobs.finetune.balance import Balanced
from sdclr.jobs.finetune.config import FinetuneConfig
from sdclr.processes.exchange import of_first_process, sum_gradients
from sdclr.processes.step_state import StepState
from sdclr.processes.world import ALONE, World
from sdclr.storage.checkpoint import Checkpoint
from sdclr.storage.named_tensors import load_strictly

LOWEST_RATE = 1e-3
"""The learning rate at the end, as a share of its peak."""
WARMUP_SHARE = 0.05


@dataclass
class Training:
    """The parts of one fine-tuning."""

    config: FinetuneConfig
    backbone: Backbone
    head: nn.Linear
    mean: Tensor
    """[F], of the features at the start."""
    std: Tensor
    """[F]; 1 for a feature whose standard deviation is at most 1e-6 of the largest."""
    optimizer: torch.optim.Optimizer
    images: Images
    labels: Tensor
    """int64 [N], on the device."""
    balanced: Balanced
    spec: ViewSpec | None
    """None: images are not augmented."""
    features: Tensor | None
    """[N, F] on the device, if neither backbone nor images change."""
    device: torch.device
    precision: Any
    world: World = ALONE
    """The processes that were started together."""

    @property
    def is_shared(self) -> bool:
        """Whether several processes take each step together; with fixed features only the first one learns."""
        return self.world.several and not self.config.fixes_features

    @property
    def sharing(self) -> World | None:
        """The processes that take each step together; None if one learns alone."""
        return self.world if self.is_shared else None

    @property
    def steps_per_epoch(self) -> int:
        """Includes the short last batch, unless it is one image."""
        return len(batch_sizes(len(self.labels), self.config.batch_size))

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.config.epochs

    @property
    def is_full(self) -> bool:
        """Whether the backbone is trained, too."""
        return self.config.mode == "full"

    def images_of_step(self, step: int) -> int:
        """Images of the whole batch of a step, counted from 1."""
        sizes = batch_sizes(len(self.labels), self.config.batch_size)
        return sizes[(step - 1) % len(sizes)]

    def batches(self, epoch: int, first: int) -> Iterator[Tensor]:
        """Draws of an epoch from step ``first`` on, int64 [B] each: this process's shard of each batch."""
        draws = epoch_draws(
            len(self.labels),
            len(self.labels),
            seed=self.config.seed,
            epoch=epoch,
            weights=self.balanced.sampling,
        )
        sizes = batch_sizes(len(self.labels), self.config.batch_size)
        for batch in next(draws).split(sizes)[first:]:
            yield self.world.shard(batch) if self.is_shared else batch

    def inputs(self, epoch: int, first: int) -> Generator[tuple[Tensor, Tensor], None, None]:
        """For every step: images [B, C, S, S] in [0, 1] or features [B, F], and labels [B]."""
        batches = self.batches(epoch, first)
        num = len(self.labels)
        if self.features is not None:
            for draws in batches:
                rows = (draws % num).to(self.device)
                yield self.features[rows], self.labels[rows]
        elif self.spec is not None:
            seed = self.config.seed
            for views in self.images.views(batches, self.spec, seed=seed, epoch=epoch):
                yield views.a, self.labels[views.index]
        else:
            yield from self._stills([draws % num for draws in batches])

    def _stills(self, batches: list[Tensor]) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Images without augmentation, read ahead in the order of the epoch and assembled into batches."""
        assert self.backbone.image_size is not None
        order = torch.cat(batches)
        waiting: list[Tensor] = []
        sizes = [len(one) for one in batches]
        rows = iter(batches)
        for pixels in self.images.at(order.numpy()).stills(self.backbone.image_size):
            waiting.append(pixels)
            while sizes and sum(map(len, waiting)) >= sizes[0]:
                together = torch.cat(waiting)
                batch, rest = together[: sizes[0]], together[sizes[0] :]
                waiting, sizes = [rest], sizes[1:]
                labels = self.labels[next(rows).to(self.device)]
                yield batch.to(self.device).float() / 255, labels

    def to_train(self) -> None:
        """Switch to training: dropout is active in mode full; batch norms keep their statistics, only weights train.

        With batch statistics, features would differ between training and testing: a linear head fitted on the latter
        loses more in the first steps than few labels can recover.
        """
        self.head.train()
        self.backbone.train(self.is_full)
        for module in self.backbone.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()

    def standardised(self, features: Tensor) -> Tensor:
        """The head's input for features [B, F]."""
        return (features - self.mean) / self.std

    def plain_head(self) -> nn.Linear:
        """The same head for unstandardised features."""
        mean, std = in_float64(self.mean), in_float64(self.std)
        weight = in_float64(self.head.weight.detach()) / std
        bias = in_float64(self.head.bias.detach()) - weight @ mean
        head = nn.Linear(
            weight.shape[1], len(weight), device=self.mean.device, dtype=self.mean.dtype
        )
        with torch.no_grad():
            head.weight.copy_(weight.to(self.mean.dtype))
            head.bias.copy_(bias.to(self.mean.dtype))
        return head


def batch_sizes(num_images: int, batch_size: int) -> list[int]:
    """Images of each step: a last batch of one, on which batch norm cannot train, is joined to the one before it."""
    sizes = [batch_size] * (num_images // batch_size)
    rest = num_images % batch_size
    if rest == 1 and sizes:
        sizes[-1] += 1
    elif rest:
        sizes.append(rest)
    return sizes


@dataclass
class State(StepState):
    """The progress of a fine-tuning."""

    best: dict[str, Tensor] = field(default_factory=dict)
    """The weights of the best epoch."""
    best_epoch: int = 0
    """From 1; 0 before the first."""
    best_score: tuple[float, float] | None = None
    """Balanced accuracy and minus the log loss on validation images; None without any."""
    least_loss: float | None = None
    """The validation log loss that last reset the patience of early stopping; None before the first."""
    least_loss_epoch: int = 0
    """Its epoch, from 1."""


def agree(training: Training) -> None:
    """Broadcast the first process's standardisation and head to all processes that share steps."""
    if not training.is_shared:
        return
    training.world.connect(training.device)
    training.world.act_as_one = True
    with torch.no_grad():
        for tensor in (training.mean, training.std, training.head.weight, training.head.bias):
            of_first_process(tensor)


def train_step(training: Training, state: State, inputs: Tensor, labels: Tensor) -> None:
    """Forward, backward, update. Processes that share steps sum gradients, losses and stop requests."""
    config, optimizer = training.config, training.optimizer
    state.step += 1
    rate = learning_rate(
        state.step,
        peak=1.0,
        total_steps=training.total_steps,
        warmup_steps=WARMUP_SHARE * training.total_steps,
        final=LOWEST_RATE,
    )
    for group in optimizer.param_groups:
        group["lr"] = rate * group["peak"]
    optimizer.zero_grad(set_to_none=True)
    # for backbones with dropout: each process drops different units, the first those of a single-process run
    rank = training.world.rank
    seed = derive(config.seed, Stream.STEP, state.step, *((rank,) if rank else ()))
    with default_generators(seed, training.device):
        features = inputs
        if training.features is None:
            with (
                torch.set_grad_enabled(training.is_full),
                autocast(training.device, training.precision),
            ):
                features = training.backbone(inputs.to(training.mean.dtype))
        logits = training.head(training.standardised(features.to(training.mean.dtype)))  # [B, C]
        if training.balanced.log_shares is not None:
            logits = logits + training.balanced.log_shares
        losses = F.cross_entropy(logits, labels, reduction="none")  # [B]
        if training.balanced.loss_weights is not None:
            losses = losses * training.balanced.loss_weights[labels]
        # the processes' sum is the batch's mean
        (losses.sum() / training.images_of_step(state.step)).backward()
    if training.is_shared:
        sum_gradients(one for group in optimizer.param_groups for one in group["params"])
    state.add(losses.detach(), training.sharing)
    step_if(state.finite, optimizer)


def weights_of(training: Training) -> dict[str, Tensor]:
    """The trained weights: the head, and in mode full the backbone with its running statistics."""
    tensors = {f"head.{name}": one for name, one in training.head.state_dict().items()}
    if training.is_full:
        network = training.backbone.net.state_dict()
        tensors |= {f"backbone.{name}": one for name, one in network.items()}
    return tensors


def load_weights_of(training: Training, tensors: dict[str, Tensor], where: str) -> None:
    """Load what :func:`weights_of` returned."""
    parts: dict[str, dict[str, Tensor]] = {"head": {}, "backbone": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = tensor
    load_strictly(training.head, parts["head"], where)
    if training.is_full:
        load_strictly(training.backbone.net, parts["backbone"], where)


def to_checkpoint(training: Training, state: State, metrics_size: int) -> Checkpoint:
    """``metrics_size``: bytes of metrics.jsonl that belong to the checkpoint."""
    moments = state_of(training.optimizer)
    tensors = {f"now.{name}": one for name, one in weights_of(training).items()}
    tensors |= {f"best.{name}": one for name, one in state.best.items()}
    tensors |= {
        f"optimizer.{name}": one for name, one in moments.items() if isinstance(one, Tensor)
    }
    tensors |= {"mean": training.mean, "std": training.std, "loss_sum": state.loss_sum}
    facts = {
        "best_epoch": state.best_epoch,
        "best_score": state.best_score,
        "least_loss": state.least_loss,
        "least_loss_epoch": state.least_loss_epoch,
        "optimizer": {name: one for name, one in moments.items() if not isinstance(one, Tensor)},
        "metrics_size": metrics_size,
    }
    return Checkpoint(state.step, tensors, facts)


def restore(training: Training, state: State, checkpoint: Checkpoint, where: str) -> None:
    """Load a checkpoint; raises CheckpointError if it is not from such a fine-tuning."""
    needed = {"best_epoch", "best_score", "optimizer", "metrics_size"}
    if missing := needed - checkpoint.facts.keys():
        raise CheckpointError(
            f"{where} is not of a fine-tuning: it has no {', '.join(sorted(missing))}."
        )
    parts: dict[str, dict[str, Tensor]] = {"now": {}, "best": {}, "optimizer": {}}
    for name, tensor in checkpoint.tensors.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = tensor
    load_weights_of(training, parts["now"], where)
    names = state_names("adamw", 0.9) if checkpoint.step else ()
    saved: dict[str, Any] = parts["optimizer"] | checkpoint.facts["optimizer"]
    restore_state(training.optimizer, saved, names, where)
    for name, target in (
        ("mean", training.mean),
        ("std", training.std),
        ("loss_sum", state.loss_sum),
    ):
        found = parts.get(name, {}).get("")
        if found is None or found.shape != target.shape:
            raise CheckpointError(f"{where} has no {name} of this backbone.")
        target.copy_(found)
    state.step = checkpoint.step
    state.best = {name: one.to(training.device) for name, one in parts["best"].items()}
    state.best_epoch = checkpoint.facts["best_epoch"]
    score = checkpoint.facts["best_score"]
    state.best_score = None if score is None else (float(score[0]), float(score[1]))
    # checkpoints of earlier versions only have the loss of the best epoch
    least = checkpoint.facts.get("least_loss", None if score is None else -score[1])
    state.least_loss = None if least is None else float(least)
    state.least_loss_epoch = checkpoint.facts.get("least_loss_epoch", state.best_epoch)
