"""A run folder: what was asked, with what, what came of it. Its name carries no facts; its files do.

config.yaml         runs again as it is                 checkpoints/          the newest two moments of the run
environment.json    versions, device, command           backbone.safetensors  the trained target backbone
split.json          data set, counts, fingerprint       evaluation/*.json     one file per protocol
metrics.jsonl       one line per epoch                  report.html
images.json         which files cannot be decoded, and which are copies, for images on disk
images.tsv.gz       a digest of each of them
image_records.f32   loss, hardest mass and disagreement of each image by epoch, with record_images=true;
images.parquet      the same as a table, once the run is finished
against.json        what `sdclr evaluate --against` has found
few_labels.json     accuracy with few labels: `sdclr evaluate --few-shot`, `--labels-per-class`, `--label-share`
status.json         running, done, preempted or failed and why; see sdclr status
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
import warnings
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sdclr.addresses import redacted
from sdclr.config import Section, user_path
from sdclr.errors import (
    EXIT_BUG,
    CheckpointError,
    ConfigError,
    DataError,
    MissingInputError,
    NonFiniteError,
    RunFolderError,
)
from sdclr.run_records import KINDS, Epoch, check, sound_evaluation
from sdclr.safe_text import command, shown
from sdclr.storage import durable_files
from sdclr.storage.checkpoint import CheckpointFolder
from sdclr.storage.documents import parse_json, read_json_file, read_yaml_file
from sdclr.storage.durable_files import (
    append_line,
    is_leftover,
    make_folder,
    storage_errors,
    write_atomically,
)
from sdclr.storage.locks import Lock

LOCK_FILE = ".lock"
STATUS_FILE = "status.json"
IMAGES_FILE = "images.json"
CONTENTS_FILE = "images.tsv.gz"
CHOICES_FILE = "choices.json"
LOG_FILE = "log.txt"
AGAINST_FILE = "against.json"
FEW_LABELS_FILE = "few_labels.json"
TO_LABEL_FILE = "to_label.csv"
"""Images that a person is asked to label, and then their labels."""
RECORDS_FILE, TABLE_FILE = "image_records.f32", "images.parquet"
FEATURES_FILE = "features.npz"
"""Where a run's own images are embedded, if nothing else is asked for."""
MINED_FOLDER, PROFILE_FILE = "rare", "profile.json"
"""Where a run's own images are mined, and what is known of them as a collection."""
EXAMINATION_FOLDER = "examination"
LAYERS_FILE = f"{EXAMINATION_FOLDER}/layers.json"
GROUPS_FILE = f"{EXAMINATION_FOLDER}/groups.json"
MAP_FILE = f"{EXAMINATION_FOLDER}/map.json"


OWN_PARTS = frozenset(
    {
        "backbone.safetensors",
        "config.yaml",
        "environment.json",
        "metrics.jsonl",
        "split.json",
        STATUS_FILE,
    }
    | {IMAGES_FILE, CONTENTS_FILE, CHOICES_FILE, LOG_FILE, RECORDS_FILE, TABLE_FILE, AGAINST_FILE}
    | {FEW_LABELS_FILE, TO_LABEL_FILE}
)
"""What a run has written itself, and no command of the user's may write over."""
RUN_FILES = frozenset({"config.yaml", "split.json", "environment.json", STATUS_FILE})


OF_AN_EVALUATION = frozenset(
    {"data.labels", "data.test_path", "data.on_error", "data.label_column"}
)
"""Settings that an evaluation can give anew; they change nothing of a finished training."""


def looks_like_a_run(names: Collection[str]) -> bool:
    """Whether a folder that holds files of these names is a run folder: its settings, and two of the facts about it."""
    return "config.yaml" in names and len(RUN_FILES.intersection(names)) >= 3


