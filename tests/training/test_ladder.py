"""The ladder: every rung keeps the contract, sees the same text, and is decided by the seed."""

from dataclasses import replace

import numpy as np
import pytest
from torch import nn

from glassgpt.check import check_model
from glassgpt.errors import NumericalError, UsageError
from glassgpt.evaluation.parentheses import prefixes, wrong_close_by_length
from glassgpt.evaluation.score import bits_per_byte, score
from glassgpt.models.backoff import KneserNey
from glassgpt.models.mlp import MLP, Perceptron
from glassgpt.models.recurrent import Recurrent
from glassgpt.text.character import CharacterTokenizer
from glassgpt.text.token_files import TokenPart
from glassgpt.training.ladder import Contender, climb, fit, grams, measure, nets

TOKENIZER = CharacterTokenizer("abcd")
TEXT = np.tile([0, 1, 0, 2, 0, 1, 1, 3], 100)


def part(tokens, name="train"):
    return TokenPart(name, np.asarray(tokens), np.zeros(1, dtype=np.uint64), len(tokens))


@pytest.mark.parametrize("name", ["letter 1-gram", "letter 6-gram", "perceptron", "MLP", "RNN"])
def test_every_rung_keeps_the_contract(name):
    model = (grams(4) | nets(4, window=6))[name].make(TEXT)
    check_model(model.double() if isinstance(model, nn.Module) else model, tolerance=1e-9)


def small_rungs(seed=0):
    return {
        "bigram": Contender(lambda tokens: KneserNey(tokens, 4, n=2)),
        "perceptron": Contender(lambda _: Perceptron(4, 3), 0.05),
        "MLP": Contender(lambda _: MLP(4, 4, n_embd=4, n_hidden=16, seed=seed), 0.02),
        "GRU": Contender(lambda _: Recurrent(4, 12, n_embd=4, n_hidden=16, seed=seed), 0.02),
    }


def climb_small(rungs, train=TEXT[:600], validation=TEXT[600:], **settings):
    return climb(part(train), part(validation, "validation"), TOKENIZER, rungs, window=12, **settings)


def test_what_looks_further_back_predicts_better_and_says_what_it_cost():
    heard, steps = [], []
    rungs = climb_small(
        small_rungs(), steps=80, sample_tokens=16, on_rung=heard.append, on_step=lambda *at: steps.append(at)
    )
    assert rungs == heard and [rung.name for rung in rungs] == list(small_rungs())
    assert steps == [(name, step) for name in ("perceptron", "MLP", "GRU") for step in range(80)]
    bigram, perceptron, mlp, gru = rungs
    assert bigram.bits_per_byte > perceptron.bits_per_byte > mlp.bits_per_byte > 0
    assert gru.bits_per_byte < 0.5 * bigram.bits_per_byte
    assert [rung.history for rung in rungs] == [1, 3, 4, 12]
    assert perceptron.parameters == 3 * 5 * 4 + 4
    assert all(len(rung.sample) == 16 and rung.seconds > 0 for rung in rungs)


def test_the_seed_decides_everything_but_the_seconds():
    runs = [climb_small(small_rungs(seed), validation=TEXT[600:660], steps=5, seed=seed) for seed in (0, 0, 1)]
    once, again, other = ([replace(rung, seconds=0) for rung in run] for run in runs)
    assert once == again != other


def test_n_grams_of_words_are_measured_as_any_model_is():
    model = KneserNey(TEXT[:60], 4, n=3)
    slowly = bits_per_byte(score(model, TEXT[3:40], stride=1), TOKENIZER)
    assert measure(model, TEXT[3:40], TOKENIZER) == pytest.approx(slowly, rel=1e-12)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_net_falls_to_the_loss_of_a_text_that_it_can_know(optimizer):
    heard = []
    contender = Contender(lambda _: MLP(4, 4, n_embd=4, n_hidden=16), 0.02, optimizer)
    losses = fit(contender.make(TEXT), part(TEXT), contender, steps=80, window=12, on_step=heard.append)
    assert heard == list(range(80)) and len(losses) == 80
    assert losses[0] > 1 and losses[-1] < 0.5


def strings(n):
    """Balanced strings of 2 to 8 parentheses one after another, the end token before each."""
    rng, text = np.random.default_rng(7), [2]
    for _ in range(n):
        every = prefixes(2 * int(rng.integers(1, 5)), 0, n=100)
        text += [*np.where(every[rng.integers(len(every))] == 1, 0, 1), 2]
    return np.array(text)


def test_a_net_learns_to_close_what_was_opened_and_a_bigram_cannot():
    net, text, lengths = Recurrent(3, 24, "gru", n_embd=4, n_hidden=16), strings(3000), [2, 4, 6]
    before = wrong_close_by_length(net, lengths, n=50)
    fit(net, part(text), Contender(lambda _: net, 0.03), steps=150, window=24)
    after = wrong_close_by_length(net, lengths, n=50)
    bigram = wrong_close_by_length(KneserNey(text, 3, 2), lengths)
    assert before.min() > 0.2 and after.max() < 0.1
    assert bigram.min() > 0.2


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(UsageError, match="the context 12"):
        climb_small({}, train=TEXT[:12])
    with pytest.raises(UsageError, match="validation part"):
        climb_small({}, validation=TEXT[:1])
    broken = Perceptron(4, 2)
    nn.init.constant_(broken.bias, float("nan"))
    with pytest.raises(NumericalError, match="step 0"):
        fit(broken, part(TEXT), Contender(lambda _: broken), steps=2, window=12)
