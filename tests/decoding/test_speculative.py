"""Guessing ahead changes nothing but the speed: the exact law, by enumerating every random choice."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from glassgpt.decoding.draw import Drawn
from glassgpt.decoding.generate import generate
from glassgpt.decoding.processors import processors
from glassgpt.decoding.shaped import Shaped
from glassgpt.decoding.speculative import (
    Dice,
    Lookup,
    SpeculativeStream,
    acceptance,
    common_length,
    generate_speculative,
    residual,
)
from glassgpt.errors import UsageError
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.models.ngram import NGram
from glassgpt.numerics import log_softmax


def ngram(seed, n=3, vocab_size=3, smoothing=0.5):
    return NGram(np.random.default_rng(seed).integers(0, vocab_size, 25), vocab_size, n=n, smoothing=smoothing)


TARGET, DRAFT = ngram(1), ngram(2, n=2)


# ---- one token -------------------------------------------------------------------------------------------------------


def law_of_one(p, q):
    """The law of the token that stands after a draw from q and its judgement: by summing over the draws."""
    law = np.zeros_like(p)
    for token in np.flatnonzero(q):
        accepted = acceptance(p, q, token)
        law[token] += q[token] * accepted
        law += q[token] * (1 - accepted) * residual(p, q)
    return law


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_guessed_the_law_is_the_models(seed):
    rng = np.random.default_rng(seed)
    p, q = rng.dirichlet(np.full(6, 0.4), 2)
    p[rng.random(6) < 0.3] = 0
    q[rng.random(6) < 0.3] = 0
    p[0] += 1e-300
    q[1] += 1e-9
    p, q = p / p.sum(), q / q.sum()
    np.testing.assert_allclose(law_of_one(p, q), p, atol=1e-12)
    np.testing.assert_allclose(law_of_one(p, p), p, atol=1e-12)
    for token in range(6):
        np.testing.assert_allclose(law_of_one(p, np.eye(6)[token]), p, atol=1e-12)  # a guess without any doubt


def test_what_the_model_excludes_never_stands_and_what_it_favours_always_does():
    p, q = np.array([0.0, 0.25, 0.75]), np.array([0.5, 0.25, 0.25])
    assert [acceptance(p, q, token) for token in range(3)] == [0.0, 1.0, 1.0]
    assert residual(p, q).tolist() == [0.0, 0.0, 1.0]
    dice = Dice(np.random.default_rng(0))
    assert not any(dice.accept(0.0) for _ in range(1000)) and all(dice.accept(1.0) for _ in range(1000))


# ---- the whole algorithm ---------------------------------------------------------------------------------------------


class EveryWay:
    """Dice that follow a path of choices and remember how likely it was, and what else could have been chosen."""

    def __init__(self, path):
        self.path, self.at, self.probability, self.others = path, 0, 1.0, []

    def choose(self, probs):
        if self.at < len(self.path):
            choice = self.path[self.at]
        else:
            choice = int(np.flatnonzero(probs)[0])
            self.others += [(*self.path, other) for other in np.flatnonzero(probs) if other != choice]
            self.path = (*self.path, choice)
        self.at += 1
        self.probability *= probs[choice]
        return choice

    def draw(self, probs):
        return int(self.choose(np.asarray(probs)))

    def accept(self, probability):
        return self.choose(np.array([1 - probability, probability])) == 1


def exact_law(model, prompt, n_new, **options):
    """The law of the tokens that the algorithm gives, every choice of its dice followed: {tokens: probability}."""
    law = {}
    waiting = [()]
    while waiting:
        dice = EveryWay(waiting.pop())
        tokens = tuple(token for token, _ in SpeculativeStream(model, prompt, n_new, dice=dice, **options))
        law[tokens] = law.get(tokens, 0.0) + dice.probability
        waiting += dice.others
    return law


def law_of(model, prompt, n_new, ends=()):
    """The law of the model's own texts, by definition."""
    law = {}
    for full in itertools.product(range(model.vocab_size), repeat=n_new):
        at = next((i for i, token in enumerate(full) if token in ends), n_new - 1)
        text, logprob = list(prompt), 0.0
        for token in full[: at + 1]:
            logprob += log_softmax(model.next_token_logits([text]))[0, token]
            text.append(token)
        law[full[: at + 1]] = math.exp(logprob)
    return law


def assert_same_law(found, expected):
    for tokens in found.keys() | expected.keys():
        assert found.get(tokens, 0.0) == pytest.approx(expected.get(tokens, 0.0), abs=1e-12)
    assert math.fsum(found.values()) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(
    "draft", [DRAFT, ngram(5, n=4), TARGET, ngram(2, smoothing=0.0), Lookup(2)], ids=lambda value: type(value).__name__
)
@pytest.mark.parametrize("n_draft", [1, 2, 3])
@pytest.mark.parametrize("prompt", [[0], [0, 1, 2, 0, 1]])
def test_the_law_of_three_tokens_is_the_models_own(draft, n_draft, prompt):
    found = exact_law(TARGET, prompt, 3, draft=draft, n_draft=n_draft)
    assert_same_law(found, law_of(TARGET, prompt, 3))


