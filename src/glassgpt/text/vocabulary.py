"""Vocabularies learnt from a corpus: its bytes, its characters, its words, or byte-level BPE.

Bytes and words are byte-level BPE without merges, so all but characters write every text there is, and each lies in a
plain tokenizer.json that the tokenizers library and transformers read.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glassgpt.errors import UsageError
from glassgpt.interface import Tokenizer
from glassgpt.text.bpe import BYTE_SYMBOLS, END_OF_TEXT, SPLITTINGS, BPETokenizer
from glassgpt.text.character import CharacterTokenizer
from glassgpt.text.documents import safe_cut
from glassgpt.text.encoding import encoder

if TYPE_CHECKING:
    import tokenizers

KINDS = ("bytes", "characters", "words", "bpe")
LEARNT = Path("learnt tokenizer")  # what errors would name
AT_ONCE = 1 << 14  # characters given to the tokenizers library at a time; it gathers 256 of them
MOST_CHARACTERS = 1 << 16


@dataclass(frozen=True)
class Vocabulary:
    """What to learn: `kind`, and for words and BPE the `size`, bytes and end of text included, that is aimed at.

    `splitting`: by what rule words are cut (`bpe.SPLITTINGS`); by default BPE cuts as SmolLM2 does, GPT-2's rule with
    each digit apart, which suits arithmetic, and words as Llama 3, whose rule files of other programs know how to name
    for vocabularies in which whole words come first.
    """

    kind: str
    size: int = 4096
    splitting: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"a vocabulary is one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.kind in ("words", "bpe") and not 257 <= self.size <= 1 << 20:
            raise UsageError(f"a vocabulary of {self.kind} has between 257 (256 bytes, end of text) and 2^20 tokens")
        if self.splitting is not None and self.splitting not in SPLITTINGS:
            raise UsageError(f"words are cut by one of {', '.join(SPLITTINGS)}, got {self.splitting!r}")

    def learn(self, texts: Iterable[str]) -> CharacterTokenizer | BPETokenizer:
        """The tokenizer. A corpus too small for `size` gives fewer tokens. Bounded memory, whatever `texts` hold."""
        if self.kind == "bytes":
            return byte_tokenizer()
        if self.kind == "characters":
            return learn_characters(texts)
        if self.kind == "words":
            return learn_words(texts, self.size, self.splitting or "llama-bpe")
        return learn_bpe(texts, self.size, self.splitting or "smollm")


def byte_tokenizer() -> BPETokenizer:
    """Token i is byte i of the text's UTF-8; token 256 is <|endoftext|>.

    >>> byte_tokenizer().encode("é!")
    [195, 169, 33]
    """
    return _byte_level([], [], "gpt-2")


def learn_characters(texts: Iterable[str]) -> CharacterTokenizer:
    """The characters that occur, in the order of their codes. Raises UsageError if there are over 65,536."""
    seen: set[str] = set()
    for text in texts:
        seen.update(text)
        if len(seen) > MOST_CHARACTERS:
            raise UsageError(f"the corpus has more than {MOST_CHARACTERS:,} characters: take bytes or bpe")
    if not seen:
        raise UsageError("there is no character in the corpus to learn a vocabulary from")
    return CharacterTokenizer("".join(sorted(seen)))


def learn_words(texts: Iterable[str], size: int = 4096, splitting: str = "llama-bpe") -> BPETokenizer:
    """The most frequent words, each a token with the space before it; any other word is written as its bytes.

    Of words that occur equally often, those that come first in the alphabet of byte signs.
    """
    import tokenizers

    library = _untrained(tokenizers.models.WordLevel(unk_token=""), splitting)
    trainer = tokenizers.trainers.WordLevelTrainer(vocab_size=size, min_frequency=2, show_progress=False)
    library.train_from_iterator(_in_small_pieces(texts), trainer)
    by_frequency = sorted(library.get_vocab().items(), key=lambda item: item[1])
    words = [word for word, _ in by_frequency if len(word) > 1][: size - 257]
    return _byte_level(words, [], splitting, whole_words=True)


def learn_bpe(texts: Iterable[str], size: int = 4096, splitting: str = "smollm") -> BPETokenizer:
    """Byte-level BPE with the merges that the tokenizers library learns, of pairs that occur twice or more.

    Tokens 0 to 255 are the bytes, then come the merges in their order, and last <|endoftext|>.
    """
    import tokenizers

    library = _untrained(tokenizers.models.BPE(), splitting)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size - 1, min_frequency=2, show_progress=False, initial_alphabet=list(BYTE_SYMBOLS)
    )
    library.train_from_iterator(_in_small_pieces(texts), trainer)
    merges = list(_merges(json.loads(library.to_str())["model"]["merges"]))
    return _byte_level([left + right for left, right in merges], merges, splitting)


def bytes_per_token(tokenizer: Tokenizer, texts: Iterable[str]) -> float:
    """UTF-8 bytes of `texts` to a token: how long a token is on average, 1 for bytes. NaN for no text."""
    encode = encoder(tokenizer)
    n_bytes = n_tokens = 0
    for text in texts:
        n_bytes += len(text.encode())
        n_tokens += len(encode(text))
    return n_bytes / n_tokens if n_tokens else float("nan")


def _untrained(model: Any, splitting: str) -> tokenizers.Tokenizer:
    import tokenizers

    library = tokenizers.Tokenizer(model)
    content = json.loads(library.to_str())
    rule = SPLITTINGS[splitting]
    content["pre_tokenizer"] = rule.pre_tokenizer()
    content["normalizer"] = {"type": "NFC"} if rule.compose else None
    return tokenizers.Tokenizer.from_str(json.dumps(content))


def _merges(entries: list[Any]) -> Iterator[tuple[str, str]]:
    for entry in entries:  # "left right" in older versions of the library, [left, right] in newer ones
        left, right = entry.split(" ") if isinstance(entry, str) else entry
        yield left, right


def _byte_level(
    words: list[str], merges: list[tuple[str, str]], splitting: str, *, whole_words: bool = False
) -> BPETokenizer:
    """256 bytes, then `words`, then end of text."""
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys([*BYTE_SYMBOLS, *words]))}
    rule = SPLITTINGS[splitting]
    rule = dataclasses.replace(rule, whole_words=rule.whole_words or whole_words)
    return BPETokenizer(vocabulary, merges, rule, {END_OF_TEXT: len(vocabulary)}, {}, LEARNT, END_OF_TEXT)


def _in_small_pieces(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        while len(text) > AT_ONCE:
            at = safe_cut(text, AT_ONCE)
            yield text[:at]
            text = text[at:]
        yield text
