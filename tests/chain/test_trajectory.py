"""The summary of a chain is its figures, each as its own function gives it."""

import numpy as np
import pytest

from glassgpt.chain.hitting import ever_hit, expected_steps, hazard, hitting_probability
from glassgpt.chain.information import EmpiricalChain, entropy_rate, exposure, kl_rate
from glassgpt.chain.markov import End, MarkovChain
from glassgpt.chain.mixing import mixing_time, second_eigenvalue
from glassgpt.chain.stationary import stationary_distribution
from glassgpt.chain.trajectory import red_risk, summarise, trajectory
from glassgpt.chain.walk import Red


def random_chain(vocab_size, length, seed=0, end=None):
    rng = np.random.default_rng(seed)
    return MarkovChain.from_probabilities(rng.dirichlet(np.ones(vocab_size), vocab_size**length), end=end)


def test_a_summary_gathers_every_figure():
    chain = random_chain(2, 3)
    data = EmpiricalChain.of_text([0, 1, 1, 0, 1, 1, 0, 1, 0, 1], 2, 3)
    red = Red.of_contexts(chain, [(1, 1, 1)])
    summary = summarise(chain, start=(0, 1, 1), data=data, red=red, steps=20)
    law = stationary_distribution(chain).probabilities
    np.testing.assert_array_equal(summary.stationary.probabilities, law)
    assert summary.entropy_rate == entropy_rate(chain, law)
    assert summary.n_classes == 1
    assert [len(c) for c in summary.closed_classes] == [8]
    assert summary.periods == [1]
    assert summary.mixing == mixing_time(chain, law)
    assert summary.second_eigenvalue == second_eigenvalue(chain)
    assert sum(summary.loop_basins) == pytest.approx(1)
    assert len(summary.loops) == len(summary.loop_basins)
    assert summary.kl_to_data == kl_rate(data, chain)
    outside = exposure(chain, law, data, (0, 1, 1), 20)
    assert summary.mass_outside_data == outside.stationary_mass_outside
    assert float(summary.escape_hazard.per_token) == float(outside.escape_hazard.per_token)
    assert summary.red.steps == 20
    assert summary.note == ""


def test_the_risk_of_red_is_asked_four_ways():
    chain = random_chain(3, 2, seed=1)
    red = Red.of_patterns(chain, [(0, 1, 0)])
    for start in (None, (1, 2)):
        risk = red_risk(chain, red, 15, start)
        assert float(risk.passage.probability) == float(hitting_probability(chain, red, 15, start).probability)
        assert float(risk.ever.probability) == float(ever_hit(chain, red, start).probability)
        assert float(risk.hazard.per_token) == float(hazard(chain, red, start).per_token)
        assert float(risk.expected_steps.lower) == float(expected_steps(chain, red, start).lower)


def test_a_chain_without_a_long_run_says_why():
    stopping = summarise(random_chain(2, 2, end=End(1)))
    assert (stopping.stationary, stopping.entropy_rate, stopping.mixing, stopping.second_eigenvalue) == (None,) * 4
    assert "a text that stops has no stationary law" in stopping.note
    assert stopping.closed_classes == []
    divided = summarise(MarkovChain.from_probabilities(np.array([[1.0, 0.0], [0.0, 1.0]])))
    assert "2 closed classes" in divided.note
    assert divided.periods == [1, 1]


def test_of_a_divided_chain_the_start_decides():
    chain = MarkovChain.from_probabilities(np.array([[1.0, 0.0], [0.0, 1.0]]))
    summary = summarise(chain, start=(1,))
    assert summary.stationary.probabilities.tolist() == [0, 1]
    assert summary.note == ""


class Biased:
    """A model of independent tokens, 1 with the odds e**bias."""

    vocab_size, context_length = 2, 2

    def __init__(self, bias):
        self.bias = bias

    def context_table(self, length):
        return np.tile(np.array([0.0, self.bias], dtype=np.float32), (2**length, 1))


def test_a_trajectory_summarises_every_model_in_turn():
    models = [(0, Biased(0.0)), (10, Biased(-1.0)), (20, Biased(-4.0))]
    found = list(trajectory(models, start=(0, 0), red_of=lambda chain: Red.of_contexts(chain, [(1, 1)]), steps=5))
    assert [step for step, _ in found] == [0, 10, 20]
    for (_, model), (_, summary) in zip(models, found, strict=True):
        p = 1 / (1 + np.exp(-model.bias))
        entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p))
        assert summary.entropy_rate == pytest.approx(entropy, rel=1e-7)
        assert float(summary.red.passage.first_hit[2]) == pytest.approx(p * p, rel=1e-7)
    risks = [float(summary.red.passage.probability) for _, summary in found]
    assert risks == sorted(risks, reverse=True)
