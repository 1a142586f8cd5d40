"""The shape of a GPT: what must be known before its weights mean anything."""

from __future__ import annotations

from dataclasses import dataclass

from glassgpt.errors import UsageError


@dataclass(frozen=True)
class GPTConfig:
    """Sizes of a GPT-2 shaped transformer (names as in OpenAI's checkpoints; `n_embd` is d_model in papers).

    `bias` says whether the Linear layers have one; LayerNorms always have weight and bias. The output layer shares the
    token embedding's matrix. Raises UsageError for sizes that cannot be.
    """

    vocab_size: int
    context_length: int
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    bias: bool = True

    def __post_init__(self) -> None:
        for name in ("vocab_size", "context_length", "n_layer", "n_head", "n_embd"):
            if getattr(self, name) < 1:
                raise UsageError(f"model.{name} must be at least 1, got {getattr(self, name)}")
        if self.vocab_size < 2:
            raise UsageError("model.vocab_size must be at least 2: with one token there is nothing to predict")
        if self.n_embd % self.n_head:
            raise UsageError(
                f"model.n_embd must be a multiple of model.n_head, so that every head gets the same width; "
                f"got {self.n_embd} and {self.n_head}"
            )

    @property
    def n_parameters(self) -> int:
        """Trained numbers, the tied output matrix counted once.

        >>> GPTConfig(2, 3, n_layer=4, n_head=4, n_embd=16, bias=False).n_parameters
        12656
        """
        width = self.n_embd
        block = 12 * width**2 + 4 * width + (9 * width if self.bias else 0)  # 4 + 8 matrices' worth, two LayerNorms
        return (self.vocab_size + self.context_length) * width + self.n_layer * block + 2 * width
