"""The interface: what follows from `next_token_logits` alone, and the checks at the door."""

from typing import ClassVar

import numpy as np
import pytest

from glassgpt.errors import UsageError
from glassgpt.interface import LanguageModel, RecomputingSession, Tokenizer, as_contexts, every_context


class Sum(LanguageModel):
    """Logits that can be worked out by hand: token v after a context gets v times the sum of the context."""

    vocab_size = 3
    context_length = 2

    def next_token_logits(self, contexts):
        contexts = as_contexts(contexts, self.vocab_size)[:, -self.context_length :]
        return contexts.sum(axis=1, keepdims=True) * np.arange(3.0)


def test_sequence_logits_look_through_the_window():
    logits = Sum().sequence_logits([[1, 2, 2, 0]])
    assert logits.shape == (1, 4, 3)
    np.testing.assert_array_equal(logits[0, :, 1], [1, 3, 4, 2])


def test_rows_of_the_context_table_are_in_code_order_oldest_token_first():
    table = Sum().context_table()
    assert table.shape == (9, 3)
    np.testing.assert_array_equal(table[:, 1], [0, 1, 2, 1, 2, 3, 2, 3, 4])
    np.testing.assert_array_equal(Sum().context_table(1)[:, 2], [0, 2, 4])


def test_a_context_table_needs_a_context():
    with pytest.raises(UsageError, match="at least one token"):
        Sum().context_table(0)


def test_every_context_comes_once_in_order_whatever_the_block_size():
    whole = np.concatenate(list(every_context(3, 4)))
    assert whole.shape == (81, 4)
    np.testing.assert_array_equal(whole @ 3 ** np.arange(3, -1, -1), np.arange(81))
    for rows in (1, 7, 80, 81, 100):
        blocks = list(every_context(3, 4, rows))
        assert max(map(len, blocks)) <= rows
        np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_a_session_recomputes_forks_rewinds_and_reorders():
    session = Sum().session(2)
    assert session.length == 0
    np.testing.assert_array_equal(session.feed([[1], [2]])[:, 1], [1, 2])
    np.testing.assert_array_equal(session.feed([[1, 0], [2, 2]])[:, 1], [1, 4])
    fork = session.fork()
    np.testing.assert_array_equal(fork.feed([[2], [0]])[:, 1], [2, 2])
    assert (session.length, fork.length) == (3, 4)
    np.testing.assert_array_equal(session.feed([[0], [1]])[:, 1], [0, 3])
    session.rewind(2)
    np.testing.assert_array_equal(session.feed([[0], [0]])[:, 1], [1, 2])
    session.reorder([1, 1, 0])
    np.testing.assert_array_equal(session.feed([[1], [1], [1]])[:, 1], [1, 1, 1])
    session.rewind(session.length)
    assert session.length == 0
    np.testing.assert_array_equal(session.feed([[2], [1], [0]])[:, 1], [2, 1, 0])


def test_a_session_refuses_another_number_of_texts_and_too_long_a_way_back():
    session = RecomputingSession(Sum(), 2)
    with pytest.raises(UsageError, match="holds 2 texts, and tokens for 1"):
        session.feed([[1]])
    session.feed([[1], [1]])
    for n in (2, -1):
        with pytest.raises(UsageError, match="cannot rewind"):
            session.rewind(n)
    assert session.length == 1


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([1, 0, 1], r"wrap a single context"),
        (5, r"got shape \(\)"),
        ([[]], r"time >= 1"),
        ([], r"got shape"),
        ([[[0]]], r"got shape"),
        ([[0, 1], [0]], r"unequal length"),
        ([[0.0, 1.0]], r"integer token ids"),
        ([[True]], r"integer token ids"),
        ([["a"]], r"integer token ids"),
        ([[None]], r"integer token ids"),
        ([[0, 3]], r"token id 3 is outside .*ids 0 to 2"),
        ([[-1]], r"token id -1 is outside"),
        (np.array([[2**63]], dtype=np.uint64), r"outside"),
    ],
)
def test_what_is_no_batch_of_contexts_is_refused(tokens, message):
    with pytest.raises(UsageError, match=message):
        as_contexts(tokens, 3)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.uint64])
def test_any_integers_are_contexts(dtype):
    contexts = as_contexts(np.array([[0, 2]], dtype=dtype), 3)
    assert contexts.dtype == np.int64
    assert contexts.tolist() == [[0, 2]]


def test_no_texts_at_all_is_an_empty_batch():
    assert Sum().next_token_logits(np.empty((0, 2), dtype=np.int64)).shape == (0, 3)


class Halves(Tokenizer):
    """Two tokens that are halves of one UTF-8 character."""

    vocab_size = 2
    special: ClassVar = {}

    def encode(self, text):
        return [0, 1] * len(text)

    def token_bytes(self, token):
        return "é".encode()[token : token + 1]


def test_decoding_joins_bytes_before_it_reads_characters():
    tokenizer = Halves()
    assert tokenizer.decode(tokenizer.encode("éé")) == "éé"
    assert tokenizer.decode(np.array([0, 1, 0])) == "é\ufffd"
