"""Your own images: inspect them, choose settings with reasons, show what a run would cost, run it."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sdclr.addresses import Address
from sdclr.backbones import BackboneConfig
from sdclr.backbones.classifier import BACKBONE_FILE, is_classifier
from sdclr.backbones.others_weights import is_others, read_others
from sdclr.backbones.weights import read_backbone
from sdclr.compute.device import bf16_speedup_of_cpu, resolve_device
from sdclr.compute.memory import free_memory
from sdclr.config import Section, user_path, user_place
from sdclr.data import DataConfig, Images, build_data
from sdclr.data.choices import TABLE_SUFFIXES, ZIP_SUFFIX
from sdclr.data.config import GENERATED_SPLITS_ONLY
from sdclr.data.decoding.decode import (
    ALL_GREY_BITS,
    bits_used,
    is_deep_grey,
    is_npy,
    open_picture,
)
from sdclr.data.sources.found_images import NoClassFoldersError
from sdclr.data.sources.split_folders import has_splits
from sdclr.errors import ConfigError, DataError, RemoteError, SdclrError
from sdclr.jobs.pretrain import Preview, preview
from sdclr.planes import in_colours
from sdclr.presentation.progress import AnyProgress
from sdclr.presentation.sheet import is_sheet, sheet_png
from sdclr.recipes.own_images import Choice, advice, own_images
from sdclr.run import Run
from sdclr.run.files import CLASSIFIER_FILE
from sdclr.run.refusals import require_elsewhere
from sdclr.safe_text import one_line, shown
from sdclr.settings import PretrainConfig
from sdclr.storage.durable_files import make_folder, storage_errors, write_atomically
from sdclr.storage.output_files import output_file
from sdclr.storage.tensor_files import read_facts

BUSY = 0.5
"""Cores kept busy by other work from which a measured time is not representative."""
SAMPLE = 256
"""Headers that are read to determine the images' typical size."""
FEW = 2048
"""Up to this many images, bad files are counted before the batch size is chosen, which takes seconds of decoding. With
more images, the ones left out only affect the size of the last batch."""
DEEP_SAMPLE = 32
"""16-bit images that are decoded to determine how many bits they use."""


def own_config(
    path: str, values: dict[str, Any], out: Path, console: Console
) -> tuple[PretrainConfig, list[Choice]]:
    """Settings for the images at ``path``, each automatic one printed with its reason, and these choices.

    ``values``: settings given by the user, by dotted name; they take precedence and are not explained. An existing run
    keeps the settings it was started with: automatic ones depend on the machine's memory at that moment.
    """
    run = Run(out)
    require_elsewhere(run, path)
    if run.exists:
        # decided when the run began, possibly on another machine
        if values.get("precision") == "auto":
            values = {name: value for name, value in values.items() if name != "precision"}
        return PretrainConfig.from_yaml(run.config_path).with_values(
            {**values, "data.path": path}
        ), []
    data = own_data(
        path, {name: value for name, value in values.items() if name.startswith("data.")}
    )
    seen = _layout(data, values, out)  # choices derived from the images themselves
    data = data.with_values({choice.setting.removeprefix("data."): choice.value for choice in seen})
    collection = build_data(data, exclude=[out])
    found = collection.pretraining_images(data.subset)
    if (bits := grey_bits(found)) is not None and "data.grey_bits" not in values:
        reason = f"16-bit greys that use {bits} bits, by the brightest of a sample: with 16 they would be almost black"
        seen.append(Choice("data.grey_bits", bits, reason))
        data = data.with_values({"grey_bits": bits})
    device = resolve_device(str(values.get("device", "auto")))
    num_bad = _num_bad(found, data)
    remarks = [
        *collection.remarks,
        *([f"files that cannot be decoded left out: {num_bad}"] if num_bad else []),
    ]
    config, choices = own_images(
        data,
        num_images=len(found) - num_bad,
        typical_side=typical_side(found),
        device=device.type,
        free_memory_bytes=free_memory(device),
        given=values,
        trained=_trained_network(values.get("weights")),
        remarks=remarks,
        bf16_speedup=bf16_speedup_of_cpu() if device.type == "cpu" else None,
    )
    choices = [*seen, *choices]
    _explain(len(found) - num_bad, choices, console)
    if words := advice(config, len(found) - num_bad):
        console.print(Text(words, style="yellow"), soft_wrap=True)
    return config, choices


