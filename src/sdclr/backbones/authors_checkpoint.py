"""Read the checkpoints of the method's authors: {'epoch', 'state_dict', 'optim'} files of the 2021 reference.

Their networks keep both branches' norms in one module (``bn_list.0`` dense, ``bn_list.1`` pruned), name shortcuts
``downsample.conv`` / ``downsample.bn`` and prefix keys with ``module.``. Depth, width and stem are read from the
shapes. Every key ends up in the backbone or is left out for a stated reason; nothing pickled is ever executed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from sdclr.backbones import Backbone, BackboneConfig, build_backbone
from sdclr.backbones.config import IMAGENET_MEAN, IMAGENET_STD
from sdclr.backbones.resnet import DEPTHS, BasicBlock, Bottleneck
from sdclr.backbones.torch_files import read_tensors_of_torch
from sdclr.backbones.weights import require_usable_weights
from sdclr.backbones.without_data import without_data
from sdclr.compute.process_state import default_generators
from sdclr.errors import CheckpointError, ConfigError
from sdclr.safe_text import shown
from sdclr.storage.named_tensors import check_fit, load_strictly

Branch = Literal["target", "competitor"]

_OF_HEAD = re.compile(
    r"fc\.(fc\d\.(weight|bias)|bn\d\.(bn_list\.[01]\.)?"
    r"(weight|bias|running_mean|running_var|num_batches_tracked))"
)


@dataclass(frozen=True)
class AuthorsCheckpoint:
    """The contents of one of their files, under our names."""

    architecture: BackboneConfig
    backbone: Backbone
    """In eval mode, with the weights loaded and the chosen branch's norms."""
    classifier: dict[str, Tensor] | None
    """``weight`` [C, F] and ``bias`` [C] of a fine-tuned classifier; None for a pre-training checkpoint."""
    epoch: int | None
    left_out: dict[str, str]
    """Key in their file -> why it is not in the backbone."""
    num_matched: int
    stored_as: tuple[str, ...]
    """The types of the file's weights; computations use float32."""
    projector_layers: int | None
    """Layers of the projection head in the file; None for a fine-tuned network."""
    dual_norms: bool
    """Whether it has a second set of norms, the competitor's."""

    def summary(self) -> str:
        """Lines for the user: what was matched, and what was left out and why."""
        reasons: dict[str, int] = {}
        for reason in self.left_out.values():
            reasons[reason] = reasons.get(reason, 0) + 1
        a = self.architecture
        lines = [
            f"{a.name}, width {a.width}, {a.stem} stem, epoch {self.epoch if self.epoch is not None else 'unknown'}",
            f"norms: {'two sets' if self.dual_norms else 'one set'}, projection head: {self._head()}",
            f"matched: {self.num_matched} tensors, missing: 0",
            *(
                [f"stored as {', '.join(self.stored_as)}, now float32"]
                if self.stored_as != ("float32",)
                else []
            ),
            *(f"left out: {count} tensors, {reason}" for reason, count in reasons.items()),
        ]
        return "\n".join(lines)

    def _head(self) -> str:
        if self.classifier is not None:
            return f"none, a classifier of {len(self.classifier['weight'])} classes instead"
        return f"{self.projector_layers} layers" if self.projector_layers else "none"


def read_authors_checkpoint(path: Path | str, branch: Branch = "target") -> AuthorsCheckpoint:
    """Read ``path`` and load its backbone strictly. Raises CheckpointError for anything that does not fit exactly."""
    if branch not in ("target", "competitor"):
        raise ConfigError(f"branch must be target or competitor, got {branch!r}.")
    content = read_tensors_of_torch(Path(path))
    state = content.get("state_dict", content)
    if (
        not isinstance(state, Mapping)
        or not state
        or not all(isinstance(t, Tensor) for t in state.values())
    ):
        raise CheckpointError(
            f"{path} holds no state_dict of tensors; it has {', '.join(map(str, list(content)[:5]))}."
        )
    for key, tensor in state.items():
        _check_plain(key, tensor, str(path))
    epoch = content.get("epoch")
    tensors, classifier, left_out = _sort_keys(dict(state), branch, str(path))
    architecture = _architecture(tensors, str(path))
    # names and shapes cost nothing, but the tensors that they claim may not fit in memory
    with without_data():
        claimed = build_backbone(architecture).net.state_dict()
    check_fit(claimed, tensors, str(path))
    _check_classifier(classifier, str(path))
    require_usable_weights(tensors | (classifier or {}), str(path))
    # its first weights are replaced, so the caller's draws are not affected
    with default_generators(0, torch.device("cpu")):
        backbone = build_backbone(architecture)
    load_strictly(backbone.net, tensors, str(path))
    return AuthorsCheckpoint(
        architecture=architecture,
        backbone=backbone.eval(),
        classifier=classifier or None,
        epoch=epoch if isinstance(epoch, int) and not isinstance(epoch, bool) else None,
        left_out=left_out,
        num_matched=len(tensors),
        stored_as=_types_of_weights(tensors),
        projector_layers=sum(
            re.fullmatch(r"(module\.)?fc\.fc\d\.weight", key) is not None for key in state
        )
        or None,
        dual_norms=any(".bn_list." in key for key in state),
    )


