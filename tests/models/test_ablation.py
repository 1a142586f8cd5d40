"""Parts of a GPT switched off, against copies of the weights with the part's rows set to zero, and NumPy by hand."""

import copy

import numpy as np
import pytest
import torch
from tests.models.test_trace import SHAPES, T, V, model_of, tokens_of

from glassgpt.errors import UnsupportedError, UsageError
from glassgpt.models import ablation, native
from glassgpt.models.ablation import Part, ablated_logits, ablations, effects_of, parts_of, without
from glassgpt.models.adaptation import Trainable, adapt
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.models.ngram import NGram
from glassgpt.weights.quantised import packed
from glassgpt.weights.tensors import tensors_of

LN2 = np.log(2)


@pytest.fixture(scope="module", params=SHAPES)
def model(request):
    return model_of(SHAPES[request.param])


def with_zeros(model, part):
    """A copy of the model in whose weights the part has nothing to write with."""
    model = copy.deepcopy(model)
    block, D = model.h[part.layer], model.config.head_width
    with torch.no_grad():
        if part.head is None:
            for parameter in block.mlp.c_proj.parameters():
                parameter.zero_()
        else:
            block.attn.c_proj.weight[:, part.head * D : (part.head + 1) * D] = 0
    return model


def test_a_part_is_off_as_if_its_weights_were_zero(model):
    for part in parts_of(model.config):
        expected = with_zeros(model, part).next_token_logits(tokens_of()[None])[0]
        np.testing.assert_allclose(ablated_logits(model, tokens_of(), part), expected, rtol=0, atol=1e-9)


def test_parts_together_are_as_each_alone_however_many_fit(model, monkeypatch):
    """In any order asked for; and with room for one, two or all at once."""
    parts = parts_of(model.config)[::-1]
    alone = {part: ablated_logits(model, tokens_of(), part) for part in parts}
    for room in (1, 2 * V * 50, 1 << 24):
        monkeypatch.setattr(ablation, "NUMBERS_AT_ONCE", room)
        answers = list(without(model, tokens_of(), parts))
        found = {part: row for some, rows in answers for part, row in zip(some, rows, strict=True)}
        assert found.keys() == alone.keys()
        for part, row in found.items():
            np.testing.assert_allclose(row, alone[part], rtol=0, atol=1e-10)


def test_effects_are_divergences_of_the_two_distributions(model):
    """Jensen-Shannon and KL by hand, from weights with zeros."""
    found = ablations(model, tokens_of())
    L, H = model.config.n_layer, model.config.n_head
    assert found.heads.shape == found.heads_kl.shape == (L, H) and found.mlps.shape == found.mlps_kl.shape == (L,)
    p = torch.tensor(model.next_token_logits(tokens_of()[None])[0]).softmax(-1).numpy()
    np.testing.assert_allclose(found.logits, model.next_token_logits(tokens_of()[None])[0], rtol=0, atol=1e-12)
    for part in parts_of(model.config):
        logits = with_zeros(model, part).next_token_logits(tokens_of()[None])[0]
        q = torch.tensor(logits).softmax(-1).numpy()
        js = sum(0.5 * np.sum(one * np.log(one / ((p + q) / 2))) for one in (p, q))
        kl = np.sum(p * np.log(p / q))
        at = (part.layer,) if part.head is None else (part.layer, part.head)
        heads_or_mlps = (found.mlps, found.mlps_kl) if part.head is None else (found.heads, found.heads_kl)
        np.testing.assert_allclose([one[at] for one in heads_or_mlps], [js, kl], rtol=1e-6, atol=1e-12)
        assert 0 <= js <= LN2


def test_the_strongest_head_has_the_greatest_effect(model):
    found = ablations(model, tokens_of())
    part = found.strongest_head()
    assert found.heads[part.layer, part.head] == found.heads.max()


def test_a_head_that_writes_nothing_has_no_effect():
    model = with_zeros(model_of(SHAPES["llama"], torch.float32), Part(1, 2))
    found = ablations(model, tokens_of())
    assert found.heads[1, 2] < 1e-12 < found.heads[1, 1]


