"""Tokens as text for a person who reads along: whole characters only, and nothing that a stop string takes back."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from glassgpt.decoding.draw import Drawn, Ends, as_ends
from glassgpt.decoding.generate import stream
from glassgpt.errors import UsageError
from glassgpt.interface import LanguageModel, LogitsProcessor, Tokenizer


def stream_text(
    model: LanguageModel,
    tokenizer: Tokenizer,
    tokens: Sequence[int] | np.ndarray,
    max_new_tokens: int,
    *,
    processors: Sequence[LogitsProcessor] = (),
    stop: Sequence[str] = (),
    end_token: Ends = None,
    rng: np.random.Generator,
) -> TextStream:
    """The text that follows the prompt `tokens`, piece by piece: `stream`, told as text. See `TextStream`."""
    drawn = stream(model, tokens, max_new_tokens, processors=processors, end_token=end_token, rng=rng)
    return TextStream(drawn, tokenizer, stop=stop, ends=as_ends(end_token, model.vocab_size))


class TextStream:
    """Iterate over it for pieces of text; what has been used so far stands in its attributes.

    The pieces join to the text of all tokens, cut before the first stop string. The token in `ends` that ends a text
    is not shown, whatever it spells. A stop string is found wherever tokens meet: text that may be the beginning of
    one is held back until that is decided, and so are the bytes of a character that is not whole yet.

    `tokens` and `logprobs`: of every token drawn, the end token and those that spelled the stop string included.
    `text`: all that has been given out. `finish_reason`: "stop" (an end token or a stop string), "length", or None
    while the text is going on.
    """

    def __init__(
        self,
        drawn: Iterable[Drawn],
        tokenizer: Tokenizer,
        *,
        stop: Sequence[str] = (),
        ends: frozenset[int] = frozenset(),
    ) -> None:
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.text = ""
        self.finish_reason: str | None = None
        self._pieces = self._run(drawn, tokenizer, TextCutter(stop), ends)

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    def _run(
        self, drawn: Iterable[Drawn], tokenizer: Tokenizer, cutter: TextCutter, ends: frozenset[int]
    ) -> Iterator[str]:
        reason = "length"
        for token, logprob in drawn:
            self.tokens.append(token)
            self.logprobs.append(logprob)
            if token in ends:
                reason = "stop"
                break
            yield from self._given(cutter.push(tokenizer.token_bytes(token)))
            if cutter.stopped:
                break
        last = cutter.finish()
        self.finish_reason = "stop" if cutter.stopped else reason
        yield from self._given(last)

    def _given(self, piece: str) -> Iterator[str]:
        self.text += piece
        if piece:
            yield piece


class TextCutter:
    """Bytes in, text out: `push` gives what is certain, `finish` the rest. `stopped` once a stop string was met.

    Of several stop strings the one that is complete first counts, and the longest of those that end together; so where
    the text is cut depends on the text alone, not on how it was divided. Bytes that are no UTF-8 become U+FFFD, as
    in `Tokenizer.decode`.

    >>> cutter = TextCutter(["END"])
    >>> [cutter.push(part) for part in (b"x", b"yE", b"N", b"\\xc3", b"\\xa9EN", b"D!")]
    ['x', 'y', '', '', 'ENé', '']
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        if isinstance(stop, str) or not all(isinstance(one, str) for one in stop):
            raise UsageError(f"expected a list of stop strings, got {stop!r}")
        if "" in stop:
            raise UsageError("an empty stop string would stop every text before it begins")
        self.stop = tuple(stop)
        self.stopped = False
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""

    def push(self, content: bytes) -> str:
        return self._push(content, final=False)

    def finish(self) -> str:
        return self._push(b"", final=True)

    def _push(self, content: bytes, final: bool) -> str:
        if self.stopped:
            return ""
        text = self._held + self._decoder.decode(content, final)
        found = [(at + len(one), at) for one in self.stop if (at := text.find(one)) >= 0]
        if found:
            self.stopped = True
            return text[: min(found)[1]]
        n_given = len(text) if final else len(text) - self._n_undecided(text)
        self._held = text[n_given:]
        return text[:n_given]

    def _n_undecided(self, text: str) -> int:
        """How many characters at the end may be the beginning of a stop string."""
        longest = min(len(text), max(map(len, self.stop), default=1) - 1)
        return next((n for n in range(longest, 0, -1) if any(one.startswith(text[-n:]) for one in self.stop)), 0)
