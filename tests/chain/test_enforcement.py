"""Masking and conditioning against all texts of a horizon, one by one."""

from functools import cache
from itertools import product
from math import inf, log

import numpy as np
import pytest

from glassgpt.chain import enforcement as enforcement_module
from glassgpt.chain.enforcement import (
    as_contexts,
    conditioned_chain,
    enforcement,
    masked_chain,
    safety_mask,
)
from glassgpt.chain.markov import End, MarkovChain
from glassgpt.chain.structure import reachable
from glassgpt.chain.walk import Red, Walk
from glassgpt.errors import TooLargeError, UsageError


class Texts:
    """The three laws over texts, by following every text to its end. A text that has stopped is marked by a None."""

    def __init__(self, chain, contexts, patterns):
        self.chain, self.contexts = chain, {tuple(c) for c in contexts}
        self.patterns = [tuple(p) for p in patterns]
        self.probs = np.concatenate([layer.probs for layer in chain.layers])
        self.last = cache(self._last)

    def is_red(self, text):
        """Whether red has happened by the end of a text that was not red before."""
        return text[-self.chain.context_length :] in self.contexts or any(text[-len(p) :] == p for p in self.patterns)

    def was_red(self, prompt):
        """A prompt is red if a pattern stands anywhere in it, or if it leaves the chain in a red context."""
        beginnings = [prompt[:i] for i in range(1, len(prompt) + 1)]
        return self.is_red(prompt) or any(text[-len(p) :] == p for text in beginnings for p in self.patterns)

    def ways(self, text):
        """(token probability, text) for each way of going on without red."""
        for token, p in enumerate(self.probs[self.chain.index(text)].tolist()):
            longer = (*text, token)
            if p > 0 and not self.is_red(longer):
                ends = self.chain.end is not None and token == self.chain.end.token
                yield p, ((*longer, None) if ends else longer)

    def _last(self, text, steps):
        """Whether a text can run on for so many steps, or stop, without red."""
        if text[-1] is None or steps == 0:
            return True
        return any(self.last(self.shortened(after), steps - 1) for _, after in self.ways(text))

    def shortened(self, text):
        """No more of a text than can matter for what comes."""
        if text[-1] is None:
            return (None,)
        return text[-max(self.chain.context_length, *(len(p) for p in [*self.patterns, ()])) :]

    def is_safe(self, text):
        """Every state that can be told apart comes within so many steps, so that who lasts them lasts for ever."""
        return self.last(self.shortened(text), 200)

    def every_text(self, prompt, steps):
        """{text: (probability, masked probability)} of all that avoid red for so many steps."""
        found = {prompt: (1.0, 1.0)}
        for _ in range(steps):
            following = {}
            for text, (p, masked) in found.items():
                if text[-1] is None:
                    following[text] = (p, masked)
                    continue
                ways = list(self.ways(text))
                kept = sum(q for q, after in ways if self.is_safe(after))
                for q, after in ways:
                    share = q / kept if kept and self.is_safe(after) else 0.0
                    following[after] = (p * q, masked * share)
            found = following
        return found

    def final_state(self, text):
        """The context, and how much of a pattern has begun."""
        if text[-1] is None:
            return "stopped"
        ends = [text[i:] for i in range(len(text) + 1)]
        begun = next(end for end in ends if any(p[: len(end)] == end for p in self.patterns) or not end)
        return text[-self.chain.context_length :], begun

    def costs(self, prompt, steps):
        found = self.every_text(prompt, steps)
        avoid = sum(p for p, _ in found.values())
        base, mask = np.array(list(found.values())).T
        cond = base / avoid
        states = {}
        for text, m, c in zip(found, mask, cond, strict=True):
            entry = states.setdefault(self.final_state(text), [0.0, 0.0])
            entry[0] += m
            entry[1] += c
        return {
            "log_avoid": log(avoid),
            "kl_cond_base": divergence(cond, base),
            "kl_mask_base": divergence(mask, base),
            "kl_mask_cond": divergence(mask, cond),
            "kl_cond_mask": divergence(cond, mask),
            "total_variation": 0.5 * sum(abs(m - c) for m, c in states.values()),
        }


def divergence(p, q):
    return sum((x * log(x / y) if y else inf) for x, y in zip(p.tolist(), q.tolist(), strict=True) if x)