@pytest.mark.parametrize("draft", [DRAFT, Lookup(3)], ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(
    "settings", [{"temperature": 0.5}, {"top_k": 2}, {"top_p": 0.6, "temperature": 2.0}, {"repetition_penalty": 1.8}]
)
def test_under_a_sampler_the_law_is_the_shaped_models(draft, settings):
    shaping = processors(**settings)
    found = exact_law(TARGET, [0, 1, 0], 3, draft=draft, n_draft=2, processors=shaping)
    assert_same_law(found, law_of(Shaped(TARGET, shaping), [0, 1, 0], 3))


@pytest.mark.parametrize("draft", [DRAFT, Lookup(1)], ids=lambda value: type(value).__name__)
def test_a_text_may_end_among_the_guesses(draft):
    found = exact_law(TARGET, [0, 1, 2, 1], 3, draft=draft, n_draft=3, end_token=(1,))
    assert_same_law(found, law_of(TARGET, [0, 1, 2, 1], 3, ends=(1,)))


@pytest.mark.parametrize("draft_seed", [3, 4])
@pytest.mark.parametrize("n_draft", [1, 4, 9])
def test_at_temperature_0_the_tokens_are_those_of_greedy_decoding(draft_seed, n_draft):
    model = GPT(GPTConfig(5, 6, 2, 2, 8), seed=3).double()
    for draft in (GPT(GPTConfig(5, 4, 1, 1, 4), seed=draft_seed).double(), Lookup(), model):
        for penalty in (None, 1.4):
            options = {"temperature": 0, "repetition_penalty": penalty}
            found = generate_speculative(model, [1, 4], 40, draft=draft, n_draft=n_draft, **options)
            assert found.tokens == generate(model, [1, 4], 40, **options)  # far past the window of six


def test_a_draft_that_is_the_model_is_always_right():
    found = generate_speculative(TARGET, [0], 20, draft=TARGET, n_draft=4, seed=1)
    assert found.n_accepted == found.n_drafted == 16 and found.n_calls == 4


def test_log_probabilities_are_the_models_own():
    found = generate_speculative(TARGET, [0, 2], 30, draft=DRAFT, temperature=0.7, seed=2)
    text = [0, 2]
    for token, logprob in zip(found.tokens, found.logprobs, strict=True):
        assert logprob == pytest.approx(TARGET.next_token_logits([text])[0, token], abs=1e-12)
        text.append(token)


def test_the_same_seed_gives_the_same_tokens_and_a_stream_the_same_as_the_list():
    runs = [generate_speculative(TARGET, [0], 40, draft=DRAFT, seed=seed).tokens for seed in (5, 5, 6)]
    assert runs[0] == runs[1] != runs[2]
    stream = SpeculativeStream(TARGET, [0], 40, draft=DRAFT, dice=Dice(np.random.default_rng(5)))
    first = next(iter(stream))
    assert isinstance(first, Drawn) and [first.token, *(token for token, _ in stream)] == runs[0]


def test_look_up_finds_the_longest_match_and_of_several_the_last():
    text = np.array([1, 2, 3, 9, 2, 3, 8, 3, 7, 2, 3])
    assert Lookup(3).find(text, 2).tolist() == [8, 3]
    assert Lookup(2).find(text, 2).tolist() == [8, 3]
    assert Lookup(1).find(text, 9).tolist() == [7, 2, 3]
    assert Lookup(3).find(np.array([1, 2, 3]), 2).tolist() == []
    assert Lookup(3).find(np.array([4]), 2).tolist() == []
    assert Lookup(5).find(np.array([4, 4, 4]), 2).tolist() == [4]


def test_a_text_that_repeats_itself_takes_few_calls():
    model = NGram([0, 1, 2, 3] * 9, 4, n=3, smoothing=0.0)
    found = generate_speculative(model, [0, 1, 2, 3, 0], 40, draft=Lookup(), n_draft=10, temperature=0)
    assert found.tokens == [1, 2, 3, 0] * 10 and found.n_calls < 12


def test_the_common_length_of_texts():
    assert [common_length(np.array(a), np.array(b)) for a, b in (([], [1]), ([1, 2], [1, 3]), ([1], [1, 2]))] == [
        0,
        1,
        1,
    ]


def test_nothing_is_guessed_where_nothing_is_wanted():
    found = generate_speculative(TARGET, [0], 0, draft=DRAFT)
    assert (found.tokens, found.n_calls, found.n_drafted) == ([], 0, 0)


@pytest.mark.parametrize(
    "wrong",
    [{"n_draft": 0}, {"n_draft": 1.5}, {"draft": ngram(1, vocab_size=4)}, {"tokens": []}, {"max_new_tokens": -1},
     {"seed": -1}, {"end_token": 3}, {"temperature": -1}],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(wrong):
    with pytest.raises(UsageError):
        generate_speculative(TARGET, **{"tokens": [0], "draft": DRAFT} | wrong)
    with pytest.raises(UsageError):
        Lookup(0)
