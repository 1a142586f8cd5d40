"""Drawing: never what is excluded, always what the distribution says, the same tokens from the same seed."""

import math
from itertools import pairwise

import numpy as np
import pytest

from glassgpt.decoding.draw import logprob_of, sample
from glassgpt.decoding.generate import generate, stream
from glassgpt.decoding.processors import RepetitionPenalty, Temperature, TopK
from glassgpt.decoding.shaped import Shaped
from glassgpt.errors import NumericalError, UsageError
from glassgpt.interface import LanguageModel
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.models.ngram import NGram
from glassgpt.numerics import log_softmax

INF = math.inf
TEXT = np.random.default_rng(3).integers(0, 4, 300)
TRIGRAM = NGram(TEXT, 4, n=3)


class Fixed(LanguageModel):
    """The same logits whatever the context."""

    context_length = 2

    def __init__(self, logits):
        self.logits = np.array(logits, dtype=np.float64)
        self.vocab_size = len(logits)

    def next_token_logits(self, contexts):
        return np.tile(self.logits, (len(contexts), 1))


class Uniforms:
    """A generator that gives the uniform numbers it is told to."""

    def __init__(self, *values):
        self.values = list(values)

    def random(self):
        return self.values.pop(0)


EDGES = [0.0, 2.0**-53, 5e-324, 0.25, 0.5, np.nextafter(0.5, 0), 1 - 2.0**-52, 1 - 2.0**-53]
DENORMAL = math.log(5e-324)


# ---- sample ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "logits",
    [
        [-INF, 0.0, -INF],
        [-INF, 0.0, 0.0, -INF],
        [0.0, -INF, 0.0],
        [-INF, DENORMAL, 0.0, DENORMAL, -INF],
        [-INF, 0.0, DENORMAL, -INF],
        [-INF, -800.0, 0.0, -800.0, -INF],
        [-INF, -1e308, 700.0, -INF],
        [-INF, -1e308, -1e308, -INF],
        [-INF, *[math.log(0.1)] * 10, -INF],
        [-INF, *[math.log(1 / 3)] * 3, -37.0, -INF],
    ],
)
def test_excluded_tokens_are_never_drawn_however_the_number_falls(logits):
    logits = np.array(logits)
    for u in EDGES:
        drawn = sample(logits, Uniforms(u))
        assert not np.isneginf(logits[drawn])


def test_the_smallest_and_the_largest_number_draw_tokens_that_have_mass():
    logits = np.array([-INF, -800.0, 0.0, -1.0, -800.0, -INF])  # -800 has probability 0 in float64
    assert sample(logits, Uniforms(0.0)) == 2
    assert sample(logits, Uniforms(1 - 2.0**-53)) == 3


def test_the_largest_number_never_reaches_past_the_last_token_with_mass():
    rng = np.random.default_rng(0)
    for _ in range(2000):
        n = int(rng.integers(1, 40))
        logits = np.concatenate([rng.normal(0, 3, n), [-800.0, -INF]])
        assert sample(logits, Uniforms(1 - 2.0**-53)) < n


def test_a_boundary_belongs_to_the_token_after_it():
    half = np.log([0.5, 0.5])
    assert [sample(half, Uniforms(u)) for u in (0.0, np.nextafter(0.5, 0), 0.5, 1 - 2.0**-53)] == [0, 0, 1, 1]


def test_excluded_tokens_are_never_drawn_in_a_hundred_thousand():
    rng = np.random.default_rng(0)
    logits = np.array([-INF, 0.0, -INF, -3.0, DENORMAL, -INF, 1.0, -INF])
    drawn = np.bincount([sample(logits, rng) for _ in range(100_000)], minlength=8)
    assert drawn[[0, 2, 5, 7]].sum() == 0
    assert drawn[4] == 0  # a probability of 5e-324
    assert drawn.sum() == 100_000


@pytest.mark.parametrize("seed", range(3))
def test_frequencies_are_the_probabilities(seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, 6)
    logits[2] = -INF
    n = 40_000
    probs = np.exp(log_softmax(logits))
    found = np.bincount([sample(logits, rng) for _ in range(n)], minlength=6) / n
    assert (np.abs(found - probs) <= 4 * np.sqrt(probs * (1 - probs) / n)).all()  # four standard errors


