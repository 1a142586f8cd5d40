"""Beam search: one beam is greedy, enough of them are exhaustive, and in between they are transformers'."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from glassgpt.decoding.beam import beam_search, beam_steps, largest
from glassgpt.decoding.generate import generate
from glassgpt.decoding.processors import TopK
from glassgpt.decoding.shaped import Shaped
from glassgpt.errors import UsageError
from glassgpt.interface import LanguageModel
from glassgpt.models.ngram import NGram


def trigram(seed=3, vocab_size=3):
    return NGram(np.random.default_rng(seed).integers(0, vocab_size, 60), vocab_size, n=3)


def every_text(model, prompt, n_new, ends, penalty):
    """All texts of `n_new` tokens, or fewer if they end, by definition: {tokens: score}."""
    scores = {}
    for full in itertools.product(range(model.vocab_size), repeat=n_new):
        at = next((i for i, token in enumerate(full) if token in ends), n_new - 1)
        text, logprob = list(prompt), 0.0
        for token in full[: at + 1]:
            logprob += model.next_token_logits([text])[0, token]
            text.append(token)
        scores[full[: at + 1]] = logprob / (at + 1) ** penalty
    return scores


@pytest.mark.parametrize("end", [None, 0, (1, 2)])
@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.5, -0.5])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_as_many_beams_as_there_are_texts_find_the_best(end, penalty, early_stopping):
    model, n_new = trigram(), 4
    ends = () if end is None else np.atleast_1d(end)
    scores = every_text(model, [0, 1], n_new, ends, penalty)
    beams = beam_search(
        model, [0, 1], n_new, 3**n_new, length_penalty=penalty, end_token=end, early_stopping=early_stopping
    )
    assert {beam.tokens: beam.score for beam in beams} == pytest.approx(scores)
    assert [beam.score for beam in beams] == sorted((beam.score for beam in beams), reverse=True)
    for beam in beams:
        assert beam.logprob == pytest.approx(math.fsum(beam.logprobs), abs=1e-12)
        assert beam.score == pytest.approx(beam.logprob / len(beam.tokens) ** penalty)


@pytest.mark.parametrize("end", [None, 0, 1])
@pytest.mark.parametrize("seed", range(4))
def test_one_beam_is_greedy(seed, end):
    model = trigram(seed)
    (beam,) = beam_search(model, [seed % 3], 12, 1, end_token=end)
    assert list(beam.tokens) == generate(model, [seed % 3], 12, temperature=0, end_token=end)


@pytest.mark.parametrize("penalty", [0.0, 1.0, -1.0, 3.0])
@pytest.mark.parametrize("seed", range(6))
def test_stopping_early_by_the_bound_loses_nothing(seed, penalty, monkeypatch):
    import glassgpt.decoding.beam

    model = trigram(seed, 4)
    found = beam_search(model, [0], 7, 3, length_penalty=penalty, end_token=2)
    monkeypatch.setattr(glassgpt.decoding.beam, "_is_over", lambda *_: False)
    assert beam_search(model, [0], 7, 3, length_penalty=penalty, end_token=2) == found


def test_the_bound_does_stop_the_search():
    asked = []

    class Ends(LanguageModel):
        vocab_size, context_length = 3, 5

        def next_token_logits(self, contexts):
            asked.append(len(contexts))
            return np.tile(np.log([0.9, 0.05, 0.05]), (len(contexts), 1))

    beams = beam_search(Ends(), [1], 1000, 2, length_penalty=0.0, end_token=0)
    assert [beam.tokens for beam in beams] == [(0,), (1, 0)]
    assert len(asked) == 2


def test_equals_are_taken_by_the_lower_id():
    class Even(LanguageModel):
        vocab_size, context_length = 3, 2

        def next_token_logits(self, contexts):
            return np.zeros((len(contexts), 3))

    assert [beam.tokens for beam in beam_search(Even(), [0], 2, 4)] == [(0, 0), (0, 1), (0, 2), (1, 0)]


def test_what_is_impossible_is_never_found():
    model = NGram([0, 1, 2, 0, 1, 2], 3, n=2, smoothing=0.0)
    assert [beam.tokens for beam in beam_search(model, [0], 4, 5)] == [(1, 2, 0, 1)]
    shaped = Shaped(trigram(), [TopK(1)])
    assert [list(beam.tokens) for beam in beam_search(shaped, [0], 5, 9)] == [
        generate(trigram(), [0], 5, temperature=0)
    ]


def test_largest_is_a_stable_sort_cut_off():
    values = np.random.default_rng(0).normal(0, 1, 500).round(1)
    values[::3] = -np.inf
    for n in (1, 10, 200, 333, 500, 900):
        expected = np.argsort(-values, kind="stable")
        np.testing.assert_array_equal(largest(values, n), expected[np.isfinite(values[expected])][:n])


def test_no_new_tokens_are_no_beams():
    assert beam_search(trigram(), [0], 0, 3) == []


@pytest.mark.parametrize("end", [None, 0, (1, 2)])
@pytest.mark.parametrize("penalty", [0.0, 1.0, -1.0])
@pytest.mark.parametrize("seed", range(4))
def test_every_beam_goes_on_ends_or_is_dropped(seed, penalty, end):
    model = trigram(seed, 4)
    options = {"length_penalty": penalty, "end_token": end}
    steps = list(beam_steps(model, [0, 1], 6, 3, **options))
    assert list(steps[-1].finished) == beam_search(model, [0, 1], 6, 3, **options)
    assert steps[-1].running == () and all(step.running for step in steps[:-1])
    running, finished = {()}, set()
    for length, step in enumerate(steps, 1):
        now, dropped = {beam.tokens for beam in step.running}, {beam.tokens for beam in step.dropped}
        ended = {beam.tokens for beam in step.finished}
        assert {len(text) for text in now} <= {length} and {text[:-1] for text in now} <= running
        # What ran and isn't dropped is the beginning of something; what was finished is so still, or is dropped.
        longer = now | ended | {text for text in dropped if len(text) == length}
        assert running - dropped == {text[: length - 1] for text in longer if len(text) == length}
        assert finished - dropped <= ended and not dropped & (now | ended)
        for beam in (*step.running, *step.dropped, *step.finished):
            text, logprob = [0, 1], 0.0
            for token in beam.tokens:
                logprob += float(model.next_token_logits([text])[0, token])
                text.append(token)
            assert beam.logprob == pytest.approx(logprob) == pytest.approx(math.fsum(beam.logprobs))
        running, finished = now, ended
    assert steps[0].dropped == () or len(steps) == 1


def test_a_beam_is_dropped_where_its_continuations_are_outdone():
    """Of the beams 1 and 2 the two likeliest continuations are both of 1."""
    table = np.log([[1e-9, 0.6, 0.4], [0.2, 0.4, 0.4], [0.02, 0.49, 0.49]])

    class Order1(LanguageModel):
        vocab_size, context_length = 3, 1

        def next_token_logits(self, contexts):
            return table[np.asarray(contexts)[:, -1]]

    first, second = beam_steps(Order1(), [0], 2, 2)
    assert [beam.tokens for beam in first.running] == [(1,), (2,)] and first.dropped == ()
    assert [beam.tokens for beam in second.finished] == [(1, 1), (1, 2)]
    assert [(beam.tokens, round(math.exp(beam.logprob), 9)) for beam in second.dropped] == [((2,), 0.4)]


def test_a_search_is_refused_before_its_first_step():
    with pytest.raises(UsageError):
        beam_steps(trigram(), [0], 3, 0)


@pytest.mark.parametrize(
    "wrong",
    [{"n_beams": 0}, {"n_beams": -1}, {"n_beams": 1.5}, {"length_penalty": math.nan}, {"length_penalty": math.inf},
     {"length_penalty": 1e9}, {"length_penalty": "1"}, {"max_new_tokens": -1}, {"end_token": 3}, {"tokens": []}],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(wrong):
    with pytest.raises(UsageError):
        beam_search(trigram(), **{"tokens": [0], "max_new_tokens": 3, "n_beams": 2} | wrong)


@pytest.fixture(scope="module")
def tiny_gpt2():
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=11, n_positions=32, n_embd=16, n_layer=2, n_head=2, initializer_range=1.0,
        bos_token_id=None, eos_token_id=None, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config).eval()


class Theirs(LanguageModel):
    """A model of transformers behind our interface."""

    vocab_size, context_length = 11, 32

    def __init__(self, model):
        self.model = model

    def next_token_logits(self, contexts):
        import torch

        with torch.no_grad():
            return self.model(torch.as_tensor(np.asarray(contexts)[:, -32:])).logits[:, -1].numpy()


@pytest.mark.parametrize("n_beams", [2, 4, 9])
@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0, -1.0])
@pytest.mark.parametrize("early_stopping", [True, False])
@pytest.mark.parametrize("end", [None, 5, [3, 7]])
def test_beams_are_those_of_transformers(tiny_gpt2, n_beams, penalty, early_stopping, end):
    import torch

    theirs = tiny_gpt2.generate(
        torch.tensor([[1, 2, 3]]),
        attention_mask=torch.ones(1, 3, dtype=torch.long),
        max_new_tokens=8,
        num_beams=n_beams,
        num_return_sequences=n_beams,
        length_penalty=penalty,
        early_stopping=early_stopping or "never",
        eos_token_id=end,
        pad_token_id=1,  # 0 counts as none there
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
    )
    ours = beam_search(
        Theirs(tiny_gpt2), [1, 2, 3], 8, n_beams, length_penalty=penalty, end_token=end, early_stopping=early_stopping
    )
    assert len(ours) == n_beams
    for beam, row, score in zip(ours, theirs.sequences[:, 3:].tolist(), theirs.sequences_scores, strict=True):
        assert list(beam.tokens) == row[: len(beam.tokens)] and set(row[len(beam.tokens) :]) <= {1}
        assert beam.score == pytest.approx(float(score), abs=1e-4)
