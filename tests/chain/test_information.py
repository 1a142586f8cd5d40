"""Entropies, divergences and memory against their definitions over whole texts."""

from collections import Counter
from itertools import product

import numpy as np
import pytest

from glassgpt.chain.hitting import expected_steps, hazard, hitting_probability
from glassgpt.chain.information import (
    EmpiricalChain,
    entropy_rate,
    exposure,
    k_gram_law,
    kl_rate,
    marginal_distances,
    mutual_information,
    reverse_kl_rate,
    training_loss,
)
from glassgpt.chain.markov import MarkovChain
from glassgpt.chain.stationary import stationary_distribution
from glassgpt.chain.walk import Red
from glassgpt.errors import UsageError


def random_chain(vocab_size, length, seed=0, short=False):
    rng = np.random.default_rng(seed)
    lengths = range(1, length + 1) if short else [length]
    return MarkovChain.from_probabilities(*(rng.dirichlet(np.ones(vocab_size), vocab_size**k) for k in lengths))


def law_of(chain):
    return stationary_distribution(chain).probabilities


def texts(chain, length):
    """{text: probability} of stationary texts of so many tokens, at least a context."""
    T, law = chain.context_length, law_of(chain)
    found = {chain.context(s): float(law[s]) for s in range(chain.n_states) if len(chain.context(s)) == T}
    for _ in range(length - T):
        found = {
            (*text, token): p * float(chain.probs[chain.index(text), token])
            for text, p in found.items()
            for token in range(chain.vocab_size)
        }
    return found


def entropy_of(weights):
    return -sum(p * np.log(p) for p in weights if p > 0)


def marginal(joint, places):
    out = Counter()
    for text, p in joint.items():
        out[tuple(text[i] for i in places)] += p
    return out


CHAINS = {
    "bits": random_chain(2, 3),
    "letters": random_chain(3, 2, seed=1),
    "one token": random_chain(4, 1, seed=2),
    "short contexts too": random_chain(2, 2, seed=3, short=True),
}


@pytest.mark.parametrize("name", CHAINS)
def test_the_entropy_rate_is_what_one_more_token_adds_to_the_entropy_of_a_text(name):
    chain = CHAINS[name]
    T = chain.context_length
    longer, shorter = texts(chain, T + 1), texts(chain, T)
    expected = entropy_of(longer.values()) - entropy_of(shorter.values())
    assert entropy_rate(chain, law_of(chain)) == pytest.approx(expected, rel=1e-12)


def test_impossible_tokens_add_nothing_to_the_entropy_rate():
    chain = MarkovChain.from_probabilities(np.array([[0.0, 1.0], [0.5, 0.5]]))
    assert entropy_rate(chain, np.array([1 / 3, 2 / 3])) == pytest.approx(2 / 3 * np.log(2), rel=1e-14)


@pytest.mark.parametrize("name", CHAINS)
def test_mutual_information_is_that_of_the_joint_law_of_two_tokens(name):
    chain = CHAINS[name]
    T = chain.context_length
    found = mutual_information(chain, law_of(chain), 5)
    joint = texts(chain, T + 5)
    for n in range(6):
        pair = marginal(joint, (T - 1, T - 1 + n))
        first, second = marginal(joint, (T - 1,)), marginal(joint, (T - 1 + n,))
        expected = sum(p * np.log(p / (first[(a,)] * second[(b,)])) for (a, b), p in pair.items())
        assert found[n] == pytest.approx(expected, rel=1e-10, abs=1e-14)
    assert found[0] == pytest.approx(entropy_of(first.values()), rel=1e-12)


def test_a_token_that_never_comes_tells_nothing():
    chain = MarkovChain.from_probabilities(np.tile([0.5, 0.5, 0.0], (3, 1)))
    np.testing.assert_allclose(mutual_information(chain, law_of(chain), 3), [np.log(2), 0, 0, 0], atol=1e-15)


@pytest.mark.parametrize("name", CHAINS)
def test_the_law_of_k_grams_is_that_of_the_last_tokens(name):
    chain = CHAINS[name]
    T, V = chain.context_length, chain.vocab_size
    joint = texts(chain, T)
    for k in range(1, T + 1):
        expected = marginal(joint, range(T - k, T))
        found = k_gram_law(law_of(chain)[chain.offset(T) :], V, k)
        np.testing.assert_allclose(found, [expected[g] for g in product(range(V), repeat=k)], rtol=1e-13)


# ---- beside data ---------------------------------------------------------------------------------------------