@pytest.mark.parametrize("logits", [[np.nan, 0.0], [0.0, INF], [-INF, -INF]])
def test_logits_that_mean_nothing_are_refused(logits):
    with pytest.raises(NumericalError):
        sample(np.array(logits), np.random.default_rng(0))


# ---- generate --------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_tokens_and_others_differ():
    runs = [generate(TRIGRAM, [0, 1], 50, seed=seed) for seed in (5, 5, 6)]
    assert runs[0] == runs[1] != runs[2]
    assert len(runs[0]) == 50
    assert all(type(token) is int and 0 <= token < 4 for token in runs[0])


def test_a_longer_text_of_the_same_seed_begins_alike():
    assert generate(TRIGRAM, [0], 40, seed=1)[:10] == generate(TRIGRAM, [0], 10, seed=1)


def test_greedy_is_the_chain_of_argmaxes():
    model = GPT(GPTConfig(5, 4, 2, 2, 8), seed=3).double()
    text = [1, 4]
    for _ in range(30):
        text.append(int(np.argmax(model.next_token_logits([text]))))
    for seed in (0, 1):
        assert generate(model, [1, 4], 30, temperature=0, seed=seed) == text[2:]


def test_greedy_takes_the_lowest_id_among_equals():
    assert generate(Fixed([0.0, 1.0, 1.0]), [0], 5, temperature=0) == [1] * 5


@pytest.mark.parametrize(
    "settings", [{"top_k": 1}, {"top_p": 1e-9}, {"temperature": 0, "top_k": 3, "top_p": 0.5, "min_p": 1}]
)
def test_keeping_one_token_is_greedy(settings):
    model = GPT(GPTConfig(5, 4, 2, 2, 8), seed=3).double()
    assert generate(model, [1, 4], 20, seed=9, **settings) == generate(model, [1, 4], 20, temperature=0)


def test_the_end_token_is_the_last():
    tokens = generate(TRIGRAM, [0], 200, end_token=3, seed=2)
    assert tokens.count(3) == 1
    assert tokens[-1] == 3
    assert tokens == generate(TRIGRAM, [0], 200, seed=2)[: len(tokens)]
    assert generate(Fixed([0.0, -INF]), [1], 4, end_token=1) == [0] * 4


def test_token_zero_can_end_too():
    assert generate(Fixed([0.0, -INF]), [1], 9, end_token=0) == [0]


def test_the_prompt_is_any_row_of_ids():
    expected = generate(TRIGRAM, [0, 1, 2], 9)
    for prompt in ((0, 1, 2), np.array([0, 1, 2]), np.array([0, 1, 2], dtype=np.uint8), np.array([9, 0, 1, 2])[1:]):
        assert generate(TRIGRAM, prompt, 9) == expected
    assert generate(TRIGRAM, [3, 3, 3, 3, 1, 2], 9) == expected  # only the window counts


@pytest.mark.parametrize("prompt", [[], [[0, 1]], 3, [4], [-1], [0.5], ["0"], None, [[0], [0, 1]], [True]])
def test_what_is_no_prompt_is_refused_before_anything_is_drawn(prompt):
    with pytest.raises(UsageError):
        generate(TRIGRAM, prompt, 3)
    with pytest.raises(UsageError):
        stream(TRIGRAM, prompt, 3, rng=np.random.default_rng(0))  # at the call, not at the first token


def test_no_new_tokens_is_nothing_and_fewer_is_refused():
    assert generate(TRIGRAM, [0], 0) == []
    with pytest.raises(UsageError, match="max_new_tokens"):
        generate(TRIGRAM, [0], -1)