def random_chain(vocab_size, length, seed=0, short=False, end=None):
    rng = np.random.default_rng(seed)
    lengths = range(1, length + 1) if short else [length]
    return MarkovChain.from_probabilities(
        *(rng.dirichlet(np.ones(vocab_size), vocab_size**k) for k in lengths), end=end
    )


def dead_end_chain():
    """From 01 only 1 can follow, and 11 is red: a mask never enters 01, a horizon may end there."""
    return MarkovChain.from_probabilities(np.array([[0.6, 0.4], [0.0, 1.0], [0.3, 0.7], [0.5, 0.5]]))


CASES = {  # chain, red contexts, red patterns, prompt, steps
    "bits": (random_chain(2, 2), [(1, 1)], [], (0, 0), 10),
    "two contexts": (random_chain(2, 3, seed=1), [(1, 1, 1), (0, 1, 0)], [], (0, 0, 1), 10),
    "letters": (random_chain(3, 2, seed=2), [(0, 1), (2, 2)], [], (1, 0), 8),
    "a pattern": (random_chain(2, 3, seed=3), [], [(1, 0, 1)], (0, 0, 0), 10),
    "patterns": (random_chain(3, 2, seed=4), [], [(0, 1), (2, 2)], (1, 0), 8),
    "a pattern longer than a context": (random_chain(2, 2, seed=5), [], [(1, 0, 1, 1)], (0, 1, 0), 10),
    "long patterns": (random_chain(3, 1, seed=6), [], [(0, 1, 2), (1, 1, 0, 2)], (0,), 8),
    "short contexts": (random_chain(2, 3, seed=7, short=True), [], [(1, 1, 0)], (1,), 10),
    "a dead end": (dead_end_chain(), [(1, 1)], [], (0, 0), 9),
    "an end": (random_chain(3, 2, seed=8, end=End(2)), [], [(1, 1), (0, 0, 0)], (0, 1), 8),
    "an end and red contexts": (random_chain(3, 2, seed=9, end=End(0)), [(1, 1), (2, 1)], [], (2, 2), 8),
    "an end within a pattern": (random_chain(3, 1, seed=10, end=End(2)), [], [(1, 2), (0, 0)], (0,), 8),
}


def case(name):
    chain, contexts, patterns, prompt, steps = CASES[name]
    red = Red.of_contexts(chain, contexts) if contexts else Red.of_patterns(chain, patterns)
    return chain, red, Texts(chain, contexts, patterns), prompt, steps


@pytest.mark.parametrize("name", CASES)
def test_what_enforcement_costs_is_what_all_texts_together_say(name):
    chain, red, texts, prompt, steps = case(name)
    exact = texts.costs(prompt, steps)
    found = enforcement(chain, red, steps, prompt)
    for field, value in exact.items():
        assert getattr(found, field) == pytest.approx(value, rel=1e-11, abs=1e-14), field
    assert (found.kl_cond_mask == inf) == (name == "a dead end")


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
@pytest.mark.parametrize("name", ["a dead end", "an end", "a pattern longer than a context"])
def test_any_horizon_will_do(name, steps):
    chain, red, texts, prompt, _ = case(name)
    found = enforcement(chain, red, steps, prompt)
    for field, value in texts.costs(prompt, steps).items():
        assert getattr(found, field) == pytest.approx(value, rel=1e-11, abs=1e-14), field


@pytest.mark.parametrize("p", [1e-6, 1e-30, 1e-200])
def test_avoiding_what_hardly_happens_costs_no_more_than_it_is_likely(p):
    chain = MarkovChain.from_probabilities(np.tile([1 - p, p], (4, 1)))
    found = enforcement(chain, Red.of_contexts(chain, [(1, 1), (0, 1)]), 10, (0, 0))
    assert found.kl_cond_base == pytest.approx(-10 * np.log1p(-p), rel=1e-12, abs=0)
    assert found.kl_mask_base == pytest.approx(-10 * np.log1p(-p), rel=1e-12, abs=0)


