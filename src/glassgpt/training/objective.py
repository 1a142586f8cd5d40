"""What a stage of training asks of a model: so far, the next token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor
from torch.nn import functional as F

Rows = Mapping[str, np.ndarray]
"""The batch of a step: arrays by name, whose first dimension is the windows, so that it can be divided among processes
and parts of a step."""

IGNORED = -100  # a target that counts for nothing


class Objective(Protocol):
    """A loss as a sum of terms. The mean over all terms of a step is what is minimised, however the step is divided:
    dividing by the mean of the parts' means would weigh short parts more (transformers#34191)."""

    def terms(self, rows: Rows) -> int:
        """How many terms these rows add."""
        ...

    def loss(self, logits_of: Callable[[Tensor], Tensor], rows: Mapping[str, Tensor]) -> Tensor:
        """The sum of the rows' terms in nats. `logits_of` takes int64 tokens (B, T) to logits (B, T, V)."""
        ...


@dataclass(frozen=True)
class NextToken:
    """The surprise of every target; with `last_position_only`, of the one after the whole window.

    Rows: `inputs` and `targets`, int64 (B, T); a target of IGNORED counts for nothing.
    """

    last_position_only: bool = False

    def terms(self, rows: Rows) -> int:
        targets = rows["targets"][:, -1:] if self.last_position_only else rows["targets"]
        return int(np.count_nonzero(targets != IGNORED))

    def loss(self, logits_of: Callable[[Tensor], Tensor], rows: Mapping[str, Tensor]) -> Tensor:
        logits, targets = logits_of(rows["inputs"]), rows["targets"]
        if self.last_position_only:
            logits, targets = logits[:, -1:], targets[:, -1:]
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum")
