"""A stage's rows as tokens: prompts, answers, conversations, and which of them a step takes.

`data.files` names .jsonl files (`text.rows` says what rows there are) or `toy-world`, which makes as many as
`data.rows` says and keeps its held-out questions and subjects to validate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np

from glassgpt.errors import UsageError
from glassgpt.text import conversation
from glassgpt.text.conversation import Trained, TrainedRows, of_rows
from glassgpt.text.draws import hashed
from glassgpt.text.rows import (
    CompletionRow,
    LabelledRow,
    MessagesRow,
    PreferenceRow,
    PromptRow,
    RankedRow,
    Said,
    TextRow,
    read_fields,
    read_rows,
    templated,
)
from glassgpt.text.toy_tasks import TELLING, conversations, preference, prompts, synthetic_answers
from glassgpt.text.toy_world import ToyWorld
from glassgpt.training.base import Base
from glassgpt.training.recipe import Recipe

TOY_WORLD = ("toy-world",)
FLIPS = 0.1  # of the toy world's own preferences: people err too
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Prompt:
    """`asked`: a text, or messages. `text`: what was said last, for a judge. `tokens`: as the model reads it."""

    asked: Said
    text: str
    tokens: list[int]


def encode_prompt(asked: Said, base: Base) -> list[int]:
    """A text as it is, messages through the chat template up to where the assistant is to speak."""
    if isinstance(asked, str):
        return base.tokenizer.encode(asked) or [base.end_tokens[0]]
    if base.chat is None:
        raise UsageError(
            f"{base.bundle.place} has no chat template, and prompts are messages: fine-tune it on conversations first, "
            "by a recipe with [sft]"
        )
    return base.chat.encode(list(asked), base.tokenizer)


def completed(answer: Said, base: Base, *, end: bool = True) -> list[int]:
    """An answer's tokens, the one that ends it included."""
    if not isinstance(answer, str):
        if len(answer) != 1:
            raise UsageError(f"an answer of {len(answer)} messages: give one message of the assistant")
        answer = str(answer[0]["content"])
    return base.tokenizer.encode(answer) + ([base.end_tokens[0]] if end else [])


def prompt_of(asked: Said, base: Base) -> Prompt:
    text = asked if isinstance(asked, str) else str(asked[-1]["content"])
    return Prompt(asked, text, encode_prompt(asked, base))


def batch_of(pairs: Sequence[tuple[list[int], list[int]]]) -> tuple[np.ndarray, np.ndarray]:
    """(prompt, answer) as inputs and targets, int64 (B, T), right-padded; only answers are targets."""
    return conversation.batch_of([joined(prompt, answer) for prompt, answer in pairs])


def joined(prompt: list[int], answer: list[int]) -> Trained:
    return Trained(prompt + answer, [False] * len(prompt) + [True] * len(answer))


# ---- which rows a step takes -----------------------------------------------------------------------------------------


