"""`glassgpt generate REF PROMPT`: walk the chain from a prompt."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from glassgpt.cli.output import add_json, number, print_json
from glassgpt.cli.reference import add_ref, load_ref
from glassgpt.cli.sampler import add_sampler, context_of, processors_of, sampler_of, token_ids
from glassgpt.errors import GlassGPTError, UsageError

if TYPE_CHECKING:
    from glassgpt.decoding.beam import Beam
    from glassgpt.decoding.draw import Drawn
    from glassgpt.interface import LanguageModel, Tokenizer

NO_TEXT = "there is no tokenizer beside the model"
IMPOSSIBLE = "a token that the model itself gives no probability"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_ref(parser)
    parser.add_argument("prompt", metavar="PROMPT", nargs="?", help='the text to go on with; "" starts a new one')
    parser.add_argument("--tokens", metavar="IDS", help="the prompt as token ids, such as 1,0,1, in place of PROMPT")
    parser.add_argument("--max-new-tokens", type=int, default=20, metavar="N", help="how many tokens to draw (20)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same text (0)")
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="N texts, of seeds SEED, SEED + 1, ... (1)")
    add_sampler(parser)
    ending = parser.add_argument_group("ending")
    ending.add_argument(
        "--stop", action="append", default=[], metavar="STR", help="end before this text (may be given several times)"
    )
    ends = ending.add_mutually_exclusive_group()
    ends.add_argument("--end-tokens", metavar="IDS", help="end after these token ids, in place of the model's own")
    ends.add_argument("--ignore-end", action="store_true", help="go on after the end-of-text token")
    how = parser.add_argument_group("search and speed").add_mutually_exclusive_group()
    how.add_argument("--beams", type=int, metavar="N", help="search for the likeliest text with N beams; draw nothing")
    how.add_argument("--draft", metavar="REF", help="a smaller model that guesses ahead; the distribution is the same")
    how.add_argument("--lookup", type=int, metavar="N", help="guess ahead what followed the last N tokens before")
    parser.add_argument("--length-penalty", type=float, metavar="A", help="with --beams: score / length^A (1)")
    parser.add_argument("--draft-tokens", type=int, metavar="N", help="with --draft, --lookup: guess N ahead (4)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from glassgpt.loading import load

    check(args)
    model, tokenizer = load_ref(args)
    if tokenizer is None and args.stop:
        raise UsageError(f"{NO_TEXT}, so --stop can't be found in its text: give --end-tokens")
    draft = load(args.draft, args.dtype, allow_pickle=args.allow_pickle)[0] if args.draft is not None else None
    going_on = GoingOn(args, model, tokenizer, draft, prompt_of(args, tokenizer), ends_of(args, model, tokenizer))
    if args.beams is not None:
        going_on.search()
    elif args.json:
        going_on.print_samples()
    else:
        for i in range(args.samples):
            going_on.show(i)
    return 0


def check(args: argparse.Namespace) -> None:
    """Raise UsageError for options that can't be meant, before a model is loaded."""
    if (args.prompt is None) == (args.tokens is None):
        raise UsageError("give either a PROMPT or --tokens")
    if args.seed < 0:
        raise UsageError(f"--seed must be 0 or more, got {args.seed}")
    if args.samples < 1:
        raise UsageError(f"--samples must be 1 or more, got {args.samples}")
    if args.length_penalty is not None and args.beams is None:
        raise UsageError("--length-penalty ranks beams: give --beams too")
    if args.draft_tokens is not None and args.draft is None and args.lookup is None:
        raise UsageError("--draft-tokens says how far to guess ahead: give --draft or --lookup too")
    shaping = {name for name, value in sampler_of(args).items() if value is not None} - {"temperature"}
    if args.beams is not None and (shaping or args.stop or args.samples > 1 or args.temperature not in (0, 1)):
        raise UsageError(
            "--beams searches for the likeliest text of the model as it is: it takes no sampler, --stop or --samples"
        )


def prompt_of(args: argparse.Namespace, tokenizer: Tokenizer | None) -> list[int]:
    """The prompt's token ids; of an empty one the end-of-text token, after which models were trained to begin."""
    if args.tokens is not None:
        return token_ids(args.tokens)
    if tokenizer is None:
        raise UsageError(f"{NO_TEXT}: give the prompt as --tokens")
    end = getattr(tokenizer, "end_token", None)
    if args.prompt == "" and end is not None:
        return [end]
    return list(context_of(args.prompt, tokenizer, "the prompt"))


def ends_of(args: argparse.Namespace, model: LanguageModel, tokenizer: Tokenizer | None) -> frozenset[int]:
    """The tokens that end a text: those that were asked for, else the model's own and its tokenizer's."""
    from glassgpt.loading import open_model

    if args.end_tokens is not None:
        return frozenset(token_ids(args.end_tokens, "--end-tokens"))
    if args.ignore_end:
        return frozenset()
    own = {*open_model(args.ref, allow_pickle=args.allow_pickle).end_tokens, getattr(tokenizer, "end_token", None)}
    return frozenset(end for end in own if end is not None and end < model.vocab_size)


