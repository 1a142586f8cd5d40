"""What a stage of training asks of a model: the protocol, the next token, and what all objectives share.

The others: labels (`labels.py`), preferences (`preference.py`) and rewards (`policy.py`).
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from glassgpt.errors import UsageError

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


def without_padding(rows: Rows) -> Rows:
    """The rows without the columns at their end in which none has a target: these count for nothing, since no token
    looks ahead, and would cost as much as others. So a part of a step is as long as its own longest row.

    >>> rows = {"inputs": np.array([[5, 6, 0], [7, 0, 0]]), "targets": np.array([[-100, 8, -100], [9, -100, -100]])}
    >>> without_padding(rows)["inputs"].tolist()
    [[5, 6], [7, 0]]
    """
    targets = rows.get("targets")
    if targets is None or targets.ndim < 2:
        return rows
    columns = np.flatnonzero((targets != IGNORED).reshape(-1, targets.shape[-1]).any(axis=0))
    end = int(columns[-1]) + 1 if columns.size else 1
    return {name: value[..., :end] if value.shape == targets.shape else value for name, value in rows.items()}


class Tally:
    """What an objective notes in passing, such as accuracy: means over a step that may be divided among threads.

    >>> tally = Tally()
    >>> tally.add("accuracy", torch.tensor([True, False]))
    >>> tally.add("accuracy", torch.tensor([True, True]))
    >>> tally.drain()
    {'accuracy': 0.75}
    """

    def __init__(self) -> None:
        self._notes: deque[tuple[str, float, int]] = deque()  # its append and popleft may be called from any thread

    def add(self, name: str, values: Tensor) -> None:
        """Note a number for each item, in a tensor of any shape; none is nothing to note."""
        if values.numel():
            self._notes.append((name, float(values.detach().cpu().double().sum()), values.numel()))

    def drain(self) -> dict[str, float]:
        """The mean of each name over all items noted since the last call, names in order; then begin anew. Sums are
        exact (`math.fsum`), so that the order in which threads came doesn't show."""
        kept: dict[str, list[tuple[float, int]]] = defaultdict(list)
        for _ in range(len(self._notes)):
            name, total, count = self._notes.popleft()
            kept[name].append((total, count))
        return {
            name: math.fsum(total for total, _ in notes) / sum(count for _, count in notes)
            for name, notes in sorted(kept.items())
        }


def wide(x: Tensor) -> Tensor:
    """As float32, in which losses are computed, or as float64 if it is that already."""
    return x if x.dtype == torch.float64 else x.float()


def require(what: str, rows: Rows, *names: str) -> None:
    """Raises UsageError if one of the arrays that an objective needs is not among the rows."""
    missing = [name for name in names if name not in rows]
    if missing:
        raise UsageError(f"{what} needs rows with {', '.join(names)}; got {', '.join(rows)}: add {', '.join(missing)}")


def require_range(what: str, value: float, low: float, high: float = math.inf) -> None:
    """Raises UsageError unless low <= value <= high, and value is finite."""
    if not (low <= value <= high and math.isfinite(value)):
        bounds = f"of {low:g} or more" if high == math.inf else f"from {low:g} to {high:g}"
        raise UsageError(f"{what} must be a number {bounds}; got {value}")
