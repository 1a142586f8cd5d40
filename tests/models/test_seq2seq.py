"""Sequence to sequence: additive attention by the formula, and what it is for."""

import numpy as np
import pytest
import torch

from glassgpt.errors import UsageError
from glassgpt.models.seq2seq import Seq2Seq, accuracy_by_length, sources, target_of, train_seq2seq


def test_attention_is_bahdanaus_formula():
    model = Seq2Seq(5, attention=True, n_embd=3, n_hidden=4).double()
    W = {name: value.detach().numpy() for name, value in model.named_parameters()}
    source = torch.from_numpy(np.random.default_rng(0).integers(0, 5, (2, 6)))
    look, state = model.read(source)
    _, context, weights = model.write(torch.tensor([5, 5]), state, look)
    for b in range(2):
        h, s = look.states[b].detach().numpy(), state[b].detach().numpy()
        asked = W["ask.weight"] @ s + W["ask.bias"]
        scores = np.array([W["agree.weight"][0] @ np.tanh(asked + W["offer.weight"] @ h_j) for h_j in h])
        expected = np.exp(scores) / np.exp(scores).sum()
        np.testing.assert_allclose(weights[b].detach().numpy(), expected, rtol=1e-12)
        np.testing.assert_allclose(context[b].detach().numpy(), expected @ h, rtol=1e-12)


def test_without_attention_the_decoder_sees_one_vector():
    model = Seq2Seq(5, attention=False, n_embd=3, n_hidden=4)
    look, state = model.read(torch.tensor([[0, 1, 2]]))
    _, context, weights = model.write(torch.tensor([5]), state, look)
    assert weights is None
    torch.testing.assert_close(context[0], torch.cat([look.states[0, -1, :4], look.states[0, 0, 4:]]))
    assert model.transduce([[0, 1, 2]]).alignments is None


@pytest.mark.parametrize("attention", [True, False])
def test_each_symbol_depends_on_those_before_it_alone(attention):
    model = Seq2Seq(5, attention, n_embd=3, n_hidden=4)
    source = torch.tensor([[0, 1, 2, 3]])
    one, other = model(source, torch.tensor([[3, 2, 1, 0]])), model(source, torch.tensor([[3, 2, 4, 4]]))
    torch.testing.assert_close(one[:, :3], other[:, :3])
    assert not torch.equal(one[:, 3], other[:, 3])


@pytest.mark.parametrize("attention", [True, False])
def test_what_is_written_greedily_is_the_likeliest_given_itself(attention):
    model = Seq2Seq(5, attention, n_embd=3, n_hidden=4, seed=2)
    source = np.array([[0, 1, 2, 3, 4], [4, 4, 0, 0, 1]])
    written = model.transduce(source)
    with torch.inference_mode():
        logits = model(torch.from_numpy(source), torch.from_numpy(written.symbols))
    np.testing.assert_array_equal(written.symbols, logits.argmax(dim=-1).numpy())
    if written.alignments is not None:
        assert written.alignments.shape == (2, 5, 5)
        np.testing.assert_allclose(written.alignments.sum(axis=-1), 1, atol=1e-6)


def test_the_tasks():
    np.testing.assert_array_equal(target_of(np.array([[1, 2, 3]]), "reverse"), [[3, 2, 1]])
    np.testing.assert_array_equal(target_of(np.array([[1, 2, 3]]), "copy"), [[1, 2, 3]])
    assert sources(3, 5, 7, np.random.default_rng(0)).shape == (7, 5)


def test_training_is_decided_by_the_seed_and_leaves_the_global_generator():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    losses: list[list[float]] = [[], [], []]
    for seed, heard in zip((1, 1, 2), losses, strict=True):
        train_seq2seq(True, steps=3, longest=3, n_hidden=4, seed=seed, on_step=lambda _, loss, h=heard: h.append(loss))
    assert losses[0] == losses[1] != losses[2]
    assert torch.equal(torch.get_rng_state(), before)


def test_a_short_text_passes_through_one_vector():
    model = train_seq2seq(False, steps=150, longest=3, n_symbols=4, n_hidden=32)
    assert accuracy_by_length(model, [1, 2, 3]).min() > 0.95


@pytest.mark.slow
def test_a_long_text_passes_only_with_attention_which_looks_at_the_mirror_place():
    looking, remembering = train_seq2seq(True), train_seq2seq(False)
    lengths = [2, 4, 12, 20]
    with_attention, without = accuracy_by_length(looking, lengths), accuracy_by_length(remembering, lengths)
    assert with_attention.min() > 0.9
    assert without[:2].min() > 0.95 and without[2] < 0.85 and without[3] < 0.6
    assert list(without) == sorted(without, reverse=True)
    alignments = looking.transduce(sources(8, 12, 50, np.random.default_rng(5))).alignments
    assert alignments is not None
    mirror = np.arange(12)[::-1]
    assert np.mean(abs(alignments.argmax(axis=-1) - mirror) <= 1) > 0.9


def test_symbols_outside_the_alphabet_and_sizes_below_one_are_refused():
    with pytest.raises(UsageError, match="vocabulary of 5"):
        Seq2Seq(5, attention=True).transduce([[0, 5]])
    with pytest.raises(UsageError, match="n_symbols"):
        Seq2Seq(0, attention=True)
