"""`check_model` passes every model of ours and fails every kind of broken one."""

from functools import cache
from typing import ClassVar

import numpy as np
import pytest
import torch

from glassgpt.check import ContractError, check_model, check_tokenizer
from glassgpt.decoding.processors import MinP, Temperature, TopK, TopP
from glassgpt.decoding.shaped import Shaped
from glassgpt.interface import LanguageModel, RecomputingSession, Tokenizer, as_contexts
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_array import ArrayGPT, gpt
from glassgpt.models.gpt_torch import GPT
from glassgpt.models.ngram import NGram
from glassgpt.text.character import CharacterTokenizer
from glassgpt.weights.tensors import tensors_of

CONFIG = GPTConfig(3, 5, n_layer=2, n_head=2, n_embd=8)
TEXT = np.random.default_rng(0).integers(0, 3, 300)


def torch_model(config=CONFIG):
    """A GPT in float64 whose every weight matters."""
    model = GPT(config).double()
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=rng, dtype=torch.float64)
    return model


@cache
def jax_model():
    """Compiled whole, which is quicker than every operation on its own for every shape of tokens."""
    jax = pytest.importorskip("jax")
    config = GPTConfig(2, 2, n_layer=1, n_head=2, n_embd=4)
    compiled = jax.jit(lambda tokens, params: gpt(tokens, params, config))

    class Compiled(ArrayGPT):
        def _logits(self, tokens):
            return np.asarray(compiled(tokens, self.params))

    params = tensors_of(torch_model(config).float())
    return Compiled(config, {name: jax.numpy.asarray(value) for name, value in params.items()})


MODELS = {
    "NGram": lambda: NGram(TEXT, 3, n=3),
    "NGram without smoothing": lambda: NGram(TEXT[:9], 3, n=4, smoothing=0.0),
    "ArrayGPT on NumPy": lambda: ArrayGPT(CONFIG, tensors_of(torch_model())),
    "ArrayGPT on JAX": jax_model,
    "GPT": torch_model,
    "GPT in float32": lambda: torch_model().float(),
}
PROCESSORS = {
    "none": [],
    "greedy": [Temperature(0)],
    "all": [Temperature(0.7), TopK(2), TopP(0.9), MinP(0.05)],
    "top-p": [TopP(0.6)],
}
IN_DOUBLE = [name for name in MODELS if "JAX" not in name and "float32" not in name]


@pytest.mark.parametrize("name", MODELS)
def test_every_model_keeps_the_contract(name):
    check_model(MODELS[name](), tolerance=1e-9 if name in IN_DOUBLE else 1e-4)


@pytest.mark.parametrize("processors", PROCESSORS)
@pytest.mark.parametrize("name", MODELS)
def test_every_shaped_model_keeps_the_contract(name, processors):
    shaped = Shaped(MODELS[name](), PROCESSORS[processors])
    check_model(shaped, tolerance=1e-9 if name in IN_DOUBLE else 1e-4)


def test_every_seed_passes():
    for seed in range(5):
        check_model(Shaped(torch_model(), PROCESSORS["all"]), seed=seed, tolerance=1e-9)


@pytest.mark.parametrize("context_length", [1, 2, 33, 65])
def test_every_context_length_passes(context_length):
    check_model(torch_model(GPTConfig(2, context_length, 1, 1, 4)), tolerance=1e-9)


class Sound(LanguageModel):
    """A model whose every token and position counts; each class below breaks one promise of it."""

    def __init__(self, vocab_size=3, context_length=4):
        self.vocab_size, self.context_length = vocab_size, context_length
        self.weights = np.random.default_rng(5).normal(size=(context_length, vocab_size, vocab_size))

    def next_token_logits(self, contexts):
        contexts = as_contexts(contexts, self.vocab_size)[:, -self.context_length :]
        logits = np.zeros((len(contexts), self.vocab_size))
        for position, tokens in enumerate(contexts.T):
            logits = 1.7 * np.tanh(logits + self.weights[position][tokens])  # not linear, so that order matters
        return logits


class BareSession(RecomputingSession):
    """The definition of a session, for others to break."""


