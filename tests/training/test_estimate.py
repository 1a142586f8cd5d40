"""What training will cost: the memory that is computed is the memory that is taken."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from glassgpt.errors import TooLargeError, UsageError
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.training.estimate import activations_a_token, estimate, memory_of, refuse_if_too_large
from glassgpt.training.recipe import read_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
SHAPES = {
    "GPT-2's": {},
    "Qwen3's": {"position": "rope", "norm": "rmsnorm", "mlp": "swiglu", "qk_norm": True, "n_hidden": 256},
    "Llama's": {"position": "rope", "norm": "rmsnorm", "mlp": "swiglu", "n_kv_head": 2, "bias": False},
    "alibi": {"position": "alibi", "mlp": "relu2"},
}


def kept_a_token(config, rows=4):
    """Numbers that autograd keeps of a token on the way to the logits."""
    model = GPT(config)
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = (storage.nbytes(), tensor)
        return tensor

    tokens = torch.zeros((rows, config.context_length), dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        hidden = model.hidden(tokens)
    assert hidden.requires_grad
    return sum(n_bytes for n_bytes, _ in kept.values()) / 4 / tokens.numel()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_activations_computed_are_those_that_autograd_keeps(shape):
    config = GPTConfig(50, 64, n_layer=4, n_head=4, n_embd=96, **SHAPES[shape])
    assert activations_a_token(config) == pytest.approx(kept_a_token(config), rel=0.1)


@pytest.mark.parametrize(("name", "parameters"), [("gpt2-124m", 124_439_808), ("llama-mixture", 6_738_415_616)])
def test_the_large_recipes_are_read_and_have_the_published_size(name, parameters):
    assert read_recipe(RECIPES / f"{name}.toml").model.n_parameters == parameters


def test_what_doesnt_fit_is_refused_with_the_micro_batch_that_does(monkeypatch):
    monkeypatch.setattr("glassgpt.training.estimate.free_memory", lambda device: 10**10)
    recipe = read_recipe(RECIPES / "gpt2-124m.toml", ["train.micro_batch_size=", "train.batch_size=1000000"])
    with pytest.raises(
        TooLargeError, match=r"124,439,808 parameters need .* GB to train.* set train\.micro_batch_size=[1-9]"
    ):
        refuse_if_too_large(recipe)


@pytest.mark.parametrize("stage", ["sft", "reward", "ppo"])
def test_a_stage_after_pretraining_is_not_taken_for_it(stage, base):
    with pytest.raises(UsageError, match="only pretraining is estimated"):
        estimate(read_recipe(RECIPES / f"assistant-{stage}.toml", [f"run.base={base}"]))


def test_shards_divide_weights_gradients_and_optimizer():
    recipe = read_recipe(RECIPES / "gpt2-124m.toml")
    one, eight = (memory_of(recipe.model, recipe, 16, spread=n) for n in (1, 8))
    assert eight.weights * 8 == one.weights and eight.optimizer * 8 == one.optimizer
    assert eight.activations == one.activations and one.optimizer == 2 * one.weights


def test_muon_remembers_less_than_adamw():
    adamw, muon = (read_recipe(RECIPES / "my-text.toml", [f"train.optimizer={o}"]) for o in ("adamw", "muon"))
    weights = memory_of(adamw.model, adamw, 1).weights
    assert memory_of(muon.model, muon, 1).optimizer < memory_of(adamw.model, adamw, 1).optimizer == 2 * weights


def test_a_sequence_is_known_before_it_is_prepared():
    found = estimate(read_recipe(RECIPES / "baby.toml"), "cpu")
    assert (found.config.n_parameters, found.tokens_a_step, found.epochs) == (12_656, 36, 150.0)
    assert found.seconds_a_step is not None and found.measured_rows == 12


PEAK = """
import sys, psutil, numpy as np, resource
from glassgpt.models.gpt_torch import GPT
from glassgpt.training.objective import NextToken
from glassgpt.training.recipe import read_recipe
from glassgpt.training.trainer import Choices, Trainer
recipe = read_recipe(sys.argv[1], sys.argv[2:])
before = psutil.Process().memory_info().rss
trainer = Trainer(GPT(recipe.model), recipe.train, NextToken(), Choices())
tokens = np.zeros((recipe.train.batch_size, recipe.model.context_length), dtype=np.int64)
for i in range(2):
    trainer.step(i, {"inputs": tokens, "targets": tokens})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("position", ["learned", "rope"])
def test_the_memory_computed_is_the_memory_taken(position):
    changes = ["model.vocab_size=4096", "model.n_embd=384", "model.n_layer=6", "model.n_head=6", "train.batch_size=16"]
    changes += [f"model.position={position}", "model.context_length=256", "model.n_hidden=1536"]
    recipe = read_recipe(RECIPES / "my-text.toml", [*changes, "train.optimizer=adamw"])
    command = [sys.executable, "-c", PEAK, RECIPES / "my-text.toml", *changes, "train.optimizer=adamw"]
    taken = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    computed = memory_of(recipe.model, recipe, 16)
    step = computed.peak
    print(f"computed {step / 1e6:.0f} MB, taken {taken / 1e6:.0f} MB")
    assert step / 1.5 < taken < 1.5 * step
