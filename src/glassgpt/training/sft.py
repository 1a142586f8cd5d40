"""Supervised fine-tuning: a base model learns to answer, from conversations or prompts with their completions.

The loss is the next token's surprise, of what the assistant says and the token that ends it alone (arXiv 2203.02155).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from glassgpt.errors import NumericalError, UsageError
from glassgpt.text.conversation import Trained, batch_of, coloured
from glassgpt.text.token_files import TokenFiles
from glassgpt.training.base import Base
from glassgpt.training.data import beginning
from glassgpt.training.evaluate import Evaluation, bits_per_byte, validation_loss
from glassgpt.training.examples import drawn, has_conversations, lessons, sha256_of
from glassgpt.training.objective import NextToken, Rows
from glassgpt.training.pretrain import TOKENS
from glassgpt.training.recipe import Recipe
from glassgpt.training.rollout import roll_out
from glassgpt.training.stage import Moment, Stage, Words, gpt_of

ROWS_AT_ONCE = 32
BATCH = 16  # rows of a step, if the recipe doesn't say


class SupervisedFineTuning(Stage):
    def __init__(self, recipe: Recipe) -> None:
        assert recipe.run.base is not None and recipe.sft is not None
        self.recipe, self.section = recipe, recipe.sft
        self.base = Base.open(recipe.run.base, chats=has_conversations(recipe))
        self.config, self.tokenizer = self.base.config, self.base.tokenizer
        self.words = Words(self.base.template, self.base.end_tokens, self.base.roles)
        self.lessons = lessons(recipe, self.base)
        self.objective = NextToken()
        self.text = self._text_of_base()

    def _text_of_base(self) -> TokenFiles | None:
        """The tokens that the base was pretrained on, if it is a run that has them: for replay, and to tell what
        fine-tuning has cost."""
        folder = Path(self.recipe.run.base or "") / TOKENS
        if folder.is_dir():
            return TokenFiles.open(folder, verify=False)
        if self.section.replay:
            raise UsageError(
                f"sft.replay repeats what the base was pretrained on, and {self.recipe.run.base} has no {TOKENS}: "
                "leave sft.replay out"
            )
        return None

    @property
    def sha256(self) -> str:
        rows = [row.tokens for row in self.lessons.train + self.lessons.validation]
        return hashlib.sha256((self.base.sha256 + sha256_of(rows)).encode()).hexdigest()

    def model(self) -> nn.Module:
        return self.base.gpt(self.recipe.run.seed)

    # ---- rows ----------------------------------------------------------------------------------------------------

    def rows(self, step: int) -> Rows:
        batch, seed = self.recipe.train.batch_size or BATCH, self.recipe.run.seed
        n_text = round(self.section.replay * batch)
        chosen = drawn(len(self.lessons.train), max(1, batch - n_text), step, seed)
        inputs, targets = batch_of(sorted((self.lessons.train[i] for i in chosen), key=lambda row: len(row.tokens)))
        if n_text:
            assert self.text is not None
            text = self.text.train.batch(step, n_text, inputs.shape[1], seed)  # as long as the rows: nothing is padded
            inputs, targets = np.concatenate([inputs, text.inputs]), np.concatenate([targets, text.targets])
        # Rows of like length are neighbours, so that parts of a step hold little padding; and of two threads, which
        # take a half each, both have short ones and long ones.
        order = [*range(0, len(inputs), 2), *range(1, len(inputs), 2)]
        return {"inputs": inputs[order], "targets": targets[order]}

    # ---- evaluation ----------------------------------------------------------------------------------------------

    def evaluate(self, now: Moment) -> Evaluation | None:
        """Every process measures alike: rows are few."""
        _, gpt = gpt_of(now.trainer.model)
        loss, terms = loss_of_rows(gpt, self.lessons.validation, now) if self.lessons.validation else (None, 0)
        more: dict[str, float | None] = {}
        shown = None
        if self.lessons.asked and self.section.answers:
            found, shown = self._answers(now)
            more |= found
        bits = None
        if self.text is not None and self.text.validation is not None:
            part = beginning(self.text.validation, self.recipe.evaluate.tokens, self.tokenizer)
            nats = validation_loss(gpt, part, self.config.context_length, poll=now.poll)
            bits = bits_per_byte(nats, part)
        return Evaluation(now.step, loss, bits, terms, shown, more) if now.among.first else None

    def _answers(self, now: Moment) -> tuple[dict[str, float], str]:
        """Greedy answers to questions that were not trained on: how many are word for word the expected one."""
        _, gpt = gpt_of(now.trainer.model)
        asked = self.lessons.asked[: self.section.answers]
        right = stopped = 0
        shown = []
        longest = 2 + max(len(self.tokenizer.encode(answer)) for _, answer in asked)
        for first in range(0, len(asked), ROWS_AT_ONCE):
            now.poll()
            part = asked[first : first + ROWS_AT_ONCE]
            answers = roll_out(
                gpt,
                [prompt for prompt, _ in part],
                self.tokenizer.decode,
                self.base.end_tokens,
                longest,
                seed=0,
                temperature=0.0,
            )
            right += sum(text == answer for text, (_, answer) in zip(answers.texts, part, strict=True))
            stopped += int(answers.ended.sum())
            shown += [f"{prompt.text}\n> {text}" for (prompt, _), text in zip(part[:3], answers.texts, strict=False)]
        n = len(asked)
        return {"exact_match": right / n, "stop_rate": stopped / n}, "\n".join(shown[:3])

    def notes(self) -> list[str]:
        trained = sum(row.n_terms for row in self.lessons.train)
        return [
            f"rows to train: {len(self.lessons.train):,} with {trained:,} trained tokens, to validate: "
            f"{len(self.lessons.validation):,}",
            *self.lessons.notes,
        ]

    def first_row(self) -> list[tuple[str, bool]]:
        """The first row as pieces of text, and whether each is trained."""
        return coloured(self.lessons.train[0], self.tokenizer)


@torch.no_grad()
def loss_of_rows(model: nn.Module, rows: Sequence[Trained], now: Moment) -> tuple[float, int]:
    """Nats a trained token of rows, and how many of those there are."""
    surprise, terms = 0.0, 0
    objective = NextToken()
    for first in range(0, len(rows), ROWS_AT_ONCE):
        now.poll()
        inputs, targets = batch_of(rows[first : first + ROWS_AT_ONCE])
        part: Mapping[str, torch.Tensor] = {
            "inputs": torch.from_numpy(inputs).to(now.among.device),
            "targets": torch.from_numpy(targets).to(now.among.device),
        }
        surprise += float(objective.loss(model, part))
        terms += objective.terms({"targets": targets})
    loss = surprise / terms
    if not np.isfinite(loss):
        raise NumericalError(f"the validation loss is {loss} after step {now.step}: the last checkpoint stays")
    return loss, terms
