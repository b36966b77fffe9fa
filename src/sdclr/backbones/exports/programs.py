"""Self-contained exports: torch.export and ONNX. Images [B, C, S, S] in [0, 1] -> features [B, F], float32.

For a classifier, logits, one for each class. The normalisation is included and B is free.
They contain no paths of the machine that wrote them.
"""

from __future__ import annotations

import copy
import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdclr.backbones.exports.network import Exported, Features
from sdclr.backbones.exports.weights import as_texts
from sdclr.compute.process_state import silenced_warnings
from sdclr.errors import ConfigError
from sdclr.safe_text import shown

LARGEST_ONNX = 2 * 10**9
"""The most bytes of one protobuf file."""
_FACTS = "sdclr.json"
_FREE_BATCH = ({0: torch.export.Dim("batch", min=1)},)


def write_program(trained: Exported, folder: Path, stem: str) -> None:
    program = _traced(trained)
    facts = {_FACTS: json.dumps(trained.facts())}
    content = io.BytesIO()  # in memory first: on a full disk torch's own writer ends the process
    torch.export.save(program, content, extra_files=facts)
    (folder / f"{stem}.pt2").write_bytes(content.getbuffer())


def read_program(trained: Exported, folder: Path, stem: str) -> Features:
    module = torch.export.load(folder / f"{stem}.pt2").module()
    return lambda images: module(images.float())


def write_onnx(trained: Exported, folder: Path, stem: str) -> None:
    size = sum(tensor.nbytes for tensor in trained.backbone.net.state_dict().values())
    if size > LARGEST_ONNX:
        raise ConfigError(
            f"--format onnx: this network has {size / 1e9:.1f} GB of weights, and an .onnx file holds 2. "
            "Use --format torch-export or safetensors."
        )
    with _quietly(), torch.no_grad():
        program = torch.onnx.export(
            _plain(trained),
            (trained.images(2).float(),),
            dynamic_shapes=_FREE_BATCH,
            input_names=["images"],
            output_names=[trained.output],
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model
    model.metadata_props.update(as_texts(trained.facts()))
    for node in model.graph:
        node.metadata_props.clear()  # source lines, with paths of this machine
    program.save(folder / f"{stem}.onnx", external_data=False)


def read_onnx(trained: Exported, folder: Path, stem: str) -> Features:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        folder / f"{stem}.onnx", providers=["CPUExecutionProvider"]
    )

    def features(images: Tensor) -> Tensor:
        (found,) = session.run([trained.output], {"images": images.float().numpy()})
        return torch.from_numpy(found)

    return features


def _plain(trained: Exported) -> nn.Module:
    return copy.deepcopy(trained.module).float().eval()


def _traced(trained: Exported) -> Any:
    """A program of torch.export with a free batch size."""
    try:
        with _quietly(), torch.no_grad():
            program = torch.export.export(
                _plain(trained), (trained.images(2).float(),), dynamic_shapes=_FREE_BATCH
            )
    except Exception as error:  # networks of others fail in their own ways
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise ConfigError(
            f"torch.export cannot trace this network: {shown(reason, 300)} Use a format that holds weights: "
            "safetensors."
        ) from error
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)  # it has paths of this machine
    return program


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence the exporters' progress messages; errors are still raised."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with silenced_warnings():
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
