"""EXPORTS: the formats of other programs that a trained backbone can be written in.

Rows are lightweight: help and lists import no torch.
"""

from __future__ import annotations

import importlib.util
from typing import Any, NamedTuple

from sdclr.errors import ConfigError
from sdclr.outside import Table

_HERE = "sdclr.backbones.exports."


class ExportRow(NamedTuple):
    """One format."""

    name: str
    summary: str
    """What is written."""
    holds: str
    """Which backbones it can hold, in words."""
    files: tuple[str, ...]
    """Names of the files, with the one that is read first at the end; {stem} is that of the output."""
    write: Any
    """ "module:function": (:class:`~sdclr.backbones.exports.network.Exported`, folder, stem) -> None."""
    read: Any
    """ "module:function": the same arguments -> images [B, C, S, S] in [0, 1] -> features, as others read it."""
    library: str = ""
    """timm or torchvision, where one of its networks must have the same layers; else any backbone fits."""
    tolerance: float = 1e-5
    """By how much the features read back may differ, as a share of the largest feature (or of 1, if larger)."""
    extra: str = ""
    """The extra of the package that it needs."""
    modules: tuple[str, ...] = ()
    """The modules that this extra installs."""
    origin: str = ""

    @property
    def is_folder(self) -> bool:
        """Whether the output is a folder that holds the files."""
        return "{stem}" not in self.files[-1]

    @property
    def suffix(self) -> str:
        """The suffix of the output's name; empty for a folder."""
        return "" if self.is_folder else self.files[-1].removeprefix("{stem}")

    def require_modules(self) -> None:
        """ConfigError that names what to install, where a module is missing."""
        missing = [name for name in self.modules if importlib.util.find_spec(name) is None]
        if missing:
            raise ConfigError(
                f"--format {self.name} needs {' and '.join(missing)}: "
                f'pip install "sdclr[{self.extra}]".'
            )


EXPORTS: Table[ExportRow] = Table(
    "format",
    [
        ExportRow(
            "timm",
            "A state_dict for timm.create_model(NAME, num_classes=0), and NAME.json with the facts.",
            "networks that timm has, without its classifier: timm:NAME, and our ResNets with width 64 and the "
            "large stem",
            ("{stem}.json", "{stem}.pth"),
            f"{_HERE}weights:write_state_dict",
            f"{_HERE}weights:read_state_dict",
            library="timm",
        ),
        ExportRow(
            "torchvision",
            "A state_dict for torchvision.models.get_model(NAME) without its classifier, and NAME.json.",
            "networks that torchvision has: torchvision:NAME, and our ResNets with width 64 and the large stem",
            ("{stem}.json", "{stem}.pth"),
            f"{_HERE}weights:write_state_dict",
            f"{_HERE}weights:read_state_dict",
            library="torchvision",
        ),
        ExportRow(
            "safetensors",
            "The weights under their own names as a plain safetensors file, the facts in its metadata.",
            "every backbone",
            ("{stem}.safetensors",),
            f"{_HERE}weights:write_safetensors",
            f"{_HERE}weights:read_safetensors",
        ),
        ExportRow(
            "torch-export",
            "A program of torch.export (.pt2) that runs without this package, normalisation inside.",
            "every backbone that torch.export can trace",
            ("{stem}.pt2",),
            f"{_HERE}programs:write_program",
            f"{_HERE}programs:read_program",
        ),
        ExportRow(
            "onnx",
            "An ONNX model, normalisation inside, any batch size, the facts in its metadata.",
            "every backbone up to 2 GB that torch.onnx can convert",
            ("{stem}.onnx",),
            f"{_HERE}programs:write_onnx",
            f"{_HERE}programs:read_onnx",
            tolerance=1e-4,
            extra="onnx",
            modules=("onnx", "onnxscript", "onnxruntime"),
        ),
        ExportRow(
            "huggingface",
            'A folder for timm.create_model("local-dir:PATH", pretrained=True), with a model card.',
            "networks that timm has, as for timm",
            ("README.md", "config.json", "model.safetensors"),
            f"{_HERE}huggingface:write_folder",
            f"{_HERE}huggingface:read_folder",
            library="timm",
        ),
    ],
)
"""Name -> row."""
