"""Estimates of red against the exact chain: by all walks there are, and by some drawn of them."""

import itertools
import math

import numpy as np
import pytest
import torch

import glassgpt
from glassgpt.chain.hitting import hitting_probability
from glassgpt.chain.markov import End, MarkovChain
from glassgpt.chain.walk import Red
from glassgpt.decoding.batch import generate_batch
from glassgpt.decoding.processors import Temperature, TopK, TopP
from glassgpt.decoding.shaped import Shaped
from glassgpt.errors import NumericalError, UsageError
from glassgpt.evaluation import red
from glassgpt.evaluation.red import Batch, Start, Watch, estimate_red, shortest_of
from glassgpt.interface import LanguageModel
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.numerics import log_softmax


class Table(LanguageModel):
    """Random logits after every context of up to `context_length` tokens, the wilder the larger `scale`."""

    def __init__(self, vocab_size, context_length, scale=1.0, seed=0):
        self.vocab_size, self.context_length = vocab_size, context_length
        rng = np.random.default_rng(seed)
        self.rows = {n: scale * rng.standard_normal((vocab_size**n, vocab_size)) for n in range(1, context_length + 1)}

    def next_token_logits(self, contexts):
        contexts = np.asarray(contexts)[:, -self.context_length :]
        n = contexts.shape[1]
        return self.rows[n][contexts @ self.vocab_size ** np.arange(n)[::-1]]


def exact(model, patterns, prompt, horizon, end_token=None):
    """ln P within 0, 1, ..., horizon tokens, by the chain."""
    end = None if end_token is None else End(end_token)
    chain = MarkovChain.from_model(model, every_length=len(prompt) < model.context_length, end=end)
    return hitting_probability(chain, Red.of_patterns(chain, patterns), horizon, prompt).within.log()


def expected(model, patterns, prompt, horizon, end_token=None):
    """The same, as the mean of what every single walk gives, each as often as it is drawn."""
    start = Start(model, Watch(patterns, model.vocab_size, end_token), np.array(prompt), horizon)
    n_tokens = max(0, horizon - start.n_sure)
    walks = np.array(list(itertools.product(range(model.vocab_size), repeat=n_tokens)), dtype=np.int64)
    log_drawn = np.zeros(len(walks))

    def draw(logits):
        tokens = walks[:, batch.n_drawn]
        log_drawn[:] += log_softmax(logits)[np.arange(len(walks)), tokens]
        return tokens

    at_once = np.logaddexp.accumulate(start.log_chances)
    if n_tokens == 0:
        return at_once
    batch = Batch(start, len(walks), draw)
    for _ in range(n_tokens):
        batch.step()
    assert np.exp(log_drawn).sum() == pytest.approx(1.0, abs=1e-12)
    of_walks = np.logaddexp.accumulate(batch.log_chances, axis=1) + log_drawn[:, None]
    return np.logaddexp(at_once, np.logaddexp.reduce(of_walks, axis=0))


def agree(found, truth):
    np.testing.assert_array_equal(np.isneginf(found), np.isneginf(truth))
    possible = np.isfinite(truth)
    np.testing.assert_allclose(found[possible], truth[possible], rtol=0, atol=1e-12)


# ---- all walks there are -------------------------------------------------------------------------------------

CASES = {
    "one token": ([[1]], [0, 1, 0], 7),
    "overlaps itself": ([[1, 1]], [0, 0], 7),
    "overlaps itself at a distance": ([[1, 0, 1]], [0, 0], 8),
    "begins in the prompt": ([[1, 0, 1]], [0, 1, 0], 7),
    "begins in the prompt twice": ([[1, 0, 1, 0, 0]], [1, 0, 1, 0], 8),
    "is all but written": ([[1, 1, 1]], [0, 1, 1], 7),
    "is in the prompt": ([[0, 1]], [0, 1, 1], 4),
    "is longer than a context": ([[1, 1, 0, 1, 1]], [1, 1, 0], 9),
    "after a short prompt": ([[1, 1, 1]], [1], 7),
    "the horizon is too short": ([[1, 0, 1, 1]], [0, 0], 3),
    "the horizon is too short, but for the prompt": ([[1, 0, 1, 1]], [0, 1, 0], 3),
    "no token at all": ([[1]], [0, 1], 0),
    "two apart": ([[1, 1], [0, 0, 0]], [0, 1], 8),
    "two that share": ([[0, 1, 1], [1, 1, 0]], [1, 0], 8),
    "one in another": ([[1, 0, 1, 0], [0, 1]], [1], 7),
    "one begins another": ([[1, 1], [1, 1, 0]], [0], 7),
    "one ends another": ([[0, 1, 1], [1, 1]], [0, 0], 7),
    "a word in three pieces": ([[0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]], [0, 0], 8),
    "the same twice": ([[1, 1], [1, 1]], [0, 0], 6),
}


