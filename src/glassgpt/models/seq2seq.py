"""One recurrent net reads a text, another writes one: through a single vector, or looking back at what was read.

Why attention was needed: a net that must put the whole source into one vector of fixed size does so for short sources
and fails as they grow. With attention the writer looks at the state of any place of the source, when it needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glassgpt.interface import as_contexts
from glassgpt.models.mlp import refuse_less_than_one
from glassgpt.models.seeds import drawn_from
from glassgpt.models.threads import threads_for

Task = Literal["reverse", "copy"]
N_SYMBOLS, LONGEST = 8, 20  # of the texts that `train_seq2seq` trains on by default


@dataclass(frozen=True)
class Look:
    """What the decoder may look at: the states of all places (B, S, 2C), what attention sees of them (B, S, C), and
    the last two in one (B, 2C)."""

    states: Tensor
    offers: Tensor | None
    whole: Tensor


@dataclass(frozen=True, eq=False)
class Written:
    """What was written, int64 (B, T), and where the decoder looked for each symbol, float (B, T, S), rows of sum 1.

    `alignments` is None without attention.
    """

    symbols: np.ndarray
    alignments: np.ndarray | None


class Seq2Seq(nn.Module):
    """An encoder-decoder of gated recurrent units, with or without additive attention.

    The encoder reads the source both ways; h_j is its two states at place j. The decoder's state s_t starts as
    tanh(W_0 h) of the backward state at the first place and the forward state at the last, and

        s_t = GRU([E(y_{t-1}); c_t], s_{t-1}),  logits of y_t = b + U [s_t; c_t]

    With attention c_t = sum_j a_tj h_j, a_t = softmax over j of v . tanh(W s_{t-1} + M h_j). Without, c_t is one vector
    for the whole text, the encoder's two last states: all that is known of the source fits in 2 n_hidden numbers.

    Source: Bahdanau, Cho and Bengio, arXiv 1409.0473, appendix A. Differs: the output layer is linear instead of a
    maxout that also sees y_{t-1}, the decoder starts from both last states, and without attention the same encoder is
    kept (their RNNencdec reads one way), so that attention is all that differs. It has no end-of-text token: the task
    says how long the text is. Weights are drawn from `seed` alone, as torch does.
    """

    def __init__(self, n_symbols: int, attention: bool, n_embd: int = 16, n_hidden: int = 64, seed: int = 0) -> None:
        super().__init__()
        refuse_less_than_one(n_symbols=n_symbols, n_embd=n_embd, n_hidden=n_hidden)
        self.n_symbols, self.n_hidden, self.attention = n_symbols, n_hidden, attention
        with drawn_from(seed):
            self.read_symbol = nn.Embedding(n_symbols, n_embd)
            self.encoder = nn.GRU(n_embd, n_hidden, batch_first=True, bidirectional=True)
            self.start = nn.Linear(2 * n_hidden, n_hidden)
            self.written_symbol = nn.Embedding(n_symbols + 1, n_embd)  # the last stands before the first symbol
            self.decoder = nn.GRUCell(n_embd + 2 * n_hidden, n_hidden)
            self.head = nn.Linear(3 * n_hidden, n_symbols)
            if attention:
                self.ask = nn.Linear(n_hidden, n_hidden)  # W
                self.offer = nn.Linear(2 * n_hidden, n_hidden, bias=False)  # M
                self.agree = nn.Linear(n_hidden, 1, bias=False)  # v

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits of each symbol of `target` given the source and those before it: (B, S), (B, T) to (B, T, V)."""
        before = F.pad(target[:, :-1], (1, 0), value=self.n_symbols)
        look, state = self.read(source)
        logits = []
        for symbol in before.T:
            state, context, _ = self.write(symbol, state, look)
            logits.append(self.head(torch.cat([state, context], dim=-1)))
        return torch.stack(logits, dim=1)

    def read(self, source: Tensor) -> tuple[Look, Tensor]:
        """What the decoder may look at, and the state that it starts in (B, C)."""
        states, last = self.encoder(self.read_symbol(source))  # (B, S, 2C), (2, B, C)
        whole = torch.cat([last[0], last[1]], dim=-1)
        return Look(states, self.offer(states) if self.attention else None, whole), torch.tanh(self.start(whole))

    def write(self, symbol: Tensor, state: Tensor, look: Look) -> tuple[Tensor, Tensor, Tensor | None]:
        """One step after the symbols (B,): the new state (B, C), the context (B, 2C), and where it looked (B, S)."""
        weights, context = None, look.whole
        if look.offers is not None:
            scores = self.agree(torch.tanh(self.ask(state)[:, None] + look.offers))[..., 0]
            weights = F.softmax(scores, dim=-1)
            context = (weights[:, None] @ look.states)[:, 0]
        state = self.decoder(torch.cat([self.written_symbol(symbol), context], dim=-1), state)
        return state, context, weights

    def widest(self, batch: int, length: int) -> int:
        """How many numbers the widest activation has, of those computed at once: see `threads_for`."""
        return batch * self.n_hidden * (length if self.attention else 3)

    @torch.inference_mode()
    def transduce(self, source: Sequence[Sequence[int]] | np.ndarray, length: int | None = None) -> Written:
        """The likeliest next symbol, `length` times (default: as many as the source has), for sources (B, S)."""
        ids = torch.from_numpy(as_contexts(source, self.n_symbols))
        with threads_for(self.widest(*ids.shape)):
            look, state = self.read(ids)
            symbol = torch.full((len(ids),), self.n_symbols)
            symbols: list[Tensor] = []
            alignments: list[Tensor] = []
            for _ in range(ids.shape[1] if length is None else length):
                state, context, weights = self.write(symbol, state, look)
                symbol = self.head(torch.cat([state, context], dim=-1)).argmax(dim=-1)
                symbols.append(symbol)
                if weights is not None:
                    alignments.append(weights)
        written = torch.stack(symbols, dim=1).numpy()
        return Written(written, torch.stack(alignments, dim=1).numpy() if self.attention else None)


