"""What a model in training is measured by: the validation part, yardsticks for it, and what the model writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from glassgpt.decoding.generate import generate
from glassgpt.evaluation.yardsticks import byte_yardsticks, token_yardsticks
from glassgpt.interface import Tokenizer
from glassgpt.models.gpt_torch import GPT
from glassgpt.numerics import LN2
from glassgpt.text.token_files import TokenPart
from glassgpt.training.processes import Processes
from glassgpt.training.recipe import Recipe

TOKENS_AT_ONCE = 1 << 14
MOST_TRAINING_BYTES = 20_000_000  # that yardsticks read
SAMPLE_TEMPERATURE = 0.8


@dataclass(frozen=True)
class Evaluation:
    """`validation_loss`: nats a token; None, as bits_per_byte, where no text was kept back. `tokens`: how many it is
    of. `sample`: what the model went on with after the prompt. `more`: what else a stage measures, by name."""

    step: int
    validation_loss: float | None
    bits_per_byte: float | None
    tokens: int
    sample: str | None
    more: Mapping[str, float | None] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "validation_loss": self.validation_loss,
            "bits_per_byte": self.bits_per_byte,
            "tokens": self.tokens,
            "sample": self.sample,
            **self.more,
        }

    def numbers(self) -> dict[str, float | None]:
        return {"validation_loss": self.validation_loss, "bits_per_byte": self.bits_per_byte, **self.more}


@torch.no_grad()
def validation_loss(
    model: nn.Module,
    part: TokenPart,
    context_length: int,
    among: Processes | None = None,
    *,
    mask_documents: bool = False,
    poll: Callable[[], None] = lambda: None,
) -> float:
    """Nats a token over the part's windows laid end to end: every token but the first once, given what its window has
    before it. Processes share the windows. `poll` is called before each batch, and may raise to stop."""
    among = among or Processes(device=str(next(model.parameters()).device))
    n_windows = max(1, TOKENS_AT_ONCE // context_length)
    surprise = 0.0
    for batch in part.windows(context_length, n_windows):
        poll()
        mine = among.share(len(batch.inputs))
        rows = slice(mine.start, mine.stop) if len(mine) else slice(0, 1)  # all take part in what FSDP gathers
        inputs, targets = (torch.from_numpy(x[rows]).to(among.device) for x in (batch.inputs, batch.targets))
        options = {"documents": torch.from_numpy(batch.documents[rows]).to(among.device)} if mask_documents else {}
        loss = F.cross_entropy(model(inputs, **options).flatten(0, 1).float(), targets.flatten(), reduction="sum")
        surprise += float(loss) if len(mine) else 0.0
    return among.total(surprise) / (len(part) - 1)


def bits_per_byte(nats_per_token: float, part: TokenPart) -> float:
    """Comparable between vocabularies; an end of text costs bits and adds no byte."""
    return nats_per_token / LN2 / part.bytes_per_token


def sample(model: GPT, tokenizer: Tokenizer, prompt: list[int], recipe: Recipe) -> str:
    """What the model writes after the prompt, always with the same random numbers."""
    tokens = generate(
        model, prompt, recipe.evaluate.sample_tokens, temperature=SAMPLE_TEMPERATURE, seed=recipe.run.seed
    )
    return tokenizer.decode(tokens)


def best_step(evaluations: Sequence[Mapping[str, Any]]) -> int | None:
    """The step of a run's evaluations (rows of its metrics) whose validation loss is the least, the earliest of equals.

    Only losses of the same tokens are compared: where the last evaluation is of all and the others of the first tokens
    of the validation part, the last one is the best unless an earlier one is better than the newest of its own kind.
    None if nothing was kept back to validate.
    """
    measured = [row for row in evaluations if row["validation_loss"] is not None]
    alike = [row for row in measured if row["tokens"] == measured[0]["tokens"]]
    if not measured:
        return None
    best = min(alike, key=lambda row: row["validation_loss"])
    return measured[-1]["step"] if best is alike[-1] else best["step"]


def yardsticks(
    training: TokenPart, validation: TokenPart, tokenizer: Tokenizer, poll: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Bits per byte of the validation part by counting and by compressors that have seen the training part too: of a
    long one its last 20 MB.

    bz2 is left out: it works in blocks of 900 kB, and tells a shorter validation part badly apart from what came before
    it. `poll` is called before each block, and may raise to stop.
    """
    seen = training.tokens[-int(MOST_TRAINING_BYTES / training.bytes_per_token) :]
    held_out = validation.tokens
    found = byte_yardsticks(_Bytes(seen, tokenizer, poll), _Bytes(held_out, tokenizer, poll))
    found.pop("bz2")
    return found | token_yardsticks(seen.astype(np.int64), held_out.astype(np.int64), tokenizer)


@dataclass(frozen=True, eq=False)
class _Bytes:
    """The text of tokens as blocks of bytes, anew at each iteration."""

    tokens: np.ndarray
    tokenizer: Tokenizer
    poll: Callable[[], None]

    def __iter__(self) -> Iterator[bytes]:
        pieces = [self.tokenizer.token_bytes(i) for i in range(self.tokenizer.vocab_size)]
        for start in range(0, len(self.tokens), 1 << 16):
            self.poll()
            block = b"".join(pieces[i] for i in self.tokens[start : start + (1 << 16)])
            if block:
                yield block
