"""JOB: an authors' checkpoint + the config it belongs to -> a run folder, as if it had been trained here.

Evaluation and reports then need no second code path. The config is checked against what the file shows (architecture,
head depth, norms, epoch); environment.json records the file's name and hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdclr.backbones.authors_checkpoint import AuthorsCheckpoint, read_authors_checkpoint
from sdclr.backbones.backbone import measure_feature_dim
from sdclr.backbones.weights import save_backbone
from sdclr.data import Data, build_data
from sdclr.data.choices import AUTHORS_CIFAR_FOLDERS
from sdclr.data.collections.contents import read_contents, write_record
from sdclr.errors import ConfigError
from sdclr.run import Run
from sdclr.run.environment import environment
from sdclr.run.files import CONTENTS_FILE
from sdclr.run.refusals import require_same_settings
from sdclr.settings import PretrainConfig


def adopt(
    checkpoint: Path | str, config: PretrainConfig, out: Path | str, *, download: bool = False
) -> Run:
    """Make ``out`` the run folder of ``checkpoint``; if it already is, it is left unchanged.

    The target's norms are used. A pre-training checkpoint replaces a fine-tuned file that was adopted in its place.
    Raises CheckpointError for a damaged or foreign file, and ConfigError if the file contradicts the config, if
    the authors' split lists are not given, or if ``out`` holds another run.

    >>> import sdclr
    >>> config = sdclr.recipe("cifar10_lt_sdclr").with_values({"data.path": "DATA"})  # doctest: +SKIP
    >>> run = sdclr.adopt("model_2000.pt", config, "runs/theirs")  # doctest: +SKIP
    """
    source, run = Path(checkpoint), Run(out)
    if config.data.name in AUTHORS_CIFAR_FOLDERS and config.data.splits_dir is None:
        raise ConfigError(
            f"{source} was trained on the authors' split lists, and a generated split has other classes in its tail. "
            "Give their split folder with --splits-dir (docs/data.md)."
        )
    require_same_settings(run, config)
    found = read_authors_checkpoint(source)
    if contradictions := _contradictions(found, config):
        raise ConfigError(
            f"{source} is not a run of {config.recipe}: " + "; ".join(contradictions) + "."
        )
    adopted = {
        "file": source.name,
        "kind": "pre-training" if found.classifier is None else "fine-tuned",
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "epoch": found.epoch,
        "branch": "target",
    }
    if run.exists and _is_of(run, adopted) and run.backbone_path.is_file():
        return run
    data = build_data(config.data, download=download)
    with run:
        run.write_json("environment.json", environment("the authors'") | {"adopted": adopted})
        run.write_json("split.json", data.manifest())
        contents = {
            part: read_contents(images) for part, images in data.files(config.data.subset).items()
        }
        if contents:
            write_record(run.folder / CONTENTS_FILE, contents)
        run.write_text("config.yaml", config.to_yaml())
        facts = _facts(found, config, data) | {"source": source.name}
        save_backbone(run.backbone_path, found.backbone, found.architecture.to_dict(), facts)
    return run


def _is_of(run: Run, file: Mapping[str, Any]) -> bool:
    """Whether the run folder was adopted from this file; False if a fine-tuned one was adopted in its place.

    Raises ConfigError if the folder holds another run.
    """
    earlier = run.read_json("environment.json").get("adopted")
    if earlier is not None and earlier["sha256"] == file["sha256"]:
        return True
    stood_in = earlier is not None and earlier["kind"] == "fine-tuned"
    if stood_in and file["kind"] == "pre-training":
        return False
    what = "a run trained here"
    if earlier is not None:
        what = f"the run of another file, {earlier['file']}"
    raise ConfigError(f"{run.folder} holds {what}. Choose another --out.")


def _facts(found: AuthorsCheckpoint, config: PretrainConfig, data: Data) -> dict[str, Any]:
    """The facts that the backbone's file records about itself."""
    return {
        "feature_dim": measure_feature_dim(found.backbone, config.views.size),
        "image_size": config.views.size,
        "recipe": config.recipe,
        "method": config.method.to_dict(),
        "epochs": found.epoch,
        "data": data.name,
        "data_fingerprint": data.fingerprint,
    }


def _contradictions(found: AuthorsCheckpoint, config: PretrainConfig) -> list[str]:
    """Where the file and the config disagree: each setting with the file's value and the config's."""
    shown = {
        f"backbone.{name}": getattr(found.architecture, name) for name in ("name", "width", "stem")
    }
    # a fine-tuned file has neither head nor second norms, and counts the probe's epochs
    if found.classifier is None:
        shown["method.projector_layers"] = found.projector_layers
        shown["method.name"] = "sdclr" if found.dual_norms else "simclr"
        shown["epochs"] = found.epoch
    from_config = {
        **{
            f"backbone.{name}": getattr(config.backbone, name) for name in ("name", "width", "stem")
        },
        "method.projector_layers": getattr(config.method, "projector_layers", None),
        # without its own norms, SDCLR leaves no trace in the file
        "method.name": "simclr"
        if getattr(config.method, "norms", "own") == "shared"
        else config.method.name,
        "epochs": config.epochs,
    }
    return [
        f"{name} is {value} there, {from_config[name]} in the recipe"
        for name, value in shown.items()
        if value is not None and value != from_config[name]
    ]