def drawn(n: int, batch_size: int, step: int, seed: int) -> list[int]:
    """Which of n rows a step takes: all of them in a drawn order before any comes again."""
    places = range(step * batch_size, (step + 1) * batch_size)
    return [int(_order(n, seed, place // n)[place % n]) for place in places]


@lru_cache(maxsize=4)
def _order(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(n)


def split_by_hash(rows: Sequence[T], fraction: float, key: Callable[[T], object]) -> tuple[list[T], list[T]]:
    """Rows to train on and rows that validate. What has one key is in one part; a row's place decides nothing."""
    held = [hashed("validation", key(row)) < fraction * 2**64 for row in rows]
    train = [row for row, out in zip(rows, held, strict=True) if not out]
    validation = [row for row, out in zip(rows, held, strict=True) if out]
    if not train:
        raise UsageError(f"of {len(rows)} rows none is left to train on: give more, or a smaller data.validation")
    return train, validation


def sha256_of(rows: Sequence[Sequence[int]]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(np.asarray([len(row), *row], dtype="<i8").tobytes())
    return digest.hexdigest()


# ---- rows of each kind -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Lessons:
    """What SFT trains on. `asked`: validation rows whose answer can be compared, as prompts and answers."""

    train: list[Trained]
    validation: list[Trained]
    asked: list[tuple[Prompt, str]]
    notes: list[str]


def has_conversations(recipe: Recipe) -> bool:
    """Whether the rows of SFT are messages, for which the base needs a chat template."""
    if recipe.data.files == TOY_WORLD:
        return True
    if recipe.sft is not None and recipe.sft.prompt is not None:
        return False
    rows = read_rows(recipe.data.files or (), MessagesRow, CompletionRow, TextRow)
    return any(isinstance(row, MessagesRow) or not isinstance(getattr(row, "prompt", ""), str) for row in rows)


def lessons(recipe: Recipe, base: Base) -> Lessons:
    assert recipe.sft is not None
    if recipe.data.files == TOY_WORLD:
        world, n = ToyWorld(), recipe.data.rows
        n_held = max(1, round(n * recipe.data.validation))
        made = conversations(world, recipe.run.seed, n) + conversations(world, recipe.run.seed, n_held, held_out=True)
        rows: list[Lesson] = [MessagesRow(tuple(row["messages"])) for row in made]
        parts = rows[:n], rows[n:]
        comparable = [row["kind"] != TELLING for row in made[n:]]
    elif recipe.sft.prompt is not None and recipe.sft.completion is not None:
        fields = read_fields(recipe.data.files or ())
        parts = _split(templated(fields, recipe.sft.prompt, recipe.sft.completion), recipe)
        comparable = [True] * len(parts[1])
    else:
        parts = _split(read_rows(recipe.data.files or (), MessagesRow, CompletionRow, TextRow), recipe)
        comparable = [True] * len(parts[1])
    train, validation = (_trained(part, base) if part else None for part in parts)
    assert train is not None
    asked = [
        answerable
        for row, compared in zip(parts[1], comparable, strict=True)
        if compared and (answerable := _answerable(row, base)) is not None
    ]
    told = [f"to train: {train.told()}"] if train.told() else []
    return Lessons(train.rows, validation.rows if validation else [], asked, told)


Lesson = MessagesRow | CompletionRow | TextRow


def _split(rows: Sequence[Lesson], recipe: Recipe) -> tuple[list[Lesson], list[Lesson]]:
    return split_by_hash(list(rows), recipe.data.validation, repr)


def _trained(rows: Sequence[Lesson], base: Base) -> TrainedRows:
    return of_rows(rows, base.tokenizer, base.end_tokens, base.config.context_length, base.chat)


def _answerable(row: Lesson, base: Base) -> tuple[Prompt, str] | None:
    """A row as a prompt and the answer that is expected, if it is one question."""
    if isinstance(row, TextRow):
        return None
    if isinstance(row, CompletionRow):
        answer = row.completion if isinstance(row.completion, str) else str(row.completion[-1]["content"])
        return prompt_of(row.prompt, base), answer
    *asked, last = row.messages
    return (prompt_of(tuple(asked), base), str(last["content"])) if asked else None


def prompts_of(recipe: Recipe, base: Base) -> tuple[list[Prompt], list[Prompt]]:
    """What reinforcement learning asks, and what is held out to judge it by."""
    if recipe.data.files == TOY_WORLD:
        world, seed, n = ToyWorld(), recipe.run.seed, recipe.data.rows
        made = (prompts(world, seed, n, held_out=False), prompts(world, seed, n, held_out=True))
        asked: list[list[Said]] = [[tuple(row["prompt"]) for row in part] for part in made]
    else:
        rows = read_rows(recipe.data.files or (), PromptRow)
        asked = [[row.prompt for row in part] for part in split_by_hash(rows, recipe.data.validation, repr)]
    train, held_out = ([prompt_of(one, base) for one in part] for part in asked)
    if longest := [prompt for prompt in train if len(prompt.tokens) >= base.config.context_length]:
        raise UsageError(
            f"a prompt has {len(longest[0].tokens)} tokens, and the context {base.config.context_length}: an answer "
            f"has no room; shorten it ({longest[0].text[:60]!r})"
        )
    return train, held_out


@dataclass(frozen=True, eq=False)
class Ranked:
    """Answers to a prompt as tokens, and their ranks: 0 is the best, equal ranks are ties."""

    prompt: Prompt
    answers: list[list[int]]
    ranks: list[int]


def rankings(recipe: Recipe, base: Base) -> tuple[list[Ranked], list[Ranked]]:
    """Preferences and rankings to train on, and those that validate: no prompt is in both."""
    if recipe.data.files == TOY_WORLD:
        parts = [_toy_preferences(recipe, held_out) for held_out in (False, True)]
    else:
        parts = list(split_by_hash(preferences(recipe.data.files or ()), recipe.data.validation, asked_of))
    train, validation = ([ranked_of(row, base) for row in part] for part in parts)
    return train, validation


def preferences(files: Iterable[str]) -> list[PreferenceRow | RankedRow]:
    kinds: tuple[Any, ...] = (PreferenceRow, RankedRow)
    return read_rows(files, *kinds)


def asked_of(row: PreferenceRow | RankedRow) -> str:
    """By what preferences are split: no prompt trains and validates too."""
    return repr(row.prompt)


def _toy_preferences(recipe: Recipe, held_out: bool) -> list[PreferenceRow | RankedRow]:
    """One pair for each prompt, of which FLIPS are the wrong way round."""
    world, seed = ToyWorld(), recipe.run.seed
    n = max(1, round(recipe.data.rows * recipe.data.validation)) if held_out else recipe.data.rows
    rows: list[PreferenceRow | RankedRow] = []
    for i, asked in enumerate(prompts(world, seed, n, held_out)):
        text = asked["prompt"][0]["content"]
        a, b = synthetic_answers(world, text, seed + i, 2)
        row = preference(world, text, a, b, FLIPS, seed + i) if a != b else None
        if row is not None:
            rows.append(PreferenceRow(tuple(row["prompt"]), row["chosen"], row["rejected"]))
    return rows


def ranked_of(row: PreferenceRow | RankedRow, base: Base) -> Ranked:
    answers = (row.chosen, row.rejected) if isinstance(row, PreferenceRow) else row.completions
    ranks = (0.0, 1.0) if isinstance(row, PreferenceRow) else row.ranks
    order = sorted(set(ranks))
    return Ranked(
        prompt_of(row.prompt, base), [completed(one, base) for one in answers], [order.index(r) for r in ranks]
    )


def labelled(recipe: Recipe) -> tuple[list[LabelledRow], list[LabelledRow]]:
    rows = read_rows(recipe.data.files or (), LabelledRow)
    return split_by_hash(rows, recipe.data.validation, lambda row: row.text)
