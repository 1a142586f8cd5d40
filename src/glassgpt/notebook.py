"""Objects as a notebook shows them: a text and a picture, always there, or the page itself in a frame.

A bare object at the end of a cell is `show(it)`: chains, traces, next tokens, first passages and runs inherit
`Displayed`, which asks this module. Given a tokenizer, `show` names tokens instead of numbering them. A picture's cost
is bounded, and where a bound is met the text says so, and what draws the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from glassgpt.errors import GlassGPTError, TooLargeError, UsageError
from glassgpt.figures.states import visible
from glassgpt.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from glassgpt.chain.hitting import FirstPassage
    from glassgpt.chain.markov import MarkovChain
    from glassgpt.decoding.next_token import NextTokens
    from glassgpt.interface import Tokenizer
    from glassgpt.models.trace import Trace
    from glassgpt.serving.saved import Tables
    from glassgpt.weights.run import Run

MOST_IN_RING = 64  # states
MOST_ARROWS = 128
MOST_IN_MAP = 1 << 16  # states, one pixel each
MOST_NUMBERS = 1 << 22  # in the table behind a map
MOST_HEADS = 144
MOST_TOKENS = 64  # of a text over which attention is drawn
MOST_ANSWERS = 450  # of layers and tokens together
HEIGHT = 720  # pixels of the page in its frame

Draw = Callable[[], "Figure"]


@dataclass(frozen=True)
class View:
    """An object as a notebook shows it. `draw`: its figures, none of which is made before it is wanted."""

    text: str
    draw: Sequence[Draw] = ()
    tables: Callable[[], Tables] | None = None  # for the page
    red: tuple[int, ...] = ()

    def __repr__(self) -> str:
        return self.text

    @property
    def figures(self) -> list[Figure]:
        """Raises what `_repr_mimebundle_` tells instead, for a figure that can't be drawn."""
        return [draw() for draw in self.draw]

    def _repr_mimebundle_(self, include: Container[str] | None = None, exclude: Container[str] | None = None) -> Any:
        from glassgpt.figures.figure import bundle

        figures, notes = [], []
        for draw in self.draw:
            try:
                figures.append(draw())
            except GlassGPTError as error:
                notes.append(f"(No picture: {error}.)")
        return bundle("\n".join([self.text, *notes]), figures, include, exclude)

    def interactive(self, *, language: str = "en", height: int = HEIGHT) -> Frame:
        """The page of a chain, or of a run with its kept steps, in a frame: live, without a server or a network.

        It makes the stored notebook some 0.4 MB larger, and GitHub doesn't show frames: `save` makes a file instead.
        Raises UsageError for anything but a chain and a run, and where the page isn't built; TooLargeError above the
        65,536 states that the page can list.
        """
        from glassgpt.serving.saved import saved_page

        if self.tables is None:
            raise UsageError("the page in a frame is of a chain or a run; for all else there is `glassgpt serve REF`")
        return Frame(saved_page(self.tables(), red=self.red, language=language), height)


@dataclass(frozen=True)
class Frame:
    """A whole page, which a notebook shows in a frame."""

    page: str = field(repr=False)
    height: int = HEIGHT

    def _repr_html_(self) -> str:
        from glassgpt.serving.saved import framed

        return framed(self.page, self.height)

    def save(self, path: Path | str) -> Path:
        """Write the page as a file that any browser opens, and return its path. Raises WriteError."""
        write_atomically(Path(path), self.page.encode())
        return Path(path)


def show(thing: Any, tokenizer: Tokenizer | None = None, red: Sequence[str | Sequence[int]] = ()) -> View:
    """A chain, a trace, next tokens, a first passage or a run, to be shown by a notebook or saved.

    `tokenizer`: names the tokens of a chain or a trace, which are ids otherwise. `red`: contexts of a chain that are
    marked, each as ids, or as a text if there is a tokenizer. Raises UsageError for anything else.
    """
    for kind in type(thing).__mro__:
        if kind.__name__ in VIEWS:
            return VIEWS[kind.__name__](thing, tokenizer, red)
    raise UsageError(f"what can be shown is one of {', '.join(VIEWS)}; got {type(thing).__name__}")


