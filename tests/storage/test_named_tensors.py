from __future__ import annotations

import pytest
import torch
from torch import nn

from sdclr.errors import CheckpointError
from sdclr.storage.named_tensors import load_strictly


def test_a_partial_match_is_never_loaded() -> None:
    network = nn.Linear(2, 3)
    state = {"weight": torch.zeros(3, 5), "extra": torch.zeros(1)}
    with pytest.raises(CheckpointError) as error:
        load_strictly(network, state, "x")
    for words in ("1 missing (bias)", "1 unknown (extra)", "weight [3, 5] instead of [3, 2]"):
        assert words in str(error.value)
