"""`glassgpt doctor [REF]`: every way of running a model here, against float64: which are right, and which are fast."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from glassgpt.cli.output import add_json, console, number, print_json, print_table
from glassgpt.cli.reference import REF_HELP

if TYPE_CHECKING:
    import numpy as np

    from glassgpt.interface import LanguageModel
    from glassgpt.models.gpt_torch import GPT

# The mean KL from float64 up to which a way of running counts as right, in nats a token: a dtype's own rounding passes;
# a wrong kernel, or a device that answers nonsense, does not.
LARGEST_KL = {"float32": 1e-7, "float16": 1e-3, "bfloat16": 1e-2, "int8": 2e-2, "int4": 5e-2}
PROMPT = 256  # tokens
SECONDS = 1.5  # of steps, for each way
WORTH_REMEMBERING = 1_000_000  # parameters: of a smaller model everything is overhead
WORTH_IT = 1.1  # a way must be so much faster to be chosen


@dataclass(frozen=True)
class Way:
    """One way to run the model: `run` makes it, `dtype` says what its numbers are; `threads` None is all cores."""

    name: str
    dtype: str
    run: Callable[[], LanguageModel]
    threads: int | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "ref",
        metavar="REF",
        nargs="?",
        help=f"the model to try; without one, a random GPT of 30 M parameters. {REF_HELP}",
    )
    parser.add_argument("--compiled", action="store_true", help="try torch.compile too (takes minutes)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from glassgpt.models import native
    from glassgpt.weights.machine import key_of_this_machine

    subject, tokens = subject_of(args.ref)
    rows = []
    for way in ways(subject, args.compiled):
        console(error=True).print(f"trying {way.name}", style="dim")
        rows.append(tried(way, subject, tokens))
    facts = {"machine": key_of_this_machine(), "engine": native.why_not() or "compiled", "ways": rows}
    facts |= advice(rows, keep=subject.config.n_parameters >= WORTH_REMEMBERING)
    if args.json:
        print_json(facts)
    else:
        show(facts)
    return 0


def subject_of(ref: str | None) -> tuple[GPT, np.ndarray]:
    """The model to try, in float32, and a text to try it on: English of Python's own manual where it has words."""
    import numpy as np

    from glassgpt.errors import UsageError
    from glassgpt.loading import open_model
    from glassgpt.models.config import GPTConfig
    from glassgpt.models.gpt_torch import GPT
    from glassgpt.weights.tensors import load_torch_gpt

    if ref is None:
        subject, words = GPT(GPTConfig(16384, 512, n_layer=8, n_head=8, n_embd=512, mlp="gelu_tanh")), None
    else:
        bundle = open_model(ref)
        subject, words = load_torch_gpt(bundle), bundle.tokenizer()
    n = min(PROMPT, subject.context_length - 1)
    if n < 2:
        raise UsageError(
            f"a context of {subject.context_length} is too short for the doctor: give a larger model, or none"
        )
    tokens = np.random.default_rng(0).integers(0, subject.vocab_size, n)
    text = manual_page() if words is not None else ""
    if words is not None and text:
        with contextlib.suppress(UsageError):  # a few symbols: then the text is random
            tokens = np.array(words.encode(text)[:n])
    return subject, tokens


def manual_page() -> str:
    try:
        from pydoc_data.topics import topics
    except ImportError:  # some systems leave it out
        return ""
    return topics["integers"] + topics["exceptions"] + topics["typesmapping"] + topics["strings"]


