from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from sdclr.errors import DataError
from sdclr.evaluation import cross_validation
from sdclr.evaluation.cached_probes import LogisticOnFeatures, choose_strength
from sdclr.evaluation.cross_validation import (
    CrossValidated,
    cross_validate,
    grouped_folds,
    stratified_folds,
    undivided_classes,
)
from sdclr.evaluation.probes import PROBES

LABELS = np.array([0] * 23 + [1] * 9 + [2] * 4 + [3] * 2)


def cross_validated(
    probe: str, features: torch.Tensor, labels: np.ndarray, folds: np.ndarray
) -> CrossValidated:
    built, _ = PROBES[probe].build("cached")
    return cross_validate(built, features, labels, folds, subset=PROBES[probe].subset)


def detail(probe: str, features: torch.Tensor, labels: np.ndarray, folds: np.ndarray) -> str:
    """What a logistic probe says after all folds."""
    built, _ = PROBES[probe].build("cached")
    assert isinstance(built, LogisticOnFeatures)
    cross_validate(built, features, labels, folds, subset=PROBES[probe].subset)
    return built.detail


def blobs(labels: np.ndarray, spread: float, seed: int = 0) -> torch.Tensor:
    """Features [N, 6] around a centre for each class."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(labels.max() + 1, 6))
    return torch.from_numpy(centres[labels] + spread * rng.normal(size=(len(labels), 6))).float()


def test_the_images_of_every_class_are_dealt_out_evenly() -> None:
    folds = stratified_folds(LABELS)
    assert sorted(np.bincount(folds).tolist()) == [7, 7, 8, 8, 8]
    for c in range(4):
        per_fold = np.bincount(folds[c == LABELS], minlength=5)
        assert per_fold.max() - per_fold.min() <= 1, f"class {c}"


def test_the_seed_alone_decides_who_goes_where() -> None:
    assert (stratified_folds(LABELS, seed=3) == stratified_folds(LABELS, seed=3)).all()
    assert (stratified_folds(LABELS, seed=3) != stratified_folds(LABELS, seed=4)).any()


def test_there_are_no_more_folds_than_the_largest_class_has_images() -> None:
    assert set(stratified_folds(np.array([0, 0, 0, 1, 1])).tolist()) == {0, 1, 2}
    with pytest.raises(DataError, match="at least 2 labelled images"):
        stratified_folds(np.array([0, 1, 2]))


def test_every_image_is_predicted_by_neighbours_in_the_other_folds() -> None:
    features, folds = blobs(LABELS, 0.8), stratified_folds(LABELS)
    found = cross_validated("knn", features, LABELS, folds)
    x = torch.nn.functional.normalize(features, dim=1).numpy()
    for fold in range(5):
        train, test = folds != fold, folds == fold
        votes = KNeighborsClassifier(10, weights=lambda d: np.exp((1 - d**2 / 2) / 0.1))
        expected = votes.fit(x[train], LABELS[train]).predict(x[test])
        assert (found.predictions[test] == expected).all()
    right = [float((found.predictions == LABELS)[folds == fold].mean()) for fold in range(5)]
    assert found.accuracies == pytest.approx(right)


def test_a_linear_probe_is_fitted_on_the_other_folds_with_the_strength_it_names() -> None:
    labels = np.array([0] * 30 + [1] * 20)
    features, folds = blobs(labels, 1.5), stratified_folds(labels, 3)
    found = cross_validated("linear", features, labels, folds)
    strengths = [
        float(one)
        for one in detail("linear", features, labels, folds)
        .split("C = ")[1]
        .split(",")[0]
        .split(" or ")
    ]
    for fold in range(3):
        train, test = folds != fold, folds == fold
        scaler = StandardScaler().fit(features[train].numpy())
        x = scaler.transform(features.numpy())
        fits = [
            LogisticRegression(C=c, max_iter=500).fit(x[train], labels[train]) for c in strengths
        ]
        assert any((found.predictions[test] == fit.predict(x[test])).all() for fit in fits)


def test_labels_of_the_predicted_fold_are_not_learned_from() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200)
    features = torch.from_numpy(
        rng.normal(size=(200, 60))
    ).float()  # enough to learn 160 rows by heart
    for probe in (name for name, row in PROBES.items() if "cached" in row.fitters):
        found = cross_validated(probe, features, labels, stratified_folds(labels))
        assert abs((found.predictions == labels).mean() - 0.25) < 0.11, probe


def test_few_shots_are_as_many_of_each_class_as_the_rarest_has_in_the_other_folds() -> None:
    given = blobs(LABELS, 0.1), LABELS, stratified_folds(LABELS)
    found = cross_validated("few_shot", *given)
    assert detail("few_shot", *given) == "C = 1, 1 or 2 images a class"
    assert (found.predictions == LABELS).mean() > 0.9


def test_the_spread_over_the_folds_is_said() -> None:
    found = cross_validated("knn", blobs(LABELS, 1.0), LABELS, stratified_folds(LABELS))
    low, high = 100 * min(found.accuracies), 100 * max(found.accuracies)
    assert found.spread() == f"5 folds, accuracy {low:.1f} to {high:.1f} % on them"


def test_a_group_is_in_one_fold_and_a_class_of_two_groups_in_two() -> None:
    groups = np.arange(len(LABELS)) // 2
    folds = grouped_folds(LABELS, groups)
    assert all(len(set(folds[groups == group])) == 1 for group in groups)
    assert len(set(folds.tolist())) == 5
    rare = folds[LABELS == 2]
    assert len(set(rare.tolist())) == 2, "there is one to learn from while the other is predicted"
    assert (grouped_folds(LABELS, groups, seed=0) == folds).all()
    assert (grouped_folds(LABELS, groups, seed=1) != folds).any()


def test_groups_of_several_classes_stay_together() -> None:
    groups = np.arange(len(LABELS)) % 7
    folds = grouped_folds(LABELS, groups)
    assert all(len(set(folds[groups == group])) == 1 for group in groups)
    with pytest.raises(DataError, match="2 groups"):
        grouped_folds(LABELS, np.zeros(len(LABELS), dtype=np.int64))


def test_no_class_of_two_groups_is_lost_where_groups_span_classes() -> None:
    # class and patient of each image
    table = np.array(
        [(1, 0), (2, 0), (3, 0), (3, 0), (2, 1), (3, 1), (0, 1), (0, 1), (0, 2), (1, 2)]
    ).repeat(3, axis=0)
    assert undivided_classes(table[:, 0], grouped_folds(table[:, 0], table[:, 1])) == []

    rng = np.random.default_rng(0)
    num_mended = 0
    for seed in range(300):
        num_classes, num_groups = rng.integers(2, 8), rng.integers(2, 12)
        labels = rng.integers(0, num_classes, 14)
        groups = rng.integers(0, num_groups, 14)
        if max(len(np.unique(groups[labels == c])) for c in np.unique(labels)) < 2:
            continue
        folds = grouped_folds(labels, groups, seed=seed)
        assert all(len(set(folds[groups == group])) == 1 for group in groups)
        assert set(folds) == set(range(folds.max() + 1)), "no fold is empty"
        for c in undivided_classes(labels, folds):
            assert len(set(groups[labels == c])) == 1, (seed, c)
        members = [np.unique(groups[labels == c]) for c in range(labels.max() + 1)]
        plain = cross_validation._dealt(
            labels, groups, members, min(5, max(map(len, members))), seed
        )
        is_right = all(len(members[c]) < 2 for c in undivided_classes(labels, plain))
        num_mended += not is_right
        if is_right:
            assert (folds == plain).all(), "what was right stays"
    assert num_mended > 5


def test_folds_that_no_five_can_divide_leave_as_few_classes_undivided_as_can_be() -> None:
    # each two of seven groups have a class of their own: at best, two folds have two groups
    pairs = [(a, b) for a in range(7) for b in range(a)]
    labels, groups = np.repeat(np.arange(len(pairs)), 2), np.array(pairs).ravel()
    assert len(undivided_classes(labels, grouped_folds(labels, groups))) == 2


def test_bursts_leak_into_neighbours_unless_they_are_kept_together() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 4)
    labels = (np.arange(20) % 2)[groups]  # no feature tells the classes apart, but bursts are alike
    shots = torch.from_numpy(rng.normal(size=(20, 8))[groups] + 0.01 * rng.normal(size=(80, 8)))
    leaking = cross_validated("knn", shots, labels, stratified_folds(labels))
    honest = cross_validated("knn", shots, labels, grouped_folds(labels, groups))
    assert (leaking.predictions == labels).mean() > 0.9
    assert (honest.predictions == labels).mean() < 0.7


def test_the_strength_is_chosen_on_whole_groups() -> None:
    seen: list[np.ndarray] = []

    class Spy:
        def fit(self, task: object) -> None:
            seen.append(task.groups)

        def predict(self, features: torch.Tensor) -> np.ndarray:
            return np.zeros(len(features), dtype=np.int64)

    groups = np.arange(len(LABELS)) // 2
    folds = grouped_folds(LABELS, groups)
    cross_validate(Spy(), blobs(LABELS, 1.0), LABELS, folds, groups=groups)
    for fold, given in enumerate(seen):
        assert (given == groups[folds != fold]).all()
    shuffled = blobs(LABELS, 0.5)
    alone = choose_strength(shuffled, LABELS, 0, groups=np.zeros(len(LABELS), dtype=np.int64))
    assert alone == 1.0, "one group leaves nothing to choose on"
