"""Which text trains and which is kept to validate."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from glassgpt.errors import UsageError
from glassgpt.text.documents import Document

Part = Literal["train", "validation"]


@dataclass(frozen=True)
class Split:
    """How a corpus is split. `by` "document": each goes by a hash of its text, so that it stays in its part whatever is
    added, left out or reordered, and a copy of it goes there too. `by` "position": the last characters validate, as in
    nanoGPT, which is right for one long text. `validation`: the fraction kept, 0 for none.
    """

    by: str = "position"
    validation: float = 0.1

    def __post_init__(self) -> None:
        if self.by not in ("document", "position"):
            raise UsageError(f"a corpus is split by document or by position, got {self.by!r}")
        if not 0 <= self.validation < 1:
            raise UsageError(f"the fraction that validates must be at least 0 and below 1, got {self.validation}")

    def parts(self, documents: Iterable[Document], n_characters: int) -> Iterator[tuple[Part, Document]]:
        """Each document with its part. `n_characters`: of all documents, needed to split by position."""
        if self.by == "document":
            return self._by_document(documents)
        return _by_position(documents, int(n_characters * (1 - self.validation)))

    def _by_document(self, documents: Iterable[Document]) -> Iterator[tuple[Part, Document]]:
        part: Part = "train"
        for document in documents:
            if not document.continues:  # a document in parts goes where its first part does
                part = "validation" if fraction_of(document.text) < self.validation else "train"
            yield part, document


def fraction_of(text: str, purpose: bytes = b"split") -> float:
    """A number in [0, 1) that follows from the text alone, evenly spread over texts; another for another purpose."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, person=purpose).digest()
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)


def _by_position(documents: Iterable[Document], n_train: int) -> Iterator[tuple[Part, Document]]:
    for document in documents:
        n = len(document.text)
        if n <= n_train:
            yield "train", document
        elif n_train <= 0:
            yield "validation", document
        else:
            yield "train", Document(document.text[:n_train], document.continues)
            yield "validation", Document(document.text[n_train:], continues=True)
        n_train -= n
