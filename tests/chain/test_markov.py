"""Numbering, layout, and what a chain refuses."""

from itertools import product

import numpy as np
import pytest

from glassgpt.chain.markov import (
    End,
    MarkovChain,
    power_of_ten,
    refuse_if_too_large,
    refuse_vectors_too_large,
)
from glassgpt.errors import NumericalError, TooLargeError, UsageError


def random_rows(vocab_size, length, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(vocab_size), vocab_size**length)


def every_length(vocab_size, context_length, end=None):
    tables = [random_rows(vocab_size, length, length) for length in range(1, context_length + 1)]
    return MarkovChain.from_probabilities(*tables, end=end)


@pytest.mark.parametrize(("vocab_size", "context_length"), [(2, 3), (3, 2), (5, 1)])
def test_states_are_numbered_shorter_contexts_first_then_in_code_order(vocab_size, context_length):
    chain = every_length(vocab_size, context_length)
    contexts = [c for length in range(1, context_length + 1) for c in product(range(vocab_size), repeat=length)]
    assert chain.n_states == len(contexts)
    for number, context in enumerate(contexts):
        assert chain.index(context) == number
        assert chain.context(number) == context


def test_a_chain_of_full_contexts_has_no_shorter_ones():
    chain = MarkovChain.from_probabilities(random_rows(3, 2))
    assert [chain.context(i) for i in range(9)] == list(product(range(3), repeat=2))
    assert not chain.every_length
    with pytest.raises(UsageError, match=r"\[1\] has 1 tokens, and this chain's states have at least 2"):
        chain.index([1])


def test_only_the_last_tokens_of_a_long_context_count():
    chain = MarkovChain.from_probabilities(random_rows(2, 3))
    assert chain.index([0, 0, 1, 1, 0, 1]) == chain.index([1, 0, 1]) == 5
    assert chain.index(np.array([1, 0, 1])) == 5


@pytest.mark.parametrize("context", [[2, 0], [0, -1]])
def test_a_context_outside_the_vocabulary_is_refused(context):
    with pytest.raises(UsageError, match="outside the vocabulary"):
        MarkovChain.from_probabilities(random_rows(2, 2)).index(context)


@pytest.mark.parametrize("index", [-1, 4])
def test_a_state_number_that_does_not_exist_is_refused(index):
    with pytest.raises(UsageError, match="not among the 4"):
        MarkovChain.from_probabilities(random_rows(2, 2)).context(index)


def test_the_successor_of_a_context_drops_its_oldest_token_and_gains_the_new_one():
    chain = every_length(2, 3)
    for state in range(chain.n_states):
        for token in range(2):
            expected = (*chain.context(state), token)[-3:]
            assert chain.context(int(chain.successors[state, token])) == expected


@pytest.mark.parametrize("end", [None, End(1), End(1, restart=(0,)), End(0, restart=(1, 1, 0, 1))])
def test_the_transition_matrix_is_the_rows_at_their_successors(end):
    chain = every_length(2, 3, end)
    expected = np.zeros((14, 14))
    for state in range(14):
        for token in range(2):
            to = chain.index((*chain.context(state), token))
            if end is not None and token == end.token:
                if end.restart is None:
                    continue
                to = chain.index(end.restart)
            expected[state, to] += chain.probs[state, token]
    np.testing.assert_array_equal(chain.transition_matrix(), expected)


def test_no_matrix_is_made_of_a_large_chain():
    with pytest.raises(TooLargeError, match="16384 x 16384"):
        MarkovChain.from_probabilities(np.full((1 << 14, 2), 0.5)).transition_matrix()


def test_probabilities_survive_and_the_impossible_is_told_from_the_tiny():
    table = np.array([[1.0, 0.0], [1e-300, 1.0]])
    chain = MarkovChain.from_probabilities(table)
    np.testing.assert_allclose(chain.probs, table, rtol=1e-13)
    assert chain.possible.tolist() == [[True, False], [True, True]]


@pytest.mark.parametrize(
    "row",
    [[0.5, 0.5 + 1e-8], [0.6, 0.3], [np.nan, 1.0], [1.5, -0.5], [np.inf, 0.0], [0.0, 0.0]],
)
def test_a_row_that_is_no_distribution_is_refused_with_its_context(row):
    table = random_rows(2, 3)
    table[6] = row
    with pytest.raises(NumericalError, match=r"row of context \[1, 1, 0\] is no distribution"):
        MarkovChain.from_probabilities(table)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [((3, 2), r"needs 2, 4, 8\.\.\. rows"), ((1, 2), "needs 2, 4"), ((6, 3), "needs 3, 9"), ((4, 1), "two tokens")],
)
def test_a_table_of_the_wrong_size_is_refused(shape, reason):
    with pytest.raises(UsageError, match=reason):
        MarkovChain.from_probabilities(np.full(shape, 1 / shape[1]))


def test_a_table_that_is_not_one_is_refused():
    with pytest.raises(UsageError, match=r"expected a table of shape \(contexts, vocab_size\)"):
        MarkovChain.from_probabilities(np.array([0.5, 0.5]))


