"""Networks that look at the last k tokens, each at its place: a perceptron, and Bengio's neural language model.

Between counting and the GPT: the perceptron adds up what each place says, so it cannot say what two tokens mean
together; the MLP can, and its embeddings let it treat alike what it saw in like places.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glassgpt.errors import UsageError
from glassgpt.interface import Array
from glassgpt.models.seeds import drawn_from
from glassgpt.models.torch_model import TorchModel


class WindowModel(TorchModel):
    """A function of the last `context_length` tokens, each known by its place, counted back from the newest.

    Places before a text's first token hold the start, an entry of its own after the vocabulary's, which is trained as
    tokens are: so a short prefix is a function of its tokens and of how many they are. `forward` takes texts of any
    length, each prefix seen through its last `context_length` tokens.
    """

    @abstractmethod
    def window_logits(self, windows: Tensor) -> Tensor:
        """The logits after windows: int64 (..., context_length), `vocab_size` being the start, to float (..., V)."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits after every prefix: int64 (B, T) of any length to float (B, T, V)."""
        return self.window_logits(self._padded(tokens).unfold(1, self.context_length, 1))

    def last_logits(self, tokens: Tensor) -> Tensor:
        return self.window_logits(self._padded(tokens)[:, -self.context_length :])

    def sequence_logits(self, tokens: Array) -> Array:
        return self.answer(tokens, self)

    def _padded(self, tokens: Tensor) -> Tensor:
        return F.pad(tokens, (self.context_length - 1, 0), value=self.vocab_size)


class Perceptron(WindowModel):
    """Logits linear in the last k tokens as one-hot vectors: logits = b + W_1[newest] + ... + W_k[k-th newest].

    One layer and a softmax (multinomial logistic regression). Its training loss is convex: weights begin at 0, which is
    the uniform distribution, and there is nothing to draw. (vocab_size + 1) * k * V weights and V biases.
    """

    def __init__(self, vocab_size: int, context_length: int) -> None:
        super().__init__()
        refuse_less_than_one(vocab_size=vocab_size, context_length=context_length)
        self.vocab_size, self.context_length = vocab_size, context_length
        self.place = nn.Parameter(torch.zeros(context_length, vocab_size + 1, vocab_size))
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def window_logits(self, windows: Tensor) -> Tensor:
        logits: Tensor = self.bias
        for i, weights in enumerate(self.place, start=1):
            logits = logits + F.embedding(windows[..., -i], weights)
        return logits

    def widest(self, batch: int, time: int) -> int:
        return batch * time * self.vocab_size


class MLP(WindowModel):
    """The neural probabilistic language model: logits = b + U tanh(d + H [C(oldest); ... C(newest)]).

    C gives each token (and the start) a vector of `n_embd` numbers, the same at every place; `n_hidden` units see those
    of the last k tokens. Weights are drawn from `seed` alone: C from normal(0, 1), the Linear layers as torch draws
    them, uniformly within 1 / sqrt(inputs).

    Source: Bengio, Ducharme, Vincent and Jauvin, "A neural probabilistic language model", JMLR 3, 2003, equation 1.
    Differs by the start vector for short prefixes, and by no direct connections from C to the logits (their W = 0,
    with which they generalised better on Brown).
    """

    def __init__(self, vocab_size: int, context_length: int, n_embd: int = 24, n_hidden: int = 128, seed: int = 0):
        super().__init__()
        refuse_less_than_one(vocab_size=vocab_size, context_length=context_length, n_embd=n_embd, n_hidden=n_hidden)
        self.vocab_size, self.context_length = vocab_size, context_length
        with drawn_from(seed):
            self.wte = nn.Embedding(vocab_size + 1, n_embd)
            self.hidden = nn.Linear(context_length * n_embd, n_hidden)
            self.lm_head = nn.Linear(n_hidden, vocab_size)

    def window_logits(self, windows: Tensor) -> Tensor:
        x = self.wte(windows).flatten(-2)  # (..., k, C) to (..., k C)
        return self.lm_head(torch.tanh(self.hidden(x)))

    def widest(self, batch: int, time: int) -> int:
        return batch * time * max(self.hidden.in_features, self.hidden.out_features, self.vocab_size)


def refuse_less_than_one(**sizes: int) -> None:
    """Raise UsageError that names the first of these sizes that is below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise UsageError(f"{name} must be at least 1, got {size}")