def test_avoiding_what_nearly_always_happens_costs_its_logarithm():
    chain = MarkovChain.from_probabilities(np.tile([1e-20, 1.0], (2, 1)))
    found = enforcement(chain, Red.of_contexts(chain, [(1,)]), 10, (0,))
    assert found.log_avoid == pytest.approx(10 * log(1e-20), rel=1e-13)
    assert found.kl_mask_base == pytest.approx(-10 * log(1e-20), rel=1e-13)
    assert found.kl_mask_cond == pytest.approx(0, abs=1e-11)


def test_a_horizon_too_long_for_any_float_to_survive_is_as_exact():
    """Independent tokens, red by a half: P(avoid 2,000 tokens) = 1e-602, and masking is conditioning."""
    chain = MarkovChain.from_probabilities(np.full((2, 2), 0.5))
    found = enforcement(chain, Red.of_contexts(chain, [(1,)]), 2000, (0,))
    assert found.log_avoid == pytest.approx(2000 * log(0.5), rel=1e-13)
    assert found.kl_mask_base == pytest.approx(-2000 * log(0.5), rel=1e-13)
    assert found.kl_mask_cond == pytest.approx(0, abs=1e-9)
    assert found.kl_cond_mask == pytest.approx(0, abs=1e-9)
    assert found.total_variation == pytest.approx(0, abs=1e-12)


def test_a_start_that_cannot_be_kept_from_red_is_refused():
    chain = dead_end_chain()
    red = Red.of_contexts(chain, [(1, 1)])
    for start in ((1, 1), (0, 1)):
        with pytest.raises(UsageError, match="nothing can be enforced from"):
            enforcement(chain, red, 5, start)


def test_a_horizon_whose_survivals_do_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr(enforcement_module, "MEMORY_LIMIT", 100)
    chain = random_chain(2, 2)
    with pytest.raises(TooLargeError, match="30 steps of 4 states"):
        enforcement(chain, Red.of_contexts(chain, [(1, 1)]), 30, (0, 0))


@pytest.mark.parametrize("name", CASES)
def test_the_mask_keeps_the_texts_that_can_avoid_red_for_ever(name):
    chain, red, texts, _, _ = case(name)
    mask, walk = safety_mask(chain, red), Walk(chain, red)
    prompts = {p for n in range(chain.shortest, 5) for p in product(range(chain.vocab_size), repeat=n)}
    for prompt in prompts:
        if chain.end is not None and chain.end.token in prompt:
            continue
        place = walk.joint_index(prompt)
        safe = not texts.was_red(prompt) and texts.is_safe(prompt)
        assert mask.safe[place] == safe, prompt
        if not safe:
            continue
        kept = {after: p for p, after in texts.ways(prompt) if texts.is_safe(after)}
        allowed = {token for token in range(chain.vocab_size) if mask.allowed[place][token]}
        assert allowed == {after[len(prompt)] for after in kept}
        assert mask.log_kept[place] == pytest.approx(log(sum(kept.values())), rel=1e-12, abs=1e-15)


def test_a_mask_that_keeps_next_to_nothing_knows_how_little():
    chain = MarkovChain.from_probabilities(np.tile([1e-300, 1.0], (2, 1)))
    mask = safety_mask(chain, Red.of_contexts(chain, [(1,)]))
    assert mask.log_kept[0, 0] == pytest.approx(log(1e-300), rel=1e-15)


TOO_LONG = ("a pattern longer than a context", "long patterns", "an end", "an end within a pattern")
FITTING = [name for name in CASES if name not in TOO_LONG]


@pytest.mark.parametrize("name", FITTING)
def test_the_masked_chain_never_reaches_red_and_shares_out_what_is_left(name):
    chain, red, texts, prompt, _ = case(name)
    masked, contexts = masked_chain(chain, red), as_contexts(chain, red)
    np.testing.assert_allclose(masked.probs.sum(axis=1), 1, atol=1e-14)
    walk, safe = Walk(masked, contexts), safety_mask(chain, contexts).safe
    assert safe[walk.joint_index(prompt)]
    assert not (reachable(walk, safe) & walk.red).any()
    for state in np.flatnonzero(safe[0]):
        ways = {after: p for p, after in texts.ways(chain.context(int(state)))}
        kept = {after: p for after, p in ways.items() if texts.is_safe(after)}
        for token in range(chain.vocab_size):
            longer = (*chain.context(int(state)), token)
            share = (kept.get(longer, 0) + kept.get((*longer, None), 0)) / sum(kept.values())
            assert masked.probs[state, token] == pytest.approx(share, rel=1e-13)
            assert masked.possible[state, token] == (share > 0)


