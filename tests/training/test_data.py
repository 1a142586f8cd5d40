"""Windows: every context of the text with what follows it."""

from dataclasses import replace

import numpy as np
import pytest

from glassgpt.errors import UsageError
from glassgpt.training.data import tokenizer_for, windows_of
from glassgpt.training.recipe import recipe_from_dict


def recipe(sequence="111101111011110", vocab_size=2, context_length=3, **data):
    return recipe_from_dict(
        {
            "data": {"sequence": sequence, **data},
            "model": {
                "vocab_size": vocab_size,
                "context_length": context_length,
                "n_layer": 1,
                "n_head": 1,
                "n_embd": 4,
            },
            "train": {"steps": 1},
        }
    )


def windows(*args, **kwargs):
    found = recipe(*args, **kwargs)
    return windows_of(found, tokenizer_for(found))


def test_the_baby_text_has_twelve_windows():
    found = windows()
    assert len(found) == 12
    assert found.inputs[0].tolist() == [1, 1, 1]
    assert found.targets[0].tolist() == [1, 1, 1]
    assert found.inputs[-1].tolist() == [1, 1, 1]
    assert found.targets[-1].tolist() == [1, 1, 0]
    for i in range(12):
        assert found.inputs[i].tolist() == found.tokens[i : i + 3].tolist()
        assert found.targets[i].tolist() == found.tokens[i + 1 : i + 4].tolist()


def test_one_token_more_than_the_context_is_one_window():
    assert len(windows("0110")) == 1


@pytest.mark.parametrize("sequence", ["", "0", "011"])
def test_a_text_no_longer_than_the_context_is_refused(sequence):
    with pytest.raises(UsageError, match=rf"has {len(sequence)} tokens and the context 3"):
        windows(sequence)


def test_a_symbol_outside_the_vocabulary_is_refused():
    with pytest.raises(UsageError, match="'2' is not in the vocabulary"):
        windows("0120")


def test_symbols_name_the_vocabulary_in_order():
    assert windows("abba", symbols="ba").tokens.tolist() == [1, 0, 0, 1]
    with pytest.raises(UsageError, match=r"data\.symbols names 3 tokens, and model\.vocab_size is 2"):
        windows("abba", symbols="abc")
    with pytest.raises(UsageError, match="listed twice"):
        windows("abba", symbols="aa")


def test_more_tokens_than_digits_and_letters_need_symbols():
    with pytest.raises(UsageError, match=r"data\.symbols"):
        windows(vocab_size=37)
    assert tokenizer_for(recipe(vocab_size=36)).vocab_size == 36


def test_a_batch_is_a_draw_of_seed_and_step_alone():
    one, again, other = (replace(windows(), batch_size=5, seed=seed) for seed in (1, 1, 2))
    rows = one.rows(3)
    assert rows["inputs"].shape == rows["targets"].shape == (5, 3)
    np.testing.assert_array_equal(rows["inputs"], again.rows(3)["inputs"])
    draws = {found.rows(step)["inputs"].tobytes() for step in range(20) for found in (one, other)}
    assert len(draws) > 30


def test_a_batch_never_takes_a_window_twice():
    found = replace(windows("0123456789abcdef", vocab_size=16), batch_size=12)
    for step in range(50):
        inputs, targets = found.rows(step).values()
        assert len(set(inputs[:, 0].tolist())) == 12
        np.testing.assert_array_equal(targets, inputs + 1)


@pytest.mark.parametrize("batch_size", [None, 12, 13])
def test_a_batch_as_large_as_the_text_is_the_text(batch_size):
    found = replace(windows(), batch_size=batch_size)
    rows = found.rows(7)
    np.testing.assert_array_equal(rows["inputs"], found.inputs)
    np.testing.assert_array_equal(rows["targets"], found.targets)
