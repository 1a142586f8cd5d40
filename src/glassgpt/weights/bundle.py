"""What a reference turns out to be, whatever its format: a shape, parameters still in their file, words, a template."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from glassgpt.errors import UnsupportedError
from glassgpt.interface import Tokenizer
from glassgpt.models.config import GPTConfig
from glassgpt.weights.stored import StoredTensor

if TYPE_CHECKING:
    from glassgpt.models.gpt_torch import GPT


@dataclass(frozen=True)
class Bundle:
    """A model that lies in files, its shape and tensors checked and nothing large read yet.

    `kind` and `place` say what was found and where, for a person. `read_tokenizer` gives the tokenizer, or None if the
    files hold none; it raises UnsupportedError for words of a kind that GlassGPT doesn't read. `end_tokens`: the ids
    after which the model's texts end. `chat_template`: the model's own, in Jinja. `roles`: its special tokens by what
    they are for ("bos", "eos", ...), as ids or as texts. `complete` puts into a GPT of these parameters what it has
    beside them (adapters); None if there is nothing. `head` says what a model's scores mean that has another head than
    the vocabulary's, and so writes no text.
    """

    kind: str
    place: str
    config: GPTConfig
    parameters: dict[str, StoredTensor]
    read_tokenizer: Callable[[], Tokenizer | None]
    end_tokens: tuple[int, ...] = ()
    chat_template: str | None = None
    roles: Mapping[str, int | str] = field(default_factory=dict)
    complete: Callable[[GPT], None] | None = None
    head: str | None = None

    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer, or None if there is none that GlassGPT reads: ids still work."""
        try:
            return self.read_tokenizer()
        except UnsupportedError:
            return None

    def dtypes(self) -> dict[str, int]:
        """How many of the model's numbers are stored in each of the file's number formats."""
        counts: dict[str, int] = {}
        for tensor in self.parameters.values():
            size = 1
            for length in tensor.shape:
                size *= length
            counts[tensor.dtype] = counts.get(tensor.dtype, 0) + size
        return counts
