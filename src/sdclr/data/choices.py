"""The choices of a data set's settings, by name, and the names of the authors' lists. Imports nothing heavy."""

from __future__ import annotations

from typing import Literal

OnError = Literal["raise", "skip"]

Placement = Literal["auto", "device", "pinned", "mapped"]

Links = Literal["inside", "anywhere"]
"""Where links below the root of a collection may lead. The root itself may always be one."""

WantedBoxes = Literal["none", "auto", "pixels", "fractions"]

Unlabelled = Literal["refuse", "leave_out", "keep_all"]
"""Of images without a label where others have one: an error; they are left out; or all are taken, without labels."""

DELIMITED = (".csv", ".tsv", ".tab")

JSON_LINES = (".jsonl", ".ndjson")

PARQUET = (".parquet", ".pq")

TABLE_SUFFIXES = (*DELIMITED, *JSON_LINES, ".json", *PARQUET)

LIST_SUFFIXES = (".txt", *TABLE_SUFFIXES)

SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")
"""Suffixes of tables that are not read directly."""

SHARD_SUFFIX = ".tar"

ZIP_SUFFIX = ".zip"

ARRAYS_SUFFIX = ".npz"

COLLECTION_SUFFIXES = (*LIST_SUFFIXES, SHARD_SUFFIX, ZIP_SUFFIX, ARRAYS_SUFFIX)
"""Suffixes of files that list or contain images."""

MEGADETECTOR_CATEGORIES = ("animal",)

MEGADETECTOR_CONFIDENCE = 0.2
"""The threshold that its authors recommend for version 5."""

AUTHORS_CIFAR_FOLDERS = {
    "cifar10": ("cifar10", "cifar10_imbSub_with_subsets", "", ""),
    "cifar100": ("cifar100", "cifar100_imbSub_with_subsets", "cifar100_", "cifar100_"),
}

PUBLISHED_LISTS = {
    "places_lt": {
        "train": "Places_LT_train.txt",
        "validation": "Places_LT_val.txt",
        "test": "Places_LT_test.txt",
    },
    "inaturalist2018": {
        "train": "iNaturalist18_train.txt",
        "test": "iNaturalist18_val.txt",
    },
}
"""Lists of naturally long-tailed sets in circulation; the test list of iNaturalist 2018 has its validation images."""

AUTHORS_IMAGENET_LISTS = {
    "imagenet100": {
        "long_tail": "imagenet-100/imageNet_100_LT_train.txt",
        "balanced": "imagenet-100/imageNet_100_BL_train.txt",
        "few_shot": "imagenet-100/imageNet_100_sub_balance_train_0.01.txt",
        "train": "imagenet-100/ImageNet_100_train.txt",
        "validation": "imagenet-100/ImageNet_100_val.txt",
        "test": "imagenet-100/ImageNet_100_test.txt",
    },
    "imagenet_lt_exp": {
        "long_tail": "ImageNet_LT/imageNet_LT_exp_train.txt",
        "balanced": "ImageNet_LT/imageNet_BL_exp_train.txt",
        "few_shot": "ImageNet_LT/imageNet_sub_balance_train_0.01.txt",
        "train": "ImageNet_LT/ImageNet_train.txt",
        "validation": "ImageNet_LT/ImageNet_LT_val.txt",
        "test": "ImageNet_LT/ImageNet_LT_test.txt",
    },
}
MOST_CHANNELS = 256
"""The most channels of an image; more mean that its shape was misread."""
