"""Weights from any program's file: which of its tensors belong to a network, and an account of all the others.

A file may be a state_dict of torchvision, timm or a network of one's own, a checkpoint of torch.save, Lightning, MoCo
or lightly around one, a .safetensors file, or a Hugging Face folder. Names may have prefixes, and the file may contain
other copies of the network; the one whose names and shapes fit is taken, whole. Nothing pickled is executed.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from sdclr.backbones.authors_checkpoint import read_authors_checkpoint
from sdclr.backbones.config import BackboneConfig, Normalisation, WeightsMatch
from sdclr.backbones.torch_files import read_tensors_of_torch
from sdclr.backbones.weights import require_usable_weights
from sdclr.config import Section
from sdclr.errors import CheckpointError, ConfigError, MissingInputError
from sdclr.safe_text import shown
from sdclr.storage.documents import parse_json, read_json_file
from sdclr.storage.named_tensors import check_fit, load_strictly

EXPORT_FORMAT = "sdclr-export-1"
"""Identifies the facts of a file that `sdclr export` has written."""
PROGRAMS = (".pt2", ".onnx")
HUGGING_FACE_FILES = ("model.safetensors", "pytorch_model.bin")
_WRAPPERS = ("module", "_orig_mod")
"""Parts of names that DataParallel and torch.compile insert."""
_HEADS = frozenset(
    [
        *(
            "fc",
            "classifier",
            "head",
            "heads",
            "head_dist",
            "aux_classifier",
            "AuxLogits",
            "aux1",
            "aux2",
        ),
        *(
            "projector",
            "projection",
            "projection_head",
            "prediction_head",
            "predictor",
            "prototypes",
        ),
        *("queue", "queue_ptr"),
    ]
)
"""First parts of the names of heads on a backbone, which are left out by name."""
_COPIES = ("ema", "momentum", "encoder_k", "teacher", "target", "key", "average")
"""Words in the names of a slowly moving copy, which is taken only where no other network is in the file."""
_COUNTERS = "num_batches_tracked"
_DEEPEST = 4
_MOST_PREFIXES = 200


@dataclass(frozen=True)
class OthersFile:
    """The contents of a file, before they are matched with a network."""

    path: Path
    groups: dict[str, dict[str, Tensor]]
    """Where in the file ("" at its top, "state_dict", "model_ema") -> name -> tensor."""
    architecture: BackboneConfig | None = None
    """The network that the file names; None where it names none."""
    normalisation: Normalisation | None = None
    """The file's normalisation; None where it has none."""
    image_size: int | None = None


@dataclass(frozen=True)
class Account:
    """Which tensors of a file were loaded into a network, and why the others were not."""

    where: str
    tensors: dict[str, Tensor]
    """Name in the network -> tensor."""
    left_out: dict[str, str]
    """Name in the file -> why."""
    missing: tuple[str, ...]
    """Names of the network that the file lacks, allowed by weights_match=partial."""
    found_under: str
    """The prefix of the names in the file."""
    resampled: str = ""
    """Which tensors were resampled to another image size, in words; empty if none were."""

    def words(self) -> str:
        """One line for the user."""
        under = f" under {self.found_under}" if self.found_under else ""
        line = f"weights: {len(self.tensors)} tensors of {self.where}{under}"
        counts = Counter(self.left_out.values())
        reasons = [f"{count} {reason}" for reason, count in counts.items()]
        missing = [f"{len(self.missing)} stay fresh"] if self.missing else []
        missing += [self.resampled] if self.resampled else []
        more = [*missing, *([f"left out: {', '.join(reasons)}"] if reasons else [])]
        return "; ".join([line, *more])


class _HuggingFaceFacts(Section):
    """The facts that timm writes into config.json of a Hugging Face folder."""

    model_config = ConfigDict(extra="ignore")

    architecture: str | None = None
    pretrained_cfg: dict[str, Any] = Field(default_factory=dict)


