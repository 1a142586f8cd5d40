"""The likeliest next tokens under a sampler, checked against softmax and sorting by hand."""

import numpy as np
import pytest
from scipy.stats import entropy

from glassgpt.decoding.next_token import next_tokens, spelled
from glassgpt.decoding.processors import processors
from glassgpt.decoding.shaped import Shaped
from glassgpt.errors import NumericalError, UsageError
from glassgpt.interface import LanguageModel


class Constant(LanguageModel):
    """The same logits after every context."""

    context_length = 4

    def __init__(self, logits):
        self.logits = np.asarray(logits, dtype=np.float64)
        self.vocab_size = len(self.logits)
        self.asked = 0

    def next_token_logits(self, contexts):
        self.asked += 1
        return np.tile(self.logits, (len(contexts), 1))


PROBS = np.array([0.05, 0.4, 0.1, 0.25, 0.05, 0.15])
ORDER = [1, 3, 5, 2, 0, 4]  # the lower id first among equals


def found(n=4, **sampler):
    return next_tokens(Constant(np.log(PROBS)), [0], "abcdef".__getitem__, [processors(**sampler)], n)[0]


def random_model(vocab_size=50, seed=0):
    return Constant(np.random.default_rng(seed).normal(size=vocab_size) * 2)


def test_the_likeliest_are_listed_by_name_and_the_rest_is_summed():
    tokens = found()
    assert tokens.tokens == ("b", "d", "f", "c") and tokens.ids.tolist() == ORDER[:4] and tokens.n_rest == 2
    for column in (tokens.model, tokens.uncut, tokens.drawn):
        assert column == pytest.approx([0.4, 0.25, 0.15, 0.1, 0.1])
    assert not tokens.cut.any() and tokens.n_kept == tokens.n_uncut == 6 and tokens.kept_mass == 1


def test_temperature_reshapes_and_cuts_nothing():
    tokens = found(temperature=0.5)
    assert tokens.drawn == pytest.approx(np.append(PROBS[ORDER[:4]] ** 2, 2 * 0.05**2) / np.sum(PROBS**2))
    assert tokens.uncut.tolist() == tokens.drawn.tolist() and not tokens.cut.any()
    assert tokens.model == pytest.approx([0.4, 0.25, 0.15, 0.1, 0.1])


def test_top_k_gives_the_mass_of_the_tail_to_what_stays():
    tokens = found(top_k=2)
    assert tokens.drawn == pytest.approx([0.4 / 0.65, 0.25 / 0.65, 0, 0, 0])
    assert tokens.cut == pytest.approx([0, 0, 0.15, 0.1, 0.1])
    assert tokens.n_kept == 2 and tokens.kept_mass == pytest.approx(0.65)


def test_a_cut_beyond_the_list_takes_a_part_of_the_rest():
    tokens = found(top_k=5)
    assert tokens.cut == pytest.approx([0, 0, 0, 0, 0.05]) and tokens.drawn[-1] == pytest.approx(0.05 / 0.95)


def test_top_p_and_min_p_cut_what_was_reshaped_by_the_temperature():
    squared = np.sort(PROBS**2 / np.sum(PROBS**2))[::-1]
    n_kept = 1 + int(np.sum(np.cumsum(squared) < 0.9))
    tokens = found(temperature=0.5, top_p=0.9)
    assert tokens.n_kept == n_kept and tokens.kept_mass == pytest.approx(squared[:n_kept].sum())
    assert found(temperature=0.5, min_p=0.3).n_kept == int(np.sum(squared >= 0.3 * squared[0]))


def test_temperature_zero_leaves_one_token():
    tokens = found(temperature=0.0, top_k=3)
    assert tokens.drawn.tolist() == [1, 0, 0, 0, 0] and tokens.n_uncut == tokens.n_kept == 1
    assert str(tokens.drawn_bits) == "0.0"


@pytest.mark.parametrize(
    "sampler",
    [
        {},
        {"temperature": 1.7},
        {"top_p": 0.6},
        {"temperature": 0.7, "top_k": 12, "top_p": 0.8, "min_p": 0.05, "repetition_penalty": 1.4},
    ],
)
def test_the_numbers_are_those_of_the_shaped_model_and_entropies_are_over_the_whole_vocabulary(sampler):
    model, context, chosen = random_model(), [3, 1, 4, 1, 5], processors(**sampler)
    (tokens,) = next_tokens(model, context, str, [chosen], n=9)
    logits = Shaped(model, chosen).next_token_logits([context])[0]
    probs = np.exp(logits - logits.max()) / np.sum(np.exp(logits - logits.max()))
    assert tokens.drawn[:-1] == pytest.approx(probs[tokens.ids])
    assert tokens.drawn_bits == pytest.approx(entropy(probs, base=2))
    assert tokens.model_bits == pytest.approx(entropy(np.exp(model.logits), base=2))
    for column in (tokens.model, tokens.uncut, tokens.drawn):
        assert column.sum() == pytest.approx(1)
    assert tokens.n_kept == np.sum(probs > 0)
    listed = tokens.cut[:-1] > 0
    assert (tokens.cut[:-1][listed] == tokens.uncut[:-1][listed]).all() and not tokens.drawn[:-1][listed].any()


def test_all_samplers_list_the_same_tokens_and_the_model_is_asked_once():
    model = random_model()
    panels = next_tokens(model, [1], str, [processors(temperature=t, repetition_penalty=2.0) for t in (0, 0.3, 1, 3)])
    assert len({panel.tokens for panel in panels}) == 1 and model.asked == 1
    assert [panel.setting for panel in panels][1] == "repetition penalty 2, temperature 0.3"


def test_a_token_that_the_model_excludes_was_not_cut():
    model = Constant([0.0, -np.inf, 1.0])
    (tokens,) = next_tokens(model, [0], str, [processors(top_k=1)], n=3)
    assert (tokens.n_uncut, tokens.n_kept) == (2, 1) and tokens.cut[2] == 0 and tokens.n_rest == 0


def test_a_sampler_is_told_in_words():
    assert spelled(processors(0.7, 40, 0.95, 0.05, 1.1)) == (
        "repetition penalty 1.1, temperature 0.7, top-k 40, top-p 0.95, min-p 0.05"
    )
    assert spelled([]) == "the model itself"


def test_more_tokens_than_there_are_is_all_of_them():
    tokens = found(n=100)
    assert tokens.tokens == ("b", "d", "f", "c", "a", "e") and tokens.n_rest == 0 and tokens.drawn[-1] == 0


def test_what_cannot_be_meant_is_refused():
    model = random_model()
    with pytest.raises(UsageError, match="n must be 1 or more"):
        next_tokens(model, [0], str, n=0)
    with pytest.raises(UsageError, match="at least one token"):
        next_tokens(model, [], str)
    with pytest.raises(UsageError, match="outside this model's vocabulary"):
        next_tokens(model, [50], str)
    with pytest.raises(NumericalError, match="NaN"):
        next_tokens(Constant([0.0, np.nan]), [0], str)
