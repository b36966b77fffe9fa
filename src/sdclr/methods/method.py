"""What a pre-training method is: views in, a loss per image out, and hooks around an epoch.

The contract. It is checked during training, and by one test suite that covers every method.

- ``forward`` returns the loss per image [B], never a mean; its mean over the batch is minimised.
- State that changes during training is a parameter or a persistent buffer, so that a checkpoint contains it. A plain
  attribute that changes would be lost when a run resumes, and would be recompiled each time: it is an error.
- State with one row per training image is per-image state (:meth:`Method.register_per_image`), shared by processes.
- With several processes, ``views.share`` gives the images of the batch that are here. A method whose losses depend on
  the other images of the batch passes it on (``nt_xent`` takes it); otherwise it sets ``batch_matters = False``.
- The data side never sees a method: its requests (:meth:`Method.view_strength`, :meth:`Method.random_operations`,
  :meth:`Method.sampling_weights`) are plain values, such as a tensor [N], queried once before every epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from sdclr.batch import RandomOperations, Views
from sdclr.errors import ConfigError
from sdclr.methods.config import MethodConfig
from sdclr.methods.projector import Network, projector


@dataclass(frozen=True)
class Parts:
    """The parts that a method is built from."""

    backbone: nn.Module
    """Images [B, C, S, S] -> features [B, F]."""
    feature_dim: int
    num_images: int
    """Training images N."""
    num_epochs: int
    seed: int
    prepare: Callable[[nn.Module], nn.Module] = lambda network: network
    """Applied to the whole network before a method copies it."""

    def network(
        self, projector_layers: int, projection_dim: int, *, last_norm: bool = True
    ) -> nn.Module:
        """The backbone with a projection head: images [B, C, S, S] -> projections [B, D]."""
        head = projector(self.feature_dim, projection_dim, projector_layers, last_norm=last_norm)
        return self.prepare(Network(self.backbone, head))


class Method(nn.Module):
    """Base of the methods. ``network`` is kept after training; everything else may be discarded.

    >>> import torch
    >>> from sdclr import nt_xent
    >>> class Mine(Method):
    ...     def __init__(self, network):
    ...         super().__init__()
    ...         self.network = network
    ...     def forward(self, views):
    ...         return nt_xent(self.network(views.a), self.network(views.b), 0.2, views.share)
    >>> a, b = torch.rand(2, 5, 3, 2, 2)
    >>> Mine(nn.Flatten())(Views(a, b, torch.arange(5))).shape
    torch.Size([5])
    """

    config: ClassVar[type[MethodConfig]]
    """Settings, for a method from outside the package; ours are named in the METHODS table."""
    display_name: ClassVar[str]
    """Its name in tables; likewise."""
    batch_matters: ClassVar[bool] = True
    """Whether an image's loss depends on the other images of the batch."""

    network: nn.Module

    def __init__(self) -> None:
        super().__init__()
        self.per_image: tuple[str, ...] = ()

    @classmethod
    def from_config(cls, config: Any, parts: Parts) -> Self:
        """Build the method. Default: the network with its head, then every other setting by its name."""
        settings = config.model_dump(exclude={"name", "projector_layers", "projection_dim"})
        network = parts.network(config.projector_layers, config.projection_dim)
        return cls(network, **settings)  # type: ignore[call-arg]  # the subclass takes them

    def forward(self, views: Views) -> Tensor:
        """Loss per image [B]; its mean is minimised."""
        raise NotImplementedError

    def on_epoch_start(self, epoch: int) -> None:
        """Called before the first step of every epoch (0-based), and not again when a run resumes inside it."""

    def on_epoch_end(self, epoch: int) -> None:
        """Called after the last step of every epoch (0-based), before it is logged and saved."""

    def view_strength(self) -> Tensor | None:
        """[N] at least 0: factor on the colour jitter of each training image; None: 1 for all.

        Queried before an epoch, and again if a run resumes inside it: only the epoch hooks may change it.
        """
        return None

    def random_operations(self) -> RandomOperations | None:
        """Operations of RandAugment on the finished views, image by image; None: no operations.

        Queried before an epoch, like :meth:`view_strength`.
        """
        return None

    def sampling_weights(self) -> Tensor | None:
        """[N] at least 0: how often each training image is drawn, relative to the others; None: each once per epoch.

        Queried before an epoch, like :meth:`view_strength`. An image may then occur twice in a
        batch, with different views each time.
        """
        return None

    def measurements(self) -> dict[str, Tensor]:
        """Scalars for the epoch's log; tensors stay on their device.

        Called after :meth:`on_epoch_end`: what that sets for the next epoch is measured as the next epoch will use it.
        """
        return {}

    def facts(self) -> dict[str, Any]:
        """How it has resolved its settings, for the run folder; passed to ``config.as_resolved`` when a run resumes."""
        return {}

    def describe(self, config: Any) -> list[str]:
        """Lines for the user who starts a run with these settings."""
        return []

    def register_per_image(self, name: str, state: Tensor) -> None:
        """A buffer [N, ...] with a row for every training image, saved in checkpoints.

        ``forward`` may write the rows ``views.index``; several processes exchange their rows after the step. An image
        may be in a batch more than once (:meth:`sampling_weights`), and then one of its rows is kept.
        """
        if not (state.is_floating_point() or state.dtype.is_signed) or state.ndim == 0:
            raise ConfigError(
                f"state per image is numbers [N, ...], got {state.dtype} {list(state.shape)} for {name!r}."
            )
        self.register_buffer(name, state)
        self.per_image = (*self.per_image, name)
