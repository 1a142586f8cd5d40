"""A base model for the stages after pretraining, so small that a stage on it takes a second."""

import json

import pytest

from glassgpt.training.loop import train
from glassgpt.training.recipe import recipe_from_dict

NAMES = ["Mira", "Alon", "Tove", "Brek", "Suli", "Odan"]
THINGS = ["lamp", "kite", "drum", "coat"]
SHAPE = {
    "vocab_size": 300,
    "context_length": 96,
    "n_layer": 2,
    "n_head": 2,
    "n_embd": 16,
    "bias": False,
    "position": "rope",
    "norm": "rmsnorm",
    "mlp": "swiglu",
    "n_hidden": 24,
    "qk_norm": True,
}


def sentences():
    return [f"{name} has a {thing}." for name in NAMES for thing in THINGS]


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """A pretrained run with byte-level BPE words, an end of text, and its tokens."""
    folder = tmp_path_factory.mktemp("base")
    (folder / "text.txt").write_text("\n".join(sentences() * 8))
    recipe = {
        "data": {"files": [str(folder / "text.txt")], "documents": "lines"},
        "model": SHAPE,
        "train": {"steps": 30, "batch_size": 8, "learning_rate": 1e-2, "save_every": 30, "keep": 1},
        "evaluate": {"sample_tokens": 2},
    }
    return train(recipe_from_dict(recipe), folder / "run").path


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def asked(name):
    return [{"role": "user", "content": f"What has {name}?"}]


@pytest.fixture(scope="session")
def rows(tmp_path_factory):
    """A file of rows for each stage, by its name."""
    folder = tmp_path_factory.mktemp("rows")
    pairs = [(name, thing) for name in NAMES for thing in THINGS]
    conversations = [
        {"messages": [*asked(name), {"role": "assistant", "content": f"A {thing}."}]} for name, thing in pairs
    ]
    preferences = [
        {"prompt": asked(name), "chosen": f"A {thing}.", "rejected": f"A {thing} {thing} {thing}"}
        for name, thing in pairs
    ]
    labels = [{"text": f"{name} has a {thing}.", "label": thing} for name, thing in pairs]
    prompts = [{"prompt": asked(name)} for name in NAMES * 3]
    return {
        "sft": write_rows(folder / "sft.jsonl", conversations),
        "classify": write_rows(folder / "classify.jsonl", labels),
        "reward": write_rows(folder / "reward.jsonl", preferences),
        "dpo": write_rows(folder / "dpo.jsonl", preferences),
        "ppo": write_rows(folder / "ppo.jsonl", prompts),
        "grpo": write_rows(folder / "grpo.jsonl", prompts),
    }


@pytest.fixture(scope="session")
def tuned(base, rows, tmp_path_factory):
    """The base after supervised fine-tuning: it has a chat template."""
    return train(
        stage_recipe("sft", base, rows, steps=60, learning_rate=1e-2), tmp_path_factory.mktemp("tuned") / "run"
    ).path


@pytest.fixture(scope="session")
def judge(tuned, rows, tmp_path_factory):
    """A reward model."""
    return train(stage_recipe("reward", tuned, rows, steps=20), tmp_path_factory.mktemp("judge") / "run").path


SECTIONS = {
    "sft": {"answers": 2, "replay": 0.25},
    "classify": {},
    "reward": {},
    "dpo": {},
    "ppo": {"max_new_tokens": 6, "epochs": 2, "minibatches": 2},
    "grpo": {"max_new_tokens": 6, "group": 4, "beta": 0.1},
}


def stage_recipe(stage, base, rows, *, steps=6, judge=None, trainable=None, section=None, **train_keys):
    """A recipe of a stage that takes a second."""
    keys = SECTIONS[stage] | (section or {}) | ({"reward": str(judge)} if judge else {})
    content = {
        "run": {"base": str(base)},
        "data": {"files": [str(rows[stage])], "validation": 0.2},
        stage: keys,
        "train": {
            "steps": steps,
            "batch_size": 8,
            "learning_rate": 3e-3,
            "save_every": 2,
            "keep": 2,
            "precision": "float32",
            "compile": "no",
        }
        | train_keys,
        "evaluate": {"every": 3},
    }
    return recipe_from_dict(content | ({"trainable": trainable} if trainable else {}))
