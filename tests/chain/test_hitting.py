"""Hitting probabilities, hazards and times against rational arithmetic and mpmath, from 1e-3000 to one minus 1e-400.

The oracle knows nothing of joint states or sweeps. It follows texts: a state is the last tokens of a text and the
longest beginning of a pattern that it ends in, and each probability is the very float64 of the table, as a Fraction.
"""

from fractions import Fraction
from itertools import pairwise, product

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassgpt.chain import hitting
from glassgpt.chain.hitting import (
    ever_hit,
    expected_steps,
    hazard,
    hitting_probabilities,
    hitting_probability,
    mean_return_time,
    sensitivity,
)
from glassgpt.chain.markov import End, Layer, MarkovChain
from glassgpt.chain.stationary import stationary_distribution
from glassgpt.chain.walk import Red
from glassgpt.chain.wide import Wide
from glassgpt.errors import UsageError

STOPPED = "stopped"


class Texts:
    """All that can become of a text, by the tables {length: rows} and what is red in it."""

    def __init__(self, tables, *, red=(), patterns=(), end=None, sums_to_one=False):
        self.rows = {length: [[Fraction(float(p)) for p in row] for row in table] for length, table in tables.items()}
        if sums_to_one:  # exactly: for what is a sum without end
            self.rows = {k: [[p / sum(row) for p in row] for row in rows] for k, rows in self.rows.items()}
        self.V, self.T = len(self.rows[max(tables)][0]), max(tables)
        self.red, self.patterns, self.end = {tuple(c) for c in red}, [tuple(p) for p in patterns], end

    def begin(self, prompt):
        """The state after a prompt."""
        context, begun = (), ()
        for token in prompt:
            context, begun = (*context, token)[-self.T :], self._begun(begun, token)
        return context, begun

    def _begun(self, begun, token):
        if begun == "seen" or any((*begun, token)[-len(p) :] == p for p in self.patterns):
            return "seen"
        text = (*begun, token)
        ends = [text[i:] for i in range(len(text) + 1)]
        return next(end for end in ends if any(p[: len(end)] == end for p in self.patterns) or not end)

    def is_red(self, state):
        return state != STOPPED and (state[1] == "seen" or state[0] in self.red)

    def ways(self, state):
        """(probability, state) for every possible next token."""
        context, begun = state
        code = sum(token * self.V**k for k, token in enumerate(reversed(context)))
        for token, p in enumerate(self.rows[len(context)][code]):
            after = ((*context, token)[-self.T :], self._begun(begun, token))
            if self.end is not None and token == self.end.token and not self.is_red(after):
                after = STOPPED if self.end.restart is None else self.begin(self.end.restart)
            if p:
                yield p, after

    def first_passage(self, law, steps):
        """first_hit, survival and stopped after 0..steps tokens, from a law {state: probability}."""
        hits, running, stops = [], [], [Fraction(0)]
        for step in range(steps + 1):
            hits.append(sum((p for state, p in law.items() if self.is_red(state)), Fraction(0)))
            law = {state: p for state, p in law.items() if not self.is_red(state)}
            stops.append(stops[-1] + law.pop(STOPPED, Fraction(0)))
            running.append(sum(law.values(), Fraction(0)))
            if step < steps:
                following = {}
                for state, p in law.items():
                    for q, after in self.ways(state):
                        following[after] = following.get(after, Fraction(0)) + p * q
                law = following
        return hits, running, stops[1:]

    def running_states(self, starts):
        """All states that are neither red nor stopped, on ways that are not either."""
        found, queue = [], list(starts)
        while queue:
            state = queue.pop()
            if state not in found and state != STOPPED and not self.is_red(state):
                found.append(state)
                queue.extend(after for _, after in self.ways(state))
        return found

    def ever(self, start):
        """The probability of ever reaching red, by solving h = f + Q h over the states that can."""
        if self.is_red(start):
            return Fraction(1)
        states = self.running_states([start])
        can = {s for s in states if any(self.is_red(after) for _, after in self.ways(s))}
        while grown := {s for s in states if s not in can and any(after in can for _, after in self.ways(s))}:
            can |= grown
        if start not in can:
            return Fraction(0)
        states = [s for s in states if s in can]
        return self._solved(states, lambda s: sum(p for p, after in self.ways(s) if self.is_red(after)), start)

    def mean_steps(self, start):
        """The mean number of tokens until red, by solving m = 1 + Q m."""
        if self.is_red(start):
            return Fraction(0)
        return self._solved(self.running_states([start]), lambda s: Fraction(1), start)

    def _solved(self, states, constant, start):
        number = {state: i for i, state in enumerate(states)}
        rows = []
        for s in states:
            row = [Fraction(int(i == number[s])) for i in range(len(states))] + [constant(s)]
            for p, after in self.ways(s):
                if after in number:
                    row[number[after]] -= p
            rows.append(row)
        return solve(rows)[number[start]]

    def hazard(self, start):
        """Long-run risk of the next token, by powers of Q in mpmath: positive sums, so to all digits that it has."""
        states = self.running_states([start])
        number = {state: i for i, state in enumerate(states)}
        ways = [[(mp(p), number.get(after)) for p, after in self.ways(s)] for s in states]
        risk = [mp(sum(p for p, after in self.ways(s) if self.is_red(after))) for s in states]
        law = [mpmath.mpf(1) / len(states)] * len(states)
        value, quiet = mpmath.mpf(0), 0
        while quiet < 20:
            following = [mpmath.mpf(0)] * len(states)
            for i, out in enumerate(ways):
                for p, to in out:
                    if to is not None:
                        following[to] += law[i] * p
            total = mpmath.fsum(following)
            law = [x / total for x in following]
            before, value = value, mpmath.fsum(x * r for x, r in zip(law, risk, strict=True))
            quiet = quiet + 1 if abs(value - before) <= abs(value) * mpmath.mpf(10) ** -30 else 0
        return value