@dataclass
class GoingOn:
    """One prompt, the model that goes on with it, and how."""

    args: argparse.Namespace
    model: LanguageModel
    tokenizer: Tokenizer | None
    draft: LanguageModel | None
    prompt: list[int]
    ends: frozenset[int]

    def drawn(self, i: int) -> Iterable[Drawn]:
        """The tokens of sample `i`, one by one: plainly, or with guesses."""
        import numpy as np

        from glassgpt.decoding.generate import stream
        from glassgpt.decoding.speculative import Dice, Lookup, SpeculativeStream

        args = self.args
        rng = np.random.default_rng(args.seed + i)
        options: dict[str, Any] = {"processors": processors_of(args), "end_token": self.ends}
        if self.draft is None and args.lookup is None:
            return stream(self.model, self.prompt, args.max_new_tokens, rng=rng, **options)
        options["n_draft"] = 4 if args.draft_tokens is None else args.draft_tokens
        guess = Lookup(args.lookup) if self.draft is None else self.draft
        return SpeculativeStream(self.model, self.prompt, args.max_new_tokens, draft=guess, dice=Dice(rng), **options)

    def sample(self, i: int) -> dict[str, Any]:
        """Sample `i` as the object that --json prints."""
        from glassgpt.decoding.speculative import SpeculativeStream
        from glassgpt.decoding.text import TextStream

        drawn = self.drawn(i)
        text: str | None = None
        if self.tokenizer is None:
            pairs = list(drawn)
            tokens, logprobs = [token for token, _ in pairs], [logprob for _, logprob in pairs]
            reason = "stop" if tokens and tokens[-1] in self.ends else "length"
        else:
            stream = TextStream(drawn, self.tokenizer, stop=self.args.stop, ends=self.ends)
            text = "".join(stream)
            tokens, logprobs, reason = stream.tokens, stream.logprobs, str(stream.finish_reason)
        told = self.spelled(tokens, text) | logprobs_of(logprobs) | {"finish_reason": reason}
        if isinstance(drawn, SpeculativeStream):
            told["speculation"] = {"drafted": drawn.n_drafted, "accepted": drawn.n_accepted, "calls": drawn.n_calls}
        return told

    def spelled(self, tokens: list[int], text: str | None) -> dict[str, Any]:
        """Tokens, piece by piece, and their text, which leaves out an end token and what was stopped before."""
        if self.tokenizer is None:
            return {"tokens": tokens, "text": None, "text_note": NO_TEXT, "pieces": None, "pieces_note": NO_TEXT}
        return {"tokens": tokens, "text": text, "pieces": [self.tokenizer.decode([token]) for token in tokens]}

    def print_samples(self) -> None:
        samples = [self.sample(i) for i in range(self.args.samples)]
        shared = {"prompt_tokens": self.prompt, "seed": self.args.seed, "sampler": sampler_of(self.args)}
        print_json(samples[0] | shared | ({"samples": samples} if len(samples) > 1 else {}))

    def show(self, i: int) -> None:
        """Write sample `i` for a person as it is drawn, after its prompt; as ids where there is no tokenizer."""
        from glassgpt.decoding.text import TextStream

        drawn = self.drawn(i)
        if self.tokenizer is None:
            begin = ",".join(map(str, self.prompt))
            pieces: Iterable[str] = (f",{token}" for token, _ in drawn)
        else:
            begin = self.tokenizer.decode(self.prompt)
            pieces = TextStream(drawn, self.tokenizer, stop=self.args.stop, ends=self.ends)
        for piece in chain([begin], pieces):
            print(piece, end="", flush=True)
        print()

    def search(self) -> None:
        """The likeliest texts instead of drawn ones."""
        from glassgpt.decoding.beam import Beam, beam_search

        args = self.args
        penalty = 1.0 if args.length_penalty is None else args.length_penalty
        options: dict[str, Any] = {"length_penalty": penalty, "end_token": self.ends}
        beams = beam_search(self.model, self.prompt, args.max_new_tokens, args.beams, **options)
        if not beams and args.max_new_tokens:
            raise GlassGPTError("the model has nothing possible to say after this prompt, and no beam ends")
        found = [self.beam(beam) for beam in beams or [Beam((), 0.0, 0.0, ())]]
        if args.json:
            print_json(found[0] | {"prompt_tokens": self.prompt, "length_penalty": penalty, "beams": found})
            return
        for told in found:
            ids = ",".join(map(str, self.prompt + told["tokens"]))
            text = ids if self.tokenizer is None else self.tokenizer.decode(self.prompt) + told["text"]
            print(f"{told['score']:.4f}  {text}" if len(found) > 1 else text)

    def beam(self, beam: Beam) -> dict[str, Any]:
        tokens = list(beam.tokens)
        ended = bool(tokens) and tokens[-1] in self.ends
        text = None if self.tokenizer is None else self.tokenizer.decode(tokens[:-1] if ended else tokens)
        told = self.spelled(tokens, text) | {"logprobs": list(beam.logprobs), "logprob": beam.logprob}
        return told | {"score": beam.score, "finish_reason": "stop" if ended else "length"}


def logprobs_of(logprobs: list[float]) -> dict[str, Any]:
    """Natural log-probabilities under the model itself; null for a token to which it gives none."""
    values = [number("logprob", logprob, IMPOSSIBLE)["logprob"] for logprob in logprobs]
    return {"logprobs": values} | ({"logprobs_note": f"null: {IMPOSSIBLE}"} if None in values else {})