@pytest.mark.parametrize("name", CASES)
def test_the_mean_over_all_walks_is_the_exact_probability(name):
    patterns, prompt, horizon = CASES[name]
    model = Table(2, 3, scale=1.5)
    agree(expected(model, patterns, prompt, horizon), exact(model, patterns, prompt, horizon))


@pytest.mark.parametrize(
    ("patterns", "prompt"),
    [([[2, 2]], [0, 2]), ([[1, 2, 1]], [1]), ([[0], [1, 2, 2]], [1, 2]), ([[2, 0, 2, 0], [1, 1]], [2, 0, 2])],
)
@pytest.mark.parametrize(
    "processors", [[], [Temperature(0.4)], [TopK(2)], [Temperature(2.0), TopP(0.7)], [Temperature(0)]]
)
def test_so_it_is_under_every_sampler(patterns, prompt, processors):
    """Where a cut makes a pattern impossible, both say so: exactly 0."""
    model = Shaped(Table(3, 2, seed=4), processors)
    agree(expected(model, patterns, prompt, 6), exact(model, patterns, prompt, 6))


@pytest.mark.parametrize("patterns", [[[1, 1]], [[1, 2]], [[2]], [[2, 1]], [[0, 1, 0], [2, 2]]])
def test_so_it_is_where_a_token_ends_the_text(patterns):
    """An end that completes a pattern still counts; one inside a pattern makes it impossible."""
    model = Table(3, 2, seed=1)
    agree(expected(model, patterns, [0, 1], 6, end_token=2), exact(model, patterns, [0, 1], 6, end_token=2))


def test_so_it_is_for_the_baby_gpt_and_its_caches(baby_run):
    model, _ = glassgpt.load(baby_run.path, "float64")
    for patterns, prompt in [([[0, 0, 0]], [1, 1, 1]), ([[1, 1]], [0]), ([[1, 0, 1], [0, 0]], [1, 1])]:
        agree(expected(model, patterns, prompt, 7), exact(model, patterns, prompt, 7))


def test_so_it_is_for_every_pattern_of_up_to_three_tokens():
    model = Table(2, 2, seed=7)
    for n in (1, 2, 3):
        for pattern in itertools.product(range(2), repeat=n):
            for prompt in itertools.product(range(2), repeat=3):
                agree(expected(model, [pattern], prompt, 5), exact(model, [pattern], prompt, 5))


def test_so_it_is_for_every_pair_of_patterns():
    model = Table(2, 2, seed=8)
    short = [pattern for n in (1, 2, 3) for pattern in itertools.product(range(2), repeat=n)]
    for pair in itertools.combinations(short, 2):
        agree(expected(model, pair, [1, 0], 5), exact(model, pair, [1, 0], 5))


def test_only_patterns_that_contain_no_other_can_be_first():
    assert shortest_of([(1, 2, 3), (2, 3), (3, 2), (2, 3), (1, 3, 2)]) == [(2, 3), (3, 2)]


# ---- some of them --------------------------------------------------------------------------------------------


def last(*arguments, **options):
    *_, estimate = estimate_red(*arguments, **options)
    return estimate


# P = 1.4e-17
RARE = (Table(4, 2, scale=3.0, seed=6), [[1, 2, 0, 1, 1, 3, 0, 0, 2]], [0, 1], 14)


def test_intervals_hold_the_truth_as_often_as_they_say():
    """150 estimates of 32 walks. If 95 % of intervals are right, fewer than 134 are so once in 1,000 times."""
    truth = exact(*RARE)[-1]
    assert truth == pytest.approx(-16.84 * math.log(10), abs=0.05)
    found = [last(*RARE, walks=32, seed=seed) for seed in range(150)]
    right = sum(one.log_low[-1] <= truth <= one.log_high[-1] for one in found)
    assert 134 <= right < 150, right
    assert all(one.log_low[-1] < one.log_within[-1] < one.log_high[-1] for one in found)
    over = np.array([math.exp(one.log_within[-1] - truth) for one in found])
    assert abs(over.mean() - 1) < 4 * over.std(ddof=1) / math.sqrt(len(over))  # unbiased