@pytest.mark.parametrize("name", ["bits", "two contexts", "letters", "a pattern", "patterns", "short contexts"])
def test_the_conditioned_chain_is_the_limit_of_conditioning_on_a_long_horizon(name):
    chain, red, _, prompt, _ = case(name)
    conditioned = conditioned_chain(chain, red)
    contexts = as_contexts(chain, red).contexts

    def matrix():
        P = chain.transition_matrix()
        P[contexts], P[:, contexts] = 0, 0
        return P

    survival = np.where(contexts, 0.0, 1.0)
    Q = matrix()
    for _ in range(3000):
        later, survival = survival, Q @ survival
        scale = survival.max()
        later, survival = later / scale, survival / scale
    for state in np.flatnonzero(survival > 0):
        for token in range(chain.vocab_size):
            following = chain.index((*chain.context(int(state)), token))
            expected = chain.probs[state, token] * later[following] / survival[state]
            assert conditioned.probs[state, token] == pytest.approx(expected, rel=1e-9, abs=1e-9)
    walk = Walk(conditioned, as_contexts(conditioned, Red.of_contexts(conditioned, list_of(chain, contexts))))
    start = np.zeros(walk.shape, dtype=bool)
    start[walk.joint_index(prompt)] = True
    assert not (reachable(walk, start) & walk.red).any()


def list_of(chain, marked):
    return [chain.context(int(s)) for s in np.flatnonzero(marked)]


def test_a_mask_and_conditioning_agree_where_all_states_are_alike():
    chain = MarkovChain.from_probabilities(np.tile([0.2, 0.3, 0.5], (3, 1)))
    red = Red.of_contexts(chain, [(2,)])
    for enforced in (masked_chain(chain, red), conditioned_chain(chain, red)):
        np.testing.assert_allclose(enforced.probs[:2], [[0.4, 0.6, 0]] * 2, rtol=1e-13)


def test_conditioning_stays_away_from_dead_ends_that_are_far_off():
    chain, red, _, _, _ = case("a dead end")
    np.testing.assert_allclose(conditioned_chain(chain, red).probs[0], [1, 0], atol=1e-14)


def test_where_red_is_certain_nothing_is_enforced():
    chain = random_chain(2, 2)
    red = Red.of_contexts(chain, [(0, 0), (0, 1), (1, 1)])
    for enforce in (masked_chain, conditioned_chain):
        with pytest.raises(UsageError, match="every state is red or leads to red with certainty"):
            enforce(chain, red)


def test_a_pattern_longer_than_a_context_has_no_masked_chain():
    chain = random_chain(2, 2)
    with pytest.raises(UsageError, match="a pattern of 4 tokens does not show in a context of 2"):
        masked_chain(chain, Red.of_patterns(chain, [(1, 0), (0, 0, 1, 1)]))


def test_conditioning_for_ever_needs_texts_without_end():
    chain = random_chain(2, 2, end=End(1))
    with pytest.raises(UsageError, match="leave the end token free"):
        conditioned_chain(chain, Red.of_contexts(chain, [(0, 0)]))


def test_a_survival_that_sways_for_ever_has_no_shape():
    """Safe are 01 and 10 alone, which take turns; the one leads to red by .1, the other by .6."""
    table = np.array([[0.5, 0.5], [0.9, 0.1], [0.6, 0.4], [0.5, 0.5]])
    chain = MarkovChain.from_probabilities(table)
    with pytest.raises(UsageError, match="keeps changing its shape"):
        conditioned_chain(chain, Red.of_contexts(chain, [(0, 0), (1, 1)]))


@pytest.mark.parametrize("pattern", [(1,), (0, 1), (1, 0, 1)])
def test_a_pattern_that_fits_is_the_contexts_that_hold_it(pattern):
    chain = random_chain(2, 3, short=True)
    red = as_contexts(chain, Red.of_patterns(chain, [pattern]))
    for state in range(chain.n_states):
        context = chain.context(state)
        holds = any(context[i : i + len(pattern)] == pattern for i in range(len(context)))
        assert red.contexts[state] == holds
