"""Read an export with the package of the tool it is for, and print what was understood as JSON.

    python tests/support/read_with_tools.py fiftyone|label_studio|cvat FILE

For the Python of `make test-tools`, which has these packages; it needs nothing of sdclr.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

LABEL_STUDIO_CONFIG = """
<View>
  <Image name="image" value="$image"/>
  <Choices name="wanted" toName="image">
    <Choice value="wanted"/>
    <Choice value="not wanted"/>
  </Choices>
</View>
"""
"""As docs/mining-page.md gives it."""


def fiftyone(path: Path) -> Any:
    from fiftyone.utils.csv import CSVDatasetImporter

    fields: dict[str, Any] = {
        "filepath": None,
        "rarity": float,
        "rarity_rank": int,
        "rarity_group": int,
    }
    fields["rarity_wanted"] = {"1": True, "0": False}.get
    names = list(fields)  # the importer takes some of them out
    importer = CSVDatasetImporter(labels_path=str(path), fields=fields)
    importer.setup()
    # an empty cell is a sample without the field
    return [{name: getattr(sample, name, None) for name in names} for sample in importer]


def label_studio(path: Path) -> Any:
    from label_studio_sdk.label_interface import LabelInterface
    from label_studio_sdk.label_interface.objects import TaskValue

    interface = LabelInterface(LABEL_STUDIO_CONFIG)
    interface.validate()
    read = []
    for task in json.loads(path.read_text()):
        value = TaskValue(**task)
        assert interface.validate_task({"data": value.data})
        trouble = interface.validate_prediction(task["predictions"][0], return_errors=True)
        assert trouble == [], trouble
        read.append({"data": value.data, "score": value.predictions[0].score})
    return read


def cvat(path: Path) -> Any:
    from cvat_sdk import models

    values = json.loads(path.read_text())
    values["sorting_method"] = models.SortingMethod(values["sorting_method"])
    request = models.DataRequest(**values)
    return {"files": list(request.server_files), "order": str(request.sorting_method)}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](Path(sys.argv[2]))))
