"""Learning to label whole texts: a `HeadedGPT` with an output for each label is the classifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from glassgpt.errors import UsageError
from glassgpt.training.objective import Rows, Tally, require, wide


@dataclass(frozen=True)
class LabelLoss:
    """The surprise, in nats, of a text's label: one of n, or with `multi` any number of n, each judged by itself.

    Rows: `inputs` int64 (B, T); `last` int64 (B,), the place of each text's last token; `labels` int64 (B,), the label
    of each, or with `multi` float32 (B, n), 1 where a label holds and 0 where not. `logits_of` gives (B, T, n), read at
    `last`. A term is a row: its cross entropy, or the mean over labels of the binary cross entropies. `tally`:
    accuracy, the share of labels told right, where more than half is yes. Raises UsageError for rows that are not so.
    """

    multi: bool = False
    tally: Tally = field(default_factory=Tally, repr=False, compare=False)

    def terms(self, rows: Rows) -> int:
        require("LabelLoss", rows, "inputs", "last", "labels")
        inputs, last = rows["inputs"], rows["last"]
        if len(last) and not (last.min() >= 0 and last.max() < inputs.shape[1]):
            raise UsageError(
                f"`last` must be places of texts of {inputs.shape[1]} tokens, counted from 0; got {last.min()} to "
                f"{last.max()}"
            )
        return len(inputs)

    def loss(self, logits_of: Callable[[Tensor], Tensor], rows: Mapping[str, Tensor]) -> Tensor:
        last, labels = rows["last"], rows["labels"]
        logits = wide(logits_of(rows["inputs"])[torch.arange(len(last), device=last.device), last])  # (B, n)
        self._check(labels, logits)
        if self.multi:
            self.tally.add("accuracy", (logits > 0) == (labels > 0.5))
            each = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none")
            return each.mean(dim=-1).sum()
        self.tally.add("accuracy", logits.argmax(dim=-1) == labels)
        return F.cross_entropy(logits, labels, reduction="sum")

    def _check(self, labels: Tensor, logits: Tensor) -> None:
        shape = tuple(logits.shape) if self.multi else (len(logits),)
        if tuple(labels.shape) != shape:
            raise UsageError(f"labels must have the shape {shape}; got {tuple(labels.shape)}: see LabelLoss's `multi`")
        highest = 1 if self.multi else logits.shape[1] - 1
        if labels.numel() and not (labels.min() >= 0 and labels.max() <= highest):
            raise UsageError(
                f"labels must be from 0 to {highest}; got {labels.min().item()} to {labels.max().item()}: a head needs "
                "an output for each label"
            )