# ---- a chain ---------------------------------------------------------------------------------------------------------


def _view_of_chain(chain: MarkovChain, tokenizer: Tokenizer | None, red: Sequence[str | Sequence[int]]) -> View:
    from glassgpt.chain.table import table

    symbols = _symbols(tokenizer, chain.vocab_size)
    marked = [chain.index(_ids(context, tokenizer)) for context in red]
    first = chain.offset(chain.context_length)

    def tables() -> Tables:
        from glassgpt.serving.saved import tables_of_chain

        return tables_of_chain(chain, tokenizer)

    full = tuple(state - first for state in marked if state >= first)
    return View(table(chain, symbols), [lambda: draw_chain(chain, symbols, marked)], tables, full)


def draw_chain(chain: MarkovChain, symbols: Sequence[str], red: Sequence[int] = ()) -> Figure:
    """The ring of few states, the map of many, full contexts only. Raises TooLargeError above 65,536 states."""
    from glassgpt.figures.heat_map import draw_transition_heat_map
    from glassgpt.figures.state_graph import draw_state_graph, graph_from_tables

    if chain.n_states <= MOST_IN_RING and chain.n_states * chain.vocab_size <= MOST_ARROWS:
        return draw_state_graph(graph_from_tables([layer.probs for layer in chain.layers], symbols, red))
    full, first = chain.full, chain.offset(chain.context_length)
    if full.n_states > MOST_IN_MAP or full.n_states * chain.vocab_size > MOST_NUMBERS:
        raise TooLargeError(
            f"a notebook draws up to {MOST_IN_MAP:,} states and {MOST_NUMBERS:,} transitions unasked; "
            "figures.heat_map.draw_transition_heat_map draws any number of rows of chain.probs"
        )
    title = f"the {full.n_states:,} full contexts" if first else None
    marked = [state - first for state in red if state >= first]
    return draw_transition_heat_map(full.probs, _Labels(chain, symbols, first), symbols, title, marked)


class _Labels(Sequence[str]):
    """The names of the full contexts, each spelled when it is wanted."""

    def __init__(self, chain: MarkovChain, symbols: Sequence[str], first: int) -> None:
        self.chain, self.symbols, self.first = chain, symbols, first

    def __len__(self) -> int:
        return self.chain.full.n_states

    def __getitem__(self, state: Any) -> Any:
        from glassgpt.chain.table import spell_context

        return spell_context(self.chain.context(self.first + int(state)), self.symbols)


# ---- the inside of a model -------------------------------------------------------------------------------------------


def _view_of_trace(trace: Trace, tokenizer: Tokenizer | None, red: Sequence[Any]) -> View:
    largest = max(int(trace.tokens.max()), -1 if trace.lens_tokens is None else int(trace.lens_tokens.max()))
    name_of = _name_of(tokenizer, largest + 1)
    draw: list[Draw] = []
    if trace.lens_tokens is not None:
        draw.append(lambda: draw_answers(trace, name_of))
    if trace.attention is not None:
        draw.append(lambda: draw_attention(trace, name_of))
    text = trace.told(name_of)
    if not draw:
        text += '\n(No picture: trace with Want(attention="all", lens=1) to see heads and answers.)'
    return View(text, draw)


