"""What is counted in a text, against counting by hand, and what n-grams write that have counted it."""

import itertools
from collections import Counter

import numpy as np
import pytest

from glassgpt.errors import UsageError
from glassgpt.evaluation.ngrams import (
    letter_frequencies,
    letter_pairs,
    letters_of,
    longest_copy,
    share_known,
    word_frequencies,
    words_of,
    write,
)

TEXT = "The cat sat on the mat; the DOG, it's said, didn't. 42 cats!\n\tThe end of the cat's_tale. " * 6


def test_words_are_runs_of_letters_of_any_script():
    assert words_of("ΑΒΓ naïve_3 d'Été l’eau 'quoted' 中文。x²") == [
        "αβγ",
        "naïve",
        "d'été",
        "l'eau",
        "quoted",
        "中文",
        "x",
    ]
    assert words_of("e\u0301te\u0301") == words_of("été")  # however the accents are written


def test_letters_stand_in_words_with_one_space_between():
    letters = letters_of(TEXT)
    assert letters.startswith("the cat sat on the mat the dog its said didnt cats the end of the cats tale the")
    assert "  " not in letters and letters == letters.strip()


def test_frequencies_are_those_of_counting_and_fall():
    for found, counted in (
        (letter_frequencies(TEXT), Counter(letters_of(TEXT))),
        (word_frequencies(TEXT), Counter(words_of(TEXT))),
    ):
        assert dict(zip(found.names, found.counts.tolist(), strict=True)) == counted
        assert sorted(zip(-found.counts, found.names, strict=True)) == list(
            zip(-found.counts, found.names, strict=True)
        )
    assert word_frequencies(TEXT).names[0] == "the" and word_frequencies(TEXT).counts[0] == 30


def test_pairs_are_those_of_walking_through_the_text():
    letters, pairs = letters_of(TEXT), letter_pairs(TEXT)
    assert pairs.signs == (" ", *sorted(set(letters) - {" "}))
    for row, one in enumerate(pairs.signs):
        for column, other in enumerate(pairs.signs):
            by_hand = sum(a == one and b == other for a, b in itertools.pairwise(letters))
            assert pairs.counts[row, column] == by_hand
    np.testing.assert_array_equal(pairs.totals, pairs.counts.sum(axis=1))


def test_letters_that_are_not_listed_count_in_the_totals_only():
    few, every = letter_pairs(TEXT, most=4), letter_pairs(TEXT)
    assert few.signs == (" ", "a", "e", "t")
    rows = [every.signs.index(sign) for sign in few.signs]
    np.testing.assert_array_equal(few.counts, every.counts[np.ix_(rows, rows)])
    np.testing.assert_array_equal(few.totals, every.totals[rows])
    assert "m" not in letter_pairs(TEXT, rarest=0.02).signs and "m" in every.signs


@pytest.mark.parametrize("unit", ["letters", "words"])
def test_the_same_seed_writes_the_same_and_another_one_something_else(unit):
    assert write(TEXT, unit, [1, 3], seed=1) == write(TEXT, unit, [1, 3], seed=1)
    assert write(TEXT, unit, [2], seed=1)[0].text != write(TEXT, unit, [2], seed=2)[0].text
    assert write(TEXT, unit, [3, 2])[1] == write(TEXT, unit, [2])[0]  # whatever else is written


def test_as_much_is_written_as_was_asked_for():
    letters, words = write(TEXT, "letters", n_tokens=17), write(TEXT, "words", n_tokens=9)
    assert [row.n for row in letters] == [row.n for row in words] == [1, 2, 3, 4, 5, 6]
    assert {len(row.text) for row in letters} == {17} and {len(row.text.split(" ")) for row in words} == {9}
    assert {row.text.split(" ")[0] for row in words} == {"the"}
    assert write(TEXT, "words", [3], n_tokens=1)[0].text == "the"


def test_one_gram_letters_come_as_often_as_they_were_counted():
    n, found = 4000, letter_frequencies(TEXT + " ")
    (row,) = write(TEXT, "letters", [1], n_tokens=n)
    drawn, total = Counter(row.text), found.counts.sum()
    for name, count in zip(found.names, found.counts, strict=True):
        p = count / total
        # 4.5 standard errors of a count, and the mass that smoothing moves (a discount of at most 1 of each letter)
        assert abs(drawn[name] - n * p) < 4.5 * np.sqrt(n * p) + n * len(found.names) / total


def test_longer_grams_copy_more_and_know_more_words():
    text = TEXT + "Quick brown foxes jump over lazy dogs while seven wizards vex a jolly queen by the old mill. " * 20
    rows = write(text, "letters", [1, 6], n_tokens=120)
    assert rows[0].copied < rows[1].copied and rows[0].known < 0.5 < rows[1].known
    assert [row.known for row in write(text, "words", [1, 6])] == [None, None]


def test_what_is_told_of_a_text_is_true_of_it():
    for row in write(TEXT, "letters", n_tokens=60):
        assert row.copied == longest_by_hand(row.text, letters_of(TEXT) + " ")
        whole = row.text.split() if row.text.endswith(" ") else row.text.split()[:-1]
        known = set(letters_of(TEXT).split())
        assert row.known == (np.mean([word in known for word in whole]) if whole else None)
    for row in write(TEXT, "words"):
        assert row.copied == longest_by_hand(row.text.split(), words_of(TEXT))


def longest_by_hand(wrote, counted):
    stretches = [(i, j) for i in range(len(wrote)) for j in range(i + 1, len(wrote) + 1)]
    places = range(len(counted))
    return max(j - i for i, j in stretches if any(counted[k : k + j - i] == wrote[i:j] for k in places))


def test_a_word_is_not_found_inside_another():
    assert longest_copy(["cat", "in"], ["concat", "inside"]) == 0
    assert longest_copy("cat in", "concat inside") == 6
    assert longest_copy("", "abc") == 0 and longest_copy("x", "abc") == 0


def test_a_word_that_is_broken_off_counts_for_nothing():
    assert share_known("the ca", ["the"]) == 1 and share_known("the ca ", ["the"]) == 0.5
    assert share_known("dont", ["don't"]) is None and share_known("dont ", ["don't"]) == 1


@pytest.mark.parametrize("text", ["", "1 2 3", "...\n"])
def test_a_text_without_letters_is_refused(text):
    for count in (letter_frequencies, word_frequencies, lambda t: write(t, "letters"), lambda t: write(t, "words")):
        with pytest.raises(UsageError, match="no letters"):
            count(text)
    with pytest.raises(UsageError, match="two letters or more"):
        letter_pairs(text)


def test_a_text_of_one_letter_or_word_is_written_again():
    assert write("a", "words", [1, 6], n_tokens=3)[1].text == "a a a"
    assert set(write("a", "letters", [2])[0].text) <= {"a", " "}


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(UsageError, match="letters or words, not 'syllables'"):
        write(TEXT, "syllables")
    with pytest.raises(UsageError, match="n_tokens must be 1 or more"):
        write(TEXT, "words", n_tokens=0)
    with pytest.raises(UsageError, match="n >= 1"):
        write(TEXT, "words", [0])
    with pytest.raises(UsageError, match="at least one sign"):
        letter_pairs(TEXT, most=0)
