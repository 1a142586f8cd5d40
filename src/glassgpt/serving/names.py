"""What token ids are called in bars, chips and tables."""

from __future__ import annotations

from glassgpt.interface import Tokenizer
from glassgpt.serving.refusals import Refusal
from glassgpt.text.character import CharacterTokenizer

MOST_SYMBOLS = 512  # of a vocabulary that is listed whole


class Names:
    """What token ids are called, whatever the tokenizer: special ones by name, those beyond it by number."""

    def __init__(self, tokenizer: Tokenizer | None, vocab_size: int) -> None:
        self.tokenizer, self.vocab_size = tokenizer, vocab_size
        self._special = {} if tokenizer is None else {token: name for name, token in tokenizer.special.items()}

    def __getitem__(self, token: int) -> str:
        if self.tokenizer is None or token >= self.tokenizer.vocab_size:
            return f"[{token}]"
        if token in self._special:
            return self._special[token]
        spelled = getattr(self.tokenizer, "text_of", None)  # which tells bytes that are no whole character
        return spelled(token) if spelled is not None else self.tokenizer.decode([token])

    def bytes_of(self, token: int) -> bytes:
        if self.tokenizer is None or token >= self.tokenizer.vocab_size:
            return b""
        return self.tokenizer.token_bytes(token)

    def all_of_them(self) -> list[str] | None:
        """Every token's name, if there are words, and not too many."""
        if self.tokenizer is None or self.vocab_size > MOST_SYMBOLS:
            return None
        return [self[token] for token in range(self.vocab_size)]

    def encode(self, text: str) -> list[int]:
        """The ids of a text. Raises Refusal where there are no words, or it can't be written with them."""
        if self.tokenizer is None:
            raise Refusal("usage", "there is no tokenizer beside this model", "give token ids in place of text")
        if isinstance(self.tokenizer, CharacterTokenizer):
            missing = next((character for character in text if character not in self.tokenizer.symbols), None)
            if missing is not None:
                symbols = self.tokenizer.symbols
                cure = f"write with {symbols}" if len(symbols) <= 80 else "leave it out"
                raise Refusal("usage", f"{missing!a} is not in this model's vocabulary", cure)
        return self.tokenizer.encode(text)
