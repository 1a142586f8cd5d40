"""`glassgpt info REF`: how large a model is, and how large the space of its states."""

from __future__ import annotations

import argparse
import dataclasses
import math
from typing import TYPE_CHECKING, Any

from glassgpt.cli.output import add_json, console, print_json, print_table
from glassgpt.cli.reference import add_ref
from glassgpt.errors import UnsupportedError

if TYPE_CHECKING:
    from glassgpt.weights.bundle import Bundle

# The contexts that Karpathy's text compares, as it gives them, all with GPT-2's vocabulary. (GPT-2's own is 1,024.)
TEXT_COMPARISON = {"GPT-2": 2048, "GPT-3": 4096, "GPT-4": 32768}
GPT2_VOCABULARY = 50257
CHOICES = {
    "bias", "n_kv_head", "head_size", "n_hidden", "mlp_bias", "position", "norm", "mlp", "post_norm", "qk_norm", "tied",
    "norm_epsilon", "rope_theta",
}  # fmt: skip
NO_VALIDATION = "nothing was kept back to validate, or no evaluation was reached"
NOT_MEASURED = {
    "loss": "no step was made",
    "evaluated_step": NO_VALIDATION,
    "validation_loss": NO_VALIDATION,
    "bits_per_byte": NO_VALIDATION,
    "best_step": NO_VALIDATION,
    "text": "its tokens are not in the run folder",
}
HOME_COMPUTERS = {
    "GPT-2": "the Apollo guidance computer's memory",
    "GPT-3": "an Atari 800's memory",
    "GPT-4": "a Commodore 64's",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_ref(parser, runs_it=False)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from glassgpt.loading import open_model

    bundle = open_model(args.ref, allow_pickle=args.allow_pickle)
    config = bundle.config
    report: dict[str, Any] = {
        "kind": bundle.kind,
        "place": bundle.place,
        "parameters": config.n_parameters,
        "stored_as": bundle.dtypes(),
        **config.choices(),
        "tokenizer": words_of(bundle),
        "end_tokens": list(bundle.end_tokens),
        "chat_template": bundle.chat_template is not None,
        **state_space(config.vocab_size, config.context_length),
        "comparison": comparison(),
    }
    if bundle.kind == "run folder":
        report["training"] = training_of(args.ref)
    if config.rope_scaling is not None:
        report["rope_scaling"] = dataclasses.asdict(config.rope_scaling)
    if args.json:
        print_json(report)
    else:
        print_info(report)
    return 0


def training_of(ref: str) -> dict[str, Any]:
    """How far the run is that `ref` names; what was not measured is null, and says so."""
    from glassgpt.loading import open_run
    from glassgpt.training.account import account_of_run

    run, _ = open_run(ref)
    account = account_of_run(run)
    if not account["finished"]:
        account["go_on"] = f"glassgpt train --out {run.path}"
    missing = {key: note for key, note in NOT_MEASURED.items() if account[key] is None}
    return account | {f"{key}_note": note for key, note in missing.items()}


def words_of(bundle: Bundle) -> str:
    """What kind of tokenizer the files hold, for a person."""
    try:
        tokenizer = bundle.read_tokenizer()
    except UnsupportedError as error:
        return f"one that GlassGPT doesn't read: {error}"
    if tokenizer is None:
        return "none: give and get token ids"
    kinds = {"BPETokenizer": "byte-level BPE", "CharacterTokenizer": "characters"}
    kind = kinds.get(type(tokenizer).__name__, type(tokenizer).__name__)
    return f"{kind}, {tokenizer.vocab_size:,} tokens"


def state_space(vocab_size: int, context_length: int) -> dict[str, Any]:
    """The states of a model in both senses, and what it takes to store one.

    >>> space = state_space(2, 3)
    >>> space["states"], space["states_of_every_length"], space["bits_per_state"], space["bytes_per_state"]
    (8, 14, 3.0, 1)
    """
    bits = context_length * math.log2(vocab_size)
    every_length = sum(vocab_size**length for length in range(1, context_length + 1)) if bits < 60 else None
    return {
        "states": vocab_size**context_length if bits < 60 else None,
        **({} if bits < 60 else {"states_note": "too many to write out: see log10_states"}),
        "states_of_every_length": every_length,
        **({} if bits < 60 else {"states_of_every_length_note": "too many to write out: see log10_states"}),
        "log10_states": context_length * math.log10(vocab_size),
        "bits_per_token": math.log2(vocab_size),
        "bits_per_state": bits,
        "bytes_per_state": math.ceil(bits / 8),
    }


def comparison() -> dict[str, dict[str, Any]]:
    """The text's comparison of large contexts with the memories of home computers, computed."""
    return {name: state_space(GPT2_VOCABULARY, T) | {"context_length": T} for name, T in TEXT_COMPARISON.items()}


def training_lines(told: dict[str, Any]) -> list[str]:
    text = told["text"]
    size = f": {text['bytes']:,} bytes, {text['train_tokens']:,} tokens to train" if text else ""
    loss = "" if told["loss"] is None else f", loss {told['loss']:.4f} nats"
    state = "finished" if told["finished"] else "unfinished,"
    lines = [
        f"trained on {', '.join(told['trained_on'])}{size}",
        f"{state} after {told['steps_done']:,} of {told['steps']:,} steps{loss}",
    ]
    if told["bits_per_byte"] is not None:
        lines.append(f"validation after step {told['evaluated_step']:,}: {told['bits_per_byte']:.3f} bits per byte")
        lines[-1] += f"; lowest after step {told['best_step']:,}"
    return lines if told["finished"] else [*lines, f"it goes on by: {told['go_on']}"]


def print_info(report: dict[str, Any]) -> None:
    out = console()
    stored = sorted(report["stored_as"].items(), key=lambda item: -item[1])
    shape = f"{report['n_layer']} layers, {report['n_head']} heads, {report['n_embd']:,} wide"
    out.print(f"{report['kind']} in {report['place']}")
    out.print(f"{report['parameters']:,} parameters: {shape}")
    out.print(f"stored as {', '.join(f'{dtype} ({count:,})' for dtype, count in stored)}")
    if "training" in report:
        for line in training_lines(report["training"]):
            out.print(line)
    choices = {key: value for key, value in report.items() if key in CHOICES}
    if choices:
        out.print(", ".join(f"{key} {value}" for key, value in choices.items()))
    if "rope_scaling" in report:
        out.print(f"rope_scaling {', '.join(f'{key} {value}' for key, value in report['rope_scaling'].items())}")
    out.print(f"tokenizer: {report['tokenizer']}")
    ends = ", ".join(map(str, report["end_tokens"])) or "none that the files name"
    out.print(f"tokens that end a text: {ends}")
    out.print(f"chat template: {'yes, `glassgpt chat` talks with it' if report['chat_template'] else 'none'}")
    out.print(f"vocabulary of {report['vocab_size']:,} tokens, context of {report['context_length']:,}")
    if report["states"] is None:
        power = f"{report['vocab_size']:,}^{report['context_length']:,}"
        out.print(f"{power} = 10^{report['log10_states']:,.0f} states (full contexts)")
    else:
        every = f"{report['states_of_every_length']:,} with the shorter contexts"
        out.print(f"{report['states']:,} states (full contexts), {every}")
    bits = report["bits_per_state"]
    spelled = f"{bits:.4g}" if bits < 1000 else f"{bits:,.0f}"
    out.print(f"to store one state: {spelled} bits, in whole bytes {report['bytes_per_state']:,}")
    out.print("")
    rows = [
        (
            name,
            f"{x['context_length']:,}",
            f"10^{x['log10_states']:,.0f}",
            f"{x['bytes_per_state']:,}",
            HOME_COMPUTERS[name],
        )
        for name, x in report["comparison"].items()
    ]
    print_table(("a state of", "context", "states", "bytes", "like"), rows)