def _check_plain(key: object, tensor: Tensor, where: str) -> None:
    """Require every number to be in the file: nothing sparse, quantised, without memory or repeated by strides."""
    plain = isinstance(key, str) and tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not plain or tensor.is_quantized or type(tensor) not in (Tensor, torch.nn.Parameter):
        raise CheckpointError(f"{where} was refused: {str(key)[:80]!r} is not a plain tensor.")
    if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        raise CheckpointError(
            f"{where} was refused: {str(key)[:80]!r} claims more numbers than the file holds."
        )


def _types_of_weights(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    types = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    return tuple(sorted(str(dtype).removeprefix("torch.") for dtype in types))


def _sort_keys(
    state: dict[str, Tensor], branch: Branch, where: str
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, str]]:
    """Their keys -> (our backbone's tensors, classifier, key left out -> reason)."""
    chosen = 0 if branch == "target" else 1
    dual = any(".bn_list." in key for key in state)
    if branch == "competitor" and not dual:
        raise ConfigError(
            f"{where} has one set of norms only, so there is no competitor branch; use the target's (--branch target)."
        )
    tensors: dict[str, Tensor] = {}
    classifier: dict[str, Tensor] = {}
    left_out: dict[str, str] = {}
    for key, tensor in state.items():
        name = key.removeprefix("module.")
        norms = re.search(r"\.bn_list\.(\w+)\.", name)
        if norms and norms[1] not in ("0", "1"):
            raise CheckpointError(
                f"{where} has the norms {shown(key)}; the authors' networks have bn_list.0 and bn_list.1."
            )
        if name in ("normalize.mean", "normalize.std"):
            _check_normalisation(name, tensor, where)
            left_out[key] = "normalisation constants, which the backbone has itself"
        elif name in ("fc.weight", "fc.bias"):
            _put(classifier, name.removeprefix("fc."), tensor, key, where)
            left_out[key] = "classifier"
        elif _OF_HEAD.fullmatch(name):
            left_out[key] = "projection head"
        elif norms and norms[1] != str(chosen):
            left_out[key] = "norms of the other branch"
        else:
            plain = name.replace(f".bn_list.{chosen}.", ".")
            plain = plain.replace("downsample.conv.", "downsample.0.").replace(
                "downsample.bn.", "downsample.1."
            )
            _put(tensors, plain, tensor, key, where)
    return tensors, classifier, left_out


def _put(tensors: dict[str, Tensor], name: str, tensor: Tensor, key: str, where: str) -> None:
    if name in tensors:
        raise CheckpointError(
            f"{where} has two tensors for {name}, the second as {key!r}: which of them is meant is unknown."
        )
    tensors[name] = tensor


def _check_classifier(classifier: Mapping[str, Tensor], where: str) -> None:
    """CheckpointError unless there is no classifier, or a weight [C, F] with a bias [C]."""
    if not classifier:
        return
    weight, bias = classifier.get("weight"), classifier.get("bias")
    if weight is None or bias is None or weight.ndim != 2 or bias.shape != weight.shape[:1]:
        shapes = {f"fc.{name}": list(tensor.shape) for name, tensor in classifier.items()}
        raise CheckpointError(
            f"{where} has a damaged classifier: {shapes}, where fc.weight [C, F] and fc.bias [C] belong together."
        )


def _check_normalisation(name: str, tensor: Tensor, where: str) -> None:
    expected = torch.tensor(IMAGENET_MEAN if name.endswith("mean") else IMAGENET_STD)
    in_its_type = expected.to(tensor.dtype).float()
    fits = tensor.is_floating_point() and tensor.numel() == 3
    if not (fits and torch.allclose(tensor.flatten().float(), in_its_type, atol=1e-6)):
        raise CheckpointError(
            f"{where} normalises its input by {tensor.flatten().tolist()}, not by ImageNet's {name}."
        )


def _architecture(tensors: Mapping[str, Tensor], where: str) -> BackboneConfig:
    """Depth, width and stem from names and shapes."""
    stem = tensors.get("conv1.weight")
    if stem is None or stem.ndim != 4:
        raise CheckpointError(
            f"{where} is not one of the authors' ResNets: it has no conv1.weight."
        )
    block = Bottleneck if "layer1.0.conv3.weight" in tensors else BasicBlock
    stages = [
        {key.split(".")[1] for key in tensors if key.startswith(f"layer{stage}.")}
        for stage in (1, 2, 3, 4)
    ]
    depths = tuple(len(blocks) for blocks in stages)
    name = next((name for name, known in DEPTHS.items() if known == (block, depths)), None)
    if name is None:
        raise CheckpointError(
            f"{where} has {depths} {block.__name__}s; supported are {', '.join(DEPTHS)}."
        )
    return BackboneConfig(
        name=name, width=stem.shape[0], stem="small" if stem.shape[-1] == 3 else "large"
    )
