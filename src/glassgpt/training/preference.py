"""Learning from what people prefer: a policy from pairs (DPO, IPO), a reward model from rankings (Bradley-Terry)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from glassgpt.errors import UsageError
from glassgpt.training.objective import IGNORED, Rows, Tally, require, require_range, wide

Pairing = Literal["dpo", "ipo"]


def sequence_logprobs(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The log-probability in nats of each row's targets, and how many there are: both (...).

    `logits` (..., T, V); `targets` int64 (..., T), of which IGNORED counts for nothing. The sums are float32, or
    float64 if the logits are; the counts are int64.
    """
    surprise = F.cross_entropy(
        wide(logits).flatten(0, -2), targets.flatten(), ignore_index=IGNORED, reduction="none"
    ).view_as(targets)
    return -surprise.sum(dim=-1), (targets != IGNORED).sum(dim=-1)


@dataclass(frozen=True)
class PairLoss:
    """Direct preference optimisation: of two completions of a prompt the chosen one should gain on the rejected one.

    A completion's gain is its log-probability less that under the reference, log pi(y|x) - log ref(y|x); with m for
    the chosen one's gain less the rejected one's, a pair's loss is

    - dpo (arXiv 2305.18290): -(1 - e) log sigmoid(beta m) - e log sigmoid(-beta m), where e is `label_smoothing`, the
      chance that the two were labelled the wrong way round ("conservative DPO"), 0 in the paper;
    - ipo (arXiv 2310.12036, equation 17): (m - 1 / (2 beta))^2, beta being the paper's tau. As in TRL, gains are means
      over a completion's tokens here, where the paper writes sums: its authors told TRL's that they meant means, and a
      sum's square grows with the texts' length.

    Rows: `inputs` int64 (B, 2, T), the chosen one first; `targets` int64 (B, 2, T), IGNORED outside the completions;
    `reference` float32 (B, 2), what `sequence_logprobs` sums to under the reference. `logits_of` is given (2B, T). A
    term is a pair. `tally`: accuracy, the share of pairs with m > 0; margin, beta m; chosen_reward and
    rejected_reward, beta times each gain (in ipo all of them by means over tokens). Raises UsageError for settings out
    of range.
    """

    kind: Pairing = "dpo"
    beta: float = 0.1
    label_smoothing: float = 0.0
    tally: Tally = field(default_factory=Tally, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.kind not in get_args(Pairing):
            raise UsageError(f"kind must be one of {', '.join(get_args(Pairing))}; got {self.kind!r}")
        require_range("beta", self.beta, 1e-12)
        require_range("label_smoothing", self.label_smoothing, 0, 0.5)
        if self.kind == "ipo" and self.label_smoothing:
            raise UsageError(f"ipo has no label_smoothing; got {self.label_smoothing}: set it to 0")

    def terms(self, rows: Rows) -> int:
        require("PairLoss", rows, "inputs", "targets", "reference")
        return len(rows["inputs"])

    def loss(self, logits_of: Callable[[Tensor], Tensor], rows: Mapping[str, Tensor]) -> Tensor:
        inputs, targets = rows["inputs"], rows["targets"]
        sums, counts = sequence_logprobs(logits_of(inputs.flatten(0, 1)), targets.flatten(0, 1))
        gains = sums.view(-1, 2) - rows["reference"]
        if self.kind == "ipo":
            gains = gains / counts.view(-1, 2).clamp(min=1)
        margin = gains[:, 0] - gains[:, 1]
        self._note(gains, margin)
        if self.kind == "ipo":
            return (margin - 1 / (2 * self.beta)).square().sum()
        right, wrong = F.logsigmoid(self.beta * margin), F.logsigmoid(-self.beta * margin)
        return -((1 - self.label_smoothing) * right + self.label_smoothing * wrong).sum()

    def _note(self, gains: Tensor, margin: Tensor) -> None:
        self.tally.add("accuracy", margin > 0)
        self.tally.add("margin", self.beta * margin)
        self.tally.add("chosen_reward", self.beta * gains[:, 0])
        self.tally.add("rejected_reward", self.beta * gains[:, 1])


@dataclass(frozen=True)
class RankingLoss:
    """Bradley-Terry: a reward model's scores should order the completions of a prompt as people ranked them.

    Of each pair of a ranking, the better one scored w and the other l, the loss is -log sigmoid(w - l)
    + `centre` (w + l)^2; a ranking's is the mean over its pairs (arXiv 2203.02155), so that a long ranking weighs no
    more than a short one. Scores are otherwise free to shift: `centre` draws them to 0 (arXiv 2312.09244).

    Rows: `inputs` int64 (B, K, T); `last` int64 (B, K), the place of each completion's last token, where its score is
    read, -1 where there is no completion; `ranks` int64 (B, K), 0 the best, equal ranks a tie, which makes no pair.
    `logits_of` is given (BK, T) and gives (BK, T, 1). A term is a ranking that has a pair. `tally`: accuracy and
    margin, the share of w > l and the mean of w - l, over pairs; reward, the mean score of completions. Raises
    UsageError for a place outside the text and for a `centre` that is negative.
    """

    centre: float = 0.0
    tally: Tally = field(default_factory=Tally, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_range("centre", self.centre, 0)

    def terms(self, rows: Rows) -> int:
        require("RankingLoss", rows, "inputs", "last", "ranks")
        last, length = rows["last"], rows["inputs"].shape[-1]
        if last.size and not (last.min() >= -1 and last.max() < length):
            raise UsageError(
                f"`last` must be places of texts of {length} tokens, counted from 0, or -1; got {last.min()} to "
                f"{last.max()}"
            )
        better = _better(torch.from_numpy(last), torch.from_numpy(rows["ranks"]))
        return int(better.any(dim=(1, 2)).sum())

    def loss(self, logits_of: Callable[[Tensor], Tensor], rows: Mapping[str, Tensor]) -> Tensor:
        inputs, last = rows["inputs"], rows["last"]
        numbers = wide(logits_of(inputs.flatten(0, 1))[..., 0]).view_as(inputs)  # (B, K, T)
        scores = numbers.gather(-1, last.clamp(min=0)[..., None])[..., 0]
        better = _better(last, rows["ranks"])
        margin = scores[:, :, None] - scores[:, None, :]  # (B, K, K): row over column
        self._note(scores[last >= 0], margin[better])
        each = self.centre * (scores[:, :, None] + scores[:, None, :]).square() - F.logsigmoid(margin)
        return ((each * better).sum(dim=(1, 2)) / better.sum(dim=(1, 2)).clamp(min=1)).sum()

    def _note(self, scores: Tensor, margins: Tensor) -> None:
        self.tally.add("accuracy", margins > 0)
        self.tally.add("margin", margins)
        self.tally.add("reward", scores)


def _better(last: Tensor, ranks: Tensor) -> Tensor:
    """Whether there are completions i and j and i is ranked above j: bool (B, K, K)."""
    there = last >= 0
    return (ranks[:, :, None] < ranks[:, None, :]) & there[:, :, None] & there[:, None, :]
