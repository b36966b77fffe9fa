"""JOB: a trained backbone or a classifier -> another program's format, read back and compared before it is kept."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from sdclr.backbones.backbone import measure_feature_dim
from sdclr.backbones.classifier import is_classifier, load_classifier
from sdclr.backbones.exports.network import (
    Exported,
    fitted_to_format,
    require_same_features,
)
from sdclr.backbones.exports.table import EXPORTS, ExportRow
from sdclr.backbones.weights import load_backbone, normalisation_of, read_backbone
from sdclr.data.table import SOURCES
from sdclr.errors import ConfigError, SdclrError
from sdclr.evaluation.results import Evaluation
from sdclr.methods.table import method_title
from sdclr.outside import load
from sdclr.presentation.model_card import CardFacts, ClassifierCard, Measured, model_card
from sdclr.run import Run
from sdclr.run.files import IMAGES_FILE
from sdclr.safe_text import shown
from sdclr.storage import durable_files
from sdclr.storage.durable_files import make_folder, storage_errors, temporary_name
from sdclr.storage.locks import writing
from sdclr.storage.output_files import lexists, output_file, require_free, require_place

EXPORTS_FOLDER = "exports"


def export(
    source: Path | str,
    format: str,
    out: Path | str | None = None,
    *,
    network: nn.Module | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a trained backbone in the format of another program; return the file or folder that it reads.

    ``source``: a run folder, a backbone.safetensors, or a model of :func:`sdclr.finetune`, exported with its
    classifier. ``format``: timm, torchvision, safetensors, torch-export, onnx or huggingface (docs/exports.md).
    ``out``: default RUN/exports/FORMAT, or FORMAT beside a file, with the format's suffix. ``network``: your own
    module, for a run with a custom one. The output is read back the way that program reads it, and kept only if the
    features (for a classifier the logits) agree: to 1e-5, for ONNX 1e-4. Raises ConfigError for a network that the
    format cannot represent, naming the formats that can, for a missing package, and if ``out`` exists, unless
    ``overwrite``.

    >>> import sdclr
    >>> config = sdclr.recipe("digits_sdclr").with_values({"epochs": 1, "views.size": 8, "backbone.width": 4})
    >>> run = sdclr.pretrain(config, "runs/tiny")
    >>> path = sdclr.export(run, "safetensors", "tiny.safetensors", overwrite=True)
    >>> from safetensors.torch import load_file
    >>> load_file(path)["conv1.weight"].shape
    torch.Size([4, 3, 3, 3])
    """
    if format not in EXPORTS:
        raise ConfigError(
            f"there is no format {shown(repr(format))}; there are {', '.join(EXPORTS)}."
        )
    row = EXPORTS[format]
    row.require_modules()
    source = Path(source)
    if out is None:
        read_backbone(source)  # raises if it is not a backbone, before an output is chosen
    out = _default_out(source, row) if out is None else Path(out)
    if not row.is_folder and out.suffix != row.suffix:
        raise ConfigError(
            f"--out must be named *{row.suffix} for --format {row.name}, got {shown(out)}."
        )
    _require_text(out)
    try:
        with _place(out, row, overwrite=overwrite):
            trained = fitted_to_format(_read(source, network), row)
            if row.name == "huggingface":
                trained = dataclasses.replace(trained, card=_card(source, trained))
            _write(trained, row, out, overwrite=overwrite)
    finally:
        if source.is_dir():
            with contextlib.suppress(OSError):
                (source / EXPORTS_FOLDER).rmdir()  # only succeeds if it is empty: nothing was kept
    return out


def _require_text(out: Path) -> None:
    """ConfigError for a path with bytes that are not UTF-8, which safetensors and ONNX do not open."""
    try:
        str(out).encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f"an exported file cannot be at {shown(out)}, whose name is not UTF-8 text. Choose another --out."
        ) from None


def _default_out(source: Path, row: ExportRow) -> Path:
    if not source.is_dir():
        return source.with_name(f"{source.stem}-{row.name}{row.suffix}")
    if source.joinpath("backbone.safetensors").is_file():
        make_folder(source / EXPORTS_FOLDER)
    return source / EXPORTS_FOLDER / f"{row.name}{row.suffix}"


