"""Nearest neighbours on frozen features: a probe with nothing to train."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sdclr.errors import DataError
from sdclr.evaluation.features import Labels, require_finite


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

    A neighbour votes with exp(similarity / temperature), or, where ``temperature`` is None, as much as any other; the
    lowest class wins a tie. k is capped at M. Raises NonFiniteError that names the rows of
    features that are not finite, and DataError for a bank that is empty or does not fit its labels.
    """
    if not 0 < len(bank) == len(bank_labels):
        raise DataError(
            f"kNN needs a labelled bank, got {len(bank)} features and {len(bank_labels)} labels."
        )
    require_finite(bank, "bank row {}".format)
    require_finite(queries, "query {}".format)
    bank, queries = F.normalize(bank.float(), dim=1), F.normalize(queries.float(), dim=1)
    labels = torch.from_numpy(bank_labels)
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
