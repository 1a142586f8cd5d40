"""Windows: every context of the text with what follows it."""

from dataclasses import replace

import numpy as np
import pytest

from glassgpt.errors import UsageError
from glassgpt.training.data import tokenizer_for, training_data, vocabulary_of, windows_of
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


# ---- a text in files -------------------------------------------------------------------------------------------------


def of_files(files, vocab_size=None, **data):
    model = {"context_length": 4, "n_layer": 1, "n_head": 1, "n_embd": 4}
    if vocab_size is not None:
        model["vocab_size"] = vocab_size
    content = {"data": {"files": [str(file) for file in files], "vocabulary": "bytes", **data}, "model": model}
    return recipe_from_dict(content | {"train": {"steps": 1, "batch_size": 3}})


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text.txt").write_text("one two\n\nthree four five\n\n" * 8)
    return tmp_path / "text.txt"


def test_the_rows_of_a_text_follow_from_the_step_alone_and_targets_come_one_later(text, tmp_path):
    data, again = (training_data(of_files([text]), tmp_path / "tokens") for _ in range(2))
    for step in range(9):
        rows = data.rows(step)
        assert rows["inputs"].shape == rows["targets"].shape == (3, 4)
        np.testing.assert_array_equal(rows["inputs"][:, 1:], rows["targets"][:, :-1])
        np.testing.assert_array_equal(rows["inputs"], again.rows(step)["inputs"])
    assert data.rows(0)["inputs"].tolist() != data.rows(1)["inputs"].tolist()
    assert data.sha256 == again.sha256


def test_rows_say_which_document_a_token_belongs_to_when_attention_is_to_stay_in_it(text, tmp_path):
    assert "documents" not in training_data(of_files([text]), tmp_path / "a").rows(0)
    recipe = of_files([text], documents="blank lines", mask_documents=True)
    data = training_data(recipe, tmp_path / "b")
    end = data.files.end_token
    for step in range(9):
        rows = data.rows(step)
        borders = np.diff(rows["documents"], axis=1)
        np.testing.assert_array_equal(borders == 1, rows["inputs"][:, :-1] == end)


def test_tokens_of_another_text_are_refused_unless_they_may_be_replaced(text, tmp_path):
    training_data(of_files([text]), tmp_path / "tokens")
    other = tmp_path / "other.txt"
    other.write_text("another text " * 9)
    with pytest.raises(UsageError, match="tokens of another text"):
        training_data(of_files([other]), tmp_path / "tokens")
    assert training_data(of_files([other]), tmp_path / "tokens", replace=True).tokenizer.decode([97]) == "a"


def test_a_text_shorter_than_a_window_is_refused_by_its_part(text, tmp_path):
    text.write_text("abcd")
    with pytest.raises(UsageError, match="train part has 3 tokens and the context 4"):
        training_data(of_files([text], validation=0.25), tmp_path / "tokens")


def test_the_words_of_a_model_may_be_taken(text, tmp_path, baby_run):
    text.write_text("110101" * 9)
    data = training_data(of_files([text], vocabulary=str(baby_run.path)), tmp_path / "tokens")
    assert data.tokenizer.vocab_size == 2
    assert data.prompt == [1, 1, 0, 1]


@pytest.mark.parametrize(
    ("vocabulary", "size", "message"),
    [
        ("bpe", 100, r"vocab_size must be from 257 .* got 100"),
        ("words", 2**21, r"to 1,048,576 .* got 2097152"),
        ("bytes", 300, r"vocab_size is 300, and data\.vocabulary = 'bytes' decides itself"),
        ("syllables", None, r"bytes, characters, words, bpe, or names a model with words: there is no syllables"),
    ],
)
def test_a_vocabulary_that_cannot_be_is_refused_by_its_key(text, vocabulary, size, message):
    with pytest.raises(UsageError, match=message):
        vocabulary_of(of_files([text], size, vocabulary=vocabulary))
