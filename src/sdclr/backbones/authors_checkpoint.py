"""Read the checkpoints of the method's authors: {'epoch', 'state_dict', 'optim'} files of the 2021 reference.

Their networks keep both branches' norms in one module (``bn_list.0`` dense, ``bn_list.1`` pruned), name shortcuts
``downsample.conv`` / ``downsample.bn`` and prefix keys with ``module.``. Depth, width and stem are read from the
shapes. Every key ends up in the backbone or is left out for a stated reason; nothing pickled is ever executed.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from sdclr.backbones import Backbone, BackboneConfig, build_backbone
from sdclr.backbones.config import IMAGENET_MEAN, IMAGENET_STD
from sdclr.backbones.resnet import DEPTHS, BasicBlock, Bottleneck
from sdclr.backbones.weights import require_usable_weights
from sdclr.backbones.without_data import without_data
from sdclr.compute.process_state import default_generators, silenced_warnings
from sdclr.errors import CheckpointError, ConfigError, MissingInputError
from sdclr.storage.named_tensors import check_fit, load_strictly

Branch = Literal["target", "competitor"]


@dataclass(frozen=True)
class AuthorsCheckpoint:
    """What one of their files holds, in our names."""

    architecture: BackboneConfig
    backbone: Backbone
    """In eval mode, with the weights loaded and the chosen branch's norms."""
    classifier: dict[str, Tensor] | None
    """``weight`` [C, F] and ``bias`` [C] of a fine-tuned classifier; None for a pre-training checkpoint."""
    epoch: int | None
    left_out: dict[str, str]
    """Key in their file -> why it is not in the backbone."""
    num_matched: int
    projector_layers: int | None
    """Layers of the projection head the file carries; None for a fine-tuned network."""
    dual_norms: bool
    """Whether it carries a second set of norms, the competitor's."""

    def summary(self) -> str:
        """Lines for a person: what was matched, and what was left out and why."""
        reasons: dict[str, int] = {}
        for reason in self.left_out.values():
            reasons[reason] = reasons.get(reason, 0) + 1
        a = self.architecture
        lines = [
            f"{a.name}, width {a.width}, {a.stem} stem, epoch {self.epoch if self.epoch is not None else 'unknown'}",
            f"norms: {'two sets' if self.dual_norms else 'one set'}, projection head: {self._head()}",
            f"matched: {self.num_matched} tensors, missing: 0",
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
    # a name and a shape cost nothing; what they claim may not fit any memory
    with without_data():
        claimed = build_backbone(architecture).net.state_dict()
    check_fit(claimed, tensors, str(path))
    _check_classifier(classifier, str(path))
    require_usable_weights(tensors | (classifier or {}), str(path))
    # its first weights are replaced: the caller's draws go on
    with default_generators(0, torch.device("cpu")):
        backbone = build_backbone(architecture)
    load_strictly(backbone.net, tensors, str(path))
    return AuthorsCheckpoint(
        architecture=architecture,
        backbone=backbone.eval(),
        classifier=classifier or None,
        epoch=epoch if isinstance(epoch, int) else None,
        left_out=left_out,
        num_matched=len(tensors),
        projector_layers=sum(
            re.fullmatch(r"(module\.)?fc\.fc\d\.weight", key) is not None for key in state
        )
        or None,
        dual_norms=any(".bn_list." in key for key in state),
    )


def read_tensors_of_torch(path: Path) -> Mapping[str, Any]:
    """What torch.save wrote into ``path``, a mapping of tensors and plain values; nothing pickled is executed."""
    if not path.is_file():
        raise MissingInputError(f"checkpoint {path} does not exist or is not a file.")
    _refuse_safetensors(path)
    _refuse_compressed(path)
    try:
        with silenced_warnings():  # torch's advice about a file that we refuse anyway
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} was refused: it holds more than tensors and plain values{_what(error)}."
        ) from None
    except (
        Exception
    ) as error:  # of a damaged or hostile file anything may come, and it is always the file's fault
        said = (str(error) or type(error).__name__).splitlines()[0].partition(". In PyTorch 2.6")[0]
        raise CheckpointError(f"{path} is damaged or not a PyTorch checkpoint: {said}") from None
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__}, not a checkpoint with a state_dict."
        )
    return content