class Run:
    """One run folder. Reading needs no lock; use it as a context manager to write.

    >>> import sdclr
    >>> config = sdclr.recipe("digits_sdclr").with_values({"epochs": 1, "views.size": 8, "backbone.width": 4})
    >>> run = sdclr.pretrain(config, "runs/tiny")
    >>> run.backbone_path.name, len(run.metrics()), sorted(run.metrics()[0])[:2]
    ('backbone.safetensors', 1, ['data_share', 'epoch'])
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.checkpoints = CheckpointFolder(self.folder / "checkpoints")
        self._lock = Lock(self.folder / LOCK_FILE, str(self.folder))

    @property
    def config_path(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def backbone_path(self) -> Path:
        return self.folder / "backbone.safetensors"

    @property
    def metrics_path(self) -> Path:
        return self.folder / "metrics.jsonl"

    def evaluation_path(self, protocol: str) -> Path:
        return self.folder / "evaluation" / f"{protocol}.json"

    def backbone_identity(self) -> str:
        """16 hex digits over the trained backbone: an evaluation belongs to one."""
        return hashlib.sha256(self.backbone_path.read_bytes()).hexdigest()[:16]

    def read_evaluation(self, protocol: str) -> dict[str, Any]:
        """evaluation/<protocol>.json; DataError when it is damaged. A damaged probe is left out with a warning."""
        path = self.evaluation_path(protocol)
        return sound_evaluation(self.read_json(str(path.relative_to(self.folder))), str(path))

    @property
    def exists(self) -> bool:
        return self.config_path.is_file()

    def evaluated_protocols(self) -> set[str]:
        """The protocols under which something was evaluated."""
        return {file.stem for file in (self.folder / "evaluation").glob("*.json") if file.is_file()}

    def skipped_images(self) -> set[str]:
        """The files that pre-training has left out, by their names in the collection."""
        if not (self.folder / IMAGES_FILE).is_file():
            return set()
        return {path for path, _ in self.read_json(IMAGES_FILE, "skipped")["skipped"]}

    def require_classes(self, class_names: Sequence[str]) -> None:
        """ConfigError unless the classes are called what they were called when the run began, in the same order."""
        before = self.read_json("split.json").get("class_names")
        if before is not None and before != list(class_names):
            other = next(
                (
                    n
                    for n, pair in enumerate(zip(before, class_names, strict=False))
                    if len(set(pair)) > 1
                ),
                None,
            )
            said = f"{len(before)} then, {len(class_names)} now"
            if other is not None:
                said = (
                    f"class {other} was {shown(before[other])} and is {shown(class_names[other])}"
                )
            raise ConfigError(
                f"the classes are not those of {self.folder}: {said}. Restore the data, or start a new run in another "
                "--out."
            )

    def require(self) -> Self:
        """Itself, if this is a run folder; MissingInputError otherwise."""
        if not self.exists:
            if not os.path.lexists(self.folder):
                raise MissingInputError(f"run folder {shown(self.folder)} does not exist.")
            raise MissingInputError(
                f"{self.folder} is not a run folder: it has no config.yaml (sdclr pretrain makes one)."
            )
        return self

    def check(self, config: Section) -> None:
        """Refuse to mix: ConfigError if this folder holds a run whose settings decide another result, naming them."""
        if self.exists:
            if differences := config.differences(self.settings()):
                raise ConfigError(self._other_settings(differences))
        elif self.folder.exists() and (not self.folder.is_dir() or self._holds_something_else()):
            raise RunFolderError(
                f"{self.folder} exists and is not a run folder; choose a new or empty --out."
            )

    def _other_settings(self, differences: Sequence[str]) -> str:
        """What to do first, then the differences."""
        names = [line.partition(":")[0] for line in differences]
        if self.backbone_path.is_file() and set(names) <= OF_AN_EVALUATION:
            return (
                f"{shown(self.folder)} is finished, and {', '.join(names)} changes its evaluation alone: "
                f"{command('sdclr', 'evaluate', self.folder)} {' '.join(f'{name}=...' for name in names)}"
            )
        first = f"{shown(self.folder)} holds a run with other settings: give the saved ones to go on, or "
        same_network = not any(line.startswith("backbone.") for line in differences)
        afresh = "start a new run with another --out."
        if self.backbone_path.is_file():
            first = f"{shown(self.folder)} is finished, with other settings: "
            if same_network and not any(line.startswith("weights:") for line in differences):
                weights = command("--weights", self.folder)
                afresh = f"start a new run, with the same command, {weights} and another --out."
        more = [f"... and {len(differences) - 8} more"] if len(differences) > 8 else []
        return "\n  ".join([f"{first}{afresh}", "saved -> asked for:", *differences[:8], *more])

    def require_elsewhere(self, *places: str | None) -> None:
        """ConfigError where this folder is one of ``places``, folders of images, which stay as they are."""
        for place in places:
            if place is not None and os.path.realpath(user_path(place)) == os.path.realpath(
                self.folder
            ):
                raise ConfigError(
                    f"{self.folder} is the folder of the images; a run needs one of its own. Choose another --out."
                )

    def _holds_something_else(self) -> bool:
        # what a start that was killed before config.yaml leaves behind does not count
        locks = {f"{LOCK_FILE}{end}" for end in ("", ".json", ".held", ".held.json")}
        begun = locks | {
            "environment.json",
            "split.json",
            IMAGES_FILE,
            CONTENTS_FILE,
            CHOICES_FILE,
            STATUS_FILE,
            LOG_FILE,
        }
        return any(
            path.name not in begun and not path.name.endswith(".tmp")
            for path in self.folder.iterdir()
        )

    def __enter__(self) -> Self:
        make_folder(self.folder)
        self._lock.__enter__()
        self._remove_leftovers()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._lock.__exit__(kind, error, tb)

    def _remove_leftovers(self) -> None:
        """Half-written files of processes that were killed; who holds the lock is the only one that writes."""
        for folder in (self.folder, self.folder / "evaluation"):
            with contextlib.suppress(OSError):
                for name in filter(is_leftover, durable_files.files.list(folder)):
                    durable_files.files.unlink(folder / name)

    def in_use(self) -> bool:
        """Whether another process (or another Run object here) is writing to this folder now."""
        return self._lock.held_elsewhere()

    def write_text(self, name: str, content: str) -> None:
        write_atomically(self.folder / name, content)

    def __fspath__(self) -> str:
        """A run can be given wherever its folder can."""
        return str(self.folder)

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        path = self.folder / name
        make_folder(path.parent)
        write_atomically(path, json.dumps(content, indent=1) + "\n")

    def read_json(self, name: str, *required: str) -> dict[str, Any]:
        """A JSON object of this folder that has the ``required`` keys; DataError when it is damaged."""
        path, remedy = self.folder / name, _remedy(name)
        try:
            content = read_json_file(path)
        except FileNotFoundError:
            raise MissingInputError(
                f"{path} does not exist; a complete run folder has it. {remedy}"
            ) from None
        except (ValueError, OSError) as error:
            raise DataError(
                f"{path} is damaged, it cannot be read as JSON: {error}. {remedy}"
            ) from None
        if not isinstance(content, dict):
            raise DataError(
                f"{path} is damaged: it must hold a JSON object, got {type(content).__name__}. {remedy}"
            )
        if missing := [key for key in required if key not in content]:
            raise DataError(f"{path} is damaged: it has no {', '.join(missing)}. {remedy}")
        if name in KINDS:
            try:
                check(KINDS[name], content, str(path))
            except DataError as error:
                raise DataError(f"{error} {remedy}") from None
        return content

    def read_side_file(self, name: str, *, optional: bool = False) -> dict[str, Any]:
        """:meth:`read_json` for readers that do without the file: empty, with a warning, where it cannot be read.

        ``optional``: runs need not have it, and its absence is no warning.
        """
        if optional and not os.path.lexists(self.folder / name):
            return {}
        try:
            return self.read_json(name)
        except (DataError, MissingInputError) as error:
            # from this line alone, so that readers of one file say it once
            warnings.warn(f"{error} Until then this goes on without it.", stacklevel=1)
            return {}

    def read_status(self) -> dict[str, Any]:
        """status.json; empty for a run of a version without one. DataError when it is damaged."""
        return self.read_json(STATUS_FILE, "state") if (self.folder / STATUS_FILE).is_file() else {}

    def next_command(self, state: str, exit_code: int | None = None) -> str | None:
        """What to do with a run in this state; ``exit_code`` of the one that failed. None: to wait, or not known."""
        if state == "running":
            return None
        if not self.exists:  # it ended before its settings were written
            return None
        if state == "done":
            return self._next_when_done()
        afresh = command("sdclr", "pretrain", "--config", self.config_path, "--out", "ANOTHER")
        if exit_code == CheckpointError.exit_code:
            return afresh
        settings: dict[str, Any] = {}
        with contextlib.suppress(DataError):
            settings = self.settings()
        if exit_code == NonFiniteError.exit_code:  # the same settings would end in the same step
            rate = _section(settings, "optimizer").get("learning_rate")
            smaller = f"{rate / 10:g}" if isinstance(rate, int | float) else "SMALLER"
            return f"{afresh} optimizer.learning_rate={smaller}"
        if exit_code == EXIT_BUG:
            return "report it"
        if _section(settings, "backbone").get("name") == "custom":
            return f"from Python: sdclr.resume({str(self.folder)!a}, network=...)"
        return command(
            "sdclr", "resume", self.folder, *self.use_options("method", "backbone", "data")
        )

    def outside(self) -> dict[str, tuple[str, str]]:
        """What is not part of the package: "method", "method.base", ... -> its name and its "module:Name"."""
        found: dict[str, tuple[str, str]] = {}
        with contextlib.suppress(DataError, MissingInputError):
            origins, settings = (
                _section(self.read_json("environment.json"), "outside"),
                self.settings(),
            )
            for what, origin in origins.items():
                section: Mapping[str, Any] = settings
                for part in what.split("."):  # "method.base": what another method lies around
                    section = _section(section, part)
                name = section.get("name")
                if isinstance(origin, str) and isinstance(name, str):
                    found[what] = name, origin
        return found

    def use_options(self, *kinds: str) -> list[str]:
        """The --use options with which a command knows what this run has from outside the package."""
        outside = self.outside()
        words: list[str] = []
        for kind in kinds:
            for what, (_, origin) in outside.items():
                if what == kind or what.startswith(f"{kind}."):
                    words += ["--use", origin]
        return words

    def _next_when_done(self) -> str | None:
        """Evaluate where there are labels, then report, then the features of one's own images; then nothing is left."""
        split: dict[str, Any] = {}
        settings: dict[str, Any] = {}
        with contextlib.suppress(DataError, MissingInputError):
            split, settings = self.read_json("split.json"), self.settings()
        evaluations = [
            self.evaluation_path(name).stat().st_mtime for name in self.evaluated_protocols()
        ]
        if not evaluations and not split:
            return command("sdclr", "evaluate", self.folder, *self.use_options("backbone", "data"))
        if not evaluations and (options := _evaluable(split.get("counts") or {})) is not None:
            return command(
                "sdclr", "evaluate", self.folder, *options, *self.use_options("backbone", "data")
            )
        page = self.folder / "report.html"
        if not page.is_file() or page.stat().st_mtime < max(evaluations, default=0.0):
            return command("sdclr", "report", self.folder, *self.use_options("backbone", "data"))
        data, features = _section(settings, "data"), self.folder / FEATURES_FILE
        if data.get("name") in ("images", "arrays") and not features.is_file():
            return command("sdclr", "embed", self.folder, *self.use_options("backbone", "data"))
        return None

    def settings(self) -> dict[str, Any]:
        """config.yaml as nested plain values, not validated."""
        try:
            content = read_yaml_file(self.config_path)
        except (ValueError, OSError) as error:
            raise DataError(
                f"{self.config_path} is damaged, it cannot be read as YAML: {error}. {_remedy('config.yaml')}"
            ) from None
        if not isinstance(content, dict):
            raise DataError(
                f"{self.config_path} is damaged: it must hold settings, got {type(content).__name__}. "
                f"{_remedy('config.yaml')}"
            )
        return content

    def metrics(self) -> list[dict[str, Any]]:
        """metrics.jsonl, one entry an epoch, in order; of an epoch that was repeated after a crash, the last.

        A damaged line is left out with a warning, and so is a whole file that cannot be read.
        """
        try:
            entries, damage = self.sound_metrics()
        except DataError as error:
            entries, damage = [], [str(error)]
        for line in damage[:3]:
            warnings.warn(f"{line} It is left out.", stacklevel=2)
        if len(damage) > 3:
            warnings.warn(
                f"{self.metrics_path}: {len(damage) - 3} more lines are damaged.", stacklevel=2
            )
        return entries

    def sound_metrics(self) -> tuple[list[dict[str, Any]], list[str]]:
        """The entries of :meth:`metrics`, and a sentence for each line that is damaged."""
        by_epoch: dict[int, dict[str, Any]] = {}
        damage: list[str] = []
        try:
            lines = (
                self.metrics_path.read_bytes().splitlines() if self.metrics_path.is_file() else []
            )
        except OSError as error:
            raise DataError(f"{self.metrics_path} cannot be read: {error.strerror}") from None
        for number, line in enumerate(lines, start=1):
            where = f"{self.metrics_path}, line {number},"
            try:
                entry = parse_json(line)
                check(Epoch, entry, where)
                by_epoch[entry["epoch"]] = entry
            except DataError as error:
                damage.append(str(error))
            except ValueError as error:
                damage.append(f"{where} is damaged: {shown(error)}.")
        return [by_epoch[epoch] for epoch in sorted(by_epoch)], damage

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """On the disk when this returns: the next checkpoint counts on it."""
        append_line(self.metrics_path, json.dumps(line))

    def metrics_size(self) -> int:
        """Bytes of metrics.jsonl; a checkpoint remembers it."""
        return self.metrics_path.stat().st_size if self.metrics_path.exists() else 0

    def cut_metrics(self, size: int) -> None:
        """Forget the lines written after the checkpoint that a run resumes from; warns when lines before are lost."""
        if (found := self.metrics_size()) < size:
            warnings.warn(
                f"{self.metrics_path} has {found} bytes, and had {size} when the checkpoint was written: the lines of "
                "some epochs are lost, and the curves of a report lack them. The weights are not concerned.",
                stacklevel=3,
            )
        if self.metrics_path.exists():
            with storage_errors(self.metrics_path):
                os.truncate(self.metrics_path, min(size, found))