class NotCausal(Sound):
    def sequence_logits(self, tokens):
        tokens = as_contexts(tokens, self.vocab_size)
        return super().sequence_logits(tokens) + tokens[:, -1:, None]


class SwapsTheFuture(Sound):
    """Right for the last position, and looks one token ahead at the others."""

    def sequence_logits(self, tokens):
        logits = super().sequence_logits(tokens)
        logits[:, 1:-1] = logits[:, 2:]
        return logits


class BatchDependent(Sound):
    def next_token_logits(self, contexts):
        logits = super().next_token_logits(contexts)
        return logits - logits.mean(axis=0) * (len(logits) > 1)


class RowMixing(Sound):
    def next_token_logits(self, contexts):
        logits = super().next_token_logits(contexts)
        return np.roll(logits, 1, axis=0)


class LooksPastTheWindow(Sound):
    def next_token_logits(self, contexts):
        contexts = as_contexts(contexts, self.vocab_size)
        return super().next_token_logits(contexts) + contexts.sum(axis=1, keepdims=True) * np.arange(self.vocab_size)


class WrongSequencePastTheWindow(Sound):
    def sequence_logits(self, tokens):
        logits = super().sequence_logits(tokens)
        logits[:, self.context_length :] = logits[:, self.context_length - 1 : self.context_length]
        return logits


class SlidingSession(BareSession):
    """A recurrent state that goes on past the window, as a sliding KV cache does: old tokens live on in it."""

    def feed(self, tokens):
        wide = Sound(self.model.vocab_size, self.model.context_length)
        wide.weights = np.resize(self.model.weights, (1000, *self.model.weights.shape[1:]))
        wide.context_length = 1000
        self.tokens = np.concatenate([self.tokens, as_contexts(tokens, self.model.vocab_size)], axis=1)
        return wide.next_token_logits(self.tokens)


class SharingFork(BareSession):
    def fork(self):
        return self


class LyingLength(BareSession):
    @property
    def length(self):
        return min(super().length, self.model.context_length)


class RewindsOneTooFew(BareSession):
    def rewind(self, n):
        super().rewind(max(0, n - 1))


class RewindsNothing(BareSession):
    def rewind(self, n):
        pass


class ReordersNothing(BareSession):
    def reorder(self, rows):
        pass


class SwapsTexts(BareSession):
    def feed(self, tokens):
        return super().feed(tokens)[::-1]


class Starved(BareSession):
    """Feeds only the last of several tokens."""

    def feed(self, tokens):
        return super().feed(np.asarray(tokens)[:, -1:])


SESSIONS = [
    SlidingSession,
    SharingFork,
    LyingLength,
    RewindsOneTooFew,
    RewindsNothing,
    ReordersNothing,
    SwapsTexts,
    Starved,
]


class ReversedTable(Sound):
    def context_table(self, length=None):
        length = length or self.context_length
        order = np.arange(self.vocab_size**length).reshape((self.vocab_size,) * length).transpose().reshape(-1)
        return super().context_table(length)[order]


class ShortTable(Sound):
    def context_table(self, length=None):
        return super().context_table(length)[:-1]


class OneWrongRow(Sound):
    def context_table(self, length=None):
        table = super().context_table(length)
        table[-1, 0] += 1e-3
        return table


def broken_answer(change):
    class Broken(Sound):
        def next_token_logits(self, contexts):
            return change(super().next_token_logits(contexts))

    return Broken


def put(value, where):
    def change(logits):
        logits[where] = value
        return logits

    return change


ANSWERS = {
    "NaN": put(np.nan, (0, 0)),
    "all NaN": put(np.nan, ...),
    "+inf": put(np.inf, (0, 0)),
    "a row that excludes everything": put(-np.inf, 0),
    "one column too few": lambda logits: logits[:, :-1],
    "a time axis": lambda logits: logits[:, None],
    "one row": lambda logits: logits[0],
    "integers": lambda logits: logits.astype(np.int64),
}


