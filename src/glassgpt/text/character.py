"""A token a character: the vocabulary that fits on one line."""

from __future__ import annotations

from glassgpt.errors import UsageError
from glassgpt.interface import Tokenizer

DIGITS_AND_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"


class CharacterTokenizer(Tokenizer):
    """Token i stands for the i-th of `symbols`, a string of distinct characters.

    >>> CharacterTokenizer("01").encode("101")
    [1, 0, 1]
    """

    def __init__(self, symbols: str) -> None:
        if len(set(symbols)) != len(symbols):
            twice = next(symbol for symbol in symbols if symbols.count(symbol) > 1)
            raise UsageError(f"each symbol must stand for one token, and {twice!r} is listed twice in {symbols!r}")
        self.symbols = symbols
        self.vocab_size = len(symbols)
        self.special = {}
        self._ids = {symbol: i for i, symbol in enumerate(symbols)}

    @classmethod
    def of_size(cls, vocab_size: int) -> CharacterTokenizer:
        """Digits, then letters: "01" for two tokens, "012" for three. Raises UsageError above 36 tokens."""
        if vocab_size > len(DIGITS_AND_LETTERS):
            raise UsageError(
                f"digits and letters name {len(DIGITS_AND_LETTERS)} tokens, and the vocabulary has {vocab_size}: "
                "give one character a token in data.symbols"
            )
        return cls(DIGITS_AND_LETTERS[:vocab_size])

    def encode(self, text: str) -> list[int]:
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            raise UsageError(f"{error.args[0]!r} is not in the vocabulary, which is {self.symbols!r}") from None

    def token_bytes(self, token: int) -> bytes:
        if not 0 <= token < self.vocab_size:
            raise UsageError(f"token id {token} is outside the vocabulary of {self.vocab_size}")
        return self.symbols[token].encode()
