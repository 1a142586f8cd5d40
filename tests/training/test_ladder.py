"""The ladder: every rung keeps the contract, sees the same text, and is decided by the seed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from glassgpt.check import check_model
from glassgpt.errors import NumericalError, UsageError
from glassgpt.evaluation.parentheses import prefixes, wrong_close_by_length
from glassgpt.models.backoff import KneserNey
from glassgpt.models.mlp import MLP, Perceptron
from glassgpt.models.recurrent import Recurrent
from glassgpt.text.character import CharacterTokenizer
from glassgpt.training.ladder import Budget, Contender, climb, default_rungs, fit, loss_of, random_windows

TOKENIZER = CharacterTokenizer("abcd")
PATTERN = [0, 1, 0, 2, 0, 1, 1, 3]
TEXT = np.tile(PATTERN, 100)
SMALL = Budget(steps=80, batch_size=8, window=12)


@pytest.mark.parametrize("name", default_rungs(4))
def test_every_rung_keeps_the_contract(name):
    model = default_rungs(4, window=6)[name].make(TEXT)
    check_model(model.double() if isinstance(model, nn.Module) else model, tolerance=1e-9)


def small_rungs(seed=0):
    return {
        "bigram": Contender(lambda tokens: KneserNey(tokens, 4, n=2)),
        "perceptron": Contender(lambda _: Perceptron(4, 3), 0.05),
        "MLP": Contender(lambda _: MLP(4, 4, n_embd=4, n_hidden=16, seed=seed), 0.02),
        "GRU": Contender(lambda _: Recurrent(4, 12, n_embd=4, n_hidden=16, seed=seed), 0.02),
    }


def test_what_looks_further_back_predicts_better_and_says_what_it_cost():
    heard = []
    rungs = climb(
        TEXT[:600], TEXT[600:], TOKENIZER, small_rungs(), budget=SMALL, sample_tokens=16, on_rung=heard.append
    )
    assert rungs == heard and [rung.name for rung in rungs] == list(small_rungs())
    bigram, perceptron, mlp, gru = rungs
    assert bigram.bits_per_byte > perceptron.bits_per_byte > mlp.bits_per_byte > 0
    assert gru.bits_per_byte < 0.5 * bigram.bits_per_byte
    assert [rung.history for rung in rungs] == [1, 3, 4, 12]
    assert perceptron.parameters == 3 * 5 * 4 + 4
    assert all(len(rung.sample) == 16 and rung.seconds > 0 for rung in rungs)


def test_the_seed_decides_everything_but_the_seconds():
    runs = [
        climb(TEXT[:200], TEXT[200:260], TOKENIZER, small_rungs(seed), budget=replace(SMALL, steps=5), seed=seed)
        for seed in (0, 0, 1)
    ]
    once, again, other = ([replace(rung, seconds=0) for rung in run] for run in runs)
    assert once == again != other


def test_a_net_falls_to_the_loss_of_a_text_that_it_can_know():
    model = MLP(4, 4, n_embd=4, n_hidden=16)
    heard = []
    losses = fit(
        model, random_windows(TEXT, SMALL, 0), replace(SMALL, learning_rate=0.02), on_step=lambda *x: heard.append(x)
    )
    assert heard == list(enumerate(losses)) and len(losses) == SMALL.steps
    assert losses[0] > 1 and losses[-1] < 0.5


def test_the_loss_is_the_surprise_of_each_next_token():
    windows = torch.tensor([[0, 1, 0, 2], [3, 0, 1, 1]])
    assert loss_of(Perceptron(4, 2), windows).item() == pytest.approx(np.log(4))


def test_windows_are_everywhere_in_the_text_and_one_token_longer():
    draw = random_windows(np.arange(20), Budget(batch_size=500, window=16), seed=3)
    assert {row[0] for row in draw(0)} == {0, 1, 2, 3}
    np.testing.assert_array_equal(np.diff(draw(0), axis=1), 1)
    np.testing.assert_array_equal(draw(1), draw(1))
    assert draw(0).shape == (500, 17) and not np.array_equal(draw(0), draw(1))


def test_the_rate_rises_and_falls():
    budget = Budget(steps=100, learning_rate=1.0)
    rates = [budget.rate(step) for step in range(100)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)


def strings(step, window=24, batch=16, longest=8):
    """Balanced strings one after another from the beginning of each row, the end token before each."""
    rng = np.random.default_rng([7, step])
    rows = []
    for _ in range(batch):
        row = [2]
        while len(row) < window + 1:
            length = 2 * int(rng.integers(1, longest // 2 + 1))
            every = prefixes(length, 0, n=100)
            row += [*np.where(every[rng.integers(len(every))] == 1, 0, 1), 2]
        rows.append(row[: window + 1])
    return np.array(rows)


def test_a_net_learns_to_close_what_was_opened_and_a_bigram_cannot():
    net = Recurrent(3, 24, "gru", n_embd=4, n_hidden=16)
    lengths = [2, 4, 6]
    before = wrong_close_by_length(net, lengths, n=50)
    fit(net, strings, Budget(steps=150, learning_rate=0.03))
    after = wrong_close_by_length(net, lengths, n=50)
    bigram = wrong_close_by_length(KneserNey(np.concatenate([strings(i).ravel() for i in range(20)]), 3, 2), lengths)
    assert before.min() > 0.2 and after.max() < 0.03
    assert bigram.min() > 0.2


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(UsageError, match="window 64"):
        climb(TEXT[:64], TEXT, TOKENIZER, {"MLP": Contender(lambda _: MLP(4, 2))})
    with pytest.raises(UsageError, match="steps must be 1 or more"):
        Budget(steps=0)
    broken = Perceptron(4, 2)
    nn.init.constant_(broken.bias, float("nan"))
    with pytest.raises(NumericalError, match="step 0"):
        fit(broken, random_windows(TEXT, SMALL, 0), SMALL)