def example(seed=4, vocab_size=3, length=2, n=200):
    text = np.random.default_rng(seed).integers(vocab_size, size=n)
    text[n // 2 :] = np.where(text[n // 2 :] == 2, 0, text[n // 2 :])
    return text, EmpiricalChain.of_text(text, vocab_size, length)


def windows(text, length):
    return [(tuple(text[i : i + length].tolist()), int(text[i + length])) for i in range(len(text) - length)]


def test_the_empirical_chain_counts_what_followed_what():
    text, data = example()
    counted = Counter(windows(text, 2))
    for code, context in enumerate(product(range(3), repeat=2)):
        followers = [counted[context, token] for token in range(3)]
        assert data.counts[code].tolist() == followers
        assert data.seen[code] == (sum(followers) > 0)
        assert data.law[code] == pytest.approx(sum(followers) / 198, rel=1e-15)


def test_training_loss_is_the_mean_surprise_and_the_data_s_entropy_plus_the_distance():
    text, data = example()
    chain = random_chain(3, 2, seed=5, short=True)
    surprise = [-np.log(chain.probs[chain.index(context), token]) for context, token in windows(text, 2)]
    assert training_loss(data, chain) == pytest.approx(np.mean(surprise), rel=1e-13)
    assert training_loss(data, chain) == pytest.approx(data.conditional_entropy + kl_rate(data, chain), rel=1e-13)


def test_a_model_that_is_the_data_is_at_no_distance():
    _, data = example(n=2000)
    chain = MarkovChain.from_probabilities(np.exp(data.logprobs))
    assert kl_rate(data, chain) == pytest.approx(0, abs=1e-14)
    assert training_loss(data, chain) == pytest.approx(data.conditional_entropy, rel=1e-13)


def test_a_model_that_excludes_what_happens_is_infinitely_far_and_one_that_excludes_the_unseen_is_not():
    data = EmpiricalChain.of_text([0, 1, 0, 1, 0], 2, 1)
    never_alternates = MarkovChain.from_probabilities(np.array([[1.0, 0.0], [0.5, 0.5]]))
    assert kl_rate(data, never_alternates) == training_loss(data, never_alternates) == np.inf
    unseen = EmpiricalChain.of_text([0, 0, 0, 0], 2, 1)
    assert kl_rate(unseen, never_alternates) == training_loss(unseen, never_alternates) == 0


def test_rows_of_contexts_never_seen_are_uniform():
    data = EmpiricalChain.of_text([0, 0, 0], 2, 1)
    np.testing.assert_allclose(np.exp(data.logprobs), [[1, 0], [0.5, 0.5]])
    assert data.conditional_entropy == 0


def test_the_reverse_divergence_is_over_the_model_s_own_texts():
    _, data = example()
    chain = random_chain(3, 2, seed=6)
    law = law_of(chain)
    smoothed = data.counts + 0.5
    smoothed /= smoothed.sum(axis=1, keepdims=True)
    expected = sum(law[s] * (chain.probs[s] * np.log(chain.probs[s] / smoothed[s])).sum() for s in range(9))
    assert reverse_kl_rate(chain, law, data, smoothing=0.5) == pytest.approx(expected, rel=1e-13)


def test_marginal_distances_are_those_of_the_two_laws_of_k_grams():
    text, data = example()
    chain = random_chain(3, 2, seed=7)
    contexts = [context for context, _ in windows(text, 2)]
    joint = texts(chain, 2)
    for found, k in zip(marginal_distances(chain, law_of(chain), data), (1, 2), strict=True):
        p = marginal(joint, range(2 - k, 2))
        q = Counter(context[2 - k :] for context in contexts)
        grams = list(product(range(3), repeat=k))
        p, q = np.array([p[g] for g in grams]), np.array([q[g] / len(contexts) for g in grams])
        m = (p + q) / 2
        js = sum(0.5 * x * np.log(x / z) for law in (p, q) for x, z in zip(law, m, strict=True) if x > 0)
        assert found.k == k
        assert found.total_variation == pytest.approx(np.abs(p - q).sum() / 2, rel=1e-12)
        assert found.jensen_shannon == pytest.approx(js, rel=1e-11)


def test_exposure_is_the_red_event_of_all_contexts_that_the_data_never_held():
    data = EmpiricalChain.of_text([0, 1, 2, 0, 1, 1, 2, 0, 0, 1], 3, 2)
    chain = random_chain(3, 2, seed=8, short=True)
    unseen = [c for c in product(range(3), repeat=2) if not data.seen[c[0] * 3 + c[1]]]
    assert unseen
    law, red = law_of(chain), Red.of_contexts(chain, unseen)
    found = exposure(chain, law, data, start=(0,), steps=20)
    assert found.stationary_mass_outside == pytest.approx(sum(law[chain.index(c)] for c in unseen), rel=1e-14)
    assert float(found.escape_hazard.per_token) == float(hazard(chain, red, (0,)).per_token)
    assert float(found.mean_steps_to_leave.lower) == float(expected_steps(chain, red, (0,)).lower)
    np.testing.assert_array_equal(
        found.escape.within.to_float(), hitting_probability(chain, red, 20, (0,)).within.to_float()
    )


def test_there_is_no_leaving_data_that_holds_every_context():
    text = np.random.default_rng(9).integers(2, size=100)
    chain = random_chain(2, 2)
    assert exposure(chain, law_of(chain), EmpiricalChain.of_text(text, 2, 2), start=(0, 0)) is None


def test_a_text_that_is_not_longer_than_a_context_is_refused():
    with pytest.raises(UsageError, match="a text of 2 tokens has no token that follows 2 others"):
        EmpiricalChain.of_text([0, 1], 2, 2)
