"""A chain in words: short, true to its digits, and in the names of its tokens."""

import numpy as np
import pytest

from glassgpt.chain.markov import End, MarkovChain
from glassgpt.chain.table import MOST_STATES, spell_context, table


def rows(vocab_size, length, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(vocab_size), vocab_size**length)


def test_a_small_chain_is_told_whole():
    chain = MarkovChain.from_probabilities(np.array([[0.25, 0.75], [0.0, 1.0]]))
    assert repr(chain).splitlines() == [
        "Markov chain of 2 states: contexts of 1 token out of 2",
        "state       0       1",
        "    0  0.2500  0.7500",
        "    1       0       1",
    ]


def test_tokens_have_their_names():
    text = table(MarkovChain.from_probabilities(np.array([[0.25, 0.75], [0.5, 0.5]])), ["the", "cat"])
    assert text.splitlines()[1].split() == ["state", "the", "cat"]
    assert text.splitlines()[3].split() == ["cat", "0.5000", "0.5000"]
    assert spell_context([0, 1], ["the", "cat"]) == "the·cat" and spell_context([1, 0], "01") == "10"


@pytest.mark.parametrize(("length", "rest"), [(3, 0), (4, 6), (12, 4086)])
def test_of_many_states_the_first_are_told_and_the_others_counted(length, rest):
    lines = repr(MarkovChain.from_probabilities(rows(2, length))).splitlines()
    assert len(lines) <= MOST_STATES + 2
    assert (lines[-1] == f"... {rest:,} more") == (rest > 0)
    shown = [line.split()[0] for line in lines[2 : len(lines) - (rest > 0)]]
    assert shown == [format(state, f"0{length}b") for state in range(2**length - rest)]


def test_of_many_tokens_the_likeliest_are_named():
    probabilities = np.zeros((9, 9))
    probabilities[:, [4, 7, 2, 0]] = [0.4, 0.3, 0.2, 0.1]
    lines = repr(MarkovChain.from_probabilities(probabilities)).splitlines()
    assert lines[2] == "    0  4 0.4000, 7 0.3000, 2 0.2000"


def test_shorter_contexts_and_the_end_of_a_text_are_told():
    chain = MarkovChain.from_probabilities(rows(2, 1), rows(2, 2), end=End(1, restart=(0,)))
    assert repr(chain).startswith(
        "Markov chain of 6 states: contexts of 1 to 2 tokens out of 2; 1 ends the text and starts another from 0\n"
    )
    assert "ends the text\n" in repr(MarkovChain.from_probabilities(rows(2, 1), end=End(1)))


@pytest.mark.parametrize("every", [False, True])
def test_a_row_is_what_follows_its_state(every):
    tables = [rows(3, 1), rows(3, 2)] if every else [rows(3, 2)]
    chain = MarkovChain.from_probabilities(*tables)
    assert [chain.row(state).tolist() for state in range(chain.n_states)] == chain.logprobs.tolist()


def test_a_large_chain_is_told_without_its_tables_being_joined():
    chain = MarkovChain.from_probabilities(rows(2, 15), rows(2, 16))
    assert repr(chain)
    assert not vars(chain).keys() & {"probs", "logprobs", "possible", "successors"}
