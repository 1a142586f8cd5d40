"""The contracts of `LanguageModel` and `Tokenizer`, which anyone can run on a class of their own.

`check_model(model)` compares every fast path with its definition on random tokens drawn from a seed, and raises
ContractError with the first disagreement; it returns nothing when all is well.
"""

from __future__ import annotations

import numpy as np

from glassgpt.errors import GlassGPTError
from glassgpt.interface import LanguageModel, RecomputingSession, Session, Tokenizer

LONGEST_WINDOW = 1024  # of a longer context only the beginning is looked at
TABLE_ROWS = 4096  # compare the table of the longest contexts of which there are no more than this


class ContractError(GlassGPTError, AssertionError):
    """A model or tokenizer does not keep its interface's promise."""


def check_model(model: LanguageModel, *, seed: int = 0, tolerance: float = 1e-4) -> None:
    """Raise ContractError unless `model` is one function of the context, by whichever door it is asked.

    `tolerance` bounds the difference of two logits, relative to 1 + the larger one: rounding passes, another function
    does not. Lower it to 1e-9 for a model in float64.
    """
    check = _ModelCheck(model, np.random.default_rng(seed), tolerance)
    check.sizes()
    check.next_token_logits()
    check.window()
    check.batches()
    check.sequence_logits()
    check.causality()
    check.session()
    check.context_table()