def _what(error: Exception) -> str:
    """What the unpickler met, without torch's advice to load the file all the same."""
    met = re.search(r"GLOBAL ([\w.]{1,80})|Unsupported (?:class|operand) ([\w.]{1,80})", str(error))
    return f" ({met[1] or met[2]})" if met else ""


def _refuse_safetensors(path: Path) -> None:
    """Newer versions of torch.load read it, without what sdclr's own backbones say of themselves."""
    with path.open("rb") as file:
        head = file.read(9)
    if (
        len(head) == 9
        and head[8:] == b"{"
        and int.from_bytes(head[:8], "little") < path.stat().st_size
    ):
        raise CheckpointError(
            f"{path} is a safetensors file, which torch.save has not written. A backbone of sdclr's is used as it is: "
            "--weights, --backbone or sdclr.load_backbone."
        )


def _refuse_compressed(path: Path) -> None:
    """PyTorch stores its records as they are; a compressed one may be a thousand times as large as the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [
                record.filename
                for record in archive.infolist()
                if record.compress_type != zipfile.ZIP_STORED
            ]
    except Exception:  # no zip at all, or a damaged one: torch.load says so
        return
    if packed:
        raise CheckpointError(
            f"{path} was refused: it is compressed ({packed[0][:80]!r}), as PyTorch never does."
        )


def _check_plain(key: object, tensor: Tensor, where: str) -> None:
    """Every number of a tensor is in the file: nothing sparse, quantised, without memory or repeated by strides."""
    plain = isinstance(key, str) and tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not plain or tensor.is_quantized or type(tensor) not in (Tensor, torch.nn.Parameter):
        raise CheckpointError(f"{where} was refused: {str(key)[:80]!r} is no plain tensor.")
    if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        raise CheckpointError(
            f"{where} was refused: {str(key)[:80]!r} claims more numbers than the file holds."
        )


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
        if name.startswith("normalize."):
            _check_normalisation(name, tensor, where)
            left_out[key] = "normalisation constants, which the backbone has itself"
        elif name in ("fc.weight", "fc.bias"):
            _put(classifier, name.removeprefix("fc."), tensor, key, where)
            left_out[key] = "classifier"
        elif name.startswith("fc."):
            left_out[key] = "projection head"
        elif ".bn_list." in name and f".bn_list.{chosen}." not in name:
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
            f"{where} has two tensors for {name}, the second as {key!r}: which of them is meant, nobody can say."
        )
    tensors[name] = tensor


def _check_classifier(classifier: Mapping[str, Tensor], where: str) -> None:
    """CheckpointError unless there is none, or a weight [C, F] with a bias [C]."""
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
    if tensor.numel() != 3 or not torch.allclose(tensor.flatten().float(), expected, atol=1e-6):
        raise CheckpointError(
            f"{where} normalises its input by {tensor.flatten().tolist()}, not by ImageNet's {name}."
        )


def _architecture(tensors: Mapping[str, Tensor], where: str) -> BackboneConfig:
    """Depth, width and stem from names and shapes."""
    stem = tensors.get("conv1.weight")
    if stem is None or stem.ndim != 4:
        raise CheckpointError(f"{where} is no ResNet of the authors: it has no conv1.weight.")
    block = Bottleneck if "layer1.0.conv3.weight" in tensors else BasicBlock
    stages = [
        {key.split(".")[1] for key in tensors if key.startswith(f"layer{stage}.")}
        for stage in (1, 2, 3, 4)
    ]
    depths = tuple(len(blocks) for blocks in stages)
    name = next((name for name, known in DEPTHS.items() if known == (block, depths)), None)
    if name is None:
        raise CheckpointError(
            f"{where} has {depths} {block.__name__}s; known are {', '.join(DEPTHS)}."
        )
    return BackboneConfig(
        name=name, width=stem.shape[0], stem="small" if stem.shape[-1] == 3 else "large"
    )