class NaNPastTheWindow(Sound):
    def next_token_logits(self, contexts):
        contexts = as_contexts(contexts, self.vocab_size)
        logits = super().next_token_logits(contexts)
        return logits * np.nan if contexts.shape[1] > self.context_length else logits


class ExcludesInBatches(Sound):
    def next_token_logits(self, contexts):
        logits = super().next_token_logits(contexts)
        if len(logits) > 1:
            logits[:, 0] = -np.inf
        return logits


@pytest.mark.parametrize("context_length", [4, 40, 64, 200])
def test_a_sound_model_passes(context_length):
    check_model(Sound(context_length=context_length), tolerance=1e-12)


@pytest.mark.parametrize(
    "broken",
    [
        NotCausal,
        SwapsTheFuture,
        BatchDependent,
        RowMixing,
        LooksPastTheWindow,
        WrongSequencePastTheWindow,
        ReversedTable,
        ShortTable,
        OneWrongRow,
        NaNPastTheWindow,
        ExcludesInBatches,
    ],
)
def test_a_broken_model_fails(broken):
    with pytest.raises(ContractError):
        check_model(broken())


@pytest.mark.parametrize("name", ANSWERS)
def test_a_broken_answer_fails(name):
    with pytest.raises(ContractError):
        check_model(broken_answer(ANSWERS[name])())


@pytest.mark.parametrize("context_length", [3, 32, 40, 64, 200])
@pytest.mark.parametrize("session", SESSIONS)
def test_a_broken_session_fails(session, context_length):
    model = Sound(context_length=context_length)
    model.session = lambda batch_size=1: session(model, batch_size)
    with pytest.raises(ContractError):
        check_model(model)


@pytest.mark.parametrize("name", ["vocab_size", "context_length"])
@pytest.mark.parametrize("value", [0, -1, 2.0, "3", None])
def test_sizes_must_be_positive_ints(name, value):
    model = Sound()
    setattr(model, name, value)
    with pytest.raises(ContractError, match=name):
        check_model(model)


def test_where_only_one_door_excludes_a_token_the_message_says_so():
    with pytest.raises(ContractError, match="differ by inf"):
        check_model(ExcludesInBatches())


class Letters(Tokenizer):
    """Bytes, with one special token; each class below breaks one promise of it."""

    vocab_size = 257
    special: ClassVar = {"<|endoftext|>": 256}

    def encode(self, text):
        return list(text.encode())

    def token_bytes(self, token):
        return b"" if token == 256 else bytes([token])


class Lossy(Letters):
    def encode(self, text):
        return super().encode(text.strip())


class LowerCase(Letters):
    def encode(self, text):
        return super().encode(text.lower())


class OutsideTheVocabulary(Letters):
    vocab_size = 128


class TextBecomesSpecial(Letters):
    name = "<|endoftext|>"

    def encode(self, text):
        return [256] if text == self.name else super().encode(text)

    def token_bytes(self, token):
        return self.name.encode() if token == 256 else super().token_bytes(token)


class OwnTextBecomesSpecial(TextBecomesSpecial):
    name = "<s>"
    special: ClassVar = {"<s>": 256}


class OtherBytes(Letters):
    def token_bytes(self, token):
        return super().token_bytes(token) * 2

    def decode(self, tokens):
        return b"".join(map(super().token_bytes, tokens)).decode()


class OtherText(Letters):
    def decode(self, tokens):
        return super().decode(tokens).replace("\t", "    ")


def test_a_sound_tokenizer_passes():
    check_tokenizer(Letters())


@pytest.mark.parametrize(
    "broken",
    [Lossy, LowerCase, OutsideTheVocabulary, TextBecomesSpecial, OwnTextBecomesSpecial, OtherBytes, OtherText],
)
def test_a_broken_tokenizer_fails(broken):
    with pytest.raises(ContractError):
        check_tokenizer(broken())


def test_the_character_tokenizer_keeps_the_contract_on_its_own_symbols():
    symbols = 'ab \n\t"\\é字👩\u200d\u0301'
    check_tokenizer(CharacterTokenizer(symbols), ["", symbols, symbols[::-1], "a" * 9, "👩\u200d👩"])