def mp(fraction):
    return mpmath.mpf(fraction.numerator) / fraction.denominator


def solve(rows):
    """Gauss-Jordan elimination of an augmented matrix of Fractions."""
    n = len(rows)
    for k in range(n):
        pivot = next(i for i in range(k, n) if rows[i][k])
        rows[k], rows[pivot] = rows[pivot], rows[k]
        scale = rows[k][k]
        rows[k] = [x / scale if x else x for x in rows[k]]
        for i in range(n):
            if i != k and rows[i][k]:
                factor = rows[i][k]
                rows[i] = [x - factor * y if y else x for x, y in zip(rows[i], rows[k], strict=True)]
    return [row[n] for row in rows]


def stationary_in_fractions(texts):
    """{context: probability} of the chain of full contexts, all of one class."""
    contexts = list(product(range(texts.V), repeat=texts.T))
    number = {c: i for i, c in enumerate(contexts)}
    rows = [[Fraction(int(i == j)) for j in range(len(contexts))] + [Fraction(0)] for i in range(len(contexts))]
    plain = Texts.__new__(Texts)
    plain.__dict__.update(texts.__dict__ | {"red": set(), "patterns": [], "end": None})
    for context in contexts:
        for p, (after, _) in plain.ways((context, ())):
            rows[number[after]][number[context]] -= p
    rows[0] = [Fraction(1)] * (len(contexts) + 1)
    return dict(zip(contexts, solve(rows), strict=True))


def relative_error(ours, exact):
    """Of a Wide scalar (or a float) from a Fraction, in exact arithmetic; if that is 0, ours must be."""
    if isinstance(ours, Wide):
        ours = Fraction(float(ours.mantissa)) * Fraction(2) ** int(ours.exponent) if ours.mantissa else Fraction(0)
    if not exact:
        return float(ours)
    return float(abs(Fraction(ours) / exact - 1))


def power_of_ten(exact):
    """About log10 of a Fraction of any size."""
    return (exact.numerator.bit_length() - exact.denominator.bit_length()) * np.log10(2)


def rare(vocab_size, length, token, probability, seed=0):
    """Random rows in which one token has about that probability, a different one in each."""
    rng = np.random.default_rng([seed, length])
    table = rng.dirichlet(np.ones(vocab_size), vocab_size**length)
    table[:, token] = 0
    table /= table.sum(axis=1, keepdims=True)
    table[:, token] = probability * rng.uniform(0.5, 2, len(table))
    return table / table.sum(axis=1, keepdims=True)


def both(tables, *, red=(), patterns=(), end=None, sums_to_one=False):
    """The chain with its red event, and the oracle, of the same tables {length: rows}."""
    chain = MarkovChain.from_probabilities(*(tables[length] for length in sorted(tables)), end=end)
    event = Red.of_contexts(chain, red) if red else Red.of_patterns(chain, patterns)
    return chain, event, Texts(tables, red=red, patterns=patterns, end=end, sums_to_one=sums_to_one)


def assert_passage(passage, exact):
    """Relative errors below 1e-12, or below 1e-11 for what lies below 1e-1000.

    A chain holds ln p. Of ln p = -690 rounding costs p = 1e-300 a relative 1e-13, and ten such tokens ten times that.
    """
    hits, running, stops = exact
    for t in range(len(hits)):
        pairs = [
            (passage.first_hit[t], hits[t]),
            (passage.within[t], sum(hits[: t + 1])),
            (passage.survival[t], running[t]),
            (passage.stopped[t], stops[t]),
        ]
        for ours, truth in pairs:
            deep = truth and power_of_ten(truth) < -1000
            assert relative_error(ours, truth) < (1e-11 if deep else 1e-12)


# ---- within n steps ------------------------------------------------------------------------------------------

