"""The results of an evaluation: typed, and saved as the JSON file of a run folder.

C classes. Accuracies are fractions. The groups of the classes are always those of the measured data
set: an :class:`Evaluation` records its convention.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from pydantic import ConfigDict

from sdclr.errors import ConfigError, DataError, MissingInputError
from sdclr.evaluation.balancedness import Balancedness, GroupConvention, balancedness
from sdclr.run.records import EvaluationMade, ProbeMeasured, Text, sound_evaluation
from sdclr.storage.documents import read_json_file
from sdclr.storage.durable_files import make_folder, write_atomically


class ProbeResult(ProbeMeasured):
    """One probe on one backbone.

    >>> result = ProbeResult(per_class_accuracy=[1.0, 0.5], num_test=[30, 10])
    >>> result.accuracy
    0.875
    """

    model_config = ConfigDict(frozen=True)

    @property
    def accuracy(self) -> float | None:
        """Share of all test images that are predicted correctly; large classes count for more.

        This is plain accuracy. The tables' "All" is the mean over the classes instead. None if the
        file does not record how many images of each class were tested.
        """
        if self.num_test is None:
            return None
        pairs = zip(self.per_class_accuracy, self.num_test, strict=True)
        tested = [(one, count) for one, count in pairs if one is not None and count]
        total = sum(count for _, count in tested)
        return sum(one * count for one, count in tested) / total if total else None


class Evaluation(EvaluationMade):
    """The results of one protocol's probes on one run; evaluation/<protocol>.json.

    >>> evaluation = Evaluation(
    ...     protocol="cached", dataset="flowers", group_convention="thresholds",
    ...     train_counts=[500, 50, 5], class_names=["rose", "lily", "iris"],
    ...     split={"number": 1, "fingerprint": "00"}, chance=1 / 3,
    ...     probes={"knn": {"per_class_accuracy": [0.9, 0.5, 0.2], "num_test": [10, 10, 10]}},
    ... )
    >>> evaluation.balancedness("knn").few
    0.2
    """

    model_config = ConfigDict(frozen=True)

    protocol: Text
    probes: dict[str, ProbeResult]

    def probe(self, name: str | None = None) -> ProbeResult:
        """The result of a probe; ``name`` may be left out if there is only one.

        Raises ConfigError, listing the available probes.
        """
        if name is None and len(self.probes) == 1:
            return next(iter(self.probes.values()))
        if name not in self.probes:
            problem = "name the probe" if name is None else f"it has no probe {name!r}"
            there = ", ".join(self.probes) or "none"
            raise ConfigError(
                f"the evaluation by protocol {self.protocol}: {problem}; it has {there}."
            )
        return self.probes[name]

    def balancedness(self, probe: str | None = None) -> Balancedness:
        """Accuracy per group and its spread, by the groups of the measured data set."""
        measured = self.probe(probe).per_class_accuracy
        return balancedness(measured, self.train_counts, self.group_convention)

    def grouped_by(self, convention: GroupConvention) -> Self:
        """The same accuracies under another group convention."""
        return self.model_copy(update={"group_convention": convention})

    def to_dict(self) -> dict[str, Any]:
        """The content of the file: what was set, and for each probe a summary."""
        content = self.model_dump(mode="json", exclude_unset=True)
        for name, probe in content["probes"].items():
            probe["summary"] = self._summary(name)
        return content

    def _summary(self, probe: str) -> dict[str, float | None]:
        """All, Many, Medium, Few and their spread; null for a group without a tested class."""
        values = asdict(self.balancedness(probe))
        return {name: None if math.isnan(value) else value for name, value in values.items()}

    def save(self, path: Path | str) -> None:
        """Write the file atomically."""
        make_folder(Path(path).parent)
        write_atomically(Path(path), json.dumps(self.to_dict(), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a file, including those of earlier versions. A damaged probe is left out with a warning.

        Raises MissingInputError if there is no file, and DataError if it is damaged.
        """
        path = Path(path)
        try:
            content = read_json_file(path)
        except FileNotFoundError:
            raise MissingInputError(
                f"{path} does not exist; `sdclr evaluate RUN` writes it."
            ) from None
        except (ValueError, OSError) as error:
            raise DataError(f"{path} is damaged, it cannot be read as JSON: {error}") from None
        return cls.of_content(content, path)

    @classmethod
    def of_content(cls, content: Any, path: Path) -> Self:
        """Parse the content of a file; ``path`` is its place, for messages."""
        sound = sound_evaluation(content, str(path))
        return cls.model_validate({"protocol": path.stem, **sound})
