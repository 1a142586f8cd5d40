"""Scores: the definition written out, whatever the window, the stride and the memory."""

from __future__ import annotations

import math

import numpy as np
import pytest

import glassgpt.evaluation.score
from glassgpt.decoding.generate import stream
from glassgpt.errors import NumericalError, UsageError
from glassgpt.evaluation.score import Score, bits_per_byte, score, windows
from glassgpt.interface import LanguageModel
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.models.ngram import NGram
from glassgpt.numerics import log_softmax
from glassgpt.text.character import CharacterTokenizer

RNG = np.random.default_rng(0)
TRIGRAM = NGram(RNG.integers(0, 4, 300), 4, n=3)
GPT6 = GPT(GPTConfig(4, 6, 2, 2, 8), seed=3).double()


def by_definition(model, text):
    """Each token given all that the window holds of what is before it."""
    return [float(log_softmax(model.next_token_logits([text[:t]]))[0, text[t]]) for t in range(1, len(text))]


@pytest.mark.parametrize("model", [TRIGRAM, GPT6], ids=["trigram", "gpt"])
@pytest.mark.parametrize("n", [1, 2, 3, 6, 7, 8, 20, 41])
def test_with_stride_one_every_token_is_given_the_whole_window(model, n):
    text = RNG.integers(0, 4, n).tolist()
    scored = score(model, text, stride=1)
    assert scored.tokens == text and scored.logprobs[0] is None
    assert scored.logprobs[1:] == pytest.approx(by_definition(model, text), abs=1e-12)
    started = score(model, text, stride=1, start_token=2)
    assert started.tokens == text and started.logprobs == pytest.approx(by_definition(model, [2, *text]), abs=1e-12)


def test_a_text_that_fits_the_window_is_exact_whatever_the_stride():
    text = RNG.integers(0, 4, 7).tolist()
    for stride in (None, 1, 3, 6):
        assert score(GPT6, text, stride=stride).logprobs[1:] == pytest.approx(by_definition(GPT6, text), abs=1e-12)


@pytest.mark.parametrize("stride", [2, 3, 6, None])
@pytest.mark.parametrize("n", [8, 12, 19, 40])
def test_a_longer_text_is_read_in_windows(stride, n):
    text = RNG.integers(0, 4, n).tolist()
    found = score(GPT6, text, stride=stride).logprobs
    step = 3 if stride is None else stride
    for t in range(1, n):
        given = [float(log_softmax(GPT6.next_token_logits([text[s:t]]))[0, text[t]]) for s in range(max(0, t - 6), t)]
        enough = [logprob for seen, logprob in zip(range(min(t, 6), 0, -1), given, strict=True) if seen > 6 - step]
        wanted = enough if t > 6 else given[:1]
        assert min(abs(found[t] - logprob) for logprob in wanted) < 1e-12


def test_windows_predict_every_token_but_the_first_once_with_enough_before_it():
    for n in range(1, 40):
        for width in (1, 2, 5, 8):
            for stride in range(1, width + 1):
                seen = {}
                for starts, first, read in windows(n, width, stride, at_once=3):
                    assert len(starts) <= 3 and read <= width
                    for start in starts:
                        for t in range(first, read):
                            assert start + t + 1 not in seen
                            seen[start + t + 1] = t + 1
                assert sorted(seen) == list(range(1, n))
                assert all(before >= min(place, width - stride + 1) for place, before in seen.items())


@pytest.mark.parametrize("at_once", [1, 30, 200])
@pytest.mark.parametrize("model", [TRIGRAM, GPT6], ids=["trigram", "gpt"])
def test_in_little_memory_the_scores_are_the_same(model, at_once, monkeypatch):
    text = RNG.integers(0, 4, 50).tolist()
    expected = score(model, text)
    monkeypatch.setattr(glassgpt.evaluation.score, "LOGITS_AT_ONCE", at_once)
    monkeypatch.setattr(glassgpt.evaluation.score, "ROWS_AT_ONCE", at_once)
    assert score(model, text).logprobs[1:] == pytest.approx(expected.logprobs[1:], abs=1e-12)


def test_no_more_logits_exist_at_once_than_there_is_memory_for(monkeypatch):
    largest = 0

    class Watched(GPT):
        def sequence_logits(self, tokens):
            nonlocal largest
            largest = max(largest, np.size(tokens) * 4)
            return super().sequence_logits(tokens)

    monkeypatch.setattr(glassgpt.evaluation.score, "LOGITS_AT_ONCE", 100)
    score(Watched(GPTConfig(4, 6, 1, 1, 4)), [0, 1, 2, 3] * 20)
    assert 0 < largest <= 100


def test_what_was_generated_is_scored_as_it_was_drawn():
    drawn = list(stream(GPT6, [1], 5, rng=np.random.default_rng(1)))
    scored = score(GPT6, [1, *(token for token, _ in drawn)])
    assert scored.logprobs[1:] == pytest.approx([logprob for _, logprob in drawn], abs=1e-12)


def test_bits_and_perplexity_by_hand():
    scored = Score([0, 1, 1], [None, math.log(1 / 2), math.log(1 / 8)])
    assert scored.bits == pytest.approx(4.0)
    assert scored.perplexity == pytest.approx(4.0)
    assert bits_per_byte(scored, CharacterTokenizer("ab")) == pytest.approx(2.0)
    assert bits_per_byte(scored, CharacterTokenizer("a字")) == pytest.approx(4 / 6)  # three bytes each


def test_an_impossible_token_is_an_infinite_surprise():
    scored = score(NGram([0, 1, 0, 1], 3, n=2, smoothing=0.0), [0, 1, 2])
    assert scored.logprobs == [None, 0.0, -math.inf]
    assert scored.bits == scored.perplexity == bits_per_byte(scored, CharacterTokenizer("abc")) == math.inf


def test_a_single_token_has_no_score_without_a_start():
    alone = score(TRIGRAM, [2])
    assert alone.logprobs == [None] and alone.bits == 0
    with pytest.raises(UsageError, match="start token"):
        _ = alone.perplexity
    with pytest.raises(UsageError, match="no byte"):
        bits_per_byte(alone, CharacterTokenizer("abcd"))
    assert score(TRIGRAM, [2], start_token=1).logprobs == pytest.approx(by_definition(TRIGRAM, [1, 2]))


def test_the_surprise_of_every_text_of_a_length_sums_to_one():
    texts = [[a, b, c] for a in range(4) for b in range(4) for c in range(4)]
    assert math.fsum(2 ** -score(TRIGRAM, text, start_token=0).bits for text in texts) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(
    "wrong",
    [{"tokens": []}, {"tokens": [[0]]}, {"tokens": [4]}, {"tokens": [0.5]}, {"stride": 0}, {"stride": 7},
     {"stride": 1.5}, {"stride": math.nan}, {"start_token": 4}, {"start_token": -1}],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(wrong):
    with pytest.raises(UsageError):
        score(GPT6, **{"tokens": [0, 1]} | wrong)


def test_nan_logits_are_refused():
    class Broken(LanguageModel):
        vocab_size, context_length = 2, 3

        def next_token_logits(self, contexts):
            return np.full((len(contexts), 2), np.nan)

    with pytest.raises(NumericalError):
        score(Broken(), [0, 1])