RARE_EVENTS = {  # (probability of token 1, red contexts, red patterns, about log10 P)
    "contexts at 1e-30": (1e-10, [(1, 1, 1)], [], -30),
    "contexts at 1e-300": (1e-100, [(1, 1, 1)], [], -300),
    "contexts at 1e-900": (1e-300, [(1, 1, 1)], [], -900),
    "a pattern at 1e-30": (1e-5, [], [(1, 1, 0, 1, 1, 0, 1, 1)], -30),
    "a pattern at 1e-300": (1e-43, [], [(1, 1, 0, 1, 1, 0, 1, 1, 1)], -300),
    "a pattern at 1e-3000": (1e-300, [], [(1,) * 10], -3000),
    "patterns at 1e-3000": (1e-250, [], [(1, 1, 0) * 6, (0, 1, 1) * 6 + (1,)], -3000),
}


def rare_event(name, short):
    p, red, patterns, magnitude = RARE_EVENTS[name]
    lengths = (1, 2, 3) if short else (3,)
    return *both({length: rare(2, length, 1, p) for length in lengths}, red=red, patterns=patterns), magnitude


@pytest.mark.parametrize("name", RARE_EVENTS)
def test_rare_probabilities_from_a_prompt_have_all_their_digits(name):
    chain, red, texts, magnitude = rare_event(name, short=False)
    for prompt in ((0, 0, 0), (1, 0, 1, 0, 0)):
        exact = texts.first_passage({texts.begin(prompt): Fraction(1)}, 20)
        passage = hitting_probability(chain, red, 20, start=prompt)
        assert_passage(passage, exact)
        logarithm = float(mpmath.log(mp(sum(exact[0]))))
        assert float(passage.probability.log()) == pytest.approx(logarithm, rel=1e-14)
    exact = texts.first_passage({texts.begin((0, 0, 0)): Fraction(1)}, 20)
    assert abs(power_of_ten(sum(exact[0])) - magnitude) < 0.02 * abs(magnitude) + 3


@pytest.mark.parametrize("name", RARE_EVENTS)
def test_rare_probabilities_from_a_short_prompt_have_all_their_digits(name):
    chain, red, texts, _ = rare_event(name, short=True)
    assert chain.n_states == 14
    for prompt in ((0,), (1,), (0, 1)):
        passage = hitting_probability(chain, red, 20, start=prompt)
        assert_passage(passage, texts.first_passage({texts.begin(prompt): Fraction(1)}, 20))


@pytest.mark.parametrize("name", RARE_EVENTS)
def test_rare_probabilities_from_the_stationary_law_have_all_their_digits(name):
    chain, red, texts, _ = rare_event(name, short=False)
    law = {texts.begin(context): p for context, p in stationary_in_fractions(texts).items()}
    assert_passage(hitting_probability(chain, red, 20), texts.first_passage(law, 20))


def test_a_context_of_ten_tokens_is_reached_with_1e_3000():
    chain, red, texts = both({10: rare(2, 10, 1, 1e-300)}, red=[(1,) * 10])
    exact = texts.first_passage({texts.begin((0,) * 10): Fraction(1)}, 14)
    assert abs(power_of_ten(sum(exact[0])) + 3000) < 3
    assert_passage(hitting_probability(chain, red, 14, start=(0,) * 10), exact)


def test_steps_too_rare_for_any_float_count():
    """Log-probabilities of -2000, as logits can give them; (e^-2000) ** 2 = 1e-1737."""
    logprobs = np.array([[0.0, -2000.0], [0.0, -2000.0], [0.0, -2000.0], [0.0, -2000.0]])
    chain = MarkovChain((Layer(2, logprobs, np.ones((4, 2), dtype=bool)),))
    passage = hitting_probability(chain, Red.of_contexts(chain, [(1, 1)]), 2, start=(0, 0))
    assert float(passage.probability.log()) == pytest.approx(-4000, rel=1e-15)
    assert float(passage.survival[-1].log()) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize(("p", "steps", "magnitude"), [(1e-10, 3, -30), (1e-20, 20, -400), (1e-300, 10, -3000)])
def test_not_being_hit_keeps_its_digits_where_being_hit_is_nearly_sure(p, steps, magnitude):
    tables = {length: rare(3, length, 2, p) for length in (1, 2)}
    chain, red, texts = both(tables, patterns=[(0,), (1,)])
    exact = texts.first_passage({texts.begin((2,)): Fraction(1)}, steps)
    assert abs(power_of_ten(exact[1][-1]) - magnitude) < 0.02 * abs(magnitude) + 3
    passage = hitting_probability(chain, red, steps, start=(2,))
    assert_passage(passage, exact)
    assert float(passage.probability) == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize("end", [End(2), End(2, restart=(0, 1)), End(2, restart=(0,))])
@pytest.mark.parametrize("p", [0.3, 1e-10, 1e-100])
def test_ends_and_restarts_are_followed(p, end):
    tables = {length: rare(3, length, 1, p, seed=2) for length in (1, 2)}
    for patterns in ([(1, 1, 0)], [(1, 2), (0, 1, 1)], [(1, 0, 1, 1)]):
        chain, red, texts = both(tables, patterns=patterns, end=end)
        for prompt in ((0,), (0, 1)):
            exact = texts.first_passage({texts.begin(prompt): Fraction(1)}, 12)
            assert_passage(hitting_probability(chain, red, 12, start=prompt), exact)


