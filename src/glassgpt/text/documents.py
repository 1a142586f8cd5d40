"""Documents: what a corpus is made of, read one after another and never all at once.

A document is a text, and a long one comes in parts of at most LONGEST_PART characters, so that a file of one endless
line needs no more memory than a short one. Parts end where no tokenizer of GlassGPT joins what stands on the two sides
(`safe_cut`): the tokens of the parts, one after another, are those of the whole.
"""

from __future__ import annotations

import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

LONGEST_PART = 1 << 20  # characters; some 4 MB at the most
SEPARATORS = {"file": None, "blank lines": "\n\n", "lines": "\n"}


@dataclass(frozen=True, slots=True)
class Document:
    """A document, or a part of one. `continues`: it goes on where the part before it ended, with nothing between."""

    text: str
    continues: bool = False


class Source(ABC):
    """Where documents come from: the same ones, in the same order, at every pass."""

    name: str

    @abstractmethod
    def documents(self) -> Iterator[Document]:
        """A fresh pass over all the documents. Text only: no half surrogate pairs, and no document without a word."""

    @abstractmethod
    def identity(self) -> dict[str, str | int]:
        """What decides the documents: settings, and hashes of what is read. Equal identities give equal documents."""


def whole_documents(source: Source) -> Iterator[Iterator[Document]]:
    """A fresh pass, document by document, each as its parts; take all parts of one before the next."""
    stream = source.documents()
    ahead = next(stream, None)

    def parts() -> Iterator[Document]:
        nonlocal ahead
        assert ahead is not None
        yield ahead
        while (ahead := next(stream, None)) is not None and ahead.continues:
            yield ahead

    while ahead is not None:
        yield parts()


def split_documents(blocks: Iterable[str], separator: str | None, longest: int = LONGEST_PART) -> Iterator[Document]:
    """The documents of a text that comes in blocks of any size.

    They lie between `separator`s (None: the text is one document). A separated document is stripped of the line ends
    around it, and one of white space alone is dropped. At most `longest` characters a part.

    >>> [document.text for document in split_documents(["one\\n\\nt", "wo\\n", "\\n\\n\\n"], "\\n\\n")]
    ['one', 'two']
    """
    buffer, going_on = "", False
    for block in blocks:
        buffer += block
        if separator is not None and separator in buffer:
            *whole, buffer = buffer.split(separator)
            for text in whole:
                yield from _parts(_trimmed(text, going_on), longest, going_on)
                going_on = False
        while len(buffer) > 2 * longest:  # what stays is longer than any separator or line end that may be half here
            at = safe_cut(buffer, longest)
            text = buffer[:at] if going_on or separator is None else buffer[:at].lstrip("\r\n")
            buffer = buffer[at:]
            if going_on or text.strip():
                yield Document(text, going_on)
                going_on = True
    yield from _parts(buffer if separator is None else _trimmed(buffer, going_on), longest, going_on)


def _trimmed(text: str, going_on: bool) -> str:
    return text.rstrip("\r\n") if going_on else text.strip("\r\n")


def _parts(text: str, longest: int, going_on: bool) -> Iterator[Document]:
    """A whole text, or the rest of one, as parts."""
    if not (going_on and text) and not text.strip():
        return
    while len(text) > longest:
        at = safe_cut(text, longest)
        yield Document(text[:at], going_on)
        text, going_on = text[at:], True
    yield Document(text, going_on)


def safe_cut(text: str, longest: int) -> int:
    """The last place in the first `longest` characters at which `text` may be cut without changing its tokens.

    It lies after a letter or an ASCII digit and before a sign or a space that is neither: there every rule of cutting
    text into words (`bpe.SPLITTINGS`) begins a new word, whatever else stands around, and Unicode composes nothing.
    A text of over `longest` / 2 characters without such a place is cut after `longest`: still lossless, but there the
    tokens may differ from those of the whole.
    """
    for at in range(longest, longest // 2, -1):
        if _ends_a_word(text[at - 1]) and _is_a_sign(text[at]):
            return at
    return longest


_OLD = unicodedata.ucd_3_2_0  # categories as of 2002: no library's version of Unicode disagrees about them


def _ends_a_word(character: str) -> bool:
    return character in "0123456789" or (_OLD.category(character)[0] == "L" == unicodedata.category(character)[0])


def _is_a_sign(character: str) -> bool:
    """Punctuation, symbols and white space; of the control characters only tabs and line ends."""
    kinds = _OLD.category(character)[0], unicodedata.category(character)[0]
    return character in "\t\n\r" or (kinds[0] == kinds[1] and kinds[0] in "PSZ")


# Pieces of a part that are tokenised apart, by the ASCII half of the same rule: each ends in a letter or digit that a
# sign, a space or the end of the text follows. One regular expression, because it runs over every character.
_WORD, _OTHER = "A-Za-z0-9", "\x80-\U0010ffff"
_UNIT = re.compile(f"[^{_WORD}]*[{_WORD}]*(?:[{_OTHER}][^{_WORD}]*[{_WORD}]*)*")


def units(text: str) -> list[str]:
    """`text` in short pieces whose tokens, one after another, are those of the whole; "".join(units(text)) == text.

    >>> units("Now, it's 1,024!")
    ['Now', ', it', "'s", ' 1', ',024', '!']
    """
    found = _UNIT.findall(text)
    if found and not found[-1]:
        found.pop()
    return found