def draw_attention(trace: Trace, name_of: Callable[[int], str] = str) -> Figure:
    """All heads of all layers; of many layers some, evenly chosen, and of a long text the beginning."""
    from glassgpt.figures.attention import AttentionMaps, draw_attention_grid

    assert trace.attention is not None
    n_layers, n_heads = trace.attention.shape[:2]
    n = min(n_layers, max(1, MOST_HEADS // n_heads))
    rows = np.unique(np.linspace(0, n_layers - 1, n).round().astype(int))
    ids = trace.tokens[:MOST_TOKENS].tolist()
    left_out = [f"{len(rows)} of {n_layers} layers"] * (len(rows) < n_layers)
    left_out += [f"the first {len(ids)} of {len(trace.tokens)} tokens"] * (len(ids) < len(trace.tokens))
    layers = [trace.attention_layers[row] for row in rows]
    maps = AttentionMaps([name_of(i) for i in ids], ids, layers, trace.attention[rows][..., : len(ids), : len(ids)])
    return draw_attention_grid(maps, ", ".join(left_out) or None)


def draw_answers(trace: Trace, name_of: Callable[[int], str] = str) -> Figure:
    """What would come next at each token, after each layer; of a long text at its end."""
    from glassgpt.figures.lens import LensGrid, draw_lens

    assert trace.lens_tokens is not None and trace.lens_logprobs is not None
    T = len(trace.tokens)
    n = min(T, max(1, MOST_ANSWERS // len(trace.lens_tokens)))
    ids, answers = trace.tokens[T - n :].tolist(), trace.lens_tokens[:, T - n :, 0]
    named = [[name_of(int(token)) for token in row] for row in answers]
    probabilities = np.exp(trace.lens_logprobs[:, T - n :, 0])
    title = f"the last {n} of {T} tokens" if n < T else None
    return draw_lens(LensGrid([name_of(i) for i in ids], ids, named, answers, probabilities), title)


# ---- others ----------------------------------------------------------------------------------------------------------


def _view_of_next_tokens(found: NextTokens, tokenizer: Tokenizer | None, red: Sequence[Any]) -> View:
    def draw() -> Figure:
        from glassgpt.figures.next_token import draw_next_token

        return draw_next_token(found)

    return View(repr(found), [draw])


def _view_of_passage(passage: FirstPassage, tokenizer: Tokenizer | None, red: Sequence[Any]) -> View:
    def draw() -> Figure:
        from glassgpt.figures.curves import draw_red_over_steps

        steps = range(len(passage.within))
        return draw_red_over_steps(steps, passage.within.log10().tolist(), passage.survival.log10().tolist())

    return View(repr(passage), [draw])


def _view_of_run(run: Run, tokenizer: Tokenizer | None, red: Sequence[str | Sequence[int]]) -> View:
    def draw() -> Figure:
        from glassgpt.figures.curves import draw_loss_curve

        return draw_loss_curve([row["loss"] for row in run.metrics()])

    def tables() -> Tables:
        from glassgpt.serving.saved import tables_of_run

        return tables_of_run(run)

    def number(context: Sequence[int]) -> int:
        return int(np.polyval(context, run.config.vocab_size))

    marked = tuple(number(_ids(context, run.tokenizer)) for context in red)
    return View(repr(run), [draw], tables, marked)


VIEWS: dict[str, Callable[..., View]] = {
    "MarkovChain": _view_of_chain,
    "Trace": _view_of_trace,
    "NextTokens": _view_of_next_tokens,
    "FirstPassage": _view_of_passage,
    "Run": _view_of_run,
}


# ---- what tokens are called ------------------------------------------------------------------------------------------


def _symbols(tokenizer: Tokenizer | None, vocab_size: int) -> list[str]:
    return list(map(_name_of(tokenizer, vocab_size), range(vocab_size)))


def _name_of(tokenizer: Tokenizer | None, vocab_size: int) -> Callable[[int], str]:
    """How a token is written: by its text, with blanks that can be seen, or by its id."""
    if tokenizer is None:
        return str
    from glassgpt.serving.names import Names

    names = Names(tokenizer, vocab_size)
    return lambda token: visible(names[token])


def _ids(context: str | Sequence[int], tokenizer: Tokenizer | None) -> Sequence[int]:
    if not isinstance(context, str):
        return context
    if tokenizer is None:
        raise UsageError(f"{context!r} is a text: give the tokenizer too, or the ids of its tokens")
    return tokenizer.encode(context)