def test_a_rare_end_is_as_exact_as_a_rare_hit():
    tables = {2: rare(3, 2, 2, 1e-300, seed=3)}
    chain, red, texts = both(tables, patterns=[(0, 1, 0)], end=End(2))
    assert_passage(
        hitting_probability(chain, red, 10, start=(1, 1)),
        texts.first_passage({texts.begin((1, 1)): Fraction(1)}, 10),
    )


def test_a_red_start_is_hit_at_step_0():
    chain, red, _ = both({2: rare(2, 2, 1, 0.3)}, red=[(0, 1)])
    passage = hitting_probability(chain, red, 3, start=(0, 1))
    assert passage.first_hit.to_float().tolist() == [1, 0, 0, 0]
    assert passage.survival.to_float().tolist() == [0, 0, 0, 0]
    by_pattern = Red.of_patterns(chain, [(1, 1, 0)])
    assert float(hitting_probability(chain, by_pattern, 0, start=(1, 1, 0, 0)).probability) == 1


def test_no_steps_leave_what_there_is():
    chain, red, _ = both({1: rare(2, 1, 1, 0.3)}, red=[(1,)])
    passage = hitting_probability(chain, red, 0, start=(0,))
    assert (float(passage.probability), float(passage.survival[0])) == (0, 1)
    with pytest.raises(UsageError, match="0 or more, got -1"):
        hitting_probability(chain, red, -1, start=(0,))


def test_what_the_graph_excludes_is_exactly_zero():
    table = np.array([[1.0, 0.0], [0.5, 0.5], [1.0, 0.0], [1e-200, 1.0]])
    chain, red, _ = both({2: table}, red=[(1, 1)])
    passage = hitting_probability(chain, red, 50, start=(0, 0))
    assert passage.probability.is_zero()
    assert float(passage.survival[-1]) == 1


@pytest.mark.parametrize("end", [None, End(1), End(0, restart=(2, 2))])
@pytest.mark.parametrize("p", [0.4, 1e-30, 1e-200])
def test_from_every_state_at_once_is_from_each_on_its_own(p, end):
    chain, red, texts = both({2: rare(3, 2, 2, p, seed=4)}, patterns=[(2, 2), (2, 0, 2)], end=end)
    hit, miss = hitting_probabilities(chain, red, 9)
    for prompt in product(range(3), repeat=2):
        place = (red.automaton.run(prompt), chain.index(prompt))
        hits, running, stops = texts.first_passage({texts.begin(prompt): Fraction(1)}, 9)
        assert relative_error(hit[place], sum(hits)) < 1e-12
        assert relative_error(miss[place], running[-1] + stops[-1]) < 1e-12
        passage = hitting_probability(chain, red, 9, start=prompt)
        assert relative_error(passage.probability, sum(hits)) < 1e-12


# ---- ever ----------------------------------------------------------------------------------------------------

EVER = {  # probability of the rare token 1; of the end token 2 as it comes
    "common": (0.3, [(1, 0, 1)]),
    "1e-30": (1e-10, [(1, 1, 0, 1)]),
    "1e-300": (1e-100, [(1, 1, 0, 1)]),
    "1e-900": (1e-300, [(1, 1, 0, 1)]),
    "1e-3000": (1e-300, [(1,) * 10]),
}


@pytest.mark.parametrize("name", EVER)
def test_ever_being_hit_before_the_end_has_all_its_digits(name):
    p, patterns = EVER[name]
    tables = {length: rare(3, length, 1, p, seed=5) for length in (1, 2)}
    chain, red, texts = both(tables, patterns=patterns, end=End(2), sums_to_one=True)
    for prompt in ((0,), (0, 1), (1, 0)):
        exact = texts.ever(texts.begin(prompt))
        ever = ever_hit(chain, red, start=prompt)
        assert relative_error(ever.probability, exact) < 1e-12
        assert relative_error(ever.complement, 1 - exact) < 1e-12
        assert "state reduction" in ever.certificate
        assert ever.uncertainty.is_zero()


@pytest.mark.parametrize("p_end", [1e-30, 1e-300])
def test_never_being_hit_has_all_its_digits_where_texts_hardly_ever_end(p_end):
    tables = {2: rare(3, 2, 2, p_end, seed=6)}
    chain, red, texts = both(tables, red=[(0, 1)], end=End(2), sums_to_one=True)
    exact = texts.ever(texts.begin((1, 1)))
    ever = ever_hit(chain, red, start=(1, 1))
    assert relative_error(ever.complement, 1 - exact) < 1e-12
    assert relative_error(ever.probability, exact) < 1e-12


