"""A reward model: a GPT whose head scores an answer at its last token, trained on what people, or a program, preferred.

Bradley-Terry over all pairs of a ranking (arXiv 2203.02155), with a centring term (arXiv 2312.09244).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from glassgpt.errors import UsageError
from glassgpt.evaluation.calibration import expected_calibration_error
from glassgpt.models.heads import HeadedGPT
from glassgpt.training.base import Base
from glassgpt.training.evaluate import Evaluation
from glassgpt.training.examples import Ranked, drawn, rankings, sha256_of
from glassgpt.training.objective import Rows
from glassgpt.training.preference import RankingLoss
from glassgpt.training.recipe import Recipe
from glassgpt.training.stage import Moment, Stage, Words

BATCH = 16
AT_ONCE = 32


class Rewarding(Stage):
    def __init__(self, recipe: Recipe) -> None:
        assert recipe.run.base is not None and recipe.reward is not None
        self.recipe = recipe
        self.base = Base.open(recipe.run.base, chats=recipe.data.files == ("toy-world",))
        self.config, self.tokenizer = self.base.config, self.base.tokenizer
        self.words = Words(self.base.template, self.base.end_tokens, self.base.roles)
        self.train, self.validation = rankings(recipe, self.base)
        self.objective = RankingLoss(recipe.reward.centre)

    @property
    def sha256(self) -> str:
        rows = [row.prompt.tokens + answer for row in self.train + self.validation for answer in row.answers]
        ranks = [row.ranks for row in self.train + self.validation]
        return hashlib.sha256((self.base.sha256 + sha256_of(rows) + sha256_of(ranks)).encode()).hexdigest()

    def model(self) -> nn.Module:
        return HeadedGPT(self.base.gpt(self.recipe.run.seed), 1, seed=self.recipe.run.seed)

    def about(self) -> dict[str, Any]:
        return {"kind": "reward", "labels": ["reward"]}

    def rows(self, step: int) -> Rows:
        chosen = drawn(len(self.train), self.recipe.train.batch_size or BATCH, step, self.recipe.run.seed)
        return ranked_rows([self.train[i] for i in chosen], self.config.context_length)

    def evaluate(self, now: Moment) -> Evaluation | None:
        """On rankings of prompts that were not trained on: how often the better answer has the higher score, and how
        far the stated probabilities are from what holds (expected calibration error)."""
        if not self.validation:
            return None
        margins = margins_of(now.trainer.model, self.validation, self.config.context_length, now.poll)
        stated = 1 / (1 + np.exp(-margins))
        loss = float(np.mean(np.logaddexp(0, -margins)))
        more = {
            "accuracy": float(np.mean(margins > 0)),
            "calibration_error": expected_calibration_error(*_both_ways(stated)),
        }
        return Evaluation(now.step, loss, None, len(margins), None, more) if now.among.first else None

    @torch.no_grad()
    def finish(self, model: nn.Module) -> None:
        """Scores have no zero of their own: the mean of the training answers' is made it (arXiv 2403.17031)."""
        scores = np.concatenate(scores_of(model, self.train, self.config.context_length))
        model.head.bias -= float(scores.mean())  # type: ignore[union-attr, operator]

    def notes(self) -> list[str]:
        return [f"rankings to train: {len(self.train):,}, to validate: {len(self.validation):,}"]


def _both_ways(stated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each comparison from both sides, so that probabilities below one half are judged too."""
    return np.concatenate([stated, 1 - stated]), np.concatenate([np.ones(len(stated)), np.zeros(len(stated))])


def ranked_rows(rows: Sequence[Ranked], context_length: int) -> dict[str, np.ndarray]:
    """Rankings side by side, right-padded: rows for `RankingLoss`. What is longer than the context is cut."""
    K = max(len(row.answers) for row in rows)
    texts = [[(row.prompt.tokens + answer)[:context_length] for answer in row.answers] for row in rows]
    T = max(len(text) for row in texts for text in row)
    inputs = np.zeros((len(rows), K, T), dtype=np.int64)
    last, ranks = np.full((len(rows), K), -1), np.zeros((len(rows), K), dtype=np.int64)
    for i, row in enumerate(rows):
        for k, text in enumerate(texts[i]):
            inputs[i, k, : len(text)] = text
            last[i, k], ranks[i, k] = len(text) - 1, row.ranks[k]
    return {"inputs": inputs, "last": last, "ranks": ranks}


@torch.no_grad()
def scores_of(
    model: nn.Module, rows: Sequence[Ranked], context_length: int, poll: Any = lambda: None
) -> list[np.ndarray]:
    """The scores of each ranking's answers, float64."""
    found = []
    device = next(model.parameters()).device
    for first in range(0, len(rows), AT_ONCE):
        poll()
        part = rows[first : first + AT_ONCE]
        batch = ranked_rows(part, context_length)
        inputs, last = batch["inputs"], np.maximum(batch["last"], 0)
        scores = model(torch.from_numpy(inputs).flatten(0, 1).to(device))[..., 0]
        at_last = scores.gather(-1, torch.from_numpy(last).reshape(-1, 1).to(device)).double().cpu().numpy()
        for row, of_row in zip(part, at_last.reshape(last.shape), strict=True):
            found.append(of_row[: len(row.answers)])
    return found


def margins_of(model: nn.Module, rows: Sequence[Ranked], context_length: int, poll: Any = lambda: None) -> np.ndarray:
    """Of every pair of every ranking, the better answer's score less the other's. Raises UsageError if all are ties."""
    margins = [
        scores[better] - scores[worse]
        for row, scores in zip(rows, scores_of(model, rows, context_length, poll), strict=True)
        for better, rank in enumerate(row.ranks)
        for worse, other in enumerate(row.ranks)
        if rank < other
    ]
    if not margins:
        raise UsageError("the rankings that validate hold nothing but ties: give some in which one answer is better")
    return np.array(margins)
