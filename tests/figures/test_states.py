"""The state graph as data: successors, de Bruijn order, percent, Graphviz text, refusals."""

import subprocess
import sys

import numpy as np
import pytest

from glassgpt.errors import UsageError
from glassgpt.figures.states import de_bruijn_order, graph_from_tables, percent, to_dot


def uniform(vocab_size, *lengths):
    return [np.full((vocab_size**length, vocab_size), 1 / vocab_size) for length in lengths]


@pytest.mark.parametrize(
    ("vocab_size", "context_length"), [(2, 1), (2, 3), (3, 2), (2, 4), (2, 6), (4, 3), (8, 2), (2, 12), (4, 6), (16, 3)]
)
def test_every_step_round_the_ring_is_a_legal_transition(vocab_size, context_length):
    order = de_bruijn_order(vocab_size, context_length)
    n_states = vocab_size**context_length
    assert sorted(order) == list(range(n_states))
    legal = [
        after in {(before * vocab_size + token) % n_states for token in range(vocab_size)}
        for before, after in zip(order, order[1:] + order[:1], strict=True)
    ]
    assert sum(legal) == n_states


def test_the_order_of_three_bits_is_the_published_one():
    assert [format(code, "03b") for code in de_bruijn_order(2, 3)] == [
        "000",
        "001",
        "010",
        "101",
        "011",
        "111",
        "110",
        "100",
    ]


def test_an_empty_context_has_no_order():
    with pytest.raises(UsageError, match="context_length=0"):
        de_bruijn_order(2, 0)


def test_a_full_context_drops_its_oldest_token():
    graph = graph_from_tables(uniform(2, 3), "01")
    arrows = {(graph.labels[e.source], e.token, graph.labels[e.target]) for e in graph.edges}
    assert len(arrows) == 16
    assert ("101", "1", "011") in arrows
    assert all(target == source[1:] + token for source, token, target in arrows)


def test_a_shorter_context_grows_until_it_is_full():
    graph = graph_from_tables(uniform(2, 1, 2, 3), "01")
    assert graph.labels[:7] == ("0", "1", "00", "01", "10", "11", "000")
    assert len(graph.labels) == 14
    for edge in graph.edges:
        source, target = graph.labels[edge.source], graph.labels[edge.target]
        assert target == (source + edge.token if len(source) < 3 else source[1:] + edge.token)


def test_the_empty_context_may_be_the_shortest():
    graph = graph_from_tables(uniform(3, 0, 1), "abc")
    assert graph.labels == ("", "a", "b", "c")
    assert [edge.target for edge in graph.edges[:3]] == [1, 2, 3]


def test_only_a_probability_of_exactly_zero_has_no_edge():
    table = np.array([[1.0, 0.0], [1 - 1e-300, 1e-300]])
    graph = graph_from_tables([table], "01")
    assert [(e.source, e.target, e.probability) for e in graph.edges] == [(0, 0, 1.0), (1, 0, 1.0), (1, 1, 1e-300)]


@pytest.mark.parametrize(
    ("tables", "symbols", "words"),
    [
        ([], "01", "at least one table"),
        (uniform(2, 3), "0", "two symbols"),
        (uniform(2, 3), "012", r"got \[\(8, 2\)\]"),
        (uniform(2, 1, 3), "01", "consecutive"),
        (uniform(2, 0), "01", "consecutive"),
        ([np.array([[0.5, 0.5], [0.5, 0.6]])], "01", "context '1'"),
        ([np.array([[0.5, 0.5], [np.nan, 0.5]])], "01", "context '1'"),
        ([np.array([[1.5, -0.5], [0.5, 0.5]])], "01", "context '0'"),
    ],
)
def test_tables_that_are_no_chain_are_refused(tables, symbols, words):
    with pytest.raises(UsageError, match=words):
        graph_from_tables(tables, symbols)


def test_red_states_that_do_not_exist_are_refused():
    with pytest.raises(UsageError, match=r"from 0 to 7; got \[8\]"):
        graph_from_tables(uniform(2, 3), "01", red=[0, 8])


@pytest.mark.parametrize(
    ("probability", "spelling"),
    [
        (0.0, "0%"),
        (1e-300, "<1%"),
        (0.004, "<1%"),
        (0.006, "1%"),
        (0.787, "79%"),
        (0.994, "99%"),
        (0.9951, ">99%"),
        (1 - 1e-16, ">99%"),
        (1.0, "100%"),
    ],
)
def test_percent_claims_certainty_only_where_it_is(probability, spelling):
    assert percent(probability) == spelling


def test_graphviz_text_has_a_line_for_each_state_and_arrow():
    text = to_dot(graph_from_tables(uniform(2, 3), "01", red=[7]))
    assert "layout=circo" in text
    assert text.count("->") == 16
    assert '  5 -> 3 [label="1 (50%)", penwidth=2.25];' in text
    assert '7 [label="111\\nred", shape=doublecircle, color="#D55E00", penwidth=2];' in text


def test_graphviz_text_escapes_quotes_backslashes_and_newlines():
    text = to_dot(graph_from_tables(uniform(3, 1), ['"', "\\", "\n"]))
    assert '0 [label="\\""];' in text
    assert '1 [label="\\\\"];' in text
    assert '2 [label="↵"];' in text
    assert text.count("\n") == 3 + 3 + 9 + 1


def test_the_data_of_a_graph_needs_no_matplotlib():
    code = "import sys, glassgpt.figures, glassgpt.figures.states; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