@pytest.mark.parametrize(
    "settings", [{"temperature": -1}, {"top_k": 0}, {"top_p": 0}, {"min_p": -0.1}, {"temperature": INF}]
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(UsageError):
        generate(TRIGRAM, [0], 3, **settings)


@pytest.mark.parametrize("settings", [{}, {"top_k": 1}, {"top_k": 2, "top_p": 0.9, "min_p": 0.1}, {"temperature": 0}])
def test_a_model_that_gives_nan_writes_no_text(settings):
    for logits in ([0.0, np.nan, 1.0], [np.nan] * 3):
        with pytest.raises(NumericalError):
            generate(Fixed(logits), [0], 3, **settings)


def test_bigrams_of_a_generated_text_are_the_models():
    model = NGram(TEXT, 4, n=2)
    tokens = [0, *generate(model, [0], 20_000, temperature=0.8, top_k=3, seed=4)]
    probs = np.exp(log_softmax(Shaped(model, [Temperature(0.8), TopK(3)]).context_table()))
    counts = np.zeros((4, 4))
    for before, after in pairwise(tokens):
        counts[before, after] += 1
    visits = counts.sum(axis=1, keepdims=True)
    seen = visits[:, 0] > 0
    assert (counts[probs == 0] == 0).all()
    error = np.abs(counts / np.maximum(visits, 1) - probs)[seen]
    assert (error <= 4 * np.sqrt(probs * (1 - probs) / np.maximum(visits, 1))[seen]).all()  # four standard errors


def test_a_stream_gives_each_token_as_it_is_drawn():
    asked = []

    class Watched(Fixed):
        def next_token_logits(self, contexts):
            asked.append(np.array(contexts).tolist())
            return super().next_token_logits(contexts)

    tokens = stream(Watched([-INF, 0.0]), [0], 3, rng=np.random.default_rng(0))
    assert asked == []
    assert next(tokens) == (1, 0.0)
    assert asked == [[[0]]]
    assert [drawn.token for drawn in tokens] == [1, 1]
    assert asked == [[[0]], [[0, 1]], [[1, 1]]]


# ---- log-probabilities and processors --------------------------------------------------------------------------------


@pytest.mark.parametrize("shaping", [[], [Temperature(0.5), TopK(2)], [Temperature(0)], [RepetitionPenalty(3.0)]])
def test_a_stream_tells_the_models_own_log_probabilities_whatever_the_sampler(shaping):
    text = [0, 1]
    for token, logprob in stream(TRIGRAM, [0, 1], 30, processors=shaping, rng=np.random.default_rng(1)):
        assert logprob == pytest.approx(TRIGRAM.next_token_logits([text])[0, token], abs=1e-14)
        text.append(token)


def test_log_probabilities_of_float32_logits_are_right_to_single_precision():
    logits = np.random.default_rng(0).normal(0, 4, 50_257).astype(np.float32)
    exact = log_softmax(logits)
    for token in (0, 7, int(np.argmax(logits)), int(np.argmin(logits))):
        assert logprob_of(logits, token) == pytest.approx(exact[token], abs=1e-6)
    assert logprob_of(logits.astype(np.float16), 3) == pytest.approx(
        log_softmax(logits.astype(np.float16))[3], abs=1e-5
    )
    assert logprob_of(np.array([0.0, -INF]), 1) == -INF


@pytest.mark.parametrize("logits", [[np.nan, 0.0], [0.0, INF], [-INF, -INF]])
def test_there_is_no_log_probability_under_logits_that_mean_nothing(logits):
    with pytest.raises(NumericalError):
        logprob_of(np.array(logits), 0)


def test_a_text_is_drawn_from_the_shaped_model():
    shaping = [RepetitionPenalty(1.5), Temperature(0.7), TopK(3)]
    rng = np.random.default_rng(2)
    shaped, text = Shaped(TRIGRAM, shaping), [3, 1]
    for _ in range(40):
        text.append(sample(shaped.next_token_logits([text])[0], rng))
    assert generate(TRIGRAM, [3, 1], 40, repetition_penalty=1.5, temperature=0.7, top_k=3, seed=2) == text[2:]


def test_greedy_with_a_repetition_penalty_leaves_what_it_said():
    assert generate(Fixed([3.0, 2.0, 1.9]), [2], 4, temperature=0, repetition_penalty=2.0) == [0, 1, 2, 0]


def test_several_tokens_can_end_a_text():
    free = generate(TRIGRAM, [0], 200, seed=2)
    ended = generate(TRIGRAM, [0], 200, end_token=(1, 3), seed=2)
    assert ended == free[: min(free.index(1), free.index(3)) + 1]


@pytest.mark.parametrize(
    "wrong",
    [{"end_token": 4}, {"end_token": -1}, {"end_token": [0, 9]}, {"end_token": "a"}, {"seed": -1}, {"seed": 0.5},
     {"max_new_tokens": 2.5}, {"max_new_tokens": math.nan}],
)  # fmt: skip
def test_ends_seeds_and_numbers_that_mean_nothing_are_refused(wrong):
    with pytest.raises(UsageError):
        generate(TRIGRAM, [0], **{"max_new_tokens": 3} | wrong)