class _ExportFacts(Section):
    """The facts that `sdclr export` writes into the metadata of a .safetensors file and the .json next to a .pth."""

    model_config = ConfigDict(extra="ignore")

    normalisation: Normalisation
    architecture: BackboneConfig
    image_size: int


def is_others(source: Path | str) -> bool:
    """Whether ``source`` has weights that another program than sdclr has written, judged by its first bytes."""
    path = Path(source)
    if path.is_dir():
        return _of_hugging_face(path) is not None and not (path / "config.yaml").is_file()
    if not path.is_file():
        return False
    with path.open("rb") as file:
        begin = file.read(8)
        size = int.from_bytes(begin, "little")
        header = file.read(min(size, 2**24)) if path.suffix == ".safetensors" else b""
    if path.suffix != ".safetensors":
        return True
    if header[:1] != b"{" or b'"sha256"' in header:
        return False
    # our exports count as others' files; any other file with our name in it is a damaged file of ours
    return b"sdclr" not in header or EXPORT_FORMAT.encode() in header


def _of_hugging_face(folder: Path) -> Path | None:
    return next((folder / name for name in HUGGING_FACE_FILES if (folder / name).is_file()), None)


def read_others(source: Path | str) -> OthersFile:
    """Every tensor of a file or Hugging Face folder, wherever it is inside.

    Raises MissingInputError where there is no file, and CheckpointError for a file that is damaged, contains more than
    tensors and plain values, or contains no tensors.
    """
    path = Path(source)
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise MissingInputError(f"there is no file of weights {shown(path)}.")
    if path.suffix in PROGRAMS:
        raise CheckpointError(
            f"{path} is an exported program; no training can start from it. Give the run or file that it was "
            "exported from, or one of `sdclr export --format safetensors`."
        )
    content = _content(path)
    if any(".bn_list." in str(key) for key in content.get("state_dict", content)):
        return _of_the_authors(path)
    groups = {where: group for where, group in _groups(content) if group}
    if not groups:
        held = ", ".join(shown(key) for key in list(content)[:5]) or "nothing"
        raise CheckpointError(f"{path} holds no weights; it has {held}.")
    facts = _export_facts(path)
    if facts is None:
        return OthersFile(path, groups)
    return OthersFile(path, groups, facts.architecture, facts.normalisation, facts.image_size)


def _export_facts(path: Path) -> _ExportFacts | None:
    """The facts that `sdclr export` wrote about these weights; None for a file that another program has written."""
    beside = path.with_suffix(".json")
    where = path if path.suffix == ".safetensors" else beside
    content: Any
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                texts = file.metadata() or {}
            if texts.get("sdclr_format") != EXPORT_FORMAT:
                return None
            content = {key: parse_json(texts[key]) for key in _FACTS}
        else:
            content = read_json_file(beside) if beside.is_file() else None
            if not isinstance(content, dict) or content.get("format") != EXPORT_FORMAT:
                return None
        constants = {"mean": content["mean"], "std": content["std"]}
        return _ExportFacts.parse({**content, "normalisation": constants})
    except (KeyError, ValueError, TypeError, OSError, ConfigError, SafetensorError) as error:
        raise CheckpointError(
            f"{where} does not describe its weights as sdclr export does: {shown(error, 600)} Export them again."
        ) from None


_FACTS = ("mean", "std", "image_size", "architecture")


