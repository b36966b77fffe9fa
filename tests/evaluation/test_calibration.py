"""Temperature scaling against a one-dimensional minimisation, the calibration error against a slow loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from sdclr.errors import DataError, NonFiniteError
from sdclr.evaluation.calibration import expected_calibration_error, fit_temperature


def sure(num: int, classes: int, seed: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that are right most of the time and ``scale`` times too sure."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, num)
    logits = rng.normal(size=(num, classes))
    logits[np.arange(num), labels] += 1.5
    return torch.from_numpy(logits * scale).float(), torch.from_numpy(labels)


@pytest.mark.parametrize("scale", [1e-25, 1e-6, 0.05, 1.0, 8.0, 300.0, 1e25])
@pytest.mark.parametrize("classes", [2, 10])
def test_the_temperature_is_that_of_a_plain_minimisation(scale: float, classes: int) -> None:
    logits, labels = sure(200, classes, seed=classes, scale=scale)
    z, y = logits.double().numpy(), labels.numpy()

    def loss(log_temperature: float) -> float:
        in_units = z / scale / np.exp(log_temperature)
        return -log_softmax(in_units, axis=1)[np.arange(len(y)), y].mean()

    wanted = scale * np.exp(minimize_scalar(loss, bounds=(-12, 12), options={"xatol": 1e-10}).x)
    found = fit_temperature(logits, labels)
    assert found.problem == ""
    assert found.value == pytest.approx(wanted, rel=1e-4)


def test_where_no_temperature_fits_best_it_says_why() -> None:
    right = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    assert fit_temperature(right, torch.tensor([0, 1])) == (
        1.0,
        "every validation image is predicted right",
    )
    tied = torch.tensor([[1.0, 1.0], [2.0, 0.0], [0.0, 2.0]])
    assert fit_temperature(tied, torch.tensor([0, 0, 1])) == (
        1.0,
        "every validation image is predicted right, but for ties",
    )
    value, problem = fit_temperature(right, torch.tensor([1, 0]))
    assert (value, problem) == (1.0, "the logits say nothing about the validation labels")


@pytest.mark.parametrize("bins", [1, 5, 15])
def test_the_calibration_error_is_that_of_a_slow_loop(bins: int) -> None:
    logits, labels = sure(300, 4, seed=3, scale=3.0)
    probabilities = logits.double().softmax(dim=1)
    wanted = 0.0
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        inside = [
            (float(row.max()), int(row.argmax()) == int(label))
            for row, label in zip(probabilities, labels, strict=True)
            if low < float(row.max()) <= high
        ]
        if inside:
            confidence, right = (np.mean(one) for one in zip(*inside, strict=True))
            wanted += len(inside) / len(labels) * abs(confidence - right)
    assert expected_calibration_error(probabilities, labels, bins) == pytest.approx(wanted)
    assert wanted > 0.01


def test_a_confidence_on_the_border_of_a_bin_belongs_to_the_lower_one() -> None:
    probabilities = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    assert expected_calibration_error(probabilities, torch.tensor([1, 0]), bins=2) == 0.25


def test_what_no_temperature_can_be_fitted_to_is_refused() -> None:
    logits, labels = torch.zeros(5, 3), torch.tensor([2, 2, 2, 1, 1])
    assert (
        fit_temperature(logits, labels).problem
        == "the logits say nothing about the validation labels"
    )
    with pytest.raises(DataError, match="there are none"):
        fit_temperature(logits[:0], labels[:0])
    logits[1, 1] = -torch.inf
    with pytest.raises(NonFiniteError, match="logits of image 1"):
        fit_temperature(logits, labels)


@pytest.mark.parametrize(
    ("probabilities", "num", "words"),
    [
        (torch.rand(4, 3) + 1, 4, r"in \[0, 1\]"),
        (torch.full((4, 3), torch.nan), 4, r"in \[0, 1\]"),
        (torch.rand(4, 3), 1, "got 4 and 1"),
        (torch.rand(0, 3), 0, "got 0 and 0"),
    ],
)
def test_what_is_no_probability_has_no_error(
    probabilities: torch.Tensor, num: int, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        expected_calibration_error(probabilities, torch.zeros(num, dtype=torch.int64))