@pytest.mark.parametrize("shapes", [[], [(1, 2), (3, 2)], [(2, 2), (1, 2)], [(1, 2), (2, 3)], [(1, 2), (1, 2)]])
def test_tables_that_do_not_follow_each_other_are_refused(shapes):
    with pytest.raises(UsageError, match="one table for each length of context"):
        MarkovChain.from_probabilities(*(np.full((V**length, V), 1 / V) for length, V in shapes))


@pytest.mark.parametrize("token", [-1, 2])
def test_an_end_token_outside_the_vocabulary_is_refused(token):
    with pytest.raises(UsageError, match=f"end token {token} is outside the vocabulary of 2"):
        MarkovChain.from_probabilities(random_rows(2, 1), end=End(token))


def test_a_restart_that_is_no_state_is_refused():
    with pytest.raises(UsageError, match="at least 2"):
        MarkovChain.from_probabilities(random_rows(2, 2), end=End(0, restart=(1,)))


class Logits:
    """A model of given logits."""

    def __init__(self, vocab_size, context_length, seed=0):
        self.vocab_size, self.context_length = vocab_size, context_length
        self.rng = np.random.default_rng(seed)

    def context_table(self, length):
        table = self.rng.normal(size=(self.vocab_size**length, self.vocab_size)).astype(np.float32)
        table[0, 1] = -np.inf
        return table


def test_the_chain_of_a_model_has_its_softmax_rows_and_its_masks():
    chain = MarkovChain.from_model(Logits(3, 2), every_length=True)
    model = Logits(3, 2)
    logits = np.concatenate([model.context_table(1), model.context_table(2)]).astype(np.float64)
    weights = np.exp(logits)
    np.testing.assert_allclose(chain.probs, weights / weights.sum(axis=1, keepdims=True), rtol=1e-14)
    np.testing.assert_array_equal(chain.possible, np.isfinite(logits))


def test_a_model_whose_chain_cannot_fit_is_refused_before_it_is_asked_for_anything():
    class Huge:
        vocab_size, context_length = 50_257, 1024

        def context_table(self, length):
            raise AssertionError("asked for a table that cannot exist")

    with pytest.raises(TooLargeError, match=r"50257\^1024 = .*e\+4814 states"):
        MarkovChain.from_model(Huge())


def test_the_refusal_names_the_size_and_the_largest_chain_that_fits():
    with pytest.raises(TooLargeError) as refusal:
        refuse_if_too_large(50_257, 1024, available_bytes=60_000_000_000)
    message = str(refusal.value)
    exponent = 1024 * np.log10(50_257)
    assert f"= {10 ** (exponent % 1):.1f}e+{int(exponent)} states" in message
    assert "60.0 GB are free" in message
    assert "the longest context whose chain fits is 1 tokens (50257^1 states)" in message
    with pytest.raises(TooLargeError, match="no context length fits"):
        refuse_if_too_large(50_257, 1024, available_bytes=1000)


@pytest.mark.parametrize(("vocab_size", "available"), [(2, 10**9), (3, 10**10), (65, 10**10), (50_257, 10**13)])
def test_the_largest_context_that_is_said_to_fit_fits_and_the_next_does_not(vocab_size, available):
    with pytest.raises(TooLargeError) as refusal:
        refuse_if_too_large(vocab_size, 1000, available)
    fitting = int(str(refusal.value).split("fits is ")[1].split()[0])
    refuse_if_too_large(vocab_size, fitting, available)
    with pytest.raises(TooLargeError):
        refuse_if_too_large(vocab_size, fitting + 1, available)


def test_an_automaton_too_large_for_its_chain_is_refused():
    with pytest.raises(TooLargeError, match="automaton of 1000000 states beside a chain of 1000000000"):
        refuse_vectors_too_large(10**6, 10**9)


@pytest.mark.parametrize(
    ("exponent", "text"),
    [(0.0, "1.0e+0"), (4813.5051, "3.2e+4813"), (2.9999, "1.0e+3"), (-413.3, "5.0e-414"), (-1e-5, "1.0e+0")],
)
def test_powers_of_ten_are_written_with_one_digit_before_the_point(exponent, text):
    assert power_of_ten(exponent) == text


def test_the_shorter_contexts_count_in_the_memory_that_a_chain_needs():
    for available in (10**6, 10**9):
        fitting = max(T for T in range(1, 60) if fits(2, T, available, every_length=False))
        assert fits(2, fitting - 1, available, every_length=True)
        assert not fits(2, fitting + 1, available, every_length=True)
    needed = round(1.1 * 2**10 * (2 * 21 + 32))
    assert fits(2, 10, needed, every_length=False) and not fits(2, 10, needed, every_length=True)


def fits(vocab_size, context_length, available, *, every_length):
    try:
        refuse_if_too_large(vocab_size, context_length, available, every_length=every_length)
    except TooLargeError:
        return False
    return True
