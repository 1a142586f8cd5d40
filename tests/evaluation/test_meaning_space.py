"""The path through meaning space: its states are the model's, and its fans are what the model does with other words."""

import numpy as np
import pytest
import torch

from glassgpt.decoding.generate import generate
from glassgpt.decoding.processors import processors
from glassgpt.errors import UnsupportedError, UsageError
from glassgpt.evaluation.meaning_space import meaning_path, word_tokens
from glassgpt.interface import Tokenizer
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.models.ngram import NGram
from glassgpt.numerics import log_softmax
from glassgpt.text.character import CharacterTokenizer

SHAPES = [
    GPTConfig(30, 24, 2, 4, 16),
    GPTConfig(30, 24, 2, 4, 16, False, 2, position="rope", norm="rmsnorm", mlp="swiglu", tied=False),
    GPTConfig(30, 24, 2, 4, 16, position="alibi", post_norm=True),
]
PROMPT = [3, 1, 4, 1, 5]


def model_of(config=SHAPES[0]):
    model = GPT(config, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.double()


def states_of(model, tokens):
    with torch.inference_mode():
        return model.hidden(torch.tensor([tokens]))[0].numpy()


@pytest.mark.parametrize("config", SHAPES, ids=lambda config: config.position)
def test_states_are_those_of_the_whole_text_read_at_once(config):
    model = model_of(config)
    found = meaning_path(model, PROMPT, 12, fan=3, seed=4)
    whole = states_of(model, PROMPT + found.tokens.tolist())
    np.testing.assert_allclose(found.states, whole[len(PROMPT) - 1 :], atol=1e-9)
    assert found.states.shape == (13, 16) and found.prompt.tolist() == PROMPT


@pytest.mark.parametrize("config", SHAPES, ids=lambda config: config.position)
def test_a_fan_is_where_the_text_would_stand_with_another_token(config):
    model = model_of(config)
    found = meaning_path(model, PROMPT, 6, fan=4)
    for i in range(6):
        before = PROMPT + found.tokens[:i].tolist()
        for token, state in zip(found.fan_tokens[i].tolist(), found.fan_states[i], strict=True):
            np.testing.assert_allclose(state, states_of(model, [*before, token])[-1], atol=1e-9)
            if token == found.tokens[i]:
                np.testing.assert_allclose(state, found.states[i + 1], atol=1e-9)


def test_the_fan_holds_the_likeliest_tokens_and_their_probabilities():
    model = model_of()
    found = meaning_path(model, PROMPT, 5, fan=30, seed=1)
    for i in range(5):
        probs = np.exp(log_softmax(model.next_token_logits([PROMPT + found.tokens[:i].tolist()])[0]))
        np.testing.assert_array_equal(found.fan_tokens[i], np.argsort(-probs))
        np.testing.assert_allclose(found.fan_probs[i], np.sort(probs)[::-1], atol=1e-9)


def test_the_next_token_is_read_from_the_state_alone():
    model = model_of()
    found = meaning_path(model, PROMPT, 5)
    logits = found.states[2] @ model.lm_head.weight.detach().numpy().T
    np.testing.assert_allclose(logits, model.next_token_logits([PROMPT + found.tokens[:2].tolist()])[0], atol=1e-9)


def test_the_model_writes_what_generate_writes():
    model = model_of()
    for temperature in (0.0, 0.8):
        found = meaning_path(model, PROMPT, 12, processors=processors(temperature, top_k=9), seed=7)
        assert found.tokens.tolist() == generate(model, PROMPT, 12, temperature=temperature, top_k=9, seed=7)
    greedy = meaning_path(model, PROMPT, 12, processors=processors(0.0))
    np.testing.assert_array_equal(greedy.tokens, greedy.fan_tokens[:, 0])


def test_processors_change_what_is_written_and_not_the_fan():
    model = model_of()
    plain, cold = (meaning_path(model, PROMPT, 1, processors=processors(t)) for t in (1.0, 0.3))
    np.testing.assert_array_equal(plain.fan_probs, cold.fan_probs)


def test_a_path_ends_with_the_end_token():
    model = model_of()
    full = meaning_path(model, PROMPT, 12, seed=3)
    end = int(full.tokens[4])
    n = full.tokens.tolist().index(end) + 1
    short = meaning_path(model, PROMPT, 12, end_token=end, seed=3)
    np.testing.assert_array_equal(short.tokens, full.tokens[:n])
    assert len(short.states) == n + 1 and short.fan_states.shape == (n, 5, 16)


def test_a_path_past_the_window_is_refused():
    model = model_of()
    meaning_path(model, PROMPT, 19)
    with pytest.raises(UsageError, match="one window of 24 tokens; the prompt has 5 and 20"):
        meaning_path(model, PROMPT, 20)


@pytest.mark.parametrize(
    "arguments", [{"fan": 0}, {"fan": 31}, {"max_new_tokens": 0}, {"tokens": []}, {"tokens": [30]}]
)
def test_what_makes_no_path_is_refused(arguments):
    with pytest.raises(UsageError):
        meaning_path(model_of(), **{"tokens": PROMPT} | arguments)


def test_a_model_without_states_is_refused():
    with pytest.raises(UnsupportedError, match="only a GPT in torch"):
        meaning_path(NGram([0, 1, 0, 1], 2, 2), [0])


class Pairs(Tokenizer):
    """Knows the letters, and " a" besides."""

    vocab_size = 5
    pieces = (" a", "b", "a", " ", "c")

    def encode(self, text):
        tokens = []
        while text:
            tokens.append(next(i for i, piece in enumerate(self.pieces) if text.startswith(piece)))
            text = text[len(self.pieces[tokens[-1]]) :]
        return tokens

    def token_bytes(self, token):
        return self.pieces[token].encode()


def test_a_word_is_the_token_that_it_is_inside_a_text_or_at_its_beginning():
    assert word_tokens(Pairs(), ["a", "b", "c"]) == [0, 1, 4]


def test_words_of_several_tokens_are_named():
    with pytest.raises(UsageError, match="of these 2 take several or none: 'ab', 'cc'"):
        word_tokens(Pairs(), ["a", "ab", "cc"])


def test_a_vocabulary_without_a_space_has_words_all_the_same():
    assert word_tokens(CharacterTokenizer("01"), ["1", "0"]) == [1, 0]
    with pytest.raises(UsageError, match="of these 1 take several or none: '7'"):
        word_tokens(CharacterTokenizer("01"), ["1", "7"])
