"""Recurrent networks: one state that each token changes, and that must hold all of the past that will matter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from glassgpt.errors import UsageError
from glassgpt.interface import Session
from glassgpt.models.kv_cache import CachedSession
from glassgpt.models.mlp import refuse_less_than_one
from glassgpt.models.seeds import drawn_from
from glassgpt.models.threads import threads_for
from glassgpt.models.torch_model import TorchModel

Cell = Literal["tanh", "gru"]


class Recurrent(TorchModel):
    """A recurrent language model of one layer: h_t = cell(C(token_t), h_{t-1}), logits = b + U h_t.

    `cell` "tanh": h_t = tanh(W x_t + b_1 + R h_{t-1} + b_2) (Elman, "Finding structure in time", 1990; the language
    model of Mikolov et al. 2010, whose cell is a sigmoid). "gru": gates decide what of the state is kept (Cho et al.,
    arXiv 1406.1078, with the reset gate after the matrix product, as torch's `nn.GRU` has it). Both are torch's own.

    The state begins at zero and reads the last `context_length` tokens, so the model is a function of its window, and
    a Markov chain over contexts like any other here. Carried on for ever, the state would be a function of the whole
    text, and of no finite window. Weights are drawn from `seed` alone, C from normal(0, 1), the rest as torch does.
    """

    def __init__(
        self,
        vocab_size: int,
        context_length: int,
        cell: Cell = "gru",
        n_embd: int = 32,
        n_hidden: int = 128,
        seed: int = 0,
    ) -> None:
        super().__init__()
        refuse_less_than_one(vocab_size=vocab_size, context_length=context_length, n_embd=n_embd, n_hidden=n_hidden)
        if cell not in get_args(Cell):
            raise UsageError(f"a recurrent net's cell is one of {', '.join(get_args(Cell))}, got {cell!r}")
        self.vocab_size, self.context_length = vocab_size, context_length
        self.n_hidden = n_hidden
        with drawn_from(seed):
            self.wte = nn.Embedding(vocab_size, n_embd)
            layer = nn.RNN if cell == "tanh" else nn.GRU
            self.rnn = layer(n_embd, n_hidden, batch_first=True)
            self.lm_head = nn.Linear(n_hidden, vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.lm_head(self.states(tokens))

    def last_logits(self, tokens: Tensor) -> Tensor:
        return self.lm_head(self.states(tokens)[:, -1])

    def widest(self, batch: int, time: int) -> int:
        """One state after the other: only the logits of all times are computed at once."""
        return batch * max(3 * self.n_hidden, time * self.vocab_size)

    def states(self, tokens: Tensor, before: Tensor | None = None) -> Tensor:
        """The state after each token, from the state `before` (B, C) or from zero: int64 (B, T) to float (B, T, C)."""
        states, _ = self.rnn(self.wte(tokens), None if before is None else before[None])
        return states

    def session(self, batch_size: int = 1) -> Session:
        nothing = self.lm_head.weight.new_empty((batch_size, 0, self.n_hidden)).detach()
        cache = StateCache(self, nothing)
        return CachedSession(self, cache, np.empty((batch_size, 0), dtype=np.int64))


class StateCache:
    """The states after each of the first tokens of some texts, (B, length, C): rewinding is looking further left."""

    def __init__(self, model: Recurrent, states: Tensor) -> None:
        self.model, self.states = model, states

    @property
    def length(self) -> int:
        return self.states.shape[1]

    def keep(self, length: int) -> None:
        self.states = self.states[:, :length]

    def of_rows(self, rows: Sequence[int] | np.ndarray) -> StateCache:
        index = torch.as_tensor(np.asarray(rows, dtype=np.int64), device=self.states.device)
        return StateCache(self.model, self.states.index_select(0, index))

    def advance(self, tokens: np.ndarray, n: int) -> np.ndarray:
        ids = torch.as_tensor(tokens, device=self.states.device)
        with torch.inference_mode(), threads_for(self.model.widest(*ids.shape)):
            before = self.states[:, -1].contiguous() if self.length else None
            self.states = torch.cat([self.states, self.model.states(ids, before)], dim=1)
            return self.model.lm_head(self.states[:, -n:]).cpu().numpy()