@pytest.mark.parametrize("name", ["common", "1e-30", "1e-300", "1e-900"])
def test_walking_agrees_with_reduction_within_what_it_leaves_undecided(name, monkeypatch):
    p, patterns = EVER[name]
    chain, red, texts = both({2: rare(3, 2, 1, p, seed=7)}, patterns=patterns, end=End(2), sums_to_one=True)
    exact = texts.ever(texts.begin((0, 1)))
    monkeypatch.setattr(hitting, "DENSE_LIMIT", 0)
    ever = ever_hit(chain, red, start=(0, 1))
    assert "walking" in ever.certificate
    slack = 1 + Fraction(1, 10**12)
    for ours, truth in ((ever.probability, exact), (ever.complement, 1 - exact)):
        low = as_fraction(ours)
        assert low / slack <= truth <= (low + as_fraction(ever.uncertainty)) * slack
        assert relative_error(ours, truth) < 1e-12


def as_fraction(wide):
    return Fraction(float(wide.mantissa)) * Fraction(2) ** int(wide.exponent) if wide.mantissa else Fraction(0)


def test_with_all_tokens_possible_and_no_end_everything_happens():
    chain, red, _ = both({2: rare(2, 2, 1, 1e-300)}, red=[(1, 1)])
    ever = ever_hit(chain, red, start=(0, 0))
    assert (float(ever.probability), float(ever.complement)) == (1, 0)
    assert "by graph" in ever.certificate
    assert "by graph" in ever_hit(chain, red).certificate


def test_what_no_way_leads_to_never_happens():
    table = np.array([[1.0, 0.0], [0.5, 0.5], [1.0, 0.0], [1e-200, 1.0]])
    chain, red, _ = both({2: table}, red=[(1, 1)])
    ever = ever_hit(chain, red, start=(1, 0))
    assert ever.probability.is_zero()
    assert float(ever.complement) == 1
    assert "by graph" in ever.certificate


def test_of_two_absorbing_words_each_is_reached_with_its_own_probability():
    table = rare(2, 3, 1, 0.4, seed=8)
    table[0], table[7] = [1, 0], [0, 1]  # after 000 only 0, after 111 only 1
    chain, red, texts = both({3: table}, red=[(1, 1, 1)], sums_to_one=True)
    exact = texts.ever(texts.begin((0, 1, 0)))
    assert 0 < exact < 1
    ever = ever_hit(chain, red, start=(0, 1, 0))
    assert relative_error(ever.probability, exact) < 1e-13
    assert relative_error(ever.complement, 1 - exact) < 1e-13


@pytest.mark.parametrize("p", [0.3, 1e-100])
def test_a_restart_gives_red_another_chance_and_makes_it_sure(p):
    tables = {length: rare(3, length, 1, p) for length in (1, 2)}
    chain, red, _ = both(tables, patterns=[(1, 1)], end=End(2, restart=(0,)))
    assert float(ever_hit(chain, red, start=(0,)).probability) == 1
    assert float(ever_hit(chain, red).probability) == 1


# ---- hazard and mean times -----------------------------------------------------------------------------------

HAZARDS = {
    "common contexts": (0.4, [(1, 1)], []),
    "1e-30": (1e-15, [(1, 1)], []),
    "1e-100": (1e-50, [(1, 1)], []),
    "1e-320": (1e-160, [(1, 1)], []),
    "1e-600": (1e-300, [(1, 1)], []),
    "a common pattern": (0.4, [], [(1, 0, 1, 1)]),
    "a pattern at 1e-30": (1e-10, [], [(1, 0, 1, 1)]),
    "a pattern at 1e-320": (1e-80, [], [(1, 1, 1, 1)]),
}


def hazard_case(name, end=None):
    p, red, patterns = HAZARDS[name]
    return both({2: rare(3, 2, 1, p, seed=9)}, red=red, patterns=patterns, end=end, sums_to_one=True)


@pytest.mark.parametrize("end", [None, End(2), End(2, restart=(0, 0))])
@pytest.mark.parametrize("name", HAZARDS)
def test_the_hazard_is_that_of_the_quasi_stationary_law(name, end):
    chain, red, texts = hazard_case(name, end)
    with mpmath.workdps(80):
        exact = texts.hazard(texts.begin((0, 0)))
        found = hazard(chain, red, start=(0, 0))
        assert found.certificate == "inverse iteration"
        ours = mpmath.mpf(float(found.per_token.mantissa)) * mpmath.mpf(2) ** int(found.per_token.exponent)
        assert abs(ours / exact - 1) < 1e-12


@pytest.mark.parametrize("name", HAZARDS)
def test_the_hazard_found_by_walking_is_the_same(name, monkeypatch):
    chain, red, _ = hazard_case(name)
    by_reduction = hazard(chain, red, start=(0, 0)).per_token
    monkeypatch.setattr(hitting, "DENSE_LIMIT", 0)
    walked = hazard(chain, red, start=(0, 0))
    assert walked.certificate.startswith("walking: unmoved")
    assert float((walked.per_token / by_reduction).log()) == pytest.approx(0, abs=1e-11)


