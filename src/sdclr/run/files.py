"""The names of the files of a run folder, and how a run folder is recognised by them."""

from __future__ import annotations

from collections.abc import Collection

LOCK_FILE = ".lock"
STATUS_FILE = "status.json"
IMAGES_FILE = "images.json"
CONTENTS_FILE = "images.tsv.gz"
CHOICES_FILE = "choices.json"
LOG_FILE = "log.txt"
AGAINST_FILE = "against.json"
FEW_LABELS_FILE = "few_labels.json"
TO_LABEL_FILE = "to_label.csv"
"""Images for the user to label, and then their labels."""
RECORDS_FILE, TABLE_FILE = "image_records.f32", "images.parquet"
FEATURES_FILE = "features.npz"
"""The default output of embedding a run's own images."""
MINED_FOLDER, PROFILE_FILE = "rare", "profile.json"
"""The default folder of mining a run's own images, and the facts about them as a collection."""
FEWEST_MINED = 32
"""Images below which nothing is common enough for anything to be rare."""
MINE_FILE, FINETUNE_FILE, CLASSIFIER_FILE = "mine.json", "finetune.json", "classifier.safetensors"
"""The files that identify a folder of `sdclr mine`, of `sdclr finetune` and of a finished classifier."""
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
"""The files that a run writes itself, and that no command of the user's may overwrite."""
CONFIG_FILE = "config.yaml"
RUN_FILES = frozenset({CONFIG_FILE, "split.json", "environment.json", STATUS_FILE})


def looks_like_a_run(names: Collection[str]) -> bool:
    """Whether a folder with files of these names is a run folder: the settings and two more of RUN_FILES."""
    return "config.yaml" in names and len(RUN_FILES.intersection(names)) >= 3


def remedy(name: str) -> str:
    """Advice where a file of a run is missing or damaged."""
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
