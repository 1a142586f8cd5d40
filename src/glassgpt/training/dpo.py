"""Direct preference optimisation: preferences move the policy itself, and no reward model is trained (arXiv
2305.18290), or with loss = "ipo" its variant that does not overfit to sure preferences (arXiv 2310.12036)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import nn

from glassgpt.training.base import Base
from glassgpt.training.evaluate import Evaluation
from glassgpt.training.examples import Ranked, batch_of, drawn, rankings, sha256_of
from glassgpt.training.objective import Rows
from glassgpt.training.preference import PairLoss, sequence_logprobs
from glassgpt.training.recipe import Recipe
from glassgpt.training.stage import Moment, Stage, Words, gpt_of

BATCH = 16
AT_ONCE = 32
Pair = tuple[list[int], list[int], list[int]]  # prompt, chosen, rejected


class DirectPreference(Stage):
    def __init__(self, recipe: Recipe) -> None:
        assert recipe.run.base is not None and recipe.dpo is not None
        self.recipe = recipe
        self.base = Base.open(recipe.run.base, chats=recipe.data.files == ("toy-world",))
        self.config, self.tokenizer = self.base.config, self.base.tokenizer
        self.words = Words(self.base.template, self.base.end_tokens, self.base.roles)
        self.train, self.validation = (pairs_of(part) for part in rankings(recipe, self.base))
        section = recipe.dpo
        self.objective = self.pair_loss = PairLoss(section.loss, section.beta, section.label_smoothing)

    @property
    def sha256(self) -> str:
        rows = [ids for pair in self.train + self.validation for ids in pair]
        return hashlib.sha256((self.base.sha256 + sha256_of(rows)).encode()).hexdigest()

    def model(self) -> nn.Module:
        return self.base.gpt(self.recipe.run.seed)

    @cached_property
    def references(self) -> tuple[np.ndarray, np.ndarray]:
        """What the base gives each pair: its answers' log-probabilities, float32 (pairs, 2), to train and to validate.
        They never change, so they are computed once."""
        base = self.base.gpt(self.recipe.run.seed)
        train, validation = (self._logprobs(base, part) for part in (self.train, self.validation))
        return train, validation

    def rows(self, step: int) -> Rows:
        chosen = drawn(len(self.train), self.recipe.train.batch_size or BATCH, step, self.recipe.run.seed)
        batch = pair_rows([self.train[i] for i in chosen], self.config.context_length)
        return batch | {"reference": self.references[0][chosen]}

    @torch.no_grad()
    def _logprobs(self, model: nn.Module, pairs: Sequence[Pair]) -> np.ndarray:
        found = [np.empty((0, 2), dtype=np.float32)]
        device = next(model.parameters()).device
        for first in range(0, len(pairs), AT_ONCE):
            batch = pair_rows(pairs[first : first + AT_ONCE], self.config.context_length)
            inputs, targets = (torch.from_numpy(batch[name]).flatten(0, 1).to(device) for name in ("inputs", "targets"))
            sums, _ = sequence_logprobs(model(inputs), targets)
            found.append(sums.float().view(-1, 2).cpu().numpy())
        return np.concatenate(found)

    def evaluate(self, now: Moment) -> Evaluation | None:
        """`accuracy`: how often the implicit reward of the better answer is higher. `chosen_logprob`: nats an answer;
        it often falls, while the rejected answers' falls further."""
        if not self.validation:
            return None
        _, gpt = gpt_of(now.trainer.model)
        batch = pair_rows(self.validation, self.config.context_length)
        reference = self.references[1]
        now_said = self._logprobs(gpt, self.validation)
        part = {name: torch.from_numpy(value) for name, value in batch.items()}
        part["reference"] = torch.from_numpy(reference)
        losses = []
        with torch.no_grad():
            for first in range(0, len(self.validation), AT_ONCE):
                now.poll()
                some = {name: value[first : first + AT_ONCE].to(now.among.device) for name, value in part.items()}
                losses.append(float(self.objective.loss(gpt, some)))
        self.pair_loss.tally.drain()  # of what was trained, not of this
        gains = now_said - reference
        more = {
            "accuracy": float(np.mean(gains[:, 0] > gains[:, 1])),
            "chosen_logprob": float(now_said[:, 0].mean()),
            "rejected_logprob": float(now_said[:, 1].mean()),
        }
        loss = sum(losses) / len(self.validation)
        return Evaluation(now.step, loss, None, len(self.validation), None, more) if now.among.first else None

    def notes(self) -> list[str]:
        return [f"pairs to train: {len(self.train):,}, to validate: {len(self.validation):,}"]


def pairs_of(rows: Sequence[Ranked]) -> list[Pair]:
    """Every pair of every ranking in which one answer is better."""
    return [
        (row.prompt.tokens, row.answers[better], row.answers[worse])
        for row in rows
        for better, rank in enumerate(row.ranks)
        for worse, other in enumerate(row.ranks)
        if rank < other
    ]


def pair_rows(pairs: Sequence[Pair], context_length: int) -> dict[str, np.ndarray]:
    """Pairs side by side: `inputs` and `targets`, int64 (B, 2, T), cut to the context."""
    answers = [(prompt, answer) for prompt, *both in pairs for answer in both]
    inputs, targets = (side[:, :context_length] for side in batch_of(answers))
    shape = (len(pairs), 2, inputs.shape[1])
    return {"inputs": inputs.reshape(shape), "targets": targets.reshape(shape)}
