"""Tokenising much text: the ids of `tokenizer.encode`, as arrays, several times faster."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

import numpy as np

from glassgpt.errors import UsageError
from glassgpt.interface import Tokenizer
from glassgpt.text.bpe import BPETokenizer
from glassgpt.text.character import CharacterTokenizer
from glassgpt.text.documents import units

Encode = Callable[[str], np.ndarray]

REMEMBERED = 100_000  # units whose ids are kept, some 30 MB
LONGEST_REMEMBERED = 24  # characters


def encoder(tokenizer: Tokenizer) -> Encode:
    """A function from a text to `tokenizer.encode` of it, as an int64 array (tokens,).

    Characters and bytes are looked up in a table. Of byte-level BPE the tokens of short pieces (`documents.units`) are
    remembered: nothing joins across them, so the ids are the same. Other tokenizers are asked as they are.
    """
    if isinstance(tokenizer, CharacterTokenizer):
        return _of_characters(tokenizer)
    if isinstance(tokenizer, BPETokenizer):
        return _of_bytes if is_bytes(tokenizer) else _of_units(tokenizer)
    return lambda text: np.array(tokenizer.encode(text), dtype=np.int64)


def is_bytes(tokenizer: Tokenizer) -> bool:
    """Whether token i is byte i of the text's UTF-8, for every i below 256, and no other token is ever encoded to."""
    return (
        isinstance(tokenizer, BPETokenizer)
        and not tokenizer.splitting.compose
        and tokenizer.vocab_size - len(tokenizer.special) - len(tokenizer.user_defined) == 256
        and all(tokenizer.token_bytes(byte) == bytes([byte]) for byte in range(256))
    )


def _of_bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8).astype(np.int64)


def _of_characters(tokenizer: CharacterTokenizer) -> Encode:
    codes = np.array([ord(symbol) for symbol in tokenizer.symbols], dtype=np.int64)
    table = np.full(int(codes.max(initial=0)) + 2, -1, dtype=np.int64)  # the last place is for all that lie beyond
    table[codes] = np.arange(len(codes))

    def encode(text: str) -> np.ndarray:
        places = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        ids = table[np.minimum(places, len(table) - 1)]
        if len(ids) and ids.min() < 0:
            at = int(np.argmin(ids))
            raise UsageError(
                f"{text[at]!r} is not in the vocabulary of {tokenizer.vocab_size} characters: learn the vocabulary "
                "from the whole corpus, or take bytes, which write every text"
            )
        return ids

    return encode


def _of_units(tokenizer: BPETokenizer) -> Encode:
    remembered: dict[str, list[int]] = {}

    def ids_of(unit: str) -> list[int]:
        ids = remembered.get(unit)
        if ids is None:
            ids = tokenizer.encode(unit)
            if len(unit) <= LONGEST_REMEMBERED and len(remembered) < REMEMBERED:
                remembered[unit] = ids
        return ids

    return lambda text: np.fromiter(chain.from_iterable(map(ids_of, units(text))), dtype=np.int64)
