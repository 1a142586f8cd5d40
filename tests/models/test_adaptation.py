"""What is trained: all, the last layers, a head, LoRA, adapters; over a base in full or rounded."""

import itertools

import numpy as np
import pytest
import torch

from glassgpt.errors import NumericalError, UsageError
from glassgpt.models.adaptation import adapt, merge, parameter_account
from glassgpt.models.config import GPTConfig, parameter_shapes
from glassgpt.models.gpt_torch import GPT
from glassgpt.models.heads import HeadedGPT
from glassgpt.models.trainable import Trainable, part_widths

SIZES = {"vocab_size": 30, "context_length": 12, "n_layer": 3, "n_head": 4, "n_embd": 32}
MODERN = {"bias": False, "position": "rope", "norm": "rmsnorm", "mlp": "swiglu", "n_hidden": 64, "n_kv_head": 2}
SHAPES = [
    GPTConfig(**SIZES),
    GPTConfig(**SIZES, **MODERN),
    GPTConfig(**SIZES, mlp="swiglu", post_norm=True, tied=False),
]
TOKENS = torch.randint(0, 30, (2, 9), generator=torch.Generator().manual_seed(0))
WHATS = ("lora", "adapters")


def made(what, config=SHAPES[1], **keys):
    model = GPT(config, seed=1)
    adapt(model, Trainable(what, **keys), seed=2)
    return model


def trained(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


def shaken(model):
    with torch.no_grad():
        for i, (name, p) in enumerate(model.named_parameters()):
            if "lora_" in name or "adapter_" in name:
                p.copy_(0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    return model


@pytest.mark.parametrize(("what", "config"), list(itertools.product(WHATS, SHAPES)))
def test_what_is_added_changes_nothing_at_first_not_a_bit(what, config):
    assert torch.equal(made(what, config)(TOKENS), GPT(config, seed=1)(TOKENS))


@pytest.mark.parametrize(("what", "config"), list(itertools.product(WHATS, SHAPES)))
def test_parameters_of_the_base_keep_their_names_and_numbers(what, config):
    model, plain = shaken(made(what, config)), GPT(config, seed=1)
    own = dict(model.named_parameters())
    for name, p in plain.named_parameters():
        assert torch.equal(own[name], p) and not own[name].requires_grad
    assert all("lora_" in name or "adapter_" in name for name in own.keys() - dict(plain.named_parameters()).keys())


@pytest.mark.parametrize(("config", "base"), list(itertools.product(SHAPES, ["float32", "int8", "int4"])))
def test_merged_is_unmerged(config, base):
    model = shaken(made("lora", config, base=base))
    before = model(TOKENS)
    merge(model)
    assert torch.allclose(model(TOKENS), before, atol=1e-5)
    assert type(model.h[0].attn.c_attn) is torch.nn.Linear
    assert {n for n, _ in model.named_parameters()} == {n for n in parameter_shapes(config)}


def test_merging_once_more_changes_nothing():
    model = shaken(made("lora"))
    merge(model)
    before = model(TOKENS)
    merge(model)
    assert torch.equal(model(TOKENS), before)


def test_adapters_cannot_be_merged():
    with pytest.raises(UsageError, match="not linear and can't be merged"):
        merge(made("adapters"))


def test_lora_is_the_papers_sum():
    """W x + (alpha / r) B A x, for each of q, k and v with an A and a B of its own."""
    model = shaken(made("lora", rank=3, alpha=5.0))
    linear = model.h[0].attn.c_attn
    x = torch.randn(4, 32, generator=torch.Generator().manual_seed(3))
    parts = [32, 16, 16]
    rows = np.cumsum([0, *parts])
    for i in range(3):
        A, B = linear.lora_A[3 * i : 3 * i + 3], linear.lora_B[rows[i] : rows[i + 1]]
        expected = x @ linear.weight[rows[i] : rows[i + 1]].T + 5 / 3 * (x @ A.T) @ B.T
        assert torch.allclose(linear(x)[:, rows[i] : rows[i + 1]], expected, atol=1e-5)


def test_an_adapter_is_the_papers_bottleneck():
    model = shaken(made("adapters", width=5))
    linear = model.h[1].mlp.c_proj
    x = torch.randn(4, 64, generator=torch.Generator().manual_seed(3))
    y = x @ linear.weight.T
    inner = torch.nn.functional.gelu(y @ linear.adapter_down.T + linear.adapter_down_bias)
    assert inner.shape == (4, 5)
    assert torch.allclose(linear(x), y + inner @ linear.adapter_up.T + linear.adapter_up_bias, atol=1e-5)


@pytest.mark.parametrize("config", SHAPES)
def test_parts_are_those_that_hugging_face_holds_apart(config):
    apart = config.position == "rope"
    assert part_widths(config, "attn.c_attn") == ([32, 16, 16] if apart else [96])
    assert sum(part_widths(config, "mlp.c_fc")) == dict(parameter_shapes(config))["h.0.mlp.c_fc.weight"][1]


@pytest.mark.parametrize("what", WHATS)
def test_one_step_of_training_moves_the_added_alone(what):
    model = made(what)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    torch.nn.functional.cross_entropy(model(TOKENS).flatten(0, 1), TOKENS.roll(-1, 1).flatten()).backward()
    optimizer.step()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved and moved <= trained(model)
    assert any(name.endswith(("lora_B", "adapter_up")) for name in moved)


@pytest.mark.parametrize(("what", "base"), list(itertools.product(WHATS, ["float32", "int8"])))
def test_a_session_answers_as_the_whole_does(what, base):
    model = shaken(made(what, base=base))
    session = model.session()
    for t in range(9):
        fed = session.feed(TOKENS[:1, t : t + 1].numpy())
    assert np.allclose(fed, model(TOKENS[:1]).detach().numpy()[:, -1], atol=1e-5)


def test_the_last_layers_are_the_last_and_the_norm():
    model = made("last", n_layer=2)
    assert {name.split(".")[1] if name.startswith("h.") else name for name in trained(model)} == {
        "1",
        "2",
        "ln_f.weight",
    }


def test_of_a_model_with_a_head_the_head_is_trained_whatever_is_chosen():
    for what, inner in (("head", set()), ("last", {"ln_f"}), ("lora", {"lora_A"})):
        model = HeadedGPT(GPT(SHAPES[1], seed=1), 2)
        adapt(model, Trainable(what))
        names = trained(model)
        assert {"head.weight", "head.bias"} <= names
        assert bool(names - {"head.weight", "head.bias"}) == bool(inner)


def test_a_plain_head_that_is_not_the_embedding_can_be_trained_alone():
    assert trained(made("head", GPTConfig(**SIZES, tied=False))) == {"lm_head.weight", "ln_f.weight", "ln_f.bias"}
    with pytest.raises(UsageError, match="output layer is its token embedding too"):
        made("head")


def test_the_seed_alone_decides_what_is_drawn():
    torch.manual_seed(0)
    one = made("lora").h[0].attn.c_attn.lora_A
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), drawn)  # torch's own stream was left alone
    assert torch.equal(made("lora").h[0].attn.c_attn.lora_A, one)
    other = GPT(SHAPES[1], seed=1)
    adapt(other, Trainable("lora"), seed=3)
    assert not torch.equal(other.h[0].attn.c_attn.lora_A, one)


