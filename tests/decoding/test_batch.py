"""A batch is its texts, one by one."""

from __future__ import annotations

import numpy as np
import pytest

from glassgpt.decoding.batch import generate_batch
from glassgpt.decoding.generate import generate
from glassgpt.errors import UsageError
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.models.ngram import NGram

TRIGRAM = NGram(np.random.default_rng(3).integers(0, 4, 300), 4, n=3)
PROMPTS = [[0, 1, 2, 3, 0], [1], [3, 3, 1, 0, 2, 1, 1, 0, 0, 2], [1], [2, 2]]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"end_token": 3},
        {"end_token": (0, 3), "temperature": 0.8},
        {"temperature": 0},
        {"top_k": 3, "top_p": 0.9, "min_p": 0.05},
        {"repetition_penalty": 1.5},
        {"temperature": 0, "repetition_penalty": 1.5},
    ],
)
@pytest.mark.parametrize("model", [TRIGRAM, GPT(GPTConfig(4, 4, 1, 2, 8), seed=3).double()], ids=["trigram", "gpt"])
def test_each_row_is_generate_alone_with_its_own_seed(model, settings):
    together = generate_batch(model, PROMPTS, 25, seed=7, **settings)
    assert together == [generate(model, prompt, 25, seed=7 + i, **settings) for i, prompt in enumerate(PROMPTS)]


def test_prompts_far_longer_than_the_window_are_no_different():
    prompts = [np.random.default_rng(i).integers(0, 4, n) for i, n in enumerate((40, 1, 17))]
    assert generate_batch(TRIGRAM, prompts, 9) == [generate(TRIGRAM, p, 9, seed=i) for i, p in enumerate(prompts)]


def test_prompts_of_one_length_are_read_in_one_call():
    calls = []

    class Watched(NGram):
        def next_token_logits(self, contexts):
            calls.append(np.shape(contexts))
            return super().next_token_logits(contexts)

    generate_batch(Watched([0, 1, 2, 3], 4, n=3), [[0, 1, 2], [1, 2, 3]], 2)
    assert calls == [(2, 2), (2, 2)]


def test_a_finished_text_leaves_and_the_rest_of_a_long_prompt_is_then_read_at_once():
    shapes = []

    class Watched(NGram):
        def session(self, batch_size=1):
            session = super().session(batch_size)
            feed = session.feed
            session.feed = lambda tokens: (shapes.append(np.shape(tokens)), feed(tokens))[1]
            return session

    model = Watched([0, 1, 2, 3], 4, n=3)
    generate_batch(model, [[0], [1, 2, 3, 0, 1, 2, 3, 0]], 2)
    assert shapes == [(2, 1), (2, 1), (1, 6), (1, 1)]


def test_no_prompts_and_no_new_tokens_are_nothing():
    assert generate_batch(TRIGRAM, [], 5) == []
    assert generate_batch(TRIGRAM, PROMPTS, 0) == [[]] * 5


@pytest.mark.parametrize("prompts", [[[0], []], [[0], [4]], [0, 1], "01", 3, [[0.5]]])
def test_what_are_no_prompts_is_refused(prompts):
    with pytest.raises(UsageError):
        generate_batch(TRIGRAM, prompts, 3)


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"max_new_tokens": -1}, {"temperature": -1}, {"end_token": 4}])
def test_bad_settings_are_refused(wrong):
    with pytest.raises(UsageError):
        generate_batch(TRIGRAM, [[0]], **{"max_new_tokens": 3} | wrong)