def _evaluable(counts: Mapping[str, Sequence[int]]) -> list[str] | None:
    """The options with which an evaluation of these images per class ends well; None where none does.

    Without a test set the images are cross-validated: a class needs two, one to learn from and one to predict.
    """
    train, test = counts.get("train") or [], counts.get("test") or []
    if len(train) < 2:  # no labels, or one class alone
        return None
    if test:
        measurable = [bool(known and tested) for known, tested in zip(train, test, strict=False)]
    else:
        measurable = [known > 1 for known in train]
    if sum(measurable) < (1 if test else 2):
        return None
    return [] if all(measurable) else ["--untested", "leave_out"]


def _remedy(name: str) -> str:
    """What to do where a file of a run is absent or damaged."""
    if name.startswith("evaluation/"):
        return "Remove it, and evaluate again."
    if name.startswith(f"{EXAMINATION_FOLDER}/"):
        return "Remove that folder, and report again."
    if name == f"{MINED_FOLDER}/{PROFILE_FILE}":
        return "Remove it, and run sdclr profile again."
    if name == AGAINST_FILE:
        return "Remove it, and run sdclr evaluate --against again."
    if name == FEW_LABELS_FILE:
        return "Remove it, and run sdclr evaluate --labels-per-class N again."
    if name in (IMAGES_FILE, CHOICES_FILE, STATUS_FILE):
        return "Restore it from a backup, or remove it."
    return "Restore it from a backup."