def ways(subject: GPT, compiled: bool) -> Iterator[Way]:
    import copy

    import torch

    from glassgpt.models import native
    from glassgpt.weights.quantised import packed
    from glassgpt.weights.tensors import tensors_of

    def in_torch(dtype: str, device: str = "cpu") -> Callable[[], LanguageModel]:
        return lambda: copy.deepcopy(subject).to(device=device, dtype=getattr(torch, dtype))

    def in_engine(format: native.Format) -> Callable[[], LanguageModel]:
        return lambda: packed(subject.config, tensors_of(subject), format)

    cores = native.default_threads()
    for dtype in ("float32", "bfloat16", "float16"):
        yield Way(f"torch, {dtype}", dtype, in_torch(dtype))
    if compiled:
        yield Way("torch, compiled, float32", "float32", lambda: compiled_copy(subject))
    if native.why_not() is None:
        for format in native.FORMATS:
            yield Way(f"engine, {format}", format, in_engine(format))
        for threads in sorted({1, cores // 2} - {0, cores}):
            yield Way(f"engine, float32, {threads} of {cores} threads", "float32", in_engine("float32"), threads)
    devices = ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available()
    for device in devices:
        for dtype in ("float32", "bfloat16", "float16"):
            yield Way(f"torch on {device}, {dtype}", dtype, in_torch(dtype, device))


def compiled_copy(subject: GPT) -> GPT:
    import copy

    import torch

    model = copy.deepcopy(subject)
    model.hidden = torch.compile(model.hidden, dynamic=True)  # type: ignore[method-assign]
    return model


def tried(way: Way, subject: GPT, tokens: np.ndarray) -> dict[str, Any]:
    """What one way gives: its error against float64, and tokens a second."""
    import copy

    import numpy as np

    from glassgpt.errors import GlassGPTError
    from glassgpt.evaluation.agreement import agreement
    from glassgpt.models import native
    from glassgpt.models.packed import PackedGPT

    try:
        model = way.run()
        if isinstance(model, PackedGPT):
            model.weights.threads = way.threads or native.default_threads()
        exact = copy.deepcopy(subject).double()
        got, expected = (np.asarray(m.sequence_logits(tokens[None])) for m in (model, exact))
        stepped = model.session()
        stepped.feed(tokens[None, :-1])
        worst = max(_error(got, expected), _error(stepped.feed(tokens[None, -1:]), expected[:, -1]))
        close = agreement(model, exact, tokens[:96])
    except (RuntimeError, NotImplementedError, GlassGPTError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        return {"way": way.name, "dtype": way.dtype, "works": False, "reason": reason}
    return {
        "way": way.name,
        "dtype": way.dtype,
        "threads": way.threads,
        "works": True,
        "safe": bool(np.isfinite(worst) and close.mean_kl <= LARGEST_KL[way.dtype]),
        **number("worst_error", worst, "not finite"),
        **number("mean_kl", close.mean_kl, "not finite"),
        "top1": close.top1,
        "prompt_tokens_per_second": _prompt_speed(model, tokens),
        "tokens_per_second": _step_speed(model, tokens),
    }


def _error(got: np.ndarray, expected: np.ndarray) -> float:
    import numpy as np

    return float(np.max(np.abs(got - expected) / (1 + np.abs(expected))))


def _prompt_speed(model: LanguageModel, tokens: np.ndarray) -> float:
    model.session().feed(tokens[None])
    start = time.perf_counter()
    model.session().feed(tokens[None])
    return len(tokens) / (time.perf_counter() - start)


def _step_speed(model: LanguageModel, tokens: np.ndarray) -> float:
    session = model.session()
    session.feed(tokens[None, :16])
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS and session.length < model.context_length:
        session.feed(tokens[None, :1])
        steps += 1
    return steps / (time.perf_counter() - start)


def advice(rows: list[dict[str, Any]], keep: bool) -> dict[str, Any]:
    """What `load` is to do by default here, kept for it if the model was large enough to tell; and what is fastest."""
    from glassgpt.models import native
    from glassgpt.weights.machine import Machine, key_of_this_machine, remember

    by_way = {row["way"]: row for row in rows if row["works"]}
    plain = by_way["torch, float32"]
    engine = by_way.get("engine, float32")
    use_engine = bool(engine and engine["safe"] and engine["tokens_per_second"] > WORTH_IT * plain["tokens_per_second"])
    halves = by_way.get("torch, bfloat16")
    faster = halves is not None and halves["prompt_tokens_per_second"] > WORTH_IT * plain["prompt_tokens_per_second"]
    fast_bfloat16 = bool(halves and halves["safe"] and faster)
    engines = [row for row in by_way.values() if row["way"].startswith("engine, float32") and row["safe"]]
    best = max(engines, key=lambda row: row["tokens_per_second"], default=None)
    threads = (best and best["threads"]) or native.default_threads()
    if keep:
        remember(Machine(use_engine or engine is None, fast_bfloat16, threads, key_of_this_machine()))
    safe = [row for row in by_way.values() if row["safe"]]
    return {
        "load_uses_engine": use_engine,
        "prompts_in_bfloat16": fast_bfloat16,
        "engine_threads": threads,
        "remembered": keep,
        "fastest": max(safe, key=lambda row: row["tokens_per_second"])["way"] if safe else None,
        "unsafe": [row["way"] for row in rows if not row.get("safe", False)],
    }


def show(facts: dict[str, Any]) -> None:
    out = console()
    out.print(facts["machine"])
    if facts["engine"] != "compiled":
        out.print(f"the compiled engine can't be had: {facts['engine']}")
    headings = ("way", "safe", "worst error", "mean KL", "same likeliest", "prompt tokens/s", "tokens/s")
    print_table(headings, [_cells(row) for row in facts["ways"]])
    out.print("")
    threads = f"{facts['engine_threads']} thread{'s' if facts['engine_threads'] > 1 else ''}"
    engine = f"the compiled engine and {threads}" if facts["load_uses_engine"] else "torch alone"
    if facts["remembered"]:
        out.print(f"From now on models are loaded in float32 with {engine}.")
    out.print(f"The fastest safe way here: {facts['fastest']}.")
    if facts["unsafe"]:
        out.print(f"Not to be trusted here: {', '.join(facts['unsafe'])}.")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    if not row["works"]:
        return (row["way"], "no", row["reason"][:40], "", "", "", "")
    worst, kl = (f"{row[key]:.1e}" if row[key] is not None else "not finite" for key in ("worst_error", "mean_kl"))
    speeds = (f"{row[key]:,.0f}" for key in ("prompt_tokens_per_second", "tokens_per_second"))
    return (row["way"], "yes" if row["safe"] else "NO", worst, kl, f"{100 * row['top1']:.1f} %", *speeds)