def test_a_short_prompt_which_no_text_returns_to_leaves_no_trace_in_the_hazard():
    for p in (0.4, 1e-15, 1e-200):
        tables = {length: rare(2, length, 1, p, seed=10) for length in (1, 2, 3)}
        chain, red, texts = both(tables, red=[(1, 1, 1)], sums_to_one=True)
        with mpmath.workdps(60):
            exact = texts.hazard(texts.begin((0,)))
            found = hazard(chain, red, start=(0,))
            ours = mpmath.mpf(float(found.per_token.mantissa)) * mpmath.mpf(2) ** int(found.per_token.exponent)
            assert found.certificate == "inverse iteration"
            assert abs(ours / exact - 1) < 1e-12


def test_texts_that_run_on_stay_where_the_risk_is_least():
    """After 00 a text leaves by red alone, 1 in 5; after 11 it stays by .7. Those that last are in 00."""
    table = np.array([[0.8, 0.2], [0.5, 0.5], [0.4, 0.6], [0.3, 0.7]])
    chain, red, _ = both({2: table}, red=[(0, 1)])
    found = hazard(chain, red, start=(1, 1))
    assert float(found.per_token) == pytest.approx(0.2, rel=1e-13)
    assert found.certificate == "inverse iteration"


def test_texts_that_can_only_stop_share_the_hazard_of_those_that_can_still_be_hit():
    """0 leads to red 1 by .1 and to 3 by .2; 3 stays or stops. Of the texts that last a third are at 0."""
    table = np.array([[0.6, 0.1, 0.1, 0.2], [0.25] * 4, [0.25] * 4, [0.0, 0.0, 0.5, 0.5]])
    chain, red, _ = both({1: table}, red=[(1,)], end=End(2))
    assert float(hazard(chain, red, start=(0,)).per_token) == pytest.approx(1 / 30, rel=1e-12)


def test_a_risk_that_only_the_first_token_runs_is_no_hazard():
    """0 leads to red 1 by .1 or to 3; 3 stays or stops."""
    table = np.array([[0.0, 0.1, 0.0, 0.9], [0.25] * 4, [0.25] * 4, [0.0, 0.0, 0.5, 0.5]])
    chain, red, _ = both({1: table}, red=[(1,)], end=End(2))
    found = hazard(chain, red, start=(0,))
    assert found.per_token.is_zero()
    assert "end up where red cannot be reached" in found.note


def test_near_certain_red_leaves_the_hazard_of_the_texts_that_escape_it_longest():
    """0 stays by 1e-20 and 3 by 1e-12, or else is red: what lasts is at 3, where 1e-12 more than red is possible."""
    table = np.array([[1e-20, 1 - 1e-9, 0.0, 1e-9], [0.25] * 4, [0.25] * 4, [0.0, 0.25, 0.75, 1e-12]])
    chain, red, _ = both({1: table}, red=[(1,)], end=End(2))
    found = hazard(chain, red, start=(0,))
    assert float(found.per_token) == pytest.approx(0.25, rel=1e-12)
    assert found.certificate == "inverse iteration"


