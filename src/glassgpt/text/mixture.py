"""A mixture: documents of several sources, in given proportions.

The next document comes from the source that is furthest behind its share of the bytes. So every stretch of the mixture,
not only the whole, is within a document of its proportions, and nothing is left to chance. A source that is exhausted
begins again, and how often each was read is counted. As an example, Llama's table (Touvron et al. 2023), whose epochs
run from 0.64 (GitHub) to 2.45 (Wikipedia):

>>> LLAMA = {"CommonCrawl": 67, "C4": 15, "GitHub": 4.5, "Wikipedia": 4.5, "books": 4.5, "arXiv": 2.5,
...          "StackExchange": 2}
>>> sum(LLAMA.values())
100.0
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from glassgpt.errors import UsageError
from glassgpt.text.documents import Document, Source, whole_documents


@dataclass
class Share:
    """What a drawing has taken from a source: `share` of its bytes of UTF-8, hoped for; `epochs` is how often it was
    read, None as long as it was never read to its end."""

    name: str
    share: float
    documents: int = 0
    bytes: int = 0
    passes: int = 0
    bytes_of_a_pass: int | None = None

    @property
    def epochs(self) -> float | None:
        return self.bytes / self.bytes_of_a_pass if self.bytes_of_a_pass else None


class Mixture:
    """Sources with weights; the same documents in the same order at every pass. One source alone is given as it is."""

    def __init__(
        self, sources: Sequence[Source], weights: Sequence[float] | None = None, total_bytes: int | None = None
    ) -> None:
        """`weights`: how the bytes are shared, in any unit; without them all sources are read once, one after another.

        `total_bytes`: end with the document that reaches so many, reading sources again as they run out. Without it a
        weighted mixture ends when the first source does, so that no document comes twice.
        """
        if not sources:
            raise UsageError("a mixture needs at least one source")
        if weights is not None and len(weights) != len(sources):
            raise UsageError(f"{len(sources)} sources need as many weights, got {len(weights)}")
        if weights is not None and not all(0 < weight < float("inf") for weight in weights):
            raise UsageError(f"weights must be positive numbers, got {', '.join(map(str, weights))}")
        if total_bytes is not None and total_bytes < 1:
            raise UsageError(f"total_bytes must be 1 or more, got {total_bytes}")
        self.sources, self.total_bytes = list(sources), total_bytes
        self.weights = None if weights is None else [weight / sum(weights) for weight in weights]

    def identity(self) -> dict[str, object]:
        """What decides the documents: the sources' identities, weights and the total."""
        sources = [source.identity() for source in self.sources]
        return {"sources": sources, "weights": self.weights, "total_bytes": self.total_bytes}

    def draw(self) -> Drawing:
        """A fresh pass."""
        return Drawing(self)


class Drawing:
    """One pass over a mixture; `shares` says what has been taken so far, source by source."""

    def __init__(self, mixture: Mixture) -> None:
        weights = mixture.weights or [1 / len(mixture.sources)] * len(mixture.sources)
        self.shares = [Share(source.name, weight) for source, weight in zip(mixture.sources, weights, strict=True)]
        self._mixture = mixture

    def __iter__(self) -> Iterator[Document]:
        if self._mixture.weights is None and self._mixture.total_bytes is None:
            return self._one_after_another()
        return self._in_proportion()

    def _one_after_another(self) -> Iterator[Document]:
        for source, share in zip(self._mixture.sources, self.shares, strict=True):
            for document in source.documents():
                _count(share, document)
                yield document
            _count_pass(share)

    def _in_proportion(self) -> Iterator[Document]:
        sources, total = self._mixture.sources, self._mixture.total_bytes
        streams = [whole_documents(source) for source in sources]
        while total is None or sum(share.bytes for share in self.shares) < total:
            at = min(range(len(streams)), key=lambda i: self.shares[i].bytes / self.shares[i].share)
            parts = next(streams[at], None)
            if parts is None:
                _count_pass(self.shares[at])
                if total is None:
                    return
                streams[at] = whole_documents(sources[at])
                continue
            for part in parts:
                _count(self.shares[at], part)
                yield part


def _count(share: Share, document: Document) -> None:
    share.documents += not document.continues
    share.bytes += len(document.text.encode())


def _count_pass(share: Share) -> None:
    if not share.documents:
        raise UsageError(f"the source {share.name} holds no document: leave it out of the mixture")
    share.passes += 1
    share.bytes_of_a_pass = share.bytes_of_a_pass or share.bytes