def _content(path: Path) -> Mapping[str, Any]:
    if path.suffix != ".safetensors":
        return read_tensors_of_torch(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: {error}") from None


def _groups(content: Mapping[Any, Any], where: str = "", depth: int = 0) -> Iterator[Any]:
    """Each mapping in the file with tensors of its own: its place, and its tensors."""
    yield where, {key: value for key, value in content.items() if _is_weight(key, value)}
    for key, value in content.items():
        if isinstance(key, str) and isinstance(value, Mapping) and depth < _DEEPEST:
            yield from _groups(value, f"{where}.{key}" if where else key, depth + 1)


def _is_weight(key: object, value: object) -> bool:
    return isinstance(key, str) and isinstance(value, Tensor) and value.layout == torch.strided


def _of_the_authors(path: Path) -> OthersFile:
    checkpoint = read_authors_checkpoint(path)
    tensors = dict(checkpoint.backbone.net.state_dict())
    return OthersFile(path, {"": tensors}, checkpoint.architecture)


def _read_folder(folder: Path) -> OthersFile:
    weights = _of_hugging_face(folder)
    if weights is None:
        raise MissingInputError(
            f"{shown(folder)} is not a run folder and holds no weights of Hugging Face "
            f"({' or '.join(HUGGING_FACE_FILES)})."
        )
    groups = {where: group for where, group in _groups(_content(weights)) if group}
    try:
        text = (folder / "config.json").read_text()
        facts = _HuggingFaceFacts.parse(json.loads(text))
    except FileNotFoundError:
        return OthersFile(weights, groups)
    except (OSError, ValueError, ConfigError) as error:
        raise CheckpointError(f"{folder / 'config.json'} cannot be read: {shown(error)}") from None
    cfg = facts.pretrained_cfg
    try:
        constants = {"mean": cfg["mean"], "std": cfg["std"]} if "mean" in cfg else None
        normalisation = None if constants is None else Normalisation.parse(constants)
        size = int(cfg["input_size"][-1]) if "input_size" in cfg else None
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise CheckpointError(f"{folder / 'config.json'} is not timm's: {shown(error)}") from None
    name = facts.architecture
    architecture = BackboneConfig(name=f"timm:{name}") if name else None
    return OthersFile(weights, groups, architecture, normalisation, size)


# ---- which tensors are the network's


def account_for(file: OthersFile, network: nn.Module, match: WeightsMatch = "exact") -> Account:
    """The tensors of ``file`` that are ``network``'s, by names and shapes.

    exact: all of them exist, and nothing else but other parts of the file and heads on a backbone (classifier,
    projection head), which are left out by name. partial: some may be missing and stay as they are. order: names are
    ignored; the tensors, one after another, have the network's shapes. Raises CheckpointError that describes what does
    not fit.
    """
    expected = network.state_dict()
    if match == "order":
        return _in_order(file, expected)
    best: Account | None = None
    for where, group in sorted(file.groups.items(), key=lambda item: _rank(item[0])):
        names = _plain_names(group, network)
        for prefix in _prefixes(names):
            found = _under(prefix, names, expected)
            positions = _resampled_positions(prefix, names, network)
            if best is None or len(found) + len(positions) > len(best.tensors):
                best = _account(file, where, prefix, names, found | positions, expected)
                if positions:
                    best = replace(
                        best, resampled="position embeddings resampled to its image size"
                    )
    assert best is not None
    _require_fit(best, file, expected, match)
    require_usable_weights(best.tensors, best.where)
    return best


def _plain_names(group: Mapping[str, Tensor], network: nn.Module) -> dict[str, tuple[str, Tensor]]:
    """Possible name in the network -> name in the file, tensor."""
    children = [name for name, _ in network.named_children()]
    names: dict[str, tuple[str, Tensor]] = {}
    for key, tensor in group.items():
        parts = [part for part in key.split(".") if part not in _WRAPPERS]
        names[_of_transformers(_of_sequence(parts, children))] = key, tensor
    return names


def _of_sequence(parts: list[str], children: list[str]) -> str:
    """ "backbone.4.0.conv1.weight" -> "backbone.layer1.0.conv1.weight": a ResNet put into one Sequential."""
    if "layer1" not in children or "layer1" in parts:
        return ".".join(parts)
    for place, part in enumerate(parts[:2]):
        inside = any(before in children or before in _HEADS for before in parts[:place])
        if part.isdecimal() and int(part) < len(children) and not inside:
            return ".".join([*parts[:place], children[int(part)], *parts[place + 1 :]])
    return ".".join(parts)


_TRANSFORMERS = (
    (r"(^|\.)embedder\.embedder\.convolution\.", r"\1conv1."),
    (r"(^|\.)embedder\.embedder\.normalization\.", r"\1bn1."),
    (r"\.shortcut\.convolution\.", ".downsample.0."),
    (r"\.shortcut\.normalization\.", ".downsample.1."),
)


def _of_transformers(name: str) -> str:
    """Hugging Face's names of a ResNet's layers -> torchvision's."""
    for pattern, plain in _TRANSFORMERS:
        name = re.sub(pattern, plain, name)
    found = re.search(
        r"(^|\.)encoder\.stages\.(\d+)\.layers\.(\d+)\.(?:layer\.(\d+)\.(convolution|normalization)\.)?",
        name,
    )
    if found is None:
        return name
    before, stage, block, layer, kind = found.groups()
    inner = "" if layer is None else f"{'conv' if kind == 'convolution' else 'bn'}{int(layer) + 1}."
    start = f"{name[: found.start()]}{before}layer{int(stage) + 1}.{block}."
    return start + inner + name[found.end() :]


def _prefixes(names: Mapping[str, object]) -> list[str]:
    """Possible prefixes of a network's names: none, then every beginning that several names share."""
    counts: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        counts.update(
            ".".join(parts[:end]) + "." for end in range(1, min(len(parts), _DEEPEST + 1))
        )
    shared = [prefix for prefix, count in counts.most_common(_MOST_PREFIXES) if count > 1]
    return ["", *sorted(shared, key=lambda prefix: (_rank(prefix), prefix.count(".")))]


def _rank(place: str) -> int:
    """The sort key of a place: copies come last."""
    return int(any(word in place.lower() for word in _COPIES))


def _under(
    prefix: str, names: Mapping[str, tuple[str, Tensor]], expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    found = {}
    for name, wanted in expected.items():
        _, tensor = names.get(prefix + name, ("", None))
        if tensor is not None and tensor.shape == wanted.shape:
            found[name] = tensor
    return found


def _resampled_positions(
    prefix: str, names: Mapping[str, tuple[str, Tensor]], network: nn.Module
) -> dict[str, Tensor]:
    """A transformer's position embeddings [1, P + G * G, D] for another image size, resampled to this one by timm.

    P prefix tokens, G x G patches; none where they fit already, or where the network is not such a transformer.
    """
    name = "pos_embed"
    _, tensor = names.get(prefix + name, ("", None))
    own = getattr(network, name, None)
    grid = getattr(getattr(network, "patch_embed", None), "grid_size", None)
    num_prefix = getattr(network, "num_prefix_tokens", None)
    if not isinstance(own, Tensor) or tensor is None or grid is None or num_prefix is None:
        return {}
    if getattr(network, "no_embed_class", False):
        num_prefix = 0
    num_patches = tensor.shape[1] - num_prefix if tensor.ndim == 3 else -1
    side = math.isqrt(max(num_patches, 0))
    is_other = tensor.shape != own.shape and own.shape[1] == grid[0] * grid[1] + num_prefix
    if not is_other or side**2 != num_patches or tensor.shape[::2] != own.shape[::2]:
        return {}
    from timm.layers.pos_embed import resample_abs_pos_embed  # timm takes seconds to import

    return {name: resample_abs_pos_embed(tensor, list(grid), [side, side], num_prefix)}


def _account(
    file: OthersFile,
    where: str,
    prefix: str,
    names: Mapping[str, tuple[str, Tensor]],
    found: dict[str, Tensor],
    expected: Mapping[str, Tensor],
) -> Account:
    left_out = {}
    for name, (key, _) in names.items():
        rest = name.removeprefix(prefix)
        if name.startswith(prefix) and rest in found:
            continue
        if not name.startswith(prefix):
            left_out[key] = "of other parts of the file"
        elif rest.split(".")[0] in _HEADS:
            left_out[key] = "of the head"
        elif rest in expected:
            left_out[key] = "of another shape"
        else:
            left_out[key] = "unknown"
    for place, group in file.groups.items():
        if place != where:
            start = f"{place}." if place else ""
            left_out |= {f"{start}{key}": "of other parts of the file" for key in group}
    missing = tuple(name for name in expected if name not in found and not name.endswith(_COUNTERS))
    under = ".".join(part for part in (where, prefix.rstrip(".")) if part)
    return Account(str(file.path), found, left_out, missing, under)


def _require_fit(
    account: Account, file: OthersFile, expected: Mapping[str, Tensor], match: WeightsMatch
) -> None:
    """CheckpointError where the best of all readings does not fit."""
    wrong = [key for key, reason in account.left_out.items() if reason == "unknown"]
    misshapen = [key for key, reason in account.left_out.items() if reason == "of another shape"]
    if match == "partial" and account.tensors:
        return
    if not account.missing and not wrong:
        return
    parts = [
        f"{len(names)} {what} ({', '.join(map(shown, names[:3]))}{', ...' if len(names) > 3 else ''})"
        for what, names in (
            ("missing", list(account.missing)),
            ("of another shape", misshapen),
            ("unknown", wrong),
        )
        if names
    ]
    raise CheckpointError(
        f"{file.path} does not fit this network: of its {len(expected)} tensors {len(account.tensors)} are there; "
        f"{'; '.join(parts)}. {_advice(account, file, expected)}"
    )


def _advice(account: Account, file: OthersFile, expected: Mapping[str, Tensor]) -> str:
    if file.architecture is not None:
        return f"The file records its network as {file.architecture.name}: backbone.name={file.architecture.name}."
    shapes = [list(tensor.shape) for tensor in expected.values() if tensor.ndim]
    for group in file.groups.values():
        theirs = [list(tensor.shape) for tensor in group.values() if tensor.ndim]
        if theirs[: len(shapes)] == shapes and len(account.tensors) < len(shapes):
            return (
                "Taken in order, its tensors have the network's shapes: weights_match=order takes them that way "
                "(finetune and mine: --weights-match order)."
            )
    more = "weights_match=partial (finetune and mine: --weights-match partial)"
    return (
        "Name the network it was trained as (backbone.name=..., or another timm:NAME or torchvision:NAME); "
        f"{more} takes what fits and leaves the rest fresh."
    )


def _in_order(file: OthersFile, expected: Mapping[str, Tensor]) -> Account:
    """Match names in the order of both; tensors after the last one, such as a head, are left out."""
    problems = []
    for where, group in sorted(file.groups.items(), key=lambda item: _rank(item[0])):
        pairs = list(zip(expected.items(), group.items(), strict=False))
        unlike = [
            f"{shown(key)} {list(tensor.shape)} stands where {name} {list(wanted.shape)} should"
            for (name, wanted), (key, tensor) in pairs
            if tensor.shape != wanted.shape
        ]
        if unlike or len(pairs) < len(expected):
            problems.append(unlike[0] if unlike else f"it has {len(group)} tensors only")
            continue
        tensors = {name: tensor for (name, _), (_, tensor) in pairs}
        behind = list(group)[len(expected) :]
        left_out = dict.fromkeys(behind, "after the last one")
        account = Account(str(file.path), tensors, left_out, (), where)
        require_usable_weights(tensors, account.where)
        return account
    raise CheckpointError(
        f"{file.path} does not fit this network in order: {problems[0]}. The network has {len(expected)} tensors."
    )


def load_others(network: nn.Module, file: OthersFile, match: WeightsMatch = "exact") -> Account:
    """Load the weights into ``network``; returns the account. Raises CheckpointError with the network unchanged."""
    account = account_for(file, network, match)
    state = dict(network.state_dict())
    check_fit(state, state | account.tensors, account.where)
    load_strictly(network, state | account.tensors, account.where)
    return account
