"""The model that a later stage begins from: its weights, its words, and how it holds a conversation."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

import torch

from glassgpt.errors import UsageError
from glassgpt.loading import open_model
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.text.bpe import END_OF_TEXT, BPETokenizer
from glassgpt.text.chat import ChatTemplate
from glassgpt.text.conversation import PLAIN_TEMPLATE
from glassgpt.weights.bundle import Bundle
from glassgpt.weights.tensors import load_torch_gpt

CHAT_TOKENS = ("<|im_start|>", "<|im_end|>")  # what PLAIN_TEMPLATE writes


@dataclass(frozen=True, eq=False)
class Base:
    """`tokenizer`: the base's words, and if `chats` and it had no chat template, those of ours. `config`: its shape,
    with as many tokens."""

    bundle: Bundle
    tokenizer: BPETokenizer
    config: GPTConfig
    template: str | None
    end_tokens: tuple[int, ...]

    @classmethod
    def open(cls, ref: str, *, chats: bool) -> Base:
        """`chats`: whether it is to hold conversations. Raises UsageError for a base that has no byte-level BPE words,
        or no end of text."""
        bundle = open_model(ref)
        if bundle.complete is not None:
            raise UsageError(
                f"run.base {ref} has adapters inside, and a stage begins from plain weights: train with LoRA instead, "
                "which is merged"
            )
        tokenizer = bundle.read_tokenizer()
        if not isinstance(tokenizer, BPETokenizer):
            raise UsageError(
                f"run.base {ref} has no byte-level BPE words, which stages after pretraining need for the end of an "
                "answer: pretrain one with data.vocabulary = 'bpe'"
            )
        template, ends = bundle.chat_template, bundle.end_tokens
        if template is None and chats:
            template, tokenizer = PLAIN_TEMPLATE, tokenizer.with_special(CHAT_TOKENS)
            ends = (tokenizer.special[CHAT_TOKENS[1]],)
        if not ends:
            end = tokenizer.special.get(END_OF_TEXT, tokenizer.end_token)
            if end is None:
                raise UsageError(f"run.base {ref} has no token that ends a text: an answer could never stop")
            ends = (end,)
        size = max(bundle.config.vocab_size, tokenizer.vocab_size)
        return cls(bundle, tokenizer, dataclasses.replace(bundle.config, vocab_size=size), template, ends)

    @property
    def roles(self) -> dict[str, int | str]:
        return dict(self.bundle.roles) | {"eos": self.end_tokens[0]}

    @cached_property
    def chat(self) -> ChatTemplate | None:
        if self.template is None:
            return None
        names = {
            f"{role}_token": self.tokenizer.text_of(token) if isinstance(token, int) else token
            for role, token in self.roles.items()
        }
        return ChatTemplate(self.template, names)

    def gpt(self, seed: int = 0) -> GPT:
        """Its weights in float32. Rows of new tokens are the mean of the old ones and a little noise from `seed`, so
        that at first they are as likely as any other."""
        model = load_torch_gpt(self.bundle)
        new = self.config.vocab_size - model.config.vocab_size
        if not new:
            return model
        grown = GPT(self.config)
        state = model.state_dict()
        noise = torch.Generator().manual_seed(seed)
        for name in ("wte.weight", "lm_head.weight"):
            old = state[name]
            rows = old.mean(0) + 0.02 * torch.randn(new, old.shape[1], generator=noise)
            state[name] = state["wte.weight"] if name != "wte.weight" and self.config.tied else torch.cat([old, rows])
        grown.load_state_dict(state)
        return grown

    @cached_property
    def sha256(self) -> str:
        """Of the shape, the words and every number: what a run that goes on is compared by."""
        digest = hashlib.sha256(json.dumps([self.config.choices(), self.template], default=str).encode())
        digest.update(json.dumps(self.tokenizer.to_tokenizer_json(), sort_keys=True).encode())
        for name in sorted(self.bundle.parameters):
            digest.update(name.encode() + self.bundle.parameters[name].read().tobytes())
        return digest.hexdigest()
