"""Pretraining: the next token of a text, measured in bits per byte beside yardsticks on the same bytes."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

from torch import nn

from glassgpt.errors import NumericalError
from glassgpt.models.gpt_torch import GPT
from glassgpt.text.prepare import Progress
from glassgpt.text.token_files import TokenPart
from glassgpt.training.data import Corpus, TrainingData, beginning, prepared_data, training_data
from glassgpt.training.evaluate import Evaluation, bits_per_byte, sample, validation_loss, yardsticks
from glassgpt.training.objective import NextToken, Rows
from glassgpt.training.processes import Processes
from glassgpt.training.recipe import Recipe
from glassgpt.training.stage import Moment, Stage

TOKENS = "tokens"


class Pretraining(Stage):
    def __init__(self, recipe: Recipe, data: TrainingData) -> None:
        self.recipe, self.data, self.tokenizer = recipe, data, data.tokenizer
        self.config = dataclasses.replace(recipe.model, vocab_size=data.tokenizer.vocab_size)
        self.objective = NextToken(recipe.train.last_position_only)

    @classmethod
    def prepare(
        cls,
        recipe: Recipe,
        run: Path,
        among: Processes,
        on_progress: Progress,
        *,
        replace: bool,
        gone: bool,
    ) -> Pretraining:
        """`replace`: another text's tokens that lie there may be overwritten. `gone`: the text can't be read again, and
        the tokens that were prepared from it are taken."""
        folder = Path(recipe.data.tokens or run / TOKENS)
        if gone:
            return cls(recipe, prepared_data(recipe, folder))
        data = None
        if among.first:
            data = training_data(recipe, folder, on_progress, replace=replace and recipe.data.tokens is None)
        among.wait()
        return cls(recipe, data or training_data(recipe, folder))

    @property
    def sha256(self) -> str:
        return self.data.sha256

    def model(self) -> nn.Module:
        return GPT(self.config, seed=self.recipe.run.seed)

    def rows(self, step: int) -> Rows:
        return self.data.rows(step)

    # ---- evaluation ----------------------------------------------------------------------------------------------

    def evaluate(self, now: Moment) -> Evaluation | None:
        if not isinstance(self.data, Corpus):
            return None  # nothing of a sequence is kept back
        loss = bits = None
        part = self._part_to_measure(now.is_last)
        if part is not None:
            loss = validation_loss(
                now.trainer.spread,
                part,
                self.config.context_length,
                now.among,
                mask_documents=self.recipe.data.mask_documents,
                poll=now.poll,
            )
            if not math.isfinite(loss):
                raise NumericalError(f"the validation loss is {loss} after step {now.step}: the last checkpoint stays")
            bits = bits_per_byte(loss, part)
        if not now.among.first:
            return None
        self._compare_with_yardsticks(now)
        return Evaluation(now.step, loss, bits, len(part) - 1 if part else 0, self._sample(now))

    def _part_to_measure(self, is_last: bool) -> TokenPart | None:
        """All that validates at the end, and before that the first `evaluate.tokens` targets."""
        part, most = self.data.validation, self.recipe.evaluate.tokens
        if part is None or most is None or is_last:
            return part
        return beginning(part, most + 1, self.data.tokenizer)

    def _sample(self, now: Moment) -> str | None:
        if not self.recipe.evaluate.sample_tokens:
            return None
        return sample(now.run.model(now.step), self.data.tokenizer, self.data.prompt, self.recipe)

    def _compare_with_yardsticks(self, now: Moment) -> None:
        """Once a run, and not while the first step is waited for."""
        if isinstance(self.data, Corpus) and self.data.validation is not None and not now.run.yardsticks():
            files = self.data.files
            poll = now.poll if now.among.count == 1 else lambda: None  # the others don't take part
            now.run.save_yardsticks(yardsticks(files.train, self.data.validation, files.tokenizer, poll))
