"""Documents: found between separators, in parts whose tokens are those of the whole."""

import functools
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassgpt.check import TEXTS
from glassgpt.text.bpe import SPLITTINGS
from glassgpt.text.documents import Document, Source, safe_cut, split_documents, units, whole_documents
from glassgpt.text.vocabulary import Vocabulary

MIXED = (
    "It's 1,024 o'clock; she'll say: \"naïve café\" (élève)!\n\n\tand  two   spaces \r\n\r\n x=3.14e-5, e\u0301 \u212b "
    "字、文字。漢字中文 12年! 👩‍👩‍👧 ½²٣ don't I'LL 'tis  'S a_b --flag ... <|endoftext|> "
    "\u3000x\u00a0y z\u0085 \ufeff! ﬁ ǅ\n"
)


@functools.cache
def tokenizer(splitting):
    return Vocabulary("bpe", 600, splitting).learn([MIXED * 20])


def texts_of(blocks, separator, longest=1 << 20):
    return [(document.text, document.continues) for document in split_documents(blocks, separator, longest)]


def test_the_whole_text_is_one_document_without_a_separator():
    assert texts_of(["a\n", "\nb\n"], None) == [("a\n\nb\n", False)]


def test_documents_lie_between_separators_and_empty_ones_are_dropped():
    assert texts_of(["a\n\n\n\n  \n\nb\nc\n\n"], "\n\n") == [("a", False), ("b\nc", False)]
    assert texts_of(["a\r\n\n", "b"], "\n") == [("a", False), ("b", False)]
    assert texts_of(["a<|endoft", "ext|>\nb"], "<|endoftext|>") == [("a", False), ("b", False)]
    assert texts_of([" \n", "\n"], None) == []


@settings(deadline=None)
@given(
    st.text(alphabet="ab \n|", max_size=60), st.lists(st.integers(0, 60), max_size=4), st.sampled_from(["\n\n", "|"])
)
def test_how_a_text_comes_in_blocks_makes_no_difference(text, cuts, separator):
    ends = [0, *sorted(cuts), len(text)]
    blocks = [text[a:b] for a, b in itertools.pairwise(ends)]
    assert texts_of(blocks, separator) == texts_of([text], separator)


@settings(deadline=None)
@given(st.text(alphabet="ab 1,\n\u00e9", max_size=300))
def test_a_long_document_comes_in_parts_that_join_to_it(text):
    found = texts_of([text[i : i + 7] for i in range(0, len(text), 7)], None, longest=10)
    if text.strip():
        assert "".join(part for part, _ in found).strip() == text.strip()
    assert [continues for _, continues in found] == [i > 0 for i in range(len(found))]
    assert all(len(part) <= 20 for part, _ in found)


@settings(deadline=None)
@given(st.text(alphabet="ab ,\n字", min_size=3, max_size=200), st.integers(2, 40))
def test_a_cut_is_within_bounds(text, longest):
    if len(text) > longest:
        assert longest // 2 <= safe_cut(text, longest) <= longest


def test_a_cut_lies_between_a_letter_and_a_sign():
    assert safe_cut("one two three", 9) == 7
    assert safe_cut("字字字。字字字字", 5) == 3
    assert safe_cut("aaaaaaaaaaaa", 5) == 5  # no such place: still no text is lost


@pytest.mark.parametrize("splitting", SPLITTINGS)
@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([*MIXED, *TEXTS, "ab", " the", "'s", "\n", "12"]), max_size=40).map("".join))
def test_tokens_of_units_and_of_parts_are_those_of_the_whole(splitting, text):
    encode = tokenizer(splitting).encode
    whole = encode(text)
    assert [i for unit in units(text) for i in encode(unit)] == whole
    for at in range(len(text) + 1):
        longest = max(at, 1)
        if len(text) > longest and (cut := safe_cut(text, longest)) < longest:  # not a forced one
            assert encode(text[:cut]) + encode(text[cut:]) == whole


@settings(deadline=None)
@given(st.text())
def test_units_join_to_the_text(text):
    assert "".join(units(text)) == text
    assert "" not in units(text)


def test_parts_are_gathered_document_by_document():
    class Two(Source):
        name = "two"

        def documents(self):
            yield from (Document("a"), Document("b", True), Document("c"))

        def identity(self):
            return {}

    assert [[part.text for part in parts] for parts in whole_documents(Two())] == [["a", "b"], ["c"]]
