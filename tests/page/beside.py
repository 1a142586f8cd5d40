"""Python's own numbers of a chain, and whether the page shows them: the ring, the table, the walk."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from tests.page.browsing import rows_of, soon
from tests.page.written import agrees, bar, percent, tenth

from glassgpt.chain.hitting import hitting_probability
from glassgpt.chain.markov import MarkovChain
from glassgpt.chain.stationary import stationary_distribution
from glassgpt.chain.walk import Red
from glassgpt.decoding.processors import processors
from glassgpt.decoding.shaped import Shaped
from glassgpt.interface import LanguageModel

if TYPE_CHECKING:
    from playwright.sync_api import Page

SEQUENCE = "111101111011110"  # of recipes/baby.toml


@dataclass(frozen=True)
class Beside:
    """A model's chain under a sampler, computed by the package."""

    model: LanguageModel
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    @cached_property
    def chain(self) -> MarkovChain:
        chosen = processors(self.temperature, self.top_k or None, self.top_p if self.top_p < 1 else None)
        return MarkovChain.from_model(Shaped(self.model, chosen))

    @cached_property
    def probs(self) -> np.ndarray:
        """(states, V)"""
        return self.chain.full.probs.reshape(-1, self.chain.vocab_size)

    def law(self, start: int = 0) -> np.ndarray:
        return stationary_distribution(self.chain, self.context(start)).probabilities

    def log_reach(self, red: Sequence[int], n: int, start: int) -> float:
        """The natural logarithm of P(red within n tokens)."""
        marked = Red.of_contexts(self.chain, [self.context(state) for state in red])
        passage = hitting_probability(self.chain, marked, n, self.context(start))
        within, missing = passage.within[n], float(passage.survival[n])
        if missing < 0.5:
            return math.log1p(-missing)
        return -math.inf if within.is_zero() else float(within.log())

    def context(self, state: int) -> list[int]:
        return list(self.chain.context(state))

    def name(self, state: int) -> str:
        return "".join(map(str, self.context(state)))

    def goal(self, state: int, token: int) -> int:
        return (state * self.chain.vocab_size + token) % len(self.probs)

    def loss(self, sequence: str = SEQUENCE) -> float:
        """The mean surprise in nats at each token of the sequence that has a whole context before it."""
        k = self.chain.context_length
        windows = [sequence[i : i + k + 1] for i in range(len(sequence) - k)]
        chances = [self.probs[int(window[:-1], self.chain.vocab_size), int(window[-1])] for window in windows]
        return float(-np.mean(np.log(chances)))


def expect_the_ring_of(page: Page, beside: Beside) -> None:
    """Soon every state of the ring says its arrows: where they lead, and how likely they are."""

    def check() -> None:
        spoken = page.eval_on_selector_all("g.node", "nodes => nodes.map((node) => node.getAttribute('aria-label'))")
        assert len(spoken) == len(beside.probs)
        for state, (row, line) in enumerate(zip(beside.probs, spoken, strict=True)):
            heading, _, arrows = line.partition(": ")
            assert heading.removesuffix(", red") == f"State {beside.name(state)}"
            for token, arrow in enumerate(arrows.split("; ")):
                name, p, to = arrow.split(", ")
                assert name == str(token) and to == f"goes to {beside.name(beside.goal(state, token))}"
                assert agrees(p, row[token], percent), (line, row)

    soon(page, check)


def expect_the_table_of(page: Page, beside: Beside, law: np.ndarray, sequence: str = SEQUENCE) -> None:
    """Soon every cell of the table of states is Python's: names, probabilities, the data, the long run."""
    n, V = beside.probs.shape

    def check() -> None:
        rows = rows_of(page)
        assert len(rows) == n
        for state, cells in enumerate(rows):
            assert cells[0].split()[0] == beside.name(state)
            for token, p in enumerate(beside.probs[state]):
                assert agrees(cells[1 + token], p, tenth), (cells, beside.probs[state])
            assert cells[1 + V] == followers_of(beside.name(state), V, sequence)
            assert agrees(cells[2 + V], law[state], bar), (cells, law[state])

    soon(page, check)


def followers_of(context: str, vocab_size: int, sequence: str = SEQUENCE) -> str:
    """What the table says of the data: in whole percent, how often each token followed the context."""
    k = len(context)
    after = [int(sequence[i + k]) for i in range(len(sequence) - k) if sequence[i : i + k] == context]
    shares = [percent(after.count(token) / len(after))[:-1] for token in range(vocab_size)] if after else []
    return " / ".join(shares) or "never seen"


def golden() -> ModuleType:
    """page/golden/make.py, which has the page's random numbers in Python."""
    path = Path(__file__).parents[2] / "page" / "golden" / "make.py"
    spec = importlib.util.spec_from_file_location("golden_make", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def walk_of(beside: Beside, start: int, n: int, seed: int = 1) -> str:
    """The walk of a seed from a state: its symbols, the state's own first."""
    make = golden()
    random, ids = make.Pcg32(seed), beside.context(start)
    k = beside.chain.context_length
    for _ in range(n):
        ids.append(make.draw(beside.probs[beside.chain.index(ids[-k:])], random.uniform()))
    return "".join(map(str, ids))
