"""A chain as a text short enough to read: its first states, and what may follow each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from glassgpt.numerics import LN10, spelled

if TYPE_CHECKING:
    from glassgpt.chain.markov import MarkovChain

MOST_STATES = 12
MOST_COLUMNS = 6  # tokens that have a column each; of a larger vocabulary a state's likeliest are named
LIKELIEST = 3


def table(chain: MarkovChain, symbols: Sequence[str] | None = None) -> str:
    """The chain in figures, and the rows of its first states. `symbols`: how tokens are written, else by their ids."""
    V = chain.vocab_size
    names = [str(token) for token in range(V)] if symbols is None else symbols
    n_shown = chain.n_states if chain.n_states <= MOST_STATES else MOST_STATES - 2
    contexts = [chain.context(state) for state in range(n_shown)]
    rows = [(spell_context(context, names), chain.row(state)) for state, context in enumerate(contexts)]
    lines = _columns(rows, names) if V <= MOST_COLUMNS else _likeliest(rows, names)
    rest = [f"... {chain.n_states - n_shown:,} more"] if n_shown < chain.n_states else []
    return "\n".join([_heading(chain, names), *lines, *rest])


def spell_context(context: Sequence[int], symbols: Sequence[str]) -> str:
    """A context in symbols, oldest token first; symbols of several characters are kept apart by a dot."""
    separator = "" if all(len(symbol) == 1 for symbol in symbols) else "·"
    return separator.join(symbols[token] for token in context)


def _heading(chain: MarkovChain, symbols: Sequence[str]) -> str:
    T, V = chain.context_length, chain.vocab_size
    lengths = f"{chain.shortest} to {T}" if len(chain.layers) > 1 else f"{T}"
    contexts = f"contexts of {lengths} token{'s' * (T > 1)} out of {V:,}"
    return f"Markov chain of {chain.n_states:,} states: {contexts}{_ending(chain, symbols)}"


def _ending(chain: MarkovChain, symbols: Sequence[str]) -> str:
    if chain.end is None:
        return ""
    token, restart = symbols[chain.end.token], chain.end.restart
    then = "" if restart is None else f" and starts another from {spell_context(restart, symbols)}"
    return f"; {token} ends the text{then}"


def _columns(rows: Sequence[tuple[str, np.ndarray]], symbols: Sequence[str]) -> list[str]:
    cells = [["state", *symbols], *([name, *(_probability(x) for x in row)] for name, row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]


def _likeliest(rows: Sequence[tuple[str, np.ndarray]], symbols: Sequence[str]) -> list[str]:
    width = max(len("state"), *(len(name) for name, _ in rows))
    lines = [f"{'state'.rjust(width)}  its likeliest next tokens"]
    for name, row in rows:
        top = np.argsort(-row, kind="stable")[:LIKELIEST]
        lines.append(
            f"{name.rjust(width)}  " + ", ".join(f"{symbols[token]} {_probability(row[token])}" for token in top)
        )
    return lines


def _probability(logprob: float) -> str:
    return spelled(float(logprob) / LN10)
