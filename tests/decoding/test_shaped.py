"""A shaped model is a model: by every door, nested, on torch tensors."""

import numpy as np
import pytest
import torch

from glassgpt.check import check_model
from glassgpt.decoding.processors import MinP, RepetitionPenalty, Temperature, TopK, TopP
from glassgpt.decoding.shaped import Shaped
from glassgpt.errors import UsageError
from glassgpt.interface import LanguageModel, every_context
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.models.ngram import NGram

TEXT = np.random.default_rng(0).integers(0, 4, 200)
FOUR = [Temperature(0.7), TopK(3), TopP(0.9), MinP(0.05)]


def bigram():
    return NGram(TEXT, 4, n=3)


def test_processors_apply_in_order():
    logits = bigram().next_token_logits([[0, 1]])
    expected = logits
    for processor in FOUR:
        expected = processor(None, expected)
    np.testing.assert_array_equal(Shaped(bigram(), FOUR).next_token_logits([[0, 1]]), expected)


def test_nesting_is_one_list_after_the_other():
    for split in range(5):
        nested = Shaped(Shaped(bigram(), FOUR[:split]), FOUR[split:])
        np.testing.assert_array_equal(nested.context_table(), Shaped(bigram(), FOUR).context_table())
        check_model(nested, tolerance=1e-12)


def test_the_order_matters():
    logits = np.log([[0.5, 0.3, 0.2]])

    class Fixed(LanguageModel):
        vocab_size, context_length = 3, 1

        def next_token_logits(self, contexts):
            return np.repeat(logits, len(contexts), axis=0)

    hot_first = Shaped(Fixed(), [Temperature(2.0), TopP(0.5)]).next_token_logits([[0]])
    hot_last = Shaped(Fixed(), [TopP(0.5), Temperature(2.0)]).next_token_logits([[0]])
    assert np.isneginf(hot_first).sum() == 1  # flatter: the first holds 0.42
    assert np.isneginf(hot_last).sum() == 2


def test_without_processors_it_is_the_model():
    shaped = Shaped(bigram(), [])
    np.testing.assert_array_equal(shaped.context_table(), bigram().context_table())
    np.testing.assert_array_equal(shaped.sequence_logits([[0, 1, 2]]), bigram().sequence_logits([[0, 1, 2]]))


def test_a_processor_sees_the_window_alone_by_every_door():
    def no_repeats(contexts, logits):
        """Excludes what the context holds: it needs the contexts, unlike the usual four."""
        assert contexts.shape[1] <= 2
        logits = np.array(logits)
        np.put_along_axis(logits, np.asarray(contexts), -np.inf, axis=1)
        return logits

    shaped = Shaped(bigram(), [no_repeats])
    check_model(shaped, tolerance=1e-12)
    table = shaped.context_table()
    contexts = np.concatenate(list(every_context(4, 2)))
    assert np.isneginf(np.take_along_axis(table, contexts, axis=1)).all()
    np.testing.assert_array_equal(shaped.next_token_logits([[3, 0, 1]]), table[[0 * 4 + 1]])


def test_with_a_repetition_penalty_a_model_is_still_a_model():
    for model in (bigram(), GPT(GPTConfig(5, 3, 1, 1, 4))):
        check_model(Shaped(model, [RepetitionPenalty(1.5), Temperature(0.8)]), tolerance=1e-5)


def test_float32_logits_are_shaped_in_float64():
    shaped = Shaped(GPT(GPTConfig(3, 2, 1, 1, 4)), [Temperature(0.3)])
    assert shaped.next_token_logits([[0, 1]]).dtype == np.float64
    assert shaped.context_table().dtype == np.float64
    assert shaped.sequence_logits([[0, 1]]).dtype == np.float64


def test_torch_tensors_come_back_as_torch_tensors():
    model = GPT(GPTConfig(3, 2, 1, 1, 4))
    for processors in ([], FOUR, [Temperature(0)]):
        shaped = Shaped(Shaped(model, processors), [TopK(2)])
        for tokens in ([[0, 1], [2, 2]], [[0, 1, 1, 2]]):
            there = torch.tensor(tokens)
            with torch.no_grad():
                one, all_ = shaped.next_token_logits(there), shaped.sequence_logits(there)
            assert isinstance(one, torch.Tensor)
            assert isinstance(all_, torch.Tensor)
            np.testing.assert_allclose(one.numpy(), shaped.next_token_logits(tokens), atol=1e-6)
            np.testing.assert_allclose(all_.numpy(), shaped.sequence_logits(tokens), atol=1e-6)
        assert shaped.next_token_logits(torch.tensor([[0, 1]])).requires_grad


def test_lists_and_arrays_are_both_contexts():
    shaped = Shaped(bigram(), FOUR)
    for tokens in ([[0, 1]], [[0, 1, 2, 3]]):
        np.testing.assert_array_equal(shaped.next_token_logits(tokens), shaped.next_token_logits(np.array(tokens)))
        np.testing.assert_array_equal(shaped.sequence_logits(tokens), shaped.sequence_logits(np.array(tokens)))
    session = shaped.session()
    np.testing.assert_array_equal(session.feed([[0, 1]])[0], shaped.next_token_logits([[0, 1]])[0])


def test_bad_contexts_are_refused():
    shaped = Shaped(bigram(), FOUR)
    for wrong in ([[4]], [0, 1], [[0.5]], [[]]):
        with pytest.raises(UsageError):
            shaped.next_token_logits(wrong)


def test_a_table_larger_than_one_block_is_shaped_whole():
    rng = np.random.default_rng(1)
    model = NGram(rng.integers(0, 2, 5000), 2, n=16)  # 32,768 rows, two blocks
    shaped = Shaped(model, [TopK(1)])
    raw = model.context_table()
    np.testing.assert_array_equal(np.argmax(shaped.context_table(), axis=1), np.argmax(raw, axis=1))
    assert (np.isneginf(shaped.context_table()).sum(axis=1) == 1).all()


def test_a_session_fed_many_tokens_at_once_answers_after_each():
    def no_repeats(contexts, logits):
        return np.where(np.arange(4) == np.asarray(contexts)[:, -1:], -np.inf, logits)

    shaped, tokens = Shaped(bigram(), [no_repeats, Temperature(0.5)]), np.array([[0, 1, 2, 3, 3], [1, 1, 0, 2, 0]])
    session = shaped.session(2)
    session.feed(tokens[:, :2])
    np.testing.assert_array_equal(session.feed_each(tokens[:, 2:]), shaped.sequence_logits(tokens)[:, 2:])
    session.rewind(2)
    np.testing.assert_array_equal(session.feed(tokens[:, 3:4]), shaped.next_token_logits(tokens[:, :4]))


def test_sessions_fork_apart():
    session = Shaped(bigram(), FOUR).session(2)
    session.feed([[0], [1]])
    fork = session.fork()
    fork.feed([[2], [2]])
    np.testing.assert_array_equal(session.feed([[3], [3]]), Shaped(bigram(), FOUR).next_token_logits([[0, 3], [1, 3]]))
    with pytest.raises(UsageError, match="cannot rewind"):
        session.rewind(3)
    assert session.length == session.tokens.shape[1] == 2