def sources(n_symbols: int, length: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """`n` texts of `length` symbols, each drawn uniformly: int64 (n, length)."""
    return rng.integers(0, n_symbols, (n, length))


def target_of(source: np.ndarray, task: Task) -> np.ndarray:
    """What should be written of sources (n, length): the same, or the same backwards."""
    return source[:, ::-1].copy() if task == "reverse" else source


def train_seq2seq(
    attention: bool,
    *,
    task: Task = "reverse",
    n_symbols: int = N_SYMBOLS,
    n_hidden: int = 64,
    longest: int = LONGEST,
    steps: int = 600,
    batch_size: int = 64,
    learning_rate: float = 5e-3,
    seed: int = 0,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> Seq2Seq:
    """A net that has learned to reverse or copy random texts of 1 to `longest` symbols; under a minute on one core.

    Each step draws one length and `batch_size` texts of it, from `seed` and the step alone; Adam, gradients clipped to
    norm 1, the learning rate falling linearly to nothing. `on_step` hears of each step's loss, in nats a symbol.
    """
    model = Seq2Seq(n_symbols, attention, n_hidden=n_hidden, seed=seed)
    optimizer = torch.optim.Adam(model.parameters())
    with threads_for(model.widest(batch_size, longest)):
        for step in range(steps):
            rng = np.random.default_rng([seed, step])
            source = sources(n_symbols, int(rng.integers(1, longest + 1)), batch_size, rng)
            target = torch.from_numpy(target_of(source, task))
            loss = F.cross_entropy(model(torch.from_numpy(source), target).flatten(0, 1), target.flatten())
            optimizer.param_groups[0]["lr"] = learning_rate * (1 - step / steps)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            on_step(step, loss.item())
    return model


def accuracy_by_length(
    model: Seq2Seq, lengths: Sequence[int], *, task: Task = "reverse", n: int = 200, seed: int = 0
) -> np.ndarray:
    """The share of symbols that are right, in `n` random texts of each length: float64 (lengths,).

    Texts are drawn from `seed` and the length; 1 / n_symbols is what guessing gives.
    """
    shares = []
    for length in lengths:
        source = sources(model.n_symbols, length, n, np.random.default_rng([seed, length, 1]))
        shares.append(np.mean(model.transduce(source).symbols == target_of(source, task)))
    return np.array(shares, dtype=np.float64)
