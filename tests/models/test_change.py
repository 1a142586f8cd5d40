"""One weight changed by hand: only that one, only in the copy, and the copy is what it says."""

import numpy as np
import pytest
import torch

from glassgpt.errors import UnsupportedError, UsageError
from glassgpt.models.change import Change, changed, parameters_of
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.models.ngram import NGram

CONFIG = GPTConfig(vocab_size=3, context_length=4, n_layer=2, n_head=2, n_embd=8, tied=False)
CONTEXTS = np.array([[0, 1, 2, 1], [2, 2, 0, 1]])


def test_every_parameter_can_be_changed_and_nothing_else_is():
    gpt = GPT(CONFIG, seed=1)
    before = {name: tensor.clone() for name, tensor in parameters_of(gpt).items()}
    assert sum(tensor.numel() for tensor in before.values()) == CONFIG.n_parameters
    for name, tensor in before.items():
        at = tuple(n - 1 for n in tensor.shape)
        after = parameters_of(changed(gpt, Change(name, at, 0.75)))
        for other in before:
            differing = torch.nonzero(after[other] != before[other]).tolist()
            assert differing == ([list(at)] if other == name else []), (name, other)
        assert after[name][at] == 0.75
    assert all(torch.equal(tensor, before[name]) for name, tensor in parameters_of(gpt).items())


def test_a_change_of_the_last_matrix_moves_one_logit_by_as_much_as_the_hidden_vector_says():
    gpt = GPT(CONFIG, seed=1)
    twin = changed(gpt, Change("lm_head.weight", (2, 5), 0.75))
    with torch.no_grad():
        hidden = gpt.hidden(torch.tensor(CONTEXTS))[:, -1].numpy()
    gap = 0.75 - gpt.lm_head.weight[2, 5].item()
    moved = twin.next_token_logits(CONTEXTS) - gpt.next_token_logits(CONTEXTS)
    np.testing.assert_allclose(moved[:, 2], gap * hidden[:, 5], rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(moved[:, :2], 0)


def test_a_tied_weight_is_changed_at_both_of_its_places():
    tied = GPT(GPTConfig(vocab_size=3, context_length=4, n_layer=1, n_head=2, n_embd=8, tied=True), seed=1)
    (name,) = (name for name in parameters_of(tied) if name in ("wte.weight", "lm_head.weight"))
    twin = changed(tied, Change(name, (1, 1), 0.5))
    assert twin.wte.weight[1, 1] == twin.lm_head.weight[1, 1] == 0.5


@pytest.mark.parametrize(
    ("name", "at", "value", "said"),
    [
        ("lm_tail", (0, 0), 1.0, "is no parameter"),
        ("lm_head.weight", (3, 0), 1.0, "0 to 2 and 0 to 7"),
        ("lm_head.weight", (0, -1), 1.0, "0 to 2 and 0 to 7"),
        ("lm_head.weight", (0,), 1.0, "3 x 8"),
        ("lm_head.weight", (0, 0), float("nan"), "finite"),
    ],
)
def test_what_can_not_be_changed_is_refused(name, at, value, said):
    with pytest.raises(UsageError, match=said):
        changed(GPT(CONFIG, seed=1), Change(name, at, value))


def test_a_model_without_such_weights_is_refused():
    with pytest.raises(UnsupportedError, match="only a GPT"):
        changed(NGram([0, 1, 1, 0], vocab_size=2, n=2), Change("lm_head.weight", (0, 0), 1.0))