def _section(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A group of settings; empty where a damaged file has something else there."""
    section = settings.get(name)
    return section if isinstance(section, Mapping) else {}


def environment(device: str, world_size: int = 1) -> dict[str, Any]:
    """environment.json: what a reader needs to trust or repeat the numbers."""
    return {
        "sdclr": own_version(),
        **{name: _version(name) for name in ("torch", "torchvision", "timm", "numpy")},
        "python": platform.python_version(),
        "device": device,
        "world_size": world_size,
        "command": shlex.join([Path(sys.argv[0]).name, *map(redacted, sys.argv[1:])]),
        "commit": _commit(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def own_version() -> str:
    """Of the code that runs, which need not be installed."""
    import sdclr

    return sdclr.__version__


def _version(package: str) -> str | None:
    """None for one that was put there without its metadata."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The package's git commit when it runs from a checkout, with + when there are changes."""
    here = Path(__file__).resolve().parent
    git = ["git", "-C", str(here)]
    try:
        top = subprocess.run(
            [*git, "rev-parse", "--show-toplevel"], capture_output=True, text=True, timeout=5
        )
        if top.returncode or not (Path(top.stdout.strip()) / "src" / "sdclr" / "run.py").exists():
            return None
        commit = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, timeout=5
        )
        dirty = subprocess.run([*git, "diff", "--quiet", "HEAD"], capture_output=True, timeout=5)
        return commit.stdout.strip() + ("+" if dirty.returncode else "") or None
    except (OSError, subprocess.TimeoutExpired):
        return None
