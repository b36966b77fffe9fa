"""One step: one forward, one backward, one update.

B images of this process's shard of a batch. The host never waits for the device here: whether a loss was finite is
determined on the device and read one step later.
"""

from __future__ import annotations

import torch

from sdclr.batch import Views
from sdclr.compute.device import autocast, parameter_dtype
from sdclr.compute.late_answer import LateAnswer
from sdclr.compute.optim import set_learning_rate, step_if
from sdclr.compute.process_state import default_generators
from sdclr.compute.stateless_random import Stream, derive
from sdclr.data.decoding.decode import printable
from sdclr.errors import NonFiniteError
from sdclr.jobs.pretrain.training import Training, TrainingState
from sdclr.methods.contract import require_loss_per_image
from sdclr.processes.exchange import gather_rows


def train_step(training: Training, state: TrainingState, views: Views) -> None:
    """Forward, backward, update. Several processes sum their losses and stop requests."""
    world, optimizer = training.world, training.optimizer
    state.step += 1
    set_learning_rate(optimizer, training.learning_rate(state.step))
    # first: with CUDA graphs the forward pass overwrites them
    optimizer.zero_grad(set_to_none=True)
    # for backbones with dropout
    with default_generators(_seed_of(training, state.step), training.device):
        with autocast(training.device, training.precision):
            loss_per_image = training.loss_per_image(laid_out(training, views))  # [B]
        require_loss_per_image(loss_per_image, views)
        num_images = views.share.total if views.share else len(loss_per_image)
        # the processes' mean is the batch's mean
        (loss_per_image.sum() / (num_images / world.size)).backward()
    state.add(loss_per_image.detach(), training.sharing)
    if world.several:
        _share_rows(training, views)
    step_if(state.finite, optimizer)
    require_finite(training, state)  # for the previous step: this one's answer is not here yet
    state.unread = LateAnswer(state.finite), state.step


def _share_rows(training: Training, views: Views) -> None:
    """Exchange the rows of per-image state that the processes have written in this step.

    For an image that was drawn twice, all processes keep the later row.
    """
    assert views.share is not None
    method = training.method
    for name in method.per_image:
        rows = method.get_buffer(name)
        own = views.index.to(rows.device)
        index, written = gather_rows(own, views.share), gather_rows(rows[own], views.share)
        place = torch.arange(len(index), device=rows.device)
        last = place.new_full((len(rows),), -1).scatter_reduce(0, index, place, "amax")
        kept = last[index] == place
        rows[index[kept]] = written[kept]


def _seed_of(training: Training, step: int) -> int:
    """Each process drops different units; the first drops those of a single-process run."""
    rank = training.world.rank
    return derive(training.config.seed, Stream.STEP, step, *((rank,) if rank else ()))


def laid_out(training: Training, views: Views) -> Views:
    """The views in the dtype and memory format of the weights."""
    dtype = parameter_dtype(training.precision)
    a, b = (
        view.to(dtype=dtype, memory_format=training.memory_format) for view in (views.a, views.b)
    )
    return views._replace(a=a, b=b)


def require_finite(training: Training, state: TrainingState) -> None:
    """Raise NonFiniteError if the loss of the last unchecked step is not finite."""
    if state.unread is None:
        return
    (answer, step), state.unread = state.unread, None
    if answer.read():
        return
    state.step = step - 1  # the last one that changed the weights
    epoch, number = divmod(state.step, training.steps_per_epoch)
    positions = next(training.batches(epoch, number)).tolist()
    shown = [printable(training.images.names[i]) for i in positions]
    raise NonFiniteError(
        f"the loss of step {step} is not a finite number (learning rate {training.learning_rate(step):.3g}). No step "
        f"from there on changed the weights, and nothing of it was saved. Its {len(shown)} images: "
        f"{', '.join(shown[:16])}{', ...' if len(shown) > 16 else ''}. Likely causes: steps too large, a "
        "temperature too low, a precision that overflows. Lower optimizer.learning_rate, lengthen "
        "optimizer.warmup_epochs, raise method.temperature, or use precision=fp32, in a new --out."
    )