def test_walking_does_not_lose_texts_in_which_a_float_is_too_short_for_survival(monkeypatch):
    table = np.array([[1e-200, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    chain, red, texts = both({1: table}, red=[(1,)])
    monkeypatch.setattr(hitting, "DENSE_LIMIT", 0)
    found = expected_steps(chain, red, start=(2,))
    assert relative_error(found.lower, texts.mean_steps(texts.begin((2,)))) < 1e-12


def test_where_there_is_no_hazard_the_reason_is_given():
    chain, red, _ = both({1: np.array([[0.0, 1.0], [0.5, 0.5]])}, red=[(1,)])
    bounded = hazard(chain, red, start=(0,))
    assert bounded.per_token is None
    assert "within a bounded number of tokens" in bounded.note
    with pytest.raises(UsageError, match="no hazard to extrapolate"):
        bounded.within(10)
    assert "every start is red" in hazard(chain, red, start=(1,)).note
    table = np.array([[1.0, 0.0], [0.5, 0.5], [1.0, 0.0], [0.5, 0.5]])
    chain, red, _ = both({2: table}, red=[(1, 1)])
    assert hazard(chain, red, start=(0, 0)).per_token.is_zero()
    assert "cannot be reached" in hazard(chain, red, start=(0, 0)).note
    assert "end up where red cannot be reached" in hazard(chain, red, start=(0, 1)).note


def test_a_hazard_extrapolates_to_a_deployment():
    chain, red, _ = hazard_case("1e-30")
    found = hazard(chain, red, start=(0, 0))
    assert found.within(1e15) == pytest.approx(1e15 * float(found.per_token), rel=1e-12, abs=0)
    assert found.within(1e35) == 1
    # a long finite horizon agrees with it where red is common
    chain, red, _ = hazard_case("common contexts")
    passage = hitting_probability(chain, red, 200, start=(0, 0))
    survived = passage.survival[200] / passage.survival[190]
    assert 1 - float(survived) == pytest.approx(hazard(chain, red, start=(0, 0)).within(10), rel=1e-11)


@pytest.mark.parametrize("name", HAZARDS)
def test_the_mean_number_of_steps_has_all_its_digits(name):
    chain, red, texts = hazard_case(name)
    for prompt in ((0, 0), (1, 0), (2, 1)):
        exact = texts.mean_steps(texts.begin(prompt))
        found = expected_steps(chain, red, start=prompt)
        assert relative_error(found.lower, exact) < 1e-12
        assert found.lower is found.upper


@pytest.mark.parametrize("end", [None, End(2, restart=(0, 0))])
@pytest.mark.parametrize("name", HAZARDS)
def test_the_mean_number_of_steps_lies_between_the_bounds_found_by_walking(name, end, monkeypatch):
    chain, red, texts = hazard_case(name, end)
    exact = texts.mean_steps(texts.begin((0, 0)))
    monkeypatch.setattr(hitting, "DENSE_LIMIT", 0)
    found = expected_steps(chain, red, start=(0, 0))
    assert "walking" in found.certificate
    slack = 1 + Fraction(1, 10**12)  # rounding
    assert as_fraction(found.lower) / slack <= exact <= as_fraction(found.upper) * slack
    assert float((found.upper / found.lower).log()) < 2e-10


def test_walking_bounds_the_mean_even_past_states_that_cannot_last(monkeypatch):
    table = np.array([[0.5, 0.5], [0.0, 1.0], [0.5, 0.5], [0.5, 0.5]])  # after 01 always 1: red
    chain, red, texts = both({2: table}, red=[(1, 1)])
    monkeypatch.setattr(hitting, "DENSE_LIMIT", 0)
    found = expected_steps(chain, red, start=(0, 0))
    assert relative_error(found.lower, texts.mean_steps(texts.begin((0, 0)))) < 1e-10
    certain, red, texts = both({2: np.array([[0.0, 1.0]] * 4)}, red=[(1, 1)])
    sure = expected_steps(certain, red, start=(0, 0))
    assert float(sure.lower) == float(sure.upper) == 2


def test_the_mean_from_the_stationary_law_is_the_mean_of_the_means():
    chain, red, texts = both({2: rare(2, 2, 1, 0.3, seed=11)}, red=[(1, 1)], sums_to_one=True)
    law = stationary_in_fractions(texts)
    exact = sum(p * texts.mean_steps(texts.begin(context)) for context, p in law.items())
    assert relative_error(expected_steps(chain, red).lower, exact) < 1e-12


def test_the_mean_is_infinite_unless_red_is_sure():
    chain, red, _ = both({2: rare(3, 2, 1, 0.3)}, red=[(1, 1)], end=End(2))
    found = expected_steps(chain, red, start=(0, 0))
    assert (found.lower, found.upper) == (None, None)
    assert "infinite" in found.note


def test_a_red_start_takes_no_steps():
    chain, red, _ = both({2: rare(2, 2, 1, 0.3)}, red=[(1, 1)])
    assert expected_steps(chain, red, start=(1, 1)).lower.is_zero()


@pytest.mark.parametrize("p", [0.3, 1e-10, 1e-100, 1e-200])
def test_the_mean_return_time_is_one_over_the_stationary_probability(p):
    """Kac's lemma."""
    for seed, marks in ((12, [(1, 1)]), (13, [(0, 1), (1, 1)]), (14, [(1, 0)])):
        chain, red, texts = both({2: rare(2, 2, 1, p, seed=seed)}, red=marks, sums_to_one=True)
        law = stationary_in_fractions(texts)
        found = mean_return_time(chain, red)
        assert relative_error(found.lower, 1 / sum(law[c] for c in marks)) < 1e-12
        # and against the float law, which is found quite otherwise
        pi = stationary_distribution(chain).wide[np.flatnonzero(red.contexts)].sum()
        assert float((found.lower * pi).log()) == pytest.approx(0, abs=1e-12)


def test_there_is_no_return_to_a_pattern_or_to_what_is_never_met():
    chain, red, _ = both({2: rare(2, 2, 1, 0.3)}, patterns=[(1, 1, 1)])
    with pytest.raises(UsageError, match="no return to a pattern"):
        mean_return_time(chain, red)
    transient = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.5, 0.5]])
    chain, red, _ = both({2: transient}, red=[(1, 1)])
    with pytest.raises(UsageError, match="in the long run it is never met"):
        mean_return_time(chain, red)


# ---- sensitivity ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("red", "patterns"), [([(1, 1)], []), ([], [(1, 0, 1)]), ([], [(1, 1, 1, 1), (0, 2)]), ([(0, 1), (2, 2)], [])]
)
def test_the_sensitivity_is_the_difference_quotient_in_the_logits(red, patterns):
    rng = np.random.default_rng(15)
    logits = {1: rng.normal(size=(3, 3)), 2: rng.normal(size=(9, 3))}

    def rows(z):
        return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)

    chain, event, _ = both({k: rows(z) for k, z in logits.items()}, red=red, patterns=patterns)
    gradient = sensitivity(chain, event, 7, start=(0,))
    step = 1e-5
    for length, z in logits.items():
        for place in np.ndindex(z.shape):
            values = []
            for sign in (1, -1):
                moved = {k: x.copy() for k, x in logits.items()}
                moved[length][place] += sign * step
                other, same_event, _ = both({k: rows(x) for k, x in moved.items()}, red=red, patterns=patterns)
                values.append(float(hitting_probability(other, same_event, 7, start=(0,)).probability))
            quotient = (values[0] - values[1]) / (2 * step)
            state = place[0] + (3 if length == 2 else 0)
            assert gradient[state, place[1]] == pytest.approx(quotient, abs=3e-10)
    np.testing.assert_allclose(gradient.sum(axis=1), 0, atol=1e-15)  # a constant added to a row's logits does nothing


