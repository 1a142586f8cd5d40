"""The state graph as plain data: which contexts there are, and with what probability one follows another.

No picture is made here, so a web page or a file format can use the graph without loading matplotlib;
`state_graph` draws it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass

import numpy as np

from glassgpt.chain.table import spell_context
from glassgpt.errors import UsageError


@dataclass(frozen=True)
class Edge:
    """A token that can be emitted: the state that it leaves, the state that it leads to, its probability in (0, 1]."""

    source: int
    target: int
    token: str
    probability: float


@dataclass(frozen=True)
class StateGraph:
    """The Markov chain over contexts, ready to be drawn.

    labels: a state's context spelled in symbols, oldest token first; shorter contexts come before longer ones, and the
    last vocab_size**context_length labels are the full contexts in the order of their codes.
    edges: one for each token that a state can emit, by state, then by token.
    red: indices of the states marked as unwanted.
    """

    labels: tuple[str, ...]
    edges: tuple[Edge, ...]
    red: frozenset[int] = frozenset()
    _: KW_ONLY
    vocab_size: int
    context_length: int

    @property
    def n_full(self) -> int:
        """Number of full contexts, which are the last labels."""
        return self.vocab_size**self.context_length


def graph_from_tables(tables: Sequence[np.ndarray], symbols: Sequence[str], red: Iterable[int] = ()) -> StateGraph:
    """The state graph of next-token probabilities.

    tables: one float array (V**l, V) for each context length l, consecutive and ending with the full length T; row =
    code of the context (oldest token the most significant digit in base V), rows sum to 1.
    symbols: how the V tokens are written. red: state indices, in the order of the labels.
    A full context drops its oldest token: code -> (code * V + token) mod V**T; a shorter one grows.
    A probability of exactly 0 gives no edge.

    Raises UsageError for tables of other shapes, rows that are no distribution, and red states that do not exist.

    >>> graph = graph_from_tables([np.array([[0.25, 0.75], [1.0, 0.0]])], symbols="ab")
    >>> [(graph.labels[e.source], graph.labels[e.target], e.probability) for e in graph.edges]
    [('a', 'a', 0.25), ('a', 'b', 0.75), ('b', 'a', 1.0)]
    """
    symbols = tuple(symbols)
    tables = [np.asarray(table, dtype=np.float64) for table in tables]
    lengths = _context_lengths(tables, len(symbols))
    labels = [spell(code, length, symbols) for length in lengths for code in range(len(symbols) ** length)]
    probabilities = np.concatenate(tables)
    _check_rows(probabilities, labels)
    targets = _successors(lengths, len(symbols))
    edges = tuple(
        Edge(int(state), int(targets[state, token]), symbols[token], float(probabilities[state, token]))
        for state, token in np.argwhere(probabilities > 0)
    )
    return StateGraph(
        tuple(labels),
        edges,
        _checked_red(red, len(labels)),
        vocab_size=len(symbols),
        context_length=lengths[-1],
    )


def spell(code: int, length: int, symbols: Sequence[str]) -> str:
    """The context of a code in symbols, oldest token first; symbols of several characters are kept apart by a dot.

    >>> spell(5, 3, "01"), spell(1, 2, ["the", "cat"])
    ('101', 'the·cat')
    """
    return spell_context([code // len(symbols) ** place % len(symbols) for place in reversed(range(length))], symbols)


def de_bruijn_order(vocab_size: int, context_length: int) -> list[int]:
    """The codes of the full contexts in an order in which each can follow the one before, and the first the last.

    A de Bruijn sequence contains every context exactly once, so reading it through a window of context_length tokens
    visits every state by legal transitions. The sequence is the concatenation of the Lyndon words whose length divides
    context_length, in dictionary order (Fredricksen, Kessler, Maiorana, 1978; words by Duval's algorithm, 1988).

    >>> [format(code, "03b") for code in de_bruijn_order(2, 3)]
    ['000', '001', '010', '101', '011', '111', '110', '100']
    """
    if vocab_size < 1 or context_length < 1:
        raise UsageError(
            f"a de Bruijn sequence needs a vocabulary and a context of at least one token; "
            f"got vocab_size={vocab_size}, context_length={context_length}"
        )
    sequence = _lyndon_words_joined(vocab_size, context_length)
    codes, code = [], 0
    for position, token in enumerate(sequence + sequence[: context_length - 1]):
        code = (code * vocab_size + token) % vocab_size**context_length
        if position >= context_length - 1:
            codes.append(code)
    return codes


def percent(probability: float) -> str:
    """A probability in whole percent that never claims certainty: 0% and 100% are kept for exactly 0 and 1.

    >>> percent(0.793), percent(0.001), percent(0.999), percent(1.0)
    ('79%', '<1%', '>99%', '100%')
    """
    rounded = f"{100 * probability:.0f}%"
    if rounded == "0%" and probability > 0:
        return "<1%"
    if rounded == "100%" and probability < 1:
        return ">99%"
    return rounded


def visible(text: str) -> str:
    """The text with blanks that can be seen, and a code for each character that has no shape of its own.

    >>> visible("a b"), visible("end\\n"), visible("\\x00"), visible("")
    ('a␣b', 'end↵', '\\\\x00', '∅')
    """
    shown = text.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown) or "∅"


def to_dot(graph: StateGraph) -> str:
    """The graph as text for Graphviz (`circo -Tsvg`), for more states than a ring can show.

    Pen width grows with probability, from 0.5 to 4 points; red states are orange-red, doubly circled and say "red".
    """
    lines = ["digraph states {", "  layout=circo;", '  node [shape=circle, fontname="DejaVu Sans"];']
    for state, label in enumerate(graph.labels):
        name = _dot_text(visible(label))
        if state in graph.red:
            lines.append(f'  {state} [label="{name}\\nred", shape=doublecircle, color="#D55E00", penwidth=2];')
        else:
            lines.append(f'  {state} [label="{name}"];')
    for edge in graph.edges:
        label = _dot_text(f"{visible(edge.token)} ({percent(edge.probability)})")
        width = 0.5 + 3.5 * edge.probability
        lines.append(f'  {edge.source} -> {edge.target} [label="{label}", penwidth={width:.2f}];')
    return "\n".join([*lines, "}", ""])


def _dot_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _lyndon_words_joined(vocab_size: int, context_length: int) -> list[int]:
    sequence: list[int] = []
    word = [-1]
    while word:
        word[-1] += 1
        if context_length % len(word) == 0:
            sequence += word
        # Duval's step: repeat the word to the full length, then drop trailing tokens that cannot be increased.
        word = [word[i % len(word)] for i in range(context_length)]
        while word and word[-1] == vocab_size - 1:
            word.pop()
    return sequence


def _context_lengths(tables: Sequence[np.ndarray], vocab_size: int) -> list[int]:
    if vocab_size < 2 or not tables:
        raise UsageError(
            f"a state graph needs at least one table and two symbols; got {len(tables)} tables, {vocab_size} symbols"
        )
    length = 0
    while vocab_size**length < len(tables[0]):
        length += 1
    lengths = list(range(length, length + len(tables)))
    expected = [(vocab_size**n, vocab_size) for n in lengths]
    shapes = [table.shape for table in tables]
    if shapes != expected or lengths[-1] < 1:
        raise UsageError(
            f"tables must have the shapes (V**l, V) for consecutive context lengths l, here V={vocab_size} as there "
            f"are {vocab_size} symbols; got {shapes}"
        )
    return lengths


def _check_rows(probabilities: np.ndarray, labels: Sequence[str]) -> None:
    # NaN fails every comparison, so it is caught here too.
    fine = (probabilities >= 0).all(axis=1) & (np.abs(probabilities.sum(axis=1) - 1) < 1e-6)
    if not fine.all():
        bad = int(np.argmin(fine))
        raise UsageError(
            f"each row must be a distribution over the next token, non-negative with sum 1; "
            f"the row of context {visible(labels[bad])!r} is {probabilities[bad].tolist()}"
        )


def _successors(lengths: Sequence[int], vocab_size: int) -> np.ndarray:
    """State index that each token leads to, int array (states, V)."""
    blocks, start = [], 0
    for length in lengths:
        grown = np.arange(vocab_size**length)[:, None] * vocab_size + np.arange(vocab_size)
        if length == lengths[-1]:
            blocks.append(start + grown % vocab_size**length)
        else:
            start += vocab_size**length
            blocks.append(start + grown)
    return np.concatenate(blocks)


def _checked_red(red: Iterable[int], n_states: int) -> frozenset[int]:
    states = frozenset(int(state) for state in red)
    outside = sorted(state for state in states if not 0 <= state < n_states)
    if outside:
        raise UsageError(f"red states are indices from 0 to {n_states - 1}; got {outside}")
    return states
