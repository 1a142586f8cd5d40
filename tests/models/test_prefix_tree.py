"""The tree of shared prefixes against the plain definition: every context one by one."""

import numpy as np
import pytest
import torch

from glassgpt.interface import LanguageModel
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.models.prefix_tree import oldest_first, prefix_tree_logits


def model_of(vocab_size, context_length, bias=True, n_head=2):
    model = GPT(GPTConfig(vocab_size, context_length, n_layer=2, n_head=n_head, n_embd=8, bias=bias)).double()
    rng = torch.Generator().manual_seed(vocab_size)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.4 * torch.randn(parameter.shape, generator=rng, dtype=torch.float64)
    return model


@pytest.mark.parametrize("leaves", [1, 2, 3, 16, 100, 1 << 14])
@pytest.mark.parametrize(
    ("vocab_size", "context_length"),
    [(2, 1), (2, 2), (2, 3), (2, 9), (3, 1), (3, 2), (3, 5), (5, 4), (7, 3), (16, 2), (17, 2), (20, 2), (40, 1)],
)
def test_the_tree_gives_every_context_its_logits(vocab_size, context_length, leaves):
    model = model_of(vocab_size, context_length, bias=leaves % 2 == 0)
    table = prefix_tree_logits(model, context_length, leaves)
    np.testing.assert_allclose(table, LanguageModel.context_table(model), rtol=0, atol=1e-12)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5])
def test_shorter_contexts_have_their_own_tree(length):
    model = model_of(3, 5)
    for leaves in (3, 9, 1 << 14):
        table = prefix_tree_logits(model, length, leaves)
        np.testing.assert_allclose(table, LanguageModel.context_table(model, length), rtol=0, atol=1e-12)


def test_a_table_cut_into_many_subtrees_by_default():
    model = model_of(2, 15)  # 32,768 contexts: two subtrees of the default size
    codes = np.random.default_rng(0).integers(0, 2**15, 200)
    contexts = codes[:, None] >> np.arange(14, -1, -1) & 1
    np.testing.assert_allclose(model.context_table()[codes], model.next_token_logits(contexts), rtol=0, atol=1e-12)


def test_large_attention_scores_do_not_overflow():
    model = model_of(3, 4)
    with torch.no_grad():
        for block in model.h:
            block.attn.c_attn.weight *= 200
    table = prefix_tree_logits(model, 4, leaves=9)
    assert np.isfinite(table).all()
    np.testing.assert_allclose(table, LanguageModel.context_table(model), rtol=0, atol=1e-9)


def test_single_precision_stays_single_and_close():
    model = model_of(3, 6).float()
    table = model.context_table()
    assert table.dtype == np.float32
    np.testing.assert_allclose(table, LanguageModel.context_table(model), rtol=0, atol=2e-5)


def test_nan_weights_show():
    model = model_of(2, 3)
    with torch.no_grad():
        model.wpe.weight[2] = torch.nan
    assert np.isnan(model.context_table()).all()
    assert not np.isnan(model.context_table(2)).any()


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_is_as_before_and_changes_rounding_alone(threads):
    model = model_of(3, 5)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        table = prefix_tree_logits(model, 5, leaves=9)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(table, prefix_tree_logits(model, 5, leaves=9), rtol=0, atol=1e-14)


def test_oldest_first_turns_the_digits_round():
    for vocab_size, length in ((2, 5), (3, 3), (10, 2)):
        order = oldest_first(vocab_size, length)
        digits = order[:, None] // vocab_size ** np.arange(length) % vocab_size
        np.testing.assert_array_equal(
            digits @ vocab_size ** np.arange(length - 1, -1, -1), np.arange(vocab_size**length)
        )
