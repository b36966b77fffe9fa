"""Nearest neighbours on frozen features: a probe with nothing to train."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sdclr.errors import ConfigError, DataError
from sdclr.evaluation.features import Labels, of_length_one, require_finite


def knn_predict(
    bank: Tensor,
    bank_labels: Labels,
    queries: Tensor,
    *,
    k: int = 10,
    temperature: float | None = 0.1,
    chunk: int = 1024,
) -> Labels:
    """Predicted classes [N] of ``queries`` [N, F] from their k most cosine-similar features in ``bank`` [M, F].

    A neighbour's vote is exp(similarity / temperature), or one if ``temperature`` is None; the lowest of classes with
    equal votes wins. Which of several equally similar features are among the k (copies with different labels, for
    example) is not defined. k is capped at M. Raises NonFiniteError that names the rows of
    features that are not finite, DataError for a bank that is empty or does not fit its labels or the queries, and
    ConfigError for a ``k`` below 1 or a temperature that is not above 0.
    """
    if k < 1 or (temperature is not None and not temperature > 0):
        raise ConfigError(
            f"kNN needs k of at least 1 and a temperature above 0 (or None), got {k} and {temperature}."
        )
    if not 0 < len(bank) == len(bank_labels):
        raise DataError(
            f"kNN needs a labelled bank, got {len(bank)} features and {len(bank_labels)} labels."
        )
    require_finite(bank, "bank row {}".format)
    require_finite(queries, "query {}".format)
    if bank.shape[1] != queries.shape[1]:
        raise DataError(
            f"kNN needs features of one size, got {bank.shape[1]} in the bank and {queries.shape[1]} in queries."
        )
    bank, queries = of_length_one(bank).float(), of_length_one(queries).float()
    labels = torch.from_numpy(np.ascontiguousarray(bank_labels, dtype=np.int64))
    num_classes = int(labels.max()) + 1
    predictions = []
    for part in queries.split(chunk):
        similarity, neighbours = (part @ bank.T).topk(min(k, len(bank)), dim=1)  # [n, k]
        votes = torch.zeros(len(part), num_classes, dtype=similarity.dtype)
        if temperature is None:
            weights = torch.ones_like(similarity)
        else:
            weights = torch.exp((similarity - similarity[:, :1]) / temperature)
        votes.scatter_add_(1, labels[neighbours], weights)
        predictions.append(votes.argmax(dim=1))
    return torch.cat(predictions).numpy()
