"""A language model that is a torch module: define `forward`, and it answers arrays and tensors alike."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from glassgpt.interface import Array, LanguageModel, as_contexts
from glassgpt.models.threads import threads_for


class TorchModel(nn.Module, LanguageModel):
    """`forward` gives the logits after every prefix, which is what training wants; the rest follows from it.

    A subclass sets `vocab_size` and `context_length`, and draws its weights from its own seed. It takes NumPy arrays or
    torch tensors and answers in kind.
    """

    @abstractmethod
    def forward(self, tokens: Tensor) -> Tensor:
        """Logits after every prefix: int64 (B, T), T <= context_length, to float (B, T, V)."""

    def last_logits(self, tokens: Tensor) -> Tensor:
        """Logits after the whole of int64 (B, T), T <= context_length: float (B, V)."""
        return self(tokens)[:, -1]

    @abstractmethod
    def widest(self, batch: int, time: int) -> int:
        """How many numbers the widest activation of (batch, time) tokens has, of those computed at once.

        It decides whether threads are worth their waiting for each other (see `threads_for`).
        """

    @property
    def n_parameters(self) -> int:
        """How many numbers training may change."""
        return sum(parameter.numel() for parameter in self.parameters())

    def next_token_logits(self, contexts: Array) -> Array:
        return self.answer(contexts, lambda tokens: self.last_logits(tokens[:, -self.context_length :]))

    def sequence_logits(self, tokens: Array) -> Array:
        if not isinstance(tokens, Tensor):
            tokens = as_contexts(tokens, self.vocab_size)
        if tokens.shape[1] <= self.context_length:
            return self.answer(tokens, self)
        if not isinstance(tokens, Tensor):
            return super().sequence_logits(tokens)
        prefixes = (tokens[:, :t] for t in range(1, tokens.shape[1] + 1))
        return torch.stack([self.next_token_logits(prefix) for prefix in prefixes], dim=1)

    def answer(self, tokens: Array, function: Callable[[Tensor], Tensor]) -> Array:
        """`function` of the tokens, int (B, T): of a tensor as it is, of anything else checked, as a NumPy array."""
        if isinstance(tokens, Tensor):
            return function(tokens)
        ids = torch.tensor(as_contexts(tokens, self.vocab_size), device=next(self.parameters()).device)
        with torch.inference_mode(), threads_for(self.widest(*ids.shape)):
            return function(ids).cpu().numpy()
