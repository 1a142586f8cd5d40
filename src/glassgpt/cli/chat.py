"""`glassgpt chat REF`: talk with a model, by its own chat template."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from glassgpt.cli.output import add_json, console, print_json
from glassgpt.cli.reference import add_ref
from glassgpt.cli.sampler import add_sampler, processors_of
from glassgpt.errors import UsageError

if TYPE_CHECKING:
    from glassgpt.text.bpe import BPETokenizer
    from glassgpt.text.chat import ChatTemplate
    from glassgpt.weights.bundle import Bundle


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_ref(parser)
    parser.add_argument("message", metavar="MESSAGE", nargs="?", help="say this and end; without it, a conversation")
    parser.add_argument("--system", metavar="TEXT", help="what the model is told before the conversation")
    parser.add_argument("--max-new-tokens", type=int, default=512, metavar="N", help="the longest answer (512)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same answers (0)")
    add_sampler(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from glassgpt.decoding.draw import as_rng

    conversation = Conversation(args)
    rng = as_rng(args.seed)
    if args.message is not None:
        answer = conversation.answer(args.message, rng, show=not args.json)
        if args.json:
            print_json(answer)
        return 0
    if args.json:
        raise UsageError("a conversation has no one JSON object: give a MESSAGE with --json")
    console(error=True).print("An empty line or Ctrl-D ends the conversation.", style="dim")
    while message := read_line():
        conversation.answer(message, rng, show=True)
    return 0


class Conversation:
    """Messages so far, and the model that answers them."""

    def __init__(self, args: argparse.Namespace) -> None:
        from glassgpt.loading import open_model
        from glassgpt.weights.quantised import load_bundle

        bundle = open_model(args.ref, allow_pickle=args.allow_pickle)
        self.template, self.tokenizer = template_of(bundle)
        self.model = load_bundle(bundle, args.dtype, args.device)
        self.ends = set(bundle.end_tokens) or None
        self.processors = processors_of(args)
        self.max_new_tokens = args.max_new_tokens
        self.messages: list[dict[str, str]] = [{"role": "system", "content": args.system}] if args.system else []

    def answer(self, message: str, rng: Any, *, show: bool) -> dict[str, Any]:
        from glassgpt.decoding.text import stream_text

        self.messages.append({"role": "user", "content": message})
        prompt = self.template.encode(self.messages, self.tokenizer)
        answer = stream_text(
            self.model, self.tokenizer, prompt, self.max_new_tokens,
            processors=self.processors, end_token=self.ends, rng=rng,
        )  # fmt: skip
        for piece in answer:
            if show:
                print(piece, end="", flush=True)
        if show:
            print()
            if answer.finish_reason == "length":
                note = f"(cut off after {len(answer.tokens)} tokens: --max-new-tokens gives it more)"
                console(error=True).print(note, style="dim")
        self.messages.append({"role": "assistant", "content": answer.text})
        return {
            "text": answer.text,
            "tokens": answer.tokens,
            "logprobs": answer.logprobs,
            "prompt_tokens": prompt,
            "finish_reason": answer.finish_reason,
        }


def template_of(bundle: Bundle) -> tuple[ChatTemplate, BPETokenizer]:
    """The model's own template and words. Raises UsageError for a model that has none, and so can't converse."""
    from glassgpt.text.bpe import BPETokenizer
    from glassgpt.text.chat import ChatTemplate

    tokenizer = bundle.read_tokenizer()
    if bundle.chat_template is None:
        raise UsageError(
            f"{bundle.place} has no chat template: it was not trained to answer; use `glassgpt generate` to let it go "
            "on with a text"
        )
    if not isinstance(tokenizer, BPETokenizer):
        raise UsageError(f"{bundle.place} has no tokenizer with special tokens, which a conversation needs")
    names = {
        f"{role}_token": tokenizer.text_of(token) if isinstance(token, int) else token
        for role, token in bundle.roles.items()
    }
    return ChatTemplate(bundle.chat_template, names), tokenizer


def read_line() -> str:
    try:
        return input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return ""
