"""The parentheses language: strings in which every ( is closed, and nothing is closed that was not opened.

The smallest language that no n-gram can know: whether a ) may follow depends on a count that has no bound.
"""

from __future__ import annotations

from collections.abc import Iterator

from glassgpt.errors import UsageError
from glassgpt.text.documents import Document, Source
from glassgpt.text.draws import Draws


def balanced(draws: Draws, p_open: float = 0.45, deepest: int = 20) -> str:
    """A balanced string: after the first ( a ( follows with probability `p_open`, except at depth `deepest`, until all
    are closed.

    While nothing bounds the depth, a string of 2k signs has probability Catalan(k-1) p^(k-1) (1-p)^k, and the mean
    length is 2 (1-p) / (1-2p): 11 for p = 0.45. A string deeper than d has probability
    (r - 1) / (r^(d+1) - 1) for r = (1-p) / p, the gambler's ruin.
    """
    signs, depth = ["("], 1
    while depth:
        opens = draws.random() < p_open and depth < deepest
        signs.append("(" if opens else ")")
        depth += 1 if opens else -1
    return "".join(signs)


def depths(text: str) -> list[int]:
    """How many are open before each sign of `text`; after a wrong ) it stays at 0.

    >>> depths("(()))(")
    [0, 1, 2, 1, 0, 0]
    """
    found, depth = [], 0
    for sign in text:
        found.append(depth)
        depth = max(0, depth + (sign == "(") - (sign == ")"))
    return found


def wrong_closes(text: str) -> list[int]:
    """Where a ) closes nothing.

    >>> wrong_closes("())(")
    [2]
    """
    return [at for at, (sign, depth) in enumerate(zip(text, depths(text), strict=True)) if sign == ")" and not depth]


def is_balanced(text: str) -> bool:
    """Whether a string of ( and ) belongs to the language; the empty one does."""
    return not wrong_closes(text) and text.count("(") == text.count(")") == len(text) / 2


class Parentheses(Source):
    """Balanced strings, each a document; document i follows from the seed and i."""

    name = "parentheses"

    def __init__(self, seed: int = 0, n_documents: int = 20_000, p_open: float = 0.45, deepest: int = 20) -> None:
        if not 0 <= p_open < 0.5:
            raise UsageError(f"p_open must be at least 0 and below 0.5, so that strings end, got {p_open}")
        if n_documents < 1 or deepest < 1:
            raise UsageError(f"expected a document and a depth of 1 or more, got {n_documents} and {deepest}")
        self.seed, self.n_documents, self.p_open, self.deepest = seed, n_documents, p_open, deepest

    def documents(self) -> Iterator[Document]:
        for i in range(self.n_documents):
            yield Document(balanced(Draws("parentheses", self.seed, i), self.p_open, self.deepest))

    def identity(self) -> dict[str, str | int]:
        settings = {"seed": self.seed, "n_documents": self.n_documents, "deepest": self.deepest}
        return {"kind": "parentheses-1", "p_open": repr(self.p_open), **settings}
