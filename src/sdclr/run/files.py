"""What the files of a run folder are called, and how a run folder is told by them."""

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
"""Images that a person is asked to label, and then their labels."""
RECORDS_FILE, TABLE_FILE = "image_records.f32", "images.parquet"
FEATURES_FILE = "features.npz"
"""Where a run's own images are embedded, if nothing else is asked for."""
MINED_FOLDER, PROFILE_FILE = "rare", "profile.json"
"""Where a run's own images are mined, and what is known of them as a collection."""
FEWEST_MINED = 32
"""Images below which nothing is common enough for anything to be rare."""
MINE_FILE, FINETUNE_FILE, CLASSIFIER_FILE = "mine.json", "finetune.json", "classifier.safetensors"
"""What a folder of `sdclr mine`, of `sdclr finetune` and of a finished classifier is told by."""
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
CONFIG_FILE = "config.yaml"
RUN_FILES = frozenset({CONFIG_FILE, "split.json", "environment.json", STATUS_FILE})


def looks_like_a_run(names: Collection[str]) -> bool:
    """Whether a folder that holds files of these names is a run folder: its settings, and two of the facts about it."""
    return "config.yaml" in names and len(RUN_FILES.intersection(names)) >= 3


def remedy(name: str) -> str:
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
