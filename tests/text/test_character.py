"""A token a character."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassgpt.check import check_tokenizer
from glassgpt.errors import UsageError
from glassgpt.text.character import CharacterTokenizer

AWKWARD = '01aé字\n\r\t "\\\x00👩\u200d\u0301\ufeff\u2028'


def test_ids_are_places_among_the_symbols():
    tokenizer = CharacterTokenizer("ba ")
    assert tokenizer.encode("a bab") == [1, 2, 0, 1, 0]
    assert tokenizer.decode([1, 2, 0, 1, 0]) == "a bab"
    assert tokenizer.vocab_size == 3
    assert tokenizer.special == {}
    assert tokenizer.encode("") == []
    assert tokenizer.decode([]) == ""


@given(st.text(alphabet=AWKWARD))
def test_every_text_over_the_symbols_comes_back(text):
    check_tokenizer(CharacterTokenizer(AWKWARD), [text])


@pytest.mark.parametrize(("size", "symbols"), [(2, "01"), (3, "012"), (11, "0123456789a")])
def test_sizes_have_a_vocabulary_of_digits_then_letters(size, symbols):
    assert CharacterTokenizer.of_size(size).symbols == symbols


def test_more_than_36_need_symbols_of_their_own():
    assert CharacterTokenizer.of_size(36).symbols[-1] == "z"
    with pytest.raises(UsageError, match=r"37: give .* in data\.symbols"):
        CharacterTokenizer.of_size(37)


def test_a_symbol_stands_for_one_token():
    with pytest.raises(UsageError, match="'b' is listed twice"):
        CharacterTokenizer("abcb")


def test_a_character_outside_the_vocabulary_is_named():
    with pytest.raises(UsageError, match="'2' is not in the vocabulary, which is '01'"):
        CharacterTokenizer("01").encode("012")


@pytest.mark.parametrize("token", [-1, 2])
def test_an_id_outside_the_vocabulary_is_refused(token):
    with pytest.raises(UsageError, match="outside the vocabulary of 2"):
        CharacterTokenizer("01").decode([0, token])
