"""Evaluation: the same numbers as scoring a text, on the same bytes as the yardsticks, and blind to other documents."""

import numpy as np
import pytest
import torch

from glassgpt.errors import UsageError
from glassgpt.evaluation.score import score
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.text.documents import Document, Source
from glassgpt.text.prepare import prepare
from glassgpt.text.token_files import TokenPart
from glassgpt.text.vocabulary import Vocabulary
from glassgpt.training.data import beginning, training_data
from glassgpt.training.evaluate import best_step, bits_per_byte, sample, validation_loss, yardsticks
from glassgpt.training.objective import IGNORED, NextToken
from glassgpt.training.recipe import recipe_from_dict

RNG = np.random.default_rng(0)
CONFIG = GPTConfig(257, 8, 2, 2, 16, False, position="rope", norm="rmsnorm", mlp="swiglu", tied=False)


class Written(Source):
    name = "written"

    def __init__(self, *texts):
        self.texts = texts

    def documents(self):
        return iter([Document(text) for text in self.texts])

    def identity(self):
        return {"texts": "|".join(self.texts)}


def part_of(tokens, starts=(0,)):
    return TokenPart("validation", np.array(tokens, dtype="<u2"), np.array(starts, dtype="<u8"), len(tokens))


def tiny(file, **sections):
    """A recipe on a file of bytes."""
    return recipe_from_dict(
        {
            "data": {"files": str(file), "vocabulary": "bytes", **sections.pop("data", {})},
            "model": {"context_length": 8, "n_layer": 1, "n_head": 1, "n_embd": 4},
            "train": {"steps": 1, "batch_size": 2},
            **sections,
        }
    )


def data_of(tmp_path, text, **sections):
    (tmp_path / "text.txt").write_text(text)
    recipe = tiny(tmp_path / "text.txt", **sections)
    return recipe, training_data(recipe, tmp_path / "tokens", replace=True)


@pytest.fixture(scope="module")
def model():
    return GPT(CONFIG, seed=1).double()


def test_the_validation_loss_is_the_surprise_that_scoring_finds_in_the_same_windows(model):
    tokens = RNG.integers(0, 257, 8 * 9 + 1)
    scored = score(model, tokens, stride=8).scored
    assert validation_loss(model, part_of(tokens), 8) == pytest.approx(-np.mean(scored), abs=1e-6)


@pytest.mark.parametrize("n", [2, 8, 9, 10, 83])
def test_every_token_but_the_first_counts_once_whatever_the_length(model, n):
    tokens = RNG.integers(0, 257, n)
    surprise = 0.0
    for first in range(0, n - 1, 8):
        window = tokens[first : first + 9]
        logits = torch.log_softmax(model(torch.from_numpy(window[None, :-1])), -1)[0].detach()
        surprise -= sum(float(logits[i, token]) for i, token in enumerate(window[1:]))
    assert validation_loss(model, part_of(tokens), 8) == pytest.approx(surprise / (n - 1), abs=1e-6)


def test_an_end_of_text_costs_bits_and_adds_no_byte(tmp_path):
    texts = ["Zürich, ein Brief.", "naïve 字", "plain"]
    files = prepare(Written(*texts), Vocabulary("bytes"), tmp_path / "t", split=None)
    total = files.train.n_bytes + files.validation.n_bytes
    assert total == sum(len(text.encode()) for text in texts)
    assert len(files.train) + len(files.validation) == total + len(texts)
    even = bits_per_byte(np.log(257), files.train)
    assert even * files.train.n_bytes == pytest.approx(np.log2(257) * len(files.train))


def test_yardsticks_and_model_are_measured_on_the_same_bytes(tmp_path):
    _, data = data_of(tmp_path, "one two three four. " * 90)
    levels = yardsticks(data.files.train, data.validation, data.tokenizer)
    assert set(levels) >= {"uniform over bytes", "byte trigram", "gzip", "xz", "uniform over tokens", "token trigram"}
    assert "bz2" not in levels
    assert levels["uniform over bytes"] == 8
    uniform = bits_per_byte(np.log(data.tokenizer.vocab_size), data.validation)
    assert levels["uniform over tokens"] == pytest.approx(uniform)


def test_a_beginning_has_the_bytes_and_documents_of_just_its_tokens(tmp_path):
    files = prepare(Written("ab", "cdé", "f"), Vocabulary("bytes"), tmp_path / "t", split=None)
    part = files.train
    for n in range(2, len(part) + 2):
        cut = beginning(part, n, files.tokenizer)
        assert len(cut) == min(n, len(part))
        assert cut.n_bytes == sum(len(files.tokenizer.token_bytes(int(token))) for token in cut.tokens)
        assert cut.starts.tolist() == [start for start in part.starts.tolist() if start < n]
    assert beginning(part, None, files.tokenizer) is part


def test_of_a_long_text_only_the_first_two_megabytes_validate(tmp_path, monkeypatch):
    monkeypatch.setattr("glassgpt.training.data.MOST_VALIDATION_BYTES", 50)
    _, data = data_of(tmp_path, "0123456789" * 100)
    assert data.validation.n_bytes == 50
    assert data.files.validation.n_bytes == 100


# ---- documents -------------------------------------------------------------------------------------------------------