def _num_bad(images: Images, data: DataConfig) -> int:
    """Number of files of a small collection that will be left out (data.on_error=skip); the batch size may depend on
    each."""
    if data.on_error != "skip" or len(images) > FEW:
        return 0
    _, bad = images.verified("skip", lambda done: None, data.max_skipped)
    return len(bad)


def _trained_network(weights: object) -> BackboneConfig | None:
    """The network of the weights that a run starts from; None if there are none, or if it is not recorded."""
    if not isinstance(weights, str):
        return None
    if is_others(user_path(weights)):
        return read_others(user_path(weights)).architecture
    return read_backbone(weights).described.architecture


def require_data_settings(values: Mapping[str, Any]) -> None:
    """Raise ConfigError for a setting that does not concern the images."""
    if foreign := [name for name in values if not name.startswith("data.")]:
        raise ConfigError(
            f"only settings of the images (data.KEY=VALUE) make sense here, got {foreign[0]}."
        )


class _OwnData(Section):
    """The data settings as a section, so that errors name them as users do: data.labels."""

    data: DataConfig


def own_data(path: str, values: dict[str, Any]) -> DataConfig:
    """The data settings for a folder, a list, shards or a .npz; ``values`` by dotted name, all of them data.*."""
    require_data_settings(values)
    if "data.path" in values:
        raise ConfigError(f"{shown(path)} says where the images are; leave data.path out.")
    name = "arrays" if path.endswith(".npz") else "images"
    given = {key.removeprefix("data."): value for key, value in values.items()}
    if name == "images" and Path(path).suffix.lower() in TABLE_SUFFIXES:
        given = {"boxes": "auto"} | given
    data = _OwnData.parse({"data": {"name": name, "path": path, "subset": "all"} | given}).data
    if data.name == "arrays" and data.splits == "own":
        for field in GENERATED_SPLITS_ONLY:
            if field in given:
                raise ConfigError(
                    f"data.{field}={given[field]} does nothing for arrays with data.subset=all, which are taken as "
                    "they are. Leave it out, or draw a long tail from them with data.subset=long_tail."
                )
    return data


def _layout(data: DataConfig, values: Mapping[str, Any], out: Path) -> list[Choice]:
    """Choices for a folder that contains splits, and class folders below them; empty if it does not.

    The classes must be those of a test set, too: labels do not affect training.
    """
    folder = user_place(str(data.path))
    chosen: list[Choice] = []
    if isinstance(folder, Address) or data.name != "images":
        return chosen
    if not (folder.is_dir() or folder.suffix.lower() == ZIP_SUFFIX):
        return chosen
    if "data.layout" not in values:
        if not has_splits(folder, [out], data.links, data.exclude):
            return chosen
        reason = "its folders are called train, val, test or alike: train is trained on, the others are not used"
        chosen.append(Choice("data.layout", "splits", reason))
    elif data.layout == "flat":
        return chosen
    if "data.labels" not in values:
        chosen += _class_folders(data, out)
    return chosen


def _class_folders(data: DataConfig, out: Path) -> list[Choice]:
    """The choice of labels if the folders of splits contain class folders; warns if these exist but do not fit.

    A ConfigError from the user's own settings is passed on.
    """
    labelled = data.with_values({"layout": "splits", "labels": "folders"})
    try:
        found = build_data(labelled, exclude=[out])
    except NoClassFoldersError:
        return []
    except DataError as error:
        warnings.warn(
            f"the folders below train and the other splits are not taken as classes: {error} The run trains without "
            "labels; data.labels=none states that this is intended.",
            stacklevel=4,
        )
        return []
    if found.test is None:
        return []
    reason = "train and the other splits have the same class folders, for an evaluation alone"
    return [Choice("data.labels", "folders", reason)]


