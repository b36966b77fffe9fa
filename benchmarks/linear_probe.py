"""The cached linear probe against scikit-learn's own search for the same minimum.

    python benchmarks/linear_probe.py --json FILE

Generated features depend on one another, as a trained network's do. Both sides standardise, try four strengths
from strong to weak, each from the weights before, and choose on validation. One thread each; CPU seconds, and the
objective at the strength that scikit-learn chose.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from sdclr.compute.device import describe_device
from sdclr.evaluation.logistic_probe import INVERSE_REGULARISATIONS, fit_logistic_probe

Part = tuple[np.ndarray, np.ndarray]


def parts(rows: int, features: int, classes: int, seed: int) -> list[Part]:
    """Training, validation and test images: ReLUs of mixtures of fewer causes than features."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, features))
    mixture = (
        0.05 * np.eye(features)
        + rng.normal(size=(features, 16)) @ rng.normal(size=(16, features)) / 16
    )
    drawn = []
    for num in (rows, 10_000, 10_000):
        labels = rng.integers(0, classes, num)
        hidden = 0.4 * centres[labels] + rng.normal(size=(num, features))
        drawn.append(
            (np.maximum(hidden, 0).astype(np.float32) @ mixture.astype(np.float32), labels)
        )
    return drawn


def ours(train: Part, validation: Part, test: Part) -> dict[str, Any]:
    begun = time.process_time()
    held_out = torch.from_numpy(validation[0]), validation[1]
    probe = fit_logistic_probe(torch.from_numpy(train[0]), train[1], *held_out)
    seconds = time.process_time() - begun
    scores = probe.weights.scores(probe.standardised.apply(torch.from_numpy(train[0]))).double()
    return {
        "cpu_seconds": seconds,
        "strength": probe.inverse_regularisation,
        "converged": probe.converged,
        "objective": objective(
            scores.softmax(dim=1).numpy(),
            probe.weights.weight.numpy(),
            train[1],
            probe.inverse_regularisation,
        ),
        "accuracy": float((probe.predict(torch.from_numpy(test[0])) == test[1]).mean()),
    }


def theirs(train: Part, validation: Part, test: Part) -> dict[str, Any]:
    begun = time.process_time()
    scaler = StandardScaler().fit(train[0])
    x = scaler.transform(train[0])
    best: tuple[float, float, LogisticRegression, bool] | None = None
    start: tuple[np.ndarray, np.ndarray] | None = None
    for c in INVERSE_REGULARISATIONS:
        fit = LogisticRegression(C=c, max_iter=500, tol=1e-4, warm_start=True)
        if start is not None:
            fit.coef_, fit.intercept_ = start[0].copy(), start[1].copy()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fit.fit(x, train[1])
        start = fit.coef_, fit.intercept_
        found = float((fit.predict(scaler.transform(validation[0])) == validation[1]).mean())
        if best is None or found > best[1]:
            best = c, found, fit, not caught
    seconds = time.process_time() - begun
    assert best is not None
    c, _, fit, converged = best
    return {
        "cpu_seconds": seconds,
        "strength": c,
        "converged": converged,
        "objective": objective(fit.predict_proba(x.astype(np.float64)), fit.coef_, train[1], c),
        "accuracy": float((fit.predict(scaler.transform(test[0])) == test[1]).mean()),
    }


def objective(
    probabilities: np.ndarray, weights: np.ndarray, labels: np.ndarray, c: float
) -> float:
    penalty = (weights.astype(np.float64) ** 2).sum() / (2 * c * len(labels))
    return float(log_loss(labels, probabilities) + penalty)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--features", type=int, default=128)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.optim.LBFGS([torch.zeros(1)])  # imports the compiler, once in a process
    rounds = []
    for seed in range(given.rounds):
        drawn = parts(given.rows, given.features, given.classes, seed)
        one = {"ours": ours(*drawn), "scikit_learn": theirs(*drawn)}
        one["ratio"] = one["scikit_learn"]["cpu_seconds"] / one["ours"]["cpu_seconds"]
        rounds.append(one)
        print(json.dumps(one), flush=True)
    if given.json:
        shape = {"rows": given.rows, "features": given.features, "classes": given.classes}
        record = {
            "hardware": describe_device(torch.device("cpu")),
            "torch": torch.__version__,
            "shape": shape,
            "rounds": rounds,
        }
        given.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