def test_what_another_document_says_changes_no_logit_and_no_loss_of_this_one(model):
    tokens = RNG.integers(0, 257, (1, 8))
    documents = torch.tensor([[4, 4, 4, 5, 5, 5, 5, 6]])
    other = tokens.copy()
    other[0, [0, 1, 2, 7]] = (other[0, [0, 1, 2, 7]] + 1) % 257
    masked = [model(torch.from_numpy(x), documents=documents)[0, 3:7] for x in (tokens, other)]
    torch.testing.assert_close(*masked, rtol=0, atol=0)
    seen = [model(torch.from_numpy(x))[0, 3:7] for x in (tokens, other)]
    assert not torch.allclose(*seen)
    alone = model(torch.from_numpy(tokens[:, 3:7]))[0]
    torch.testing.assert_close(masked[0], alone, rtol=0, atol=1e-12)  # rotary positions are relative


def test_a_document_sends_no_gradient_to_the_tokens_of_another(model):
    inputs = torch.tensor([[1, 2, 3, 11, 12, 13, 14, 21]])
    documents = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 2]])
    targets = torch.tensor([[IGNORED] * 3 + [12, 13, 14, 9] + [IGNORED]])
    loss = NextToken().loss(lambda x: model(x, documents=documents), {"inputs": inputs, "targets": targets})
    (gradient,) = torch.autograd.grad(loss, [model.wte.weight])
    reached = gradient.abs().sum(dim=1).nonzero().flatten().tolist()
    assert reached == [11, 12, 13, 14]


def test_the_validation_loss_masks_documents_as_training_does(model):
    tokens = RNG.integers(0, 250, 17)
    part = part_of(tokens, starts=(0, 5, 11))
    masked = validation_loss(model, part, 8, mask_documents=True)
    surprise = 0.0
    for first in (0, 8):
        documents = torch.from_numpy(np.searchsorted([0, 5, 11], np.arange(first, first + 8), side="right"))[None]
        logits = model(torch.from_numpy(tokens[None, first : first + 8]), documents=documents)
        targets = torch.from_numpy(tokens[first + 1 : first + 9])
        surprise += torch.nn.functional.cross_entropy(logits[0], targets, reduction="sum").item()
    assert masked == pytest.approx(surprise / 16, abs=1e-6)
    assert masked != pytest.approx(validation_loss(model, part, 8), abs=1e-3)


# ---- samples ---------------------------------------------------------------------------------------------------------


def test_a_sample_depends_on_the_model_and_the_seed_alone(tmp_path):
    recipe, data = data_of(tmp_path, "one two three " * 40, evaluate={"sample_tokens": 30})
    small = GPT(GPTConfig(257, 8, 1, 1, 4), seed=3)
    first = sample(small, data.tokenizer, data.prompt, recipe)
    np.random.default_rng(1).random(5)
    torch.rand(3)
    assert sample(small, data.tokenizer, data.prompt, recipe) == first
    other = recipe_from_dict(recipe.to_dict(), ["run.seed=9"])
    assert sample(small, data.tokenizer, data.prompt, other) != first


def test_a_sample_goes_on_from_the_prompt_or_from_where_the_validation_part_begins(tmp_path):
    _, data = data_of(tmp_path, "a" * 900 + "validates!")
    assert data.tokenizer.decode(data.prompt) == "a" * 8
    _, data = data_of(tmp_path, "a" * 90 + "0123456789")
    assert data.tokenizer.decode(data.prompt) == "01234567"
    recipe = tiny(tmp_path / "text.txt", evaluate={"prompt": "hé"})
    assert training_data(recipe, tmp_path / "tokens").prompt == [104, 195, 169]


def test_without_a_validation_part_a_sample_goes_on_from_the_training_part(tmp_path):
    _, data = data_of(tmp_path, "some words, and more", data={"validation": 0.0})
    assert data.validation is None
    assert data.tokenizer.decode(data.prompt) == "some wor"


def test_an_empty_prompt_is_an_end_of_text_after_which_documents_begin(tmp_path):
    _, data = data_of(tmp_path, "x" * 100, evaluate={"prompt": ""})
    assert data.prompt == [256]


def test_a_prompt_outside_the_vocabulary_is_refused_before_anything_is_trained(tmp_path):
    characters = {"data": {"vocabulary": "characters"}}
    with pytest.raises(UsageError, match="'é' is not in the vocabulary"):
        data_of(tmp_path, "abc " * 40, **characters, evaluate={"prompt": "é"})
    with pytest.raises(UsageError, match=r"evaluate\.prompt is empty"):
        data_of(tmp_path, "abc " * 40, **characters, evaluate={"prompt": ""})


# ---- the best step ---------------------------------------------------------------------------------------------------


def rows(*triples):
    return [{"step": step, "validation_loss": loss, "tokens": tokens} for step, loss, tokens in triples]


@pytest.mark.parametrize(
    ("evaluations", "best"),
    [
        ([], None),
        (rows((9, None, 0)), None),
        (rows((0, 5.0, 10)), 0),
        (rows((0, 5.0, 10), (5, 4.0, 10), (10, 4.5, 10)), 5),
        (rows((0, 5.0, 10), (5, 4.0, 10), (10, 4.0, 10)), 5),
        (rows((0, 5.0, 10), (5, 4.0, 10), (10, 4.5, 99)), 10),  # the last is of more tokens: no comparison
        (rows((0, 5.0, 10), (5, 4.0, 10), (8, 4.1, 10), (10, 3.0, 99)), 5),
    ],
)
def test_the_best_step_compares_losses_of_the_same_tokens_only(evaluations, best):
    assert best_step(evaluations) == best
