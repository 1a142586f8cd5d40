"""What is said as token ids, and exactly which of them are trained: what the assistant says, and its end.

Where an answer begins and ends follows from the chat template alone, whichever it is. What precedes a message of the
assistant, rendered with a generation prompt, is what the model will see when it is to speak. It must be the beginning
of the whole conversation, and what follows it is trained up to the first end token, where generation stops. So headers,
the newline after an end token, system, user and tools are not trained. TRL and transformers get that mask from
{% generation %} marks inside a template (`return_assistant_tokens_mask`), which few templates have.

The ids are those of `ChatTemplate.encode` but for two things. The text is cut where an answer begins, as it is when a
model is asked, so that no token holds the end of a header and the beginning of an answer ("\\n" and "\\n" in one). And
nothing follows the last end token, since nothing there is trained.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from glassgpt.errors import GlassGPTError, UsageError
from glassgpt.interface import Tokenizer
from glassgpt.text.bpe import BPETokenizer
from glassgpt.text.chat import ChatTemplate
from glassgpt.text.rows import CompletionRow, MessagesRow, Row, TextRow

IGNORED = -100  # a target that counts for nothing, as in training.objective
HALVES = 0x800  # of surrogate pairs, none of which is a character
PAD = 0  # no input of it is looked at by a trained position, and no target is it

PLAIN_TEMPLATE = """{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}"""
"""ChatML, for base models that have no template: as Qwen's and SmolLM's, with no system message of its own. Its special
tokens are <|im_start|> and <|im_end|>; the latter ends what is said."""


@dataclass(frozen=True)
class Trained:
    """A row as token ids, and whether each is to be learned. The first is never predicted, whatever `is_trained` says:
    nothing precedes it."""

    tokens: list[int]
    is_trained: list[bool]

    @property
    def n_terms(self) -> int:
        """How many of the tokens are targets."""
        return sum(self.is_trained[1:])


@dataclass(frozen=True)
class TrainedRows:
    """`rows`: those with something to train. Of all `n` rows, `n_cut` were longer than the context and lost `n_lost`
    tokens on the right, and of those `n_dropped` had nothing to train left."""

    rows: list[Trained]
    n: int
    n_cut: int
    n_lost: int
    n_dropped: int

    def told(self) -> str:
        """What was cut, for a person: empty if nothing was."""
        if not self.n_cut:
            return ""
        dropped = f"; {self.n_dropped:,} had nothing to train left and were dropped" if self.n_dropped else ""
        return f"{self.n_cut:,} of {self.n:,} rows were cut to the context, by {self.n_lost:,} tokens in all{dropped}"


# --- Rows -------------------------------------------------------------------------------------------------------------


def of_rows(
    rows: Iterable[Row],
    tokenizer: Tokenizer,
    end_tokens: Sequence[int],
    context_length: int,
    template: ChatTemplate | None = None,
    *,
    last_turn_only: bool = False,
) -> TrainedRows:
    """Rows as they are trained: TextRow, CompletionRow, MessagesRow (see `of_row`), cut on the right.

    A row keeps context_length + 1 tokens, which make context_length inputs and as many targets. Raises what
    `of_row` raises, and UsageError if nothing to train is left of all rows.
    """
    kept, n, n_cut, n_lost, n_dropped = [], 0, 0, 0, 0
    for row in rows:
        trained = of_row(row, tokenizer, end_tokens, template, last_turn_only=last_turn_only)
        short = Trained(trained.tokens[: context_length + 1], trained.is_trained[: context_length + 1])
        lost = len(trained.tokens) - len(short.tokens)
        n, n_cut, n_lost = n + 1, n_cut + (lost > 0), n_lost + lost
        if short.n_terms:
            kept.append(short)
        else:
            n_dropped += 1
    if not kept:
        raise UsageError(
            f"of {n:,} rows none has anything to train within a context of {context_length} tokens: "
            "give shorter rows, or a model with a longer context"
        )
    return TrainedRows(kept, n, n_cut, n_lost, n_dropped)


def of_row(
    row: Row,
    tokenizer: Tokenizer,
    end_tokens: Sequence[int],
    template: ChatTemplate | None = None,
    *,
    last_turn_only: bool = False,
) -> Trained:
    """A row in full. Of a text all is trained, of a prompt and its completion the completion, of a conversation what
    the assistant says; and each time the end. Texts get no template, and their end is the first of `end_tokens`.

    Raises UsageError or ChatTemplateError naming the row: for a conversation without a template, what the template or
    the tokenizer refuses, and a row in which nothing is trained.
    """
    try:
        trained = _trained(row, tokenizer, end_tokens, template, last_turn_only)
        if not trained.n_terms:
            raise UsageError("nothing in it is trained: it needs a token to predict and one before it")
        return trained
    except GlassGPTError as error:
        if not row.place:
            raise
        raise type(error)(f"{row.place}: {error}") from None


def _trained(
    row: Row, tokenizer: Tokenizer, end_tokens: Sequence[int], template: ChatTemplate | None, last_turn_only: bool
) -> Trained:
    if not end_tokens:
        raise UsageError("expected at least one end token, or what is said would never stop")
    if isinstance(row, TextRow):
        return of_completion("", row.text, tokenizer, end_tokens[0])
    if isinstance(row, CompletionRow) and isinstance(row.prompt, str) and isinstance(row.completion, str):
        return of_completion(row.prompt, row.completion, tokenizer, end_tokens[0])
    if isinstance(row, CompletionRow) and isinstance(row.prompt, tuple) and isinstance(row.completion, tuple):
        messages, first, tools = row.prompt + row.completion, len(row.prompt), None
    elif isinstance(row, MessagesRow):
        messages, first, tools = row.messages, 0, row.tools
    else:
        raise UsageError(f"a {row.kind} row is not trained as it stands: expected texts, completions or conversations")
    if template is None or not isinstance(tokenizer, BPETokenizer):
        raise UsageError(
            "this row is a conversation, and the model has no chat template: "
            "give it PLAIN_TEMPLATE and its special tokens (BPETokenizer.with_special)"
        )
    variables = {"tools": list(tools)} if tools else None
    return of_messages(
        messages, template, tokenizer, end_tokens, first=first, last_turn_only=last_turn_only, variables=variables
    )


def of_completion(prompt: str, completion: str, tokenizer: Tokenizer, end_token: int) -> Trained:
    """encode(prompt) + encode(completion) + end, of which the completion and the end are trained."""
    before, after = tokenizer.encode(prompt), [*tokenizer.encode(completion), end_token]
    return Trained(before + after, [False] * len(before) + [True] * len(after))


# --- Conversations ----------------------------------------------------------------------------------------------------


def of_messages(
    messages: Sequence[Mapping[str, Any]],
    template: ChatTemplate,
    tokenizer: BPETokenizer,
    end_tokens: Sequence[int],
    *,
    first: int = 0,
    last_turn_only: bool = False,
    variables: Mapping[str, Any] | None = None,
) -> Trained:
    """A conversation, trained on what the assistant says in the messages from the `first` on, and its end token each.

    `last_turn_only`: of the assistant's messages only the last is trained. It is exact, too, with templates that write
    earlier turns differently once others follow (Qwen3's drop the thoughts), which raise UsageError without it. So do
    a template whose generation prompt is not how it begins an answer, or that writes none of `end_tokens` after one,
    and messages that don't end with the assistant. `variables`, and what else is raised: see ChatTemplate.encode.
    """
    said_by = [message.get("role") if isinstance(message, Mapping) else None for message in messages]
    turns = [i for i, role in enumerate(said_by) if i >= first and role == "assistant"]
    if not turns or turns[-1] != len(messages) - 1:
        raise UsageError("a conversation to train on must end with a message of the assistant")
    turns = turns[-1:] if last_turn_only else turns

    def ids(n: int, to_go_on: bool) -> list[int]:
        return template.encode(messages[:n], tokenizer, to_go_on, variables)

    before = [ids(turn, True) for turn in turns]
    up_to = [ids(turn + 1, False) for turn in turns]
    signs = _signs(tokenizer, [*before, *up_to])
    ends = {signs[token] for token in end_tokens if token in signs}
    prompts, answered = ([_as_text(ids, tokenizer, signs) for ids in each] for each in (before, up_to))
    whole, at = answered[-1], 0
    tokens: list[int] = []
    is_trained: list[bool] = []
    for turn, prompt, answer in zip(turns, prompts, answered, strict=True):
        end = _end_of_answer(turn + 1, prompt, answer, whole, ends)
        for piece, trained in ((whole[at : len(prompt)], False), (whole[len(prompt) : end], True)):
            more = _ids(piece, tokenizer, signs)
            tokens += more
            is_trained += [trained] * len(more)
        at = end
    return Trained(tokens, is_trained)


def _end_of_answer(number: int, prompt: str, answer: str, whole: str, ends: set[str]) -> int:
    """Where in the `whole` conversation an answer's end token ends. `prompt`, `answer`: the conversation up to message
    `number`, as it is when the model is to speak, and when it has."""
    if not answer.startswith(prompt):
        raise UsageError(
            f"the chat template's generation prompt is not how it begins message {number} once that is said, so that "
            "what is trained there is not what will be asked for: give another template or other variables"
        )
    end = next((i + 1 for i in range(len(prompt), len(answer)) if answer[i] in ends), None)
    if end is None:
        raise UsageError(
            f"the chat template writes none of the end tokens after message {number}: name the one that it writes"
        )
    if not whole.startswith(answer[:end]):
        raise UsageError(
            f"the chat template writes message {number}, or what precedes it, differently once others follow: "
            "train the last turn only (last_turn_only), and give a conversation once for each turn"
        )
    return end


def _signs(tokenizer: BPETokenizer, conversations: Iterable[Sequence[int]]) -> dict[int, str]:
    """Half a surrogate pair for each special or user-defined token that occurs: no text can hold one, so that a
    conversation as one string loses nothing."""
    added = {*tokenizer.special.values(), *tokenizer.user_defined.values()}
    found = sorted(added & {token for ids in conversations for token in ids})
    if len(found) > HALVES:
        raise UsageError(f"a conversation with {len(found):,} different special tokens; up to {HALVES:,} are read")
    return {token: chr(0xD800 + i) for i, token in enumerate(found)}


def _as_text(ids: Sequence[int], tokenizer: BPETokenizer, signs: Mapping[int, str]) -> str:
    halves = {token: sign.encode("utf-8", "surrogatepass") for token, sign in signs.items()}
    data = b"".join(halves[token] if token in halves else tokenizer.token_bytes(token) for token in ids)
    return data.decode("utf-8", "surrogatepass")


def _ids(text: str, tokenizer: BPETokenizer, signs: Mapping[int, str]) -> list[int]:
    tokens = {sign: token for token, sign in signs.items()}
    ids: list[int] = []
    for part in re.split("([\ud800-\udfff])", text):
        ids += [tokens[part]] if part in tokens else tokenizer.encode(part) if part else []
    return ids


# --- Batches and pictures ---------------------------------------------------------------------------------------------


def batch_of(rows: Sequence[Trained], width: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Rows side by side: `inputs` and `targets`, int64 (rows, width), a target the token after its input.

    `width`: by default that of the longest row, a token less than it has. A target that isn't trained, or is padding,
    is IGNORED. Padding is on the right, where no trained position looks, and known by its place: an end token is a
    token like others, whichever id fills the rest. Raises UsageError without rows, and for a row that is too long.
    """
    if not rows:
        raise UsageError("a batch needs at least one row")
    longest = max(len(row.tokens) for row in rows) - 1
    width = longest if width is None else width
    if longest > width:
        raise UsageError(f"a row of {longest + 1} tokens makes {longest} inputs, and the batch is {width} wide: cut it")
    inputs = np.full((len(rows), width), PAD, dtype=np.int64)
    targets = np.full((len(rows), width), IGNORED, dtype=np.int64)
    for i, row in enumerate(rows):
        n = len(row.tokens) - 1
        inputs[i, :n] = row.tokens[:-1]
        targets[i, :n] = np.where(row.is_trained[1:], row.tokens[1:], IGNORED)
    return inputs, targets


def coloured(trained: Trained, tokenizer: Tokenizer) -> list[tuple[str, bool]]:
    """A row as pieces of text for a terminal, and whether each is trained: special tokens by name, line ends as ↵ and a
    new line, other control characters by their code. Nothing in it can move a cursor."""
    names = {token: name for name, token in tokenizer.special.items()}
    pieces = []
    for is_trained, pairs in groupby(zip(trained.tokens, trained.is_trained, strict=True), key=lambda pair: pair[1]):
        data = b"".join(names[t].encode() if t in names else tokenizer.token_bytes(t) for t, _ in pairs)
        pieces.append((_visible(data.decode("utf-8", "backslashreplace")), is_trained))
    return pieces


def _visible(text: str) -> str:
    shown = (c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
    return "".join(shown).replace("\n", "↵\n")
