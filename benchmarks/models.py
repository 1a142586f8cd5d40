"""Decoding and reading prompts, beside peers, in one run: `python benchmarks/models.py [--model gpt2|smollm2]`.

gpt2 is the 124M shape with random weights (their values don't change the speed); smollm2 the real SmolLM2-135M. Peers:
GPT-2 in plain NumPy without a cache, written here after the way of picoGPT; transformers with its cache; llama.cpp, if
llama-cpp-python is installed, on files that GlassGPT exports and llama.cpp's own quantiser rounds. All take the same
greedy steps on two threads, in turn, round after round; a figure is the median of the rounds (a program whose first
round takes longer than half a minute, as bfloat16 can in transformers, is measured by that round alone, and marked).
"of limit": the share of the passes a second that this machine's memory allows over as many bytes as the program's
weights have. Last, the ratios: ours to each peer of as many bits.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from glassgpt.evaluation.agreement import agreement
from glassgpt.interface import LanguageModel
from glassgpt.loading import open_model
from glassgpt.models import native
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.models.native.engine import zeros
from glassgpt.weights.gguf_export import export_gguf
from glassgpt.weights.hf_folder import export_hf
from glassgpt.weights.hub import pull
from glassgpt.weights.quantised import packed
from glassgpt.weights.tensors import load_torch_gpt, tensors_of

PROMPTS = (16, 512)
STEPS = 24  # in each round
PATIENCE = 30  # seconds: a program that needs more for its first round gets no second
PEERS_OF = {  # whom each format of ours is measured against: programs of as many bits
    "float32": [("llama.cpp", "F32"), ("transformers", "float32"), ("plain NumPy, no cache", "float32")],
    "bfloat16": [("llama.cpp", "F16"), ("transformers", "bfloat16")],
    "int8": [("llama.cpp", "Q8_0")],
    "int4": [("llama.cpp", "Q4_1"), ("llama.cpp", "Q4_0")],
}
GPT2 = GPTConfig(50257, 1024, mlp="gelu_tanh")
TEXT = """
A language model reads a text and says which token may come next. It was trained on a great many sentences, and what
it learned from them lies in its weights. When those are rounded to a few bits, some of it is lost, and how much is
what this paragraph is here to tell. The old lighthouse keeper climbed the stairs every evening, lit the lamp, and
wrote the names of the passing ships into a book that nobody had asked him to keep. In 1969 two people walked on the
Moon. Water is made of hydrogen and oxygen, and boils at one hundred degrees Celsius at sea level.
"""


class Program:
    """Something that reads prompts and takes greedy steps; `megabytes`: of weights that a step reads."""

    def __init__(self, name: str, bits: str, megabytes: float) -> None:
        self.name, self.bits, self.megabytes = name, bits, megabytes
        self.model: LanguageModel | None = None  # where the quality can be asked for

    def prompt(self, tokens: list[int]) -> int:
        """Forget all, read these, and return the likeliest next token."""
        raise NotImplementedError

    def step(self, token: int) -> int:
        raise NotImplementedError


class Ours(Program):
    def __init__(self, name: str, bits: str, megabytes: float, model: LanguageModel) -> None:
        super().__init__(name, bits, megabytes)
        self.model = model

    def prompt(self, tokens: list[int]) -> int:
        assert self.model is not None
        self.session = self.model.session()
        return int(self.session.feed([tokens])[0].argmax())

    def step(self, token: int) -> int:
        return int(self.session.feed([[token]])[0].argmax())


class PlainNumPy(Program):
    """GPT-2's forward pass in NumPy over the whole text for every token: the sixty lines, no cache."""

    def __init__(self, params: dict[str, np.ndarray], config: GPTConfig, megabytes: float) -> None:
        super().__init__("plain NumPy, no cache", "float32", megabytes)
        self.params, self.config = params, config

    def prompt(self, tokens: list[int]) -> int:
        self.tokens = list(tokens)
        return int(self.logits().argmax())

    def step(self, token: int) -> int:
        self.tokens.append(token)
        return int(self.logits().argmax())

    def logits(self) -> np.ndarray:
        p, H = self.params, self.config.n_head
        T = len(self.tokens)
        x = p["wte.weight"][self.tokens] + p["wpe.weight"][:T]
        mask = (1 - np.tri(T, dtype=np.float32)) * -1e10
        for i in range(self.config.n_layer):
            qkv = self.normed(x, f"h.{i}.ln_1") @ p[f"h.{i}.attn.c_attn.weight"] + p[f"h.{i}.attn.c_attn.bias"]
            heads = [np.split(part, H, axis=-1) for part in np.split(qkv, 3, axis=-1)]
            mixed = [
                softmax(q @ k.T / np.float32(q.shape[-1] ** 0.5) + mask) @ v for q, k, v in zip(*heads, strict=True)
            ]
            x = x + np.hstack(mixed) @ p[f"h.{i}.attn.c_proj.weight"] + p[f"h.{i}.attn.c_proj.bias"]
            wide = self.normed(x, f"h.{i}.ln_2") @ p[f"h.{i}.mlp.c_fc.weight"] + p[f"h.{i}.mlp.c_fc.bias"]
            wide = 0.5 * wide * (1 + np.tanh(np.float32((2 / np.pi) ** 0.5) * (wide + 0.044715 * wide**3)))
            x = x + wide @ p[f"h.{i}.mlp.c_proj.weight"] + p[f"h.{i}.mlp.c_proj.bias"]
        return (self.normed(x, "ln_f") @ p["wte.weight"].T)[-1]

    def normed(self, x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt(centred.var(-1, keepdims=True) + np.float32(1e-5))
        return self.params[f"{name}.weight"] * scaled + self.params[f"{name}.bias"]


def softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


class Transformers(Program):
    def __init__(self, folder: Path, dtype: torch.dtype, megabytes: float) -> None:
        import transformers

        transformers.utils.logging.set_verbosity_error()
        super().__init__("transformers", str(dtype).removeprefix("torch."), megabytes)
        self.theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()

    @torch.inference_mode()
    def prompt(self, tokens: list[int]) -> int:
        self.cache = None
        return self.feed(tokens)

    @torch.inference_mode()
    def step(self, token: int) -> int:
        return self.feed([token])

    def feed(self, tokens: list[int]) -> int:
        out = self.theirs(torch.tensor([tokens]), past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        self.cache = out.past_key_values
        return int(out.logits[0, -1].argmax())


class LlamaCpp(Program):
    def __init__(self, path: Path, bits: str) -> None:
        from llama_cpp import Llama

        super().__init__("llama.cpp", bits, path.stat().st_size / 1e6)
        self.peer = Llama(str(path), n_ctx=1024, n_batch=512, n_threads=2, n_threads_batch=2, verbose=False)

    def prompt(self, tokens: list[int]) -> int:
        self.peer.reset()
        return self.step_many(tokens)

    def step(self, token: int) -> int:
        return self.step_many([token])

    def step_many(self, tokens: list[int]) -> int:
        from llama_cpp import llama_cpp

        self.peer.eval(tokens)
        logits = llama_cpp.llama_get_logits_ith(self.peer._ctx.ctx, -1)
        return int(np.ctypeslib.as_array(logits, (self.peer.n_vocab(),)).argmax())


def megabytes_a_step(config: GPTConfig, bytes_each: float) -> float:
    """Weights that a step reads: all but positions, and but an embedding that only gives a row."""
    table = config.vocab_size * config.n_embd
    unread = (config.context_length * config.n_embd if config.position == "learned" else 0) + (not config.tied) * table
    return (config.n_parameters - unread) * bytes_each / 1e6


def our_programs(model: GPT) -> list[Program]:
    made: list[Program] = [Ours("GlassGPT, torch alone", "float32", megabytes_a_step(model.config, 4), model)]
    if native.why_not() is not None:
        print(f"the engine can't be compiled here: {native.why_not()}")
        return made
    params = tensors_of(model)
    for format in native.FORMATS:
        both = packed(model.config, params, format)
        made.append(Ours("GlassGPT", format, both.weights.n_bytes / 1e6, both))
    return made


def peers(model: GPT, folder: Path, which: set[str]) -> list[Program]:
    made: list[Program] = []
    params = tensors_of(model)
    if "numpy" in which and model.config.position == "learned":
        made.append(PlainNumPy(params, model.config, megabytes_a_step(model.config, 4)))
    if "transformers" in which and importlib.util.find_spec("transformers"):
        export_hf(folder / "hf", model.config, params, None)
        for dtype, size in ((torch.float32, 4), (torch.bfloat16, 2)):
            made.append(Transformers(folder / "hf", dtype, megabytes_a_step(model.config, size)))
    if "llama" in which and importlib.util.find_spec("llama_cpp"):
        made += llama_programs(model, params, folder)
    elif "llama" in which:
        print("llama-cpp-python is not installed: no figures of llama.cpp")
    return made


def llama_programs(model: GPT, params: dict[str, np.ndarray], folder: Path) -> list[Program]:
    from llama_cpp import llama_cpp

    plain = folder / "F32.gguf"
    export_gguf(model.config, params, None, plain, dtype="F32")
    made: list[Program] = [LlamaCpp(plain, "F32")]
    kinds = {"F16": llama_cpp.LLAMA_FTYPE_MOSTLY_F16, "Q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
             "Q4_1": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_1, "Q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0}  # fmt: skip
    for bits, kind in kinds.items():
        asked = llama_cpp.llama_model_quantize_default_params()
        asked.ftype, asked.nthread = kind, 2
        path = folder / f"{bits}.gguf"
        if llama_cpp.llama_model_quantize(str(plain).encode(), str(path).encode(), asked) == 0:
            made.append(LlamaCpp(path, bits))
    return made


def measure(programs: list[Program], vocab_size: int, rounds: int) -> dict[Program, dict[str, list[float]]]:
    """Tokens a second, per program: after each prompt, and of the longer prompt itself; all programs in turn."""
    tokens = np.random.default_rng(0).integers(0, vocab_size, max(PROMPTS)).tolist()
    times: dict[Program, dict[str, list[float]]] = {
        program: {"prompt": [], **{f"after {n}": [] for n in PROMPTS}} for program in programs
    }
    slow: set[Program] = set()
    for turn in range(rounds + 1):  # the first warms up
        for program in programs:
            if program in slow:
                continue
            began = time.perf_counter()
            kept = {key: [] for key in times[program]} if turn == 0 else times[program]
            for n in PROMPTS:
                seconds, token = timed(lambda program=program, n=n: program.prompt(tokens[:n]))  # type: ignore[misc]
                steps = STEPS if not isinstance(program, PlainNumPy) else (4 if n == min(PROMPTS) else 1)
                took, _ = timed(lambda program=program, token=token, steps=steps: walk(program, token, steps))  # type: ignore[misc]
                if n == max(PROMPTS):
                    kept["prompt"].append(n / seconds)
                kept[f"after {n}"].append(steps / took)
            if turn == 0 and time.perf_counter() - began > PATIENCE:
                slow.add(program)
                times[program] = kept
    return times


def walk(program: Program, token: int, steps: int) -> None:
    for _ in range(steps):
        token = program.step(token)


def timed(work: Callable[[], int | None]) -> tuple[float, int]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result or 0


def passes_a_second(megabytes: float) -> float:
    """How often two threads can look at so many bytes: the best of many passes, over memory like the engine's."""
    memory = zeros(int(megabytes * 1e6))
    memory[:] = 1
    halves = np.array_split(memory, 2)
    with ThreadPoolExecutor(2) as pool:
        return 1 / min(timed(lambda: list(pool.map(np.max, halves)) and None)[0] for _ in range(12))


def report(times: dict[Program, dict[str, list[float]]], model: GPT, text: list[int] | None) -> list[dict[str, object]]:
    rows = []
    print(
        f"\n{'program':24}{'bits':10}{'MB':>6}{'after 16':>10}{'after 512':>11}{'prompt 512':>12}"
        f"{'of limit':>10}  quality"
    )
    for program, found in times.items():
        middle = {key: statistics.median(values) for key, values in found.items()}
        limit = passes_a_second(program.megabytes)
        row: dict[str, object] = {
            "program": program.name,
            "bits": program.bits,
            "megabytes": program.megabytes,
        } | middle
        row["of_limit"] = middle["after 16"] / limit
        quality = ""
        if text is not None and program.model is not None and program.bits not in ("float32",):
            close = agreement(program.model, model, text)
            row |= {"mean_kl": close.mean_kl, "top1": close.top1}
            quality = f"KL {close.mean_kl:.4f} nats, same likeliest {close.top1:.1%}"
        print(
            f"{program.name:24}{program.bits:10}{program.megabytes:6.0f}{middle['after 16']:10.1f}"
            f"{middle['after 512']:11.1f}{middle['prompt']:12.0f}{row['of_limit']:10.0%}  {quality}"
            + (" (one round)" if len(found["prompt"]) == 1 else ""),
            flush=True,
        )
        rows.append(row)
    print_ratios(rows)
    return rows


def print_ratios(rows: list[dict[str, object]]) -> None:
    """Tokens a second of each of our formats over those of every peer of as many bits."""
    found = {(row["program"], row["bits"]): row for row in rows}
    print(f"\n{'ours over a peer':42}{'after 16':>10}{'after 512':>11}{'prompt 512':>12}")
    for bits, theirs in PEERS_OF.items():
        mine = found.get(("GlassGPT", bits))
        for peer in theirs if mine else []:
            if peer in found:
                cells = [float(mine[key]) / float(found[peer][key]) for key in ("after 16", "after 512", "prompt")]  # type: ignore
                print(f"{bits:9} over {' '.join(peer):28}{cells[0]:9.2f}x{cells[1]:10.2f}x{cells[2]:11.2f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=["gpt2", "smollm2"], default=None, help="only this one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", default="numpy,transformers,llama", help="which of them, or an empty text")
    parser.add_argument("--out", help="also write the figures as JSON here")
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore", message="overflow encountered|invalid value")
    torch.set_num_threads(2)
    capability = torch.backends.cpu.get_cpu_capability()
    print(f"{platform.machine()} {capability}, {os.cpu_count()} cores, torch {torch.__version__}")
    everything = {}
    for name in [chosen.model] if chosen.model else ["gpt2", "smollm2"]:
        text = None
        if name == "gpt2":
            model = GPT(GPT2)
        else:
            bundle = open_model(pull("smollm2"))
            model, tokenizer = load_torch_gpt(bundle), bundle.tokenizer()
            assert tokenizer is not None
            text = tokenizer.encode(TEXT)
        with tempfile.TemporaryDirectory() as folder:
            programs = our_programs(model) + peers(model, Path(folder), set(chosen.peers.split(",")))
            print(f"\n{name}: {model.config.n_parameters:,} parameters, {chosen.rounds} rounds, two threads")
            everything[name] = report(measure(programs, model.vocab_size, chosen.rounds), model, text)
    if chosen.out:
        Path(chosen.out).write_text(json.dumps(everything, indent=2))


if __name__ == "__main__":
    main()