def test_where_states_cannot_be_listed_it_is_what_texts_written_by_chance_show():
    """A GPT of 6^12 states: of 1,500 texts that its sampler writes, as many hold the pattern, within their error."""
    model = GPT(GPTConfig(6, 12, 2, 2, 8), seed=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # far from uniform
    texts = generate_batch(model, [[5, 0, 1]] * 1500, 18, temperature=0.9, top_k=4, seed=10)
    holds = np.mean(
        [any(text[i : i + 2] == [1, 2] for i in range(len(text))) for text in ([1, *text] for text in texts)]
    )
    found = last(Shaped(model, [Temperature(0.9), TopK(4)]), [[1, 2]], [5, 0, 1], 18, walks=256)
    assert 0.02 < holds < 0.95 and found.is_trusted
    error = math.sqrt(holds * (1 - holds) / 1500)
    assert math.exp(found.log_low[-1]) - 3 * error < holds < math.exp(found.log_high[-1]) + 3 * error


def test_the_whole_curve_has_its_interval():
    truth, found = exact(*RARE), last(*RARE, walks=256, seed=3)
    agree(found.log_within[:10], truth[:10])  # its first token ends the prompt: within 9 nothing is left to chance
    np.testing.assert_array_equal(found.log_low[:10], found.log_high[:10])
    assert np.isneginf(found.log_within[:8]).all() and (np.diff(found.log_within[8:]) > 0).all()
    assert ((found.log_low <= truth + 1e-12) & (truth - 1e-12 <= found.log_high)).all()
    assert found.log_high[-1] - found.log_low[-1] < 0.25 and found.is_trusted and not found.is_exact


def test_what_no_float_can_hold_is_estimated_all_the_same():
    model, pattern = Table(4, 2, scale=3.0, seed=11), [1, 2, 0, 1, 1, 3] * 40
    truth, found = exact(model, [pattern], [0, 1], 245)[-1], last(model, [pattern], [0, 1], 245, walks=32)
    assert truth < -400 * math.log(10)
    assert abs(found.log_within[-1] - truth) < 0.2 and found.log_low[-1] < found.log_high[-1] < truth + 1


def test_the_same_seed_gives_the_same_answer_however_walks_are_batched(monkeypatch):
    whole = last(*RARE, walks=40, seed=5)
    again = last(*RARE, walks=40, seed=5)
    np.testing.assert_array_equal(whole.log_within, again.log_within)
    np.testing.assert_array_equal(whole.log_high, again.log_high)
    assert abs(last(*RARE, walks=40, seed=6).log_within[-1] - whole.log_within[-1]) > 1e-6
    monkeypatch.setattr(red, "MOST_WALKS_AT_ONCE", 3)
    agree(last(*RARE, walks=40, seed=5).log_within, whole.log_within)


def test_each_answer_knows_more_walks_than_the_one_before():
    found = list(estimate_red(*RARE, walks=100))
    assert [one.n_walks for one in found] == [0, 4, 8, 16, 32, 64, 100]
    assert found[0].log_high[-1] == 0 and not found[0].is_trusted  # nothing is known but what can follow at once
    assert found[0].log_low[-1] == found[0].log_within[9] > -math.inf
    assert found[-1].effective_walks > found[2].effective_walks


def test_what_follows_at_once_is_exact_and_needs_no_walk():
    model = Table(3, 2)
    for pattern, prompt, horizon in [([1, 2], [0, 0], 2), ([1, 2, 0], [0, 1, 2], 3), ([2], [1], 1)]:
        (found,) = estimate_red(model, [pattern], prompt, horizon)
        assert found.is_exact and found.is_trusted and found.n_walks == 0
        agree(found.log_within, exact(model, [pattern], prompt, horizon))


def test_a_pattern_that_does_not_fit_or_is_already_there_is_known():
    model = Table(3, 2)
    (never,) = estimate_red(model, [[1, 2, 0]], [0, 0], 2)
    assert never.is_exact and np.isneginf(never.log_high).all()
    (there,) = estimate_red(model, [[1, 2]], [0, 1, 2, 0], 5)
    assert there.is_exact and (there.log_within == 0).all()


def test_where_nothing_was_met_only_a_bound_is_known():
    """Top-k makes the pattern impossible, which no walks can prove: of 100, 3.6 % may be otherwise."""
    model = Shaped(Rows([0.5, 0.5, 0.0]), [])
    found = last(model, [[0, 2]], [0], 6, walks=100)
    assert np.isneginf(found.log_within).all() and np.isneginf(found.log_low).all()
    assert not found.is_exact and not found.is_trusted and found.effective_walks == 0
    assert math.exp(found.log_high[-1]) == pytest.approx(1 - 0.025 ** (1 / 100))  # (1 - p)^100 = 2.5 %
    assert np.isneginf(found.log_high[2])  # at once it is known to be impossible


def test_what_few_walks_met_is_bounded_too():
    """Red can come after a 2 alone, which one walk in a hundred meets."""

    class Narrow(LanguageModel):
        vocab_size, context_length = 4, 1

        def next_token_logits(self, contexts):
            rows = np.array([[0.49, 0.5, 0.01, 0.0]] * 4)
            rows[2] = [0.1, 0.1, 0.1, 0.7]
            with np.errstate(divide="ignore"):
                return np.log(rows)[np.asarray(contexts)[:, -1]]

    found = last(Narrow(), [[3]], [0], 2, walks=200, seed=2)
    truth = exact(Narrow(), [[3]], [0], 2)[-1]
    assert truth == pytest.approx(math.log(0.01 * 0.7))
    assert found.log_low[-1] < truth < found.log_high[-1] < math.log(0.06)
    assert found.largest_share > 0.1 and not found.is_trusted


def test_a_walk_without_a_choice_is_all_there_is():
    model = Shaped(Table(4, 2, seed=2), [Temperature(0)])
    greedy = [0, 1]
    for _ in range(8):
        greedy.append(int(np.argmax(model.next_token_logits([greedy])[0])))
    for pattern in (greedy[5:8], [3, 3, 3]):
        found = last(model, [pattern], [0, 1], 8)
        assert found.is_exact and found.n_walks <= red.FIRST_WALKS
        agree(found.log_within, exact(model, [pattern], [0, 1], 8))


def test_few_heavy_walks_are_not_trusted():
    """A table on which one walk in ten has most of the probability: the interval says so by its width, and by name."""
    model, pattern = Table(4, 2, scale=3.0, seed=9), [1, 2, 0, 1, 1, 3]
    found = last(model, [pattern], [0, 1], 12, walks=64)
    assert not found.is_trusted and found.effective_walks < 30
    assert found.log_high[-1] - found.log_low[-1] > 0.5


def test_a_single_walk_tells_nothing_of_the_others():
    found = last(*RARE, walks=1)
    assert found.n_walks == 1 and found.log_high[-1] == 0 and found.largest_share == 1 and not found.is_trusted


def test_the_prompt_counts_whole_for_patterns_and_by_its_end_for_the_model():
    model = Table(2, 2, seed=3)
    prompt = [0, 1, 0, 0, 1, 0]
    agree(expected(model, [[1, 0, 0, 1, 0, 1]], prompt, 4), exact(model, [[1, 0, 0, 1, 0, 1]], prompt, 4))


def test_walks_longer_than_the_caches_window_are_the_models(baby_run):
    model, _ = glassgpt.load(baby_run.path, "float64")
    found, truth = last(model, [[0, 0, 0, 0]], [1, 1, 1], 30, walks=400), exact(model, [[0, 0, 0, 0]], [1, 1, 1], 30)
    assert ((found.log_low <= truth + 1e-9) & (truth - 1e-9 <= found.log_high)).mean() > 0.9


# ---- time, and what can't be meant -----------------------------------------------------------------------------------


def test_time_that_is_over_ends_it_and_a_batch_under_way_is_given_up(monkeypatch):
    assert [one.n_walks for one in estimate_red(*RARE, seconds=0)] == [0]
    ticks = itertools.count()
    monkeypatch.setattr(red.time, "monotonic", lambda: float(next(ticks)))
    assert [one.n_walks for one in estimate_red(*RARE, seconds=15)] == [0, 4, 8]


def test_who_listens_hears_how_far_it_is(monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(red.time, "monotonic", lambda: float(next(ticks)))
    found = list(estimate_red(*RARE, walks=8, pulse_seconds=2))
    assert {(one.n_walks, one.underway) for one in found} >= {(0, (4, 2)), (4, (4, 2)), (8, (0, 0))}
    assert [one.n_walks for one in found if one.underway == (0, 0)] == [0, 4, 8]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patterns": []}, "at least one pattern"),
        ({"patterns": [[]]}, "at least one token"),
        ({"patterns": [[4]]}, "outside the vocabulary"),
        ({"prompt": []}, "at least one token"),
        ({"prompt": [9]}, "outside"),
        ({"horizon": -1}, "horizon"),
        ({"walks": 0}, "number of walks"),
        ({"seed": -1}, "seed"),
        ({"seconds": math.nan}, "seconds"),
        ({"end_token": 4}, "end token"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_done(changes, message):
    usual = {"model": Table(4, 2), "patterns": [[1]], "prompt": [0], "horizon": 3}
    with pytest.raises(UsageError, match=message):
        estimate_red(**usual | changes)


def test_a_model_of_nan_is_refused():
    with pytest.raises(NumericalError, match="NaN"):
        last(Rows([math.nan, 0.5, 0.5]), [[1]], [0], 3)


class Rows(LanguageModel):
    """The same distribution whatever came before."""

    def __init__(self, probs):
        self.vocab_size, self.context_length = len(probs), 2
        with np.errstate(divide="ignore"):
            self.logits = np.log(np.array(probs))

    def next_token_logits(self, contexts):
        return np.tile(self.logits, (len(np.asarray(contexts)), 1))