def own_data_as_trained(source: Path, path: str, values: dict[str, Any]) -> DataConfig:
    """:func:`own_data`, by default read as the run in ``source`` has read its own images.

    For the images it was trained on, none of their settings need to be repeated. ``source`` may also be a model of
    sdclr finetune, which records how its images were read.
    """
    if "data.channels" not in values:
        values = {**values, "data.channels": _channels_of(source)}
    data, run = own_data(path, values), Run(source)
    if data.name == "images" and is_classifier(source):
        facts = read_facts(source / CLASSIFIER_FILE)
        alike = [name for name in READ_ALIKE if name in facts and f"data.{name}" not in values]
        return DataConfig.parse(data.to_dict() | {name: facts[name] for name in alike})
    if not run.exists:
        return data
    trained = PretrainConfig.from_yaml(run.config_path, foreign=True).data
    if data.name != "images" or trained.name != "images":
        if "data.grey_bits" not in values and trained.name in WITH_GREY_BITS:
            return data.with_values({"grey_bits": trained.grey_bits})
        return data
    alike = list(READ_ALIKE)
    if trained.path is not None and os.path.realpath(user_place(trained.path)) == os.path.realpath(
        path
    ):
        alike += FOUND_ALIKE
        # for splits, all images are used, without labels
        alike += [] if trained.layout == "splits" else ["labels"]
    same = {name: getattr(trained, name) for name in alike if f"data.{name}" not in values}
    return DataConfig.parse(data.to_dict() | same)


def _channels_of(source: Path) -> int:
    """Channels of the input of a run's, a model's or a backbone file's network; 3 if the file does not record them."""
    path = source / BACKBONE_FILE if source.is_dir() else source
    with contextlib.suppress(SdclrError, TypeError, KeyError):
        return len(read_facts(path)["normalisation"]["mean"])
    return 3


READ_ALIKE = ("exif_rotation", "grey_bits")
"""Settings that decide how the pixels of a file become those of an image."""
WITH_GREY_BITS = ("images", "arrays", "given")
"""Data sets whose images may have 16 bits."""
FOUND_ALIKE = (
    *("root", "path_column", "label_column", "exclude", "links"),
    *("boxes", "box_categories", "min_confidence", "on_error", "max_skipped"),
)
"""Settings that decide which images are found, and which of them are left out."""


def grey_bits(images: Images) -> int | None:
    """How many bits the 16-bit greys of a sample use, if fewer than 16; otherwise None.

    Inspects the first 16-bit files among those whose headers are read anyway.
    """
    files = images.files
    if files is None:
        return None
    levels: list[int] = []
    for position in _sample(images):
        with _bad_files_passed_over():
            file = files.file(position)
            if not is_npy(file) and not is_deep_grey(file):
                continue
            if (largest := open_picture(file, channels=files.channels)[1]) is not None:
                levels.append(largest)
        if len(levels) == DEEP_SAMPLE:
            break
    bits = bits_used(levels) if levels else ALL_GREY_BITS
    return bits if bits < ALL_GREY_BITS else None


@contextlib.contextmanager
def _bad_files_passed_over() -> Iterator[None]:
    """Skip bad files, which the pass that verifies all files reports; an unreachable server is an error now."""
    try:
        yield
    except RemoteError:
        raise
    except SdclrError:
        pass


def _sample(images: Images) -> list[int]:
    positions = np.linspace(0, len(images) - 1, min(SAMPLE, len(images))).astype(np.int64)
    return [int(position) for position in np.unique(positions)]