def test_a_is_drawn_as_peft_draws_it():
    """Uniform within 1 / sqrt(inputs): kaiming_uniform_ with a = sqrt(5)."""
    A = made("lora", GPTConfig(**SIZES | {"n_embd": 256})).h[0].attn.c_attn.lora_A.detach()
    bound = 1 / 16
    assert A.abs().max() <= bound and A.abs().max() > 0.98 * bound
    assert abs(float(A.std()) - bound / np.sqrt(3)) < 0.03 * bound


def test_targets_alone_get_lora():
    model = made("lora", targets=("attn.c_attn", "mlp.c_proj"))
    assert {".".join(name.split(".")[2:4]) for name in trained(model)} == {"attn.c_attn", "mlp.c_proj"}


@pytest.mark.parametrize(("base", "most"), [("float32", 4.01), ("int8", 1.3), ("int4", 0.9)])
def test_the_account_says_what_is_trained_and_what_weights_weigh(base, most):
    config = GPTConfig(**SIZES | {"n_embd": 128, "vocab_size": 4}, **MODERN | {"n_hidden": 512})
    model = made("lora", config, rank=1, base=base)
    account = parameter_account(model)
    assert account.frozen == config.n_parameters
    assert account.trained == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert account.n_bytes - 4 * account.trained <= most * config.n_parameters


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"what": "nonsense"}, r"trainable\.what must be one of all, last, head, lora, adapters; got 'nonsense'"),
        ({"rank": 0}, r"trainable\.rank must be 1 or more, got 0"),
        ({"alpha": 0.0}, r"trainable\.alpha must be a positive number"),
        ({"targets": ("q_proj",)}, r"trainable\.targets names some of attn\.c_attn"),
        ({"targets": ()}, r"trainable\.targets names some of"),
        ({"what": "all", "base": "int8"}, r"rounds weights that are not trained"),
        ({"what": "last", "n_layer": 9}, r"trainable\.n_layer is 9, and the model has 3 layers"),
        ({"what": "lora", "base": "int4", "embd": 20}, r"groups 32 inputs, and a map has 20: use int8"),
    ],
)
def test_a_choice_that_cannot_be_is_refused(keys, message):
    width = keys.pop("embd", 32)
    with pytest.raises(UsageError, match=message):
        made(**{"what": "lora"} | keys, config=GPTConfig(**SIZES | {"n_embd": width}))


@pytest.mark.parametrize("base", ["float32", "int8"])
def test_a_model_is_adapted_once_until_it_is_merged(base):
    model = shaken(made("lora", base=base))
    before = model(TOKENS)
    with pytest.raises(UsageError, match="adapted already, and what was added would be lost: merge it first"):
        adapt(model, Trainable("lora"))
    assert torch.equal(model(TOKENS), before)
    merge(model)
    adapt(model, Trainable("lora"))
    assert torch.allclose(model(TOKENS), before, atol=1e-5)


def test_a_choice_that_is_refused_leaves_the_model_as_it_was():
    model = GPT(GPTConfig(**SIZES, **MODERN | {"n_hidden": 40}), seed=1)
    with pytest.raises(UsageError, match="groups 32 inputs, and a map has 40"):
        adapt(model, Trainable("lora", base="int4"))
    assert all(type(m) is torch.nn.Linear for m in model.modules() if isinstance(m, torch.nn.Linear))
    assert all(p.requires_grad for p in model.parameters())


def test_a_weight_that_is_not_finite_is_not_rounded():
    model = GPT(SHAPES[1], seed=1)
    with torch.no_grad():
        model.h[2].mlp.c_fc.weight[0, 0] = torch.nan
    with pytest.raises(NumericalError, match="can't be rounded to int8"):
        adapt(model, Trainable("lora", base="int8"))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_what_is_added_has_the_models_type(dtype):
    model = GPT(SHAPES[1], seed=1).to(dtype)
    adapt(model, Trainable("lora", base="int8"))
    assert model(TOKENS).dtype == dtype