@contextlib.contextmanager
def _place(out: Path, row: ExportRow, *, overwrite: bool) -> Iterator[None]:
    """Claim the output before any work."""
    if not row.is_folder:
        for name in row.files[:-1]:
            require_free(out.with_name(name.format(stem=out.stem)), overwrite=overwrite)
        with output_file(out, overwrite=overwrite):
            yield
        return
    with storage_errors(out):
        if lexists(out) and not out.is_dir():
            raise ConfigError(
                f"{out} is a file; --format {row.name} writes a folder. Choose another --out."
            )
    if not lexists(out):
        require_place(out, "--out")
    with writing(out):
        _require_free_folder(out, row, overwrite=overwrite)
        yield


def _require_free_folder(out: Path, row: ExportRow, *, overwrite: bool) -> None:
    with storage_errors(out):
        names = os.listdir(out) if lexists(out) else []
    if names and not overwrite:
        raise ConfigError(
            f"the folder {out} is not empty; give --overwrite to replace its {', '.join(row.files)}, or choose "
            "another --out."
        )


def _read(source: Path, network: nn.Module | None) -> Exported:
    file = read_backbone(source)
    classifier = load_classifier(source, network) if is_classifier(source) else None
    backbone = load_backbone(source, network) if classifier is None else classifier.backbone
    backbone.checks_input = False
    size = file.require_image_size()
    return Exported(
        backbone=backbone,
        architecture=file.described.architecture,
        image_size=size,
        feature_dim=backbone.feature_dim or measure_feature_dim(backbone, size),
        source=source.resolve().name,
        classifier=classifier,
        sees_whole_images=_in_memory(_data_settings(source).get("name")),
    )


def _in_memory(dataset: object) -> bool:
    """Whether the images of a data set are arrays of one size, which are never cropped."""
    row = SOURCES[dataset] if isinstance(dataset, str) and dataset in SOURCES else None
    return row is not None and not row.on_disk and row.name != "given"


def _data_settings(source: Path) -> Mapping[str, Any]:
    """The data settings of a run, or of a classifier's training; empty if ``source`` is a file."""
    if not source.is_dir():
        return {}
    run = Run(source)
    facts = run.settings() if run.exists else run.read_side_file("finetune.json", optional=True)
    found = facts.get("data")
    return found if isinstance(found, Mapping) else {}