def test_the_sensitivity_refuses_texts_that_end():
    chain, red, _ = both({1: rare(3, 1, 1, 0.3)}, red=[(1,)], end=End(2))
    with pytest.raises(UsageError, match="texts do not end"):
        sensitivity(chain, red, 3, start=(0,))


# ---- laws ----------------------------------------------------------------------------------------------------


@st.composite
def chains_and_patterns(draw):
    vocab_size = draw(st.integers(2, 3))
    length = draw(st.integers(1, 2))
    decades = draw(st.sampled_from([1.0, 20.0, 200.0]))
    table = rough_rows(vocab_size, length, decades, draw(st.integers(0, 1000)))
    tokens = st.integers(0, vocab_size - 1)
    patterns = draw(st.lists(st.lists(tokens, min_size=1, max_size=4), min_size=2, max_size=3))
    start = draw(st.lists(tokens, min_size=length, max_size=length + 1))
    end = draw(st.sampled_from([None, End(0), End(vocab_size - 1, restart=(0,) * length)]))
    return table, length, patterns, start, end


def rough_rows(vocab_size, length, decades, seed):
    rng = np.random.default_rng(seed)
    table = 10.0 ** -rng.uniform(0, decades, (vocab_size**length, vocab_size))
    table[(rng.random(table.shape) < 0.2) & (table < table.max(axis=1, keepdims=True))] = 0
    return table / table.sum(axis=1, keepdims=True)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(chains_and_patterns())
def test_the_laws_of_first_passage(case):
    table, length, patterns, start, end = case
    chain, red, _ = both({length: table}, patterns=patterns, end=end)
    passage = hitting_probability(chain, red, 10, start=start)
    within, survival, stopped = (w.to_float() for w in (passage.within, passage.survival, passage.stopped))
    np.testing.assert_allclose(within + survival + stopped, 1, atol=1e-13)
    np.testing.assert_allclose(passage.first_hit.to_float().cumsum(), within, atol=1e-13)
    logs = passage.within.log()
    assert all(later >= earlier - 1e-13 for earlier, later in pairwise(logs))

    fewer = hitting_probability(chain, Red.of_patterns(chain, patterns[:-1]), 10, start=start)
    assert fewer.probability.log() <= passage.probability.log() + 1e-12

    ever = ever_hit(chain, red, start=start)
    assert passage.probability.log() <= ever.probability.log() + 1e-12
    assert float(ever.probability) + float(ever.complement) == pytest.approx(1, abs=1e-13)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(chains_and_patterns(), st.randoms(use_true_random=False))
def test_renaming_the_tokens_changes_no_number(case, random):
    table, length, patterns, start, end = case
    V = table.shape[1]
    new_name = list(range(V))
    random.shuffle(new_name)
    old_name = np.argsort(new_name)
    cube = table.reshape((V,) * (length + 1))
    renamed_table = cube[np.ix_(*[old_name] * (length + 1))].reshape(-1, V)

    def rename(text):
        return tuple(int(new_name[token]) for token in text)

    renamed_end = None
    if end is not None:
        renamed_end = End(new_name[end.token], None if end.restart is None else rename(end.restart))
    chain, red, _ = both({length: table}, patterns=patterns, end=end)
    other, other_red, _ = both({length: renamed_table}, patterns=[rename(p) for p in patterns], end=renamed_end)
    ours, theirs = hitting_probability(chain, red, 6, start), hitting_probability(other, other_red, 6, rename(start))
    for a, b in ((ours.within, theirs.within), (ours.survival, theirs.survival), (ours.stopped, theirs.stopped)):
        np.testing.assert_allclose(a.log(), b.log(), rtol=1e-13, atol=1e-13)
    a, b = ever_hit(chain, red, start), ever_hit(other, other_red, rename(start))
    np.testing.assert_allclose(a.probability.log(), b.probability.log(), rtol=1e-13, atol=1e-12)
    np.testing.assert_allclose(a.complement.log(), b.complement.log(), rtol=1e-13, atol=1e-12)
    a, b = expected_steps(chain, red, start), expected_steps(other, other_red, rename(start))
    assert (a.lower is None) == (b.lower is None)
    if a.lower is not None:
        np.testing.assert_allclose(a.lower.log(), b.lower.log(), rtol=1e-13, atol=1e-12)
