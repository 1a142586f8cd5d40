"""Models that answer prompts, to be ranked, judged and compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from glassgpt.models.gpt_torch import GPT
from glassgpt.text.rows import PromptRow, Said, read_rows
from glassgpt.text.toy_tasks import prompts
from glassgpt.text.toy_world import ToyWorld
from glassgpt.training.base import Base
from glassgpt.training.examples import Prompt, prompt_of
from glassgpt.training.rollout import Rollouts, roll_out

AT_ONCE = 64  # answers drawn in one batch


@dataclass(frozen=True, eq=False)
class Player:
    """The model of a REF and how it is asked. One without a chat template is asked in the template of our own, which it
    has never seen: what it goes on with is its answer."""

    ref: str
    base: Base

    @classmethod
    def open(cls, ref: str) -> Player:
        return cls(ref, Base.open(ref, chats=True))

    @cached_property
    def model(self) -> GPT:
        return self.base.gpt().eval().requires_grad_(False)

    def answer(
        self, asked: Sequence[Said], max_new_tokens: int, seed: int, *, temperature: float = 1.0
    ) -> list[Rollouts]:
        """Answers to all of them, in batches; answer i follows from `seed` + i."""
        posed = [prompt_of(one, self.base) for one in asked]
        return [
            roll_out(
                self.model,
                posed[first : first + AT_ONCE],
                self.base.tokenizer.decode,
                self.base.end_tokens,
                max_new_tokens,
                seed + first,
                temperature=temperature,
            )
            for first in range(0, len(posed), AT_ONCE)
        ]


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers side by side: to `prompts[i]` it said `texts[i]`, and `ended[i]` says whether by itself."""

    prompts: list[Prompt]
    texts: list[str]
    ended: np.ndarray

    @classmethod
    def of(cls, rollouts: Sequence[Rollouts]) -> Answers:
        return cls(
            [prompt for part in rollouts for prompt in part.prompts],
            [text for part in rollouts for text in part.texts],
            np.concatenate([part.ended for part in rollouts]) if rollouts else np.empty(0, dtype=bool),
        )


def prompts_named(source: str, n: int, seed: int, *, held_out: bool) -> list[Said]:
    """`n` prompts of `source`: toy-world, or a .jsonl file, whose prompts come again when all have been asked."""
    if source == "toy-world":
        return [tuple(row["prompt"]) for row in prompts(ToyWorld(), seed, n, held_out)]
    rows = read_rows([source], PromptRow)
    return [rows[i % len(rows)].prompt for i in range(n)]