def _write(trained: Exported, row: ExportRow, out: Path, *, overwrite: bool) -> None:
    """Write beside the output, read back, compare, and only then rename the files."""
    temporary = temporary_name(out)
    try:
        with storage_errors(out):
            temporary.mkdir()
            load(row.write)(trained, temporary, out.stem)
        read = load(row.read)(trained, temporary, out.stem)
        require_same_features(read, trained, row)
        with storage_errors(out):
            _keep(temporary, row, out, overwrite=overwrite)
    except SdclrError:
        raise
    except Exception as error:  # other libraries raise errors of any type
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise ConfigError(
            f"--format {row.name} cannot hold this network: {shown(reason, 300)} Nothing was kept; "
            "choose another format."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _keep(temporary: Path, row: ExportRow, out: Path, *, overwrite: bool) -> None:
    names = [name.format(stem=out.stem) for name in row.files]
    for name in names:
        with (temporary / name).open("rb") as file:
            os.fsync(file.fileno())
    if row.is_folder and not lexists(out):
        os.replace(temporary, out)
        durable_files.sync_folder(out.parent)
        return
    folder = out if row.is_folder else out.parent
    if row.is_folder:
        _require_free_folder(out, row, overwrite=overwrite)
    for name in names:
        target = folder / name
        require_free(target, overwrite=overwrite)
        os.replace(temporary / name, target)
    durable_files.sync_folder(folder)


# ---- the model card


def _card(source: Path, trained: Exported) -> str:
    run = Run(source)
    is_run = source.is_dir() and trained.classifier is None
    settings: Mapping[str, Any] = run.settings() if is_run else {}
    split = run.read_side_file("split.json") if settings else {}
    data, method = settings.get("data") or {}, settings.get("method") or {}
    counts = (split.get("counts") or {}).get(data.get("subset")) if split else None
    constants = normalisation_of(trained.backbone)
    flat = {f"method.{key}": value for key, value in method.items()}
    base = method.get("base")
    flat |= {f"method.base.{key}": value for key, value in (base or {}).items()}
    environment: Mapping[str, Any] = {}
    if source.is_dir():
        environment = run.read_side_file("environment.json", optional=True)
    weights = settings.get("weights")
    return model_card(
        CardFacts(
            name=trained.source.removesuffix(".safetensors"),
            network=trained.name,
            num_parameters=sum(one.numel() for one in trained.backbone.net.parameters()),
            image_size=trained.image_size,
            sees_whole_images=trained.sees_whole_images,
            turns_by_exif=bool(
                _data_settings(source).get("exif_rotation")
                if trained.classifier is None
                else trained.classifier.exif_rotation
            ),
            feature_dim=trained.feature_dim,
            mean=constants.mean,
            std=constants.std,
            dataset="own images"
            if data.get("name") == "images"
            else split.get("name") or split.get("dataset"),
            class_counts=list(counts) if counts and len(counts) > 1 else [],
            num_images=sum(counts) if counts else _num_found(run),
            method=method_title(flat, environment.get("method")) if method else None,
            method_settings={
                key.removeprefix("method."): value
                for key, value in flat.items()
                if not key.endswith(".name")
            },
            training={
                key: settings[key] for key in ("epochs", "batch_size", "seed") if key in settings
            },
            start=_start(weights, settings.get("backbone") or {}),
            measured=_measured(run) if settings else [],
            versions={key: environment[key] for key in ("sdclr", "torch") if key in environment},
            classifier=None if trained.classifier is None else _classifier_facts(source, trained),
        )
    )


def _classifier_facts(source: Path, trained: Exported) -> ClassifierCard:
    """What finetune has recorded about the classifier; warns if it cannot be read."""
    assert trained.classifier is not None
    run = Run(source)
    begun, result = run.read_side_file("finetune.json"), run.read_side_file("model.json")
    return ClassifierCard(
        class_names=trained.classifier.class_names,
        temperature=trained.classifier.temperature,
        settings=begun.get("settings") or {},
        start=Path(str((begun.get("start") or {}).get("name", "weights that are not known"))).name,
        num_train=begun.get("num_train"),
        validation=result.get("validation") or {},
        calibration=result.get("calibration") or {},
    )


def _num_found(run: Run) -> int | None:
    """The number of images of a run without labels; None if it was not recorded."""
    content = run.read_side_file(IMAGES_FILE, optional=True)
    found = content.get("found")
    return found - len(content.get("skipped", [])) if isinstance(found, int) else None


def _start(weights: object, backbone: Mapping[str, Any]) -> str:
    if isinstance(weights, str):
        return f"the weights {Path(weights).name}"
    return "ImageNet weights" if backbone.get("pretrained") else "fresh weights"


def _measured(run: Run) -> list[Measured]:
    """The run's evaluations of its current backbone."""
    found = []
    for protocol in sorted(run.evaluated_protocols()):
        path = run.evaluation_path(protocol)
        try:
            evaluation = Evaluation.load(path)
        except SdclrError as error:
            warnings.warn(f"{error} The model card omits it.", stacklevel=2)
            continue
        if evaluation.backbone not in (None, run.backbone_identity()):
            warnings.warn(
                f"{path} was measured on another backbone; the model card goes without it.",
                stacklevel=2,
            )
            continue
        for name, probe in evaluation.probes.items():
            found.append(
                Measured(
                    protocol=protocol,
                    probe=probe.display_name or name,
                    tested_on=evaluation.tested_on or "test set",
                    dataset=evaluation.dataset,
                    accuracy=probe.accuracy,
                    num_tested=sum(probe.num_test) if probe.num_test is not None else None,
                    summary=dataclasses.asdict(evaluation.balancedness(name)),
                    chance=evaluation.chance,
                )
            )
    return found