def data_of(run: Run, given: Mapping[str, Any], verb: str = "embed") -> DataConfig:
    """The images that a run was trained on, without its test set, as an embedding reads them.

    ``given``: settings by dotted name, only data.*, which take precedence.
    """
    require_data_settings(given)
    data = PretrainConfig.from_yaml(run.require().config_path, foreign=True).data
    if data.name not in ("images", "arrays"):
        raise ConfigError(
            f"{run.folder} was trained on {data.name}; specify which images to {verb}: sdclr {verb} RUN IMAGES."
        )
    aside = {"test_path": None, "store": None, "placement": "auto", "validation_per_class": 0}
    return data.with_values(
        {**aside, **{name.removeprefix("data."): value for name, value in given.items()}}
    )


def typical_side(images: Images) -> int:
    """Median short side in pixels, of a sample; files that cannot be read are left to the pass that verifies them."""
    sides = []
    for position in _sample(images):
        with _bad_files_passed_over():
            sides.append(min(images.size(position)))
    return int(np.median(sides)) if sides else 1


def dry_run(
    config: PretrainConfig,
    sheet: Path,
    console: Console,
    progress: AnyProgress,
    *,
    download: bool = False,
    overwrite: bool = False,
) -> Preview:
    """Print a preview of the run, and write a sheet of view pairs; trains a few steps and discards them.

    A ``sheet`` of an earlier dry run is replaced; any other file of that name only with ``overwrite``.
    """
    make_folder(sheet.parent)
    with output_file(sheet, overwrite=overwrite or _is_sheet(sheet)):
        found = preview(config, download=download, progress=progress)
        pixels = [
            in_colours((view.permute(0, 2, 3, 1) * 255).round().clamp(0, 255).byte().numpy())
            for view in (found.views.a, found.views.b)
        ]
        stills = in_colours(found.stills.permute(0, 2, 3, 1).numpy())
        write_atomically(sheet, sheet_png(stills, *pixels))
    _show(found, config, console)
    console.print(
        Text(
            f"views to look at: {shown(sheet)}\nnothing was trained; leave --dry-run out to start."
        ),
        soft_wrap=True,
    )
    return found


def _is_sheet(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with storage_errors(path), path.open("rb") as file:
        return is_sheet(file.read(256))


def _show(found: Preview, config: PretrainConfig, console: Console) -> None:
    table = Table.grid(padding=(0, 2, 0, 0))
    peak = found.peak_memory_bytes
    memory = f"{peak / 1e9:.1f} GB at its peak, measured" if peak else "not known on this system"
    hours, rest = divmod(round(found.seconds / 60), 60)
    epochs = "1 epoch" if config.epochs == 1 else f"{config.epochs:,} epochs"
    for key, value in (
        ("images", f"{found.num_images:,}, {found.num_skipped} left out"),
        ("decoded", f"{found.decoded_bytes / 1e9:.2f} GB"),
        ("steps", f"{found.total_steps:,} ({found.steps_per_epoch:,} an epoch, {epochs})"),
        (
            "time",
            f"about {hours} h {rest:02d} min ({found.seconds_per_step:.2f} s a step, measured)",
        ),
        ("memory", memory),
        ("device", found.device),
    ):
        table.add_row(key, Text(one_line(value)))
    console.print(table)
    if found.load >= BUSY:
        words = (
            f"Measured while other work kept about {found.load:.1f} of {os.cpu_count()} cores busy: alone it may be "
            "faster."
        )
        console.print(Text(words, style="yellow"), soft_wrap=True)


def _explain(num_images: int, choices: Sequence[Choice], console: Console) -> None:
    console.print(
        f"{num_images:,} images found. Settings chosen for them (KEY=VALUE overrides any):"
    )
    table = Table.grid(padding=(0, 2, 0, 0))
    for choice in choices:
        value = f"{choice.value:g}" if isinstance(choice.value, float) else str(choice.value)
        table.add_row(Text(f"  {choice.setting}={value}"), Text(choice.reason, style="dim"))
    console.print(table)