class _ModelCheck:
    def __init__(self, model: LanguageModel, rng: np.random.Generator, tolerance: float) -> None:
        self.model, self.rng, self.tolerance = model, rng, tolerance

    def tokens(self, batch: int, time: int) -> np.ndarray:
        return self.rng.integers(0, self.model.vocab_size, (batch, time))

    def lengths(self) -> list[int]:
        T = self.model.context_length
        return sorted({1, min(2, T), min(T, 33) // 2 + 1, min(T, 64), T if T <= LONGEST_WINDOW else 1})

    def same(self, got: np.ndarray, expected: np.ndarray, what: str) -> None:
        got, expected = np.asarray(got), np.asarray(expected)
        if got.shape != expected.shape:
            raise ContractError(f"{what}: expected shape {expected.shape}, got {got.shape}")
        scale = 1 + np.maximum(np.abs(got), np.abs(expected))
        with np.errstate(invalid="ignore"):  # inf - inf where both exclude a token
            difference = np.where(got == expected, 0.0, np.abs(got - expected) / scale)
        difference[np.isnan(difference)] = np.inf  # NaN, or only one of the two excludes the token
        if not np.all(difference <= self.tolerance):
            raise ContractError(f"{what}: the logits differ by {np.max(difference):.3g} relative to 1 + |logit|")

    def sizes(self) -> None:
        for name in ("vocab_size", "context_length"):
            value = getattr(self.model, name, None)
            if not isinstance(value, int | np.integer) or value < 1:
                raise ContractError(f"{name} must be a positive int, got {value!r}")

    def next_token_logits(self) -> None:
        for length in self.lengths():
            logits = np.asarray(self.model.next_token_logits(self.tokens(3, length)))
            if logits.shape != (3, self.model.vocab_size):
                raise ContractError(
                    f"next_token_logits of shape (3, {length}) must be of shape {(3, self.model.vocab_size)}, "
                    f"got {logits.shape}"
                )
            if not np.issubdtype(logits.dtype, np.floating):
                raise ContractError(f"logits must be floating point numbers, got {logits.dtype}")
            if np.isnan(logits).any() or np.isposinf(logits).any() or np.isneginf(logits).all(axis=-1).any():
                raise ContractError("logits must be finite or -inf, with at least one finite in every row")

    def window(self) -> None:
        T = self.model.context_length
        if T > LONGEST_WINDOW:
            return
        text = self.tokens(2, T + 3)
        self.same(
            self.model.next_token_logits(text),
            self.model.next_token_logits(text[:, -T:]),
            "a context longer than context_length must count as its last context_length tokens",
        )

    def batches(self) -> None:
        for length in self.lengths():
            contexts = self.tokens(5, length)
            alone = [np.asarray(self.model.next_token_logits(context[None])) for context in contexts]
            self.same(self.model.next_token_logits(contexts), np.concatenate(alone), "batched against one by one")

    def sequence_logits(self) -> None:
        past_the_window = min(self.model.context_length, 32) + 3
        tokens = self.tokens(2, past_the_window)
        self.same(
            self.model.sequence_logits(tokens),
            LanguageModel.sequence_logits(self.model, tokens),
            "sequence_logits against next_token_logits of each prefix",
        )

    def causality(self) -> None:
        length = min(self.model.context_length, 32)
        for kept in {1, length // 2} - {0}:
            tokens = self.tokens(2, length)
            changed = tokens.copy()
            changed[:, kept:] = (changed[:, kept:] + 1) % self.model.vocab_size
            self.same(
                np.asarray(self.model.sequence_logits(tokens))[:, :kept],
                np.asarray(self.model.sequence_logits(changed))[:, :kept],
                f"causality: changing the tokens after position {kept} changed the logits before it",
            )

    def session(self) -> None:
        T = self.model.context_length if self.model.context_length <= LONGEST_WINDOW else 32
        session: Session = self.model.session(2)
        plain = RecomputingSession(self.model, 2)
        steps = [1, max(1, T // 2), 1, T, 1, 2]  # one token and many, inside the window, across its end, far past it
        for step in steps:
            tokens = self.tokens(2, step)
            self.same(session.feed(tokens), plain.feed(tokens), f"session after {plain.length} tokens (window {T})")
            if session.length != plain.length:
                raise ContractError(f"a session fed {plain.length} tokens says its length is {session.length}")
        self.forks_rewinds_reorders(session, plain)

    def forks_rewinds_reorders(self, session: Session, plain: Session) -> None:
        fork, plain_fork = session.fork(), plain.fork()
        apart, one = self.tokens(2, 3), self.tokens(2, 1)
        self.same(fork.feed(apart), plain_fork.feed(apart), "a session's fork")
        self.same(session.feed(one), plain.feed(one), "a session whose fork was fed")
        for rewound in (session, plain):
            rewound.rewind(2)
        if session.length != plain.length:
            raise ContractError(f"a session rewound to {plain.length} tokens says its length is {session.length}")
        self.same(session.feed(one), plain.feed(one), "a session after rewinding two tokens")
        for reordered in (session, plain):
            reordered.reorder([1, 1])
        self.same(session.feed(one), plain.feed(one), "a session after reordering its texts to [1, 1]")

    def context_table(self) -> None:
        V = self.model.vocab_size
        length = 0
        while length < self.model.context_length and V ** (length + 1) <= TABLE_ROWS:
            length += 1
        for short in {1, length} if length else ():
            self.same(
                self.model.context_table(short),
                LanguageModel.context_table(self.model, short),
                f"context_table({short}) against next_token_logits of every context",
            )


TEXTS = ["", "a", "Hello, world", " two  spaces\n\ttab", "naïve café", "字", "👩‍👩‍👧", "\x00", "<|endoftext|>", "1011"]


def check_tokenizer(tokenizer: Tokenizer, texts: list[str] | None = None) -> None:
    """Raise ContractError unless encoding is lossless and never yields a special token.

    `texts`: what to encode, for a tokenizer that knows only some characters; else a few awkward strings, and the names
    of its special tokens.
    """
    for text in [*TEXTS, *tokenizer.special] if texts is None else texts:
        ids = tokenizer.encode(text)
        if any(not 0 <= token < tokenizer.vocab_size for token in ids):
            raise ContractError(f"encode({text!r}) gave an id outside the vocabulary of {tokenizer.vocab_size}: {ids}")
        if set(ids) & set(tokenizer.special.values()):
            raise ContractError(f"encode({text!r}) gave a special token: text must never become one")
        if (back := tokenizer.decode(ids)) != text:
            raise ContractError(f"decode(encode({text!r})) gave {back!r}")
        if b"".join(map(tokenizer.token_bytes, ids)) != text.encode():
            raise ContractError(f"token_bytes of encode({text!r}) do not join to the text's bytes")