def test_the_bias_of_the_projection_belongs_to_no_head():
    """With one head off in a model of one head, what attention adds is that bias."""
    model = model_of(GPTConfig(V, T, 1, 1, 8))
    block, tokens = model.h[0], torch.tensor(tokens_of()[None])
    with torch.no_grad():
        x = model.embed(tokens) + block.attn.c_proj.bias
        expected = model.lm_head(model.ln_f(x + block.mlp(block.ln_2(x))))[0, -1]
    np.testing.assert_allclose(ablated_logits(model, tokens_of(), Part(0, 0)), expected.numpy(), atol=1e-10)


def test_a_text_of_one_token_can_be_looked_into():
    model = model_of(SHAPES["gpt2"])
    logits = ablated_logits(model, [3], Part(2, 1))
    np.testing.assert_allclose(logits, with_zeros(model, Part(2, 1)).next_token_logits([[3]])[0], atol=1e-10)


def test_an_adapted_model_is_switched_off_with_what_was_added_to_it():
    """The added rows go through the head's columns as its own do."""
    model = model_of(SHAPES["gpt2"])
    adapt(model, Trainable("lora", rank=2, alpha=4.0), seed=1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora" in name:
                parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(2))
    projection, D, head = model.h[1].attn.c_proj, model.config.head_width, 2
    before = ablated_logits(model, tokens_of())
    found = ablated_logits(model, tokens_of(), Part(1, head))

    def without_columns(module, inputs):
        x = inputs[0].clone()
        x[..., head * D : (head + 1) * D] = 0
        return (x,)

    projection.register_forward_pre_hook(without_columns)
    np.testing.assert_allclose(found, model.next_token_logits(tokens_of()[None])[0], atol=1e-10)
    assert np.abs(found - before).max() > 1e-3


def test_a_packed_model_is_looked_into_through_its_torch_copy():
    if (reason := native.why_not()) is not None:
        pytest.skip(f"no compiled engine: {reason}")
    model = model_of(GPTConfig(50, T, 2, 2, 64, mlp="gelu_tanh"), torch.float32)
    quantised = packed(model.config, tensors_of(model), "int8")
    expected = with_zeros(quantised.torch, Part(0, 1)).next_token_logits(tokens_of()[None])[0]
    np.testing.assert_allclose(ablated_logits(quantised, tokens_of(), Part(0, 1)), expected, atol=1e-4)


def test_half_precision_comes_as_numbers_that_numpy_knows():
    model = model_of(SHAPES["llama"]).to(torch.bfloat16)
    found = ablations(model, tokens_of())
    exact = ablations(model_of(SHAPES["llama"]), tokens_of())
    assert found.logits.dtype == np.float32
    np.testing.assert_allclose(found.heads, exact.heads, atol=0.05)


def test_nothing_of_torchs_state_is_changed_between_two_answers():
    threads = torch.get_num_threads()
    model = GPT(SHAPES["gpt2"])
    for _ in without(model, tokens_of(), parts_of(model.config)):
        assert not torch.is_inference_mode_enabled() and torch.get_num_threads() == threads


def test_parts_are_named_as_they_are_written():
    config = SHAPES["qwen3"]
    parts = parts_of(config)
    assert len(parts) == config.n_layer * (config.n_head + 1)
    assert [Part.named(str(part), config) for part in parts] == parts
    for wrong in ("", "0", "0.", ".0", "2.0", "0.4", "0.mlp.1", "-1.0", "0. 0", "00.0", "0.MLP", "x" * 1000):
        with pytest.raises(UsageError, match=r"layers from 0 to 1 and heads from 0 to 3, as in 0\.3"):
            Part.named(wrong, config)


def test_divergences_of_certainties():
    js, kl = effects_of(np.array([0.0, -1e4]), np.array([[0.0, -1e4], [-1e4, 0.0]]))
    assert js[0] == kl[0] == 0
    assert js[1] == pytest.approx(LN2) and kl[1] == pytest.approx(1e4)


def test_what_cannot_be_switched_off_is_told():
    model = GPT(SHAPES["gpt2"])
    for part in (Part(3, 0), Part(0, 4), Part(-1, 0), Part(0, -1)):
        with pytest.raises(UsageError, match="no part"):
            without(model, tokens_of(), [part])
    with pytest.raises(UsageError, match="at most 12 tokens"):
        ablations(model, tokens_of(13))
    with pytest.raises(UsageError, match="time >= 1"):
        ablations(model, [])
    with pytest.raises(UnsupportedError, match="NGram"):
        ablations(NGram(np.arange(8) % 4, 4, n=2), [1])
