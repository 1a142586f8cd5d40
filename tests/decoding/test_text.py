"""Text for a person: whole characters, nothing of a stop string, and every piece of what is decoded in the end."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassgpt.decoding.draw import Drawn
from glassgpt.decoding.generate import generate
from glassgpt.decoding.text import TextCutter, TextStream, stream_text
from glassgpt.errors import UsageError
from glassgpt.interface import LanguageModel, Tokenizer
from glassgpt.models.ngram import NGram


class Bytes(Tokenizer):
    """A token a byte, and 256 for the end of text."""

    vocab_size = 257
    special = {"<|end|>": 256}  # noqa: RUF012
    end_token = 256

    def encode(self, text):
        return list(text.encode())

    def token_bytes(self, token):
        return b"" if token == 256 else bytes([token])


class Recites(LanguageModel):
    """Says what it was given, then repeats its last token."""

    vocab_size, context_length = 257, 100

    def __init__(self, tokens):
        self.said = tokens

    def next_token_logits(self, contexts):
        logits = np.full((len(contexts), 257), -np.inf)
        logits[:, self.said[min(contexts.shape[1] - 1, len(self.said) - 1)]] = 0.0
        return logits


def told(tokens, **options):
    stream = TextStream([Drawn(token, -1.0) for token in tokens], Bytes(), **options)
    return list(stream), stream


def test_a_character_comes_whole_when_its_last_byte_has_come():
    pieces, stream = told("né字👩".encode())
    assert pieces == ["n", "é", "字", "👩"]
    assert stream.finish_reason == "length" and stream.text == "né字👩"


def test_bytes_that_never_become_a_character_are_told_at_the_end_alone():
    pieces, stream = told(b"a\xe5\xad")
    assert pieces == ["a", "�"]
    assert stream.text == Bytes().decode(b"a\xe5\xad")


def test_what_may_be_the_start_of_a_stop_string_waits_until_it_is_decided():
    pieces, stream = told(b"a STO STOP b", stop=["STOP"])
    assert pieces == ["a", " ", "STO "]
    assert stream.text == "a STO " and stream.finish_reason == "stop"
    assert bytes(stream.tokens) == b"a STO STOP" and len(stream.logprobs) == 10


def test_an_undecided_beginning_is_told_when_the_text_is_over():
    pieces, stream = told(b"one ST", stop=["STOP", "T!"])
    assert "".join(pieces) == "one ST" and stream.finish_reason == "length"


def test_the_end_token_ends_the_text_and_is_not_shown():
    pieces, stream = told([65, 256, 66], ends=frozenset([256]))
    assert pieces == ["A"] and stream.tokens == [65, 256] and stream.finish_reason == "stop"
    pieces, stream = told(b"abc", ends=frozenset(b"b"))
    assert pieces == ["a"] and bytes(stream.tokens) == b"ab"


def test_a_stop_string_that_the_last_bytes_complete_is_found():
    assert told(b"a\xe5", stop=["�"])[0] == ["a"]


def test_of_two_stop_strings_the_one_complete_first_counts_however_the_text_is_divided():
    for parts in ([b"xabcd"], [b"xa", b"bcd"], [b"xab", b"cd"], [b"x", b"a", b"b", b"c", b"d"]):
        cutter = TextCutter(["abcd", "bc", "c"])
        assert "".join([*map(cutter.push, parts), cutter.finish()]) == "xa"
        assert cutter.stopped


def cut(text, stop):
    """The rule for stop strings written out: the shortest beginning of the text that ends in one."""
    for end in range(len(text) + 1):
        ended = [one for one in stop if text[:end].endswith(one)]
        if ended:
            return text[: end - len(max(ended, key=len))]
    return text


@given(
    st.lists(st.binary(max_size=4) | st.text("abé", max_size=3).map(str.encode), max_size=12),
    st.lists(st.text("abé", min_size=1, max_size=4), max_size=3),
)
def test_the_pieces_join_to_the_decoded_text_cut_at_the_stop(parts, stop):
    cutter = TextCutter(stop)
    pieces = [*map(cutter.push, parts), cutter.finish()]
    assert "".join(pieces) == cut(b"".join(parts).decode(errors="replace"), stop)


@given(st.lists(st.text("ab", max_size=2), max_size=10), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_no_more_is_held_back_than_may_begin_a_stop_string(parts, stop):
    cutter = TextCutter(stop)
    said, given = "", ""
    for part in parts:
        said += part
        given += cutter.push(part.encode())
        if cutter.stopped:
            break
        held = said[len(given) :]
        assert held == "" or any(one.startswith(held) for one in stop)


def test_the_stream_tells_the_tokens_of_generate():
    rng = np.random.default_rng(0)
    model = NGram(rng.integers(0, 257, 3000), 257, n=2, smoothing=0.01)
    stream = stream_text(model, Bytes(), [5], 60, end_token=256, rng=np.random.default_rng(3))
    text = "".join(stream)
    assert stream.tokens == generate(model, [5], 60, end_token=256, seed=3)
    assert text == stream.text == Bytes().decode([token for token in stream.tokens if token != 256])


def test_nothing_is_drawn_after_the_stop():
    asked = []

    class Watched(Recites):
        def next_token_logits(self, contexts):
            asked.append(contexts.shape[1])
            return super().next_token_logits(contexts)

    stream = stream_text(Watched(b"hello.\n world"), Bytes(), [0], 50, stop=["\n"], rng=np.random.default_rng(0))
    assert "".join(stream) == "hello." and len(asked) == 7
    assert list(stream) == []


def test_while_it_goes_on_no_reason_is_given():
    stream = stream_text(Recites(b"ab"), Bytes(), [0], 2, rng=np.random.default_rng(0))
    assert next(iter(stream)) == "a" and stream.finish_reason is None
    assert list(stream) == ["b"] and stream.finish_reason == "length"


def test_no_tokens_are_no_text():
    assert told([])[0] == [] and told([])[1].finish_reason == "length"


@pytest.mark.parametrize("stop", ["STOP", [""], ["a", ""], [3]])
def test_stop_strings_that_mean_nothing_are_refused(stop):
    with pytest.raises(UsageError, match="stop string"):
        stream_text(Recites(b"a"), Bytes(), [0], 2, stop=stop, rng=np.random.default_rng(0))
