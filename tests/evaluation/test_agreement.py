"""How far one model is from another: by hand, and the laws of divergence."""

import math

import numpy as np
import pytest

from glassgpt.errors import UsageError
from glassgpt.evaluation.agreement import agreement
from glassgpt.interface import LanguageModel


class Constant(LanguageModel):
    """The same distribution whatever came before."""

    def __init__(self, probs, context_length=8):
        self.probs, self.vocab_size, self.context_length = probs, len(probs), context_length

    def next_token_logits(self, contexts):
        with np.errstate(divide="ignore"):
            return np.tile(np.log(self.probs), (len(contexts), 1))


def test_a_model_agrees_with_itself():
    model = Constant([0.5, 0.5])
    assert agreement(model, model, [0, 1, 1]) == agreement(model, model, [1, 0, 0])
    close = agreement(model, model, [0, 1, 1])
    assert (close.n, close.mean_kl, close.max_kl, close.top1, close.extra_loss) == (2, 0.0, 0.0, 1.0, 0.0)


def test_two_coins_by_hand():
    close = agreement(Constant([0.25, 0.75]), Constant([0.5, 0.5]), [0, 0, 1])
    assert close.mean_kl == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), rel=1e-12)
    assert close.top1 == 0.0
    assert close.extra_loss == pytest.approx((math.log(2) + math.log(2 / 3)) / 2, rel=1e-12)


def test_what_the_reference_excludes_costs_nothing_and_what_the_model_excludes_costs_everything():
    certain, fair = Constant([0.0, 1.0]), Constant([0.5, 0.5])
    assert agreement(fair, certain, [1, 1]).mean_kl == pytest.approx(math.log(2))
    assert math.isinf(agreement(certain, fair, [1, 1]).mean_kl)


def test_long_texts_are_cut_at_the_shorter_window_and_fed_in_blocks():
    assert agreement(Constant([0.5, 0.5], 40), Constant([0.5, 0.5], 60), [0, 1] * 50).n == 39


def test_wrong_questions_are_refused():
    with pytest.raises(UsageError, match="2 and 3 tokens"):
        agreement(Constant([0.5, 0.5]), Constant([0.2, 0.3, 0.5]), [0, 1])
    with pytest.raises(UsageError, match="at least two tokens"):
        agreement(Constant([0.5, 0.5]), Constant([0.5, 0.5]), [0])
