"""The published rows against the arithmetic they must satisfy: the groups, weighted by their classes, give "All"."""

from __future__ import annotations

import pytest

from sdclr.evaluation.published import PUBLISHED
from sdclr.recipes import SYSTEMS

CLASSES = {"cifar10": (4, 3, 3), "cifar100": (34, 33, 33), "imagenet100": (39, 48, 13)}
GROUPED = [
    (dataset, probe, arm)
    for (dataset, probe), rows in PUBLISHED.items()
    for arm, row in rows.items()
    if row.many is not None
]


@pytest.mark.parametrize(
    ("dataset", "probe", "arm"), GROUPED, ids=lambda x: x if isinstance(x, str) else "-".join(x)
)
def test_the_groups_weighted_by_their_classes_give_all(
    dataset: str, probe: str, arm: tuple[str, str]
) -> None:
    row = PUBLISHED[dataset, probe][arm]
    weighted = sum(
        n * v for n, v in zip(CLASSES[dataset], (row.many, row.medium, row.few), strict=True)
    )
    assert weighted / sum(CLASSES[dataset]) == pytest.approx(row.all, abs=2e-4)


def test_only_what_was_read_in_a_source_is_called_sourced() -> None:
    sourced = {(dataset, probe, *arm) for (dataset, probe), rows in PUBLISHED.items()
               for arm, row in rows.items() if row.trust == "sourced"}  # fmt: skip
    assert sourced == {
        ("cifar10", "linear", "simclr", "long_tail"),
        ("cifar10", "linear", "sdclr", "long_tail"),
    }


def test_every_published_system_is_a_recipe() -> None:
    systems = {(dataset, arm) for (dataset, _), rows in PUBLISHED.items() for arm in rows}
    assert len(systems) == 11, "the paper's repository offers eleven"
    for dataset, arm in systems:
        assert ("simclr_balanced" if arm[1] == "balanced" else arm[0]) in SYSTEMS[dataset]
