"""SmolLM2's greedy answers here and in llama.cpp, on the same file: `python benchmarks/smollm2.py`.

Needs llama-cpp-python. Prints, for each prompt, how many of 64 greedy tokens are equal; where they part, both programs'
logits of both tokens. The judge of whose they are is the same file written out in float32 and run by llama.cpp, which
then has no reason to round activations to 8 bits.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

import glassgpt
from glassgpt.loading import open_model
from glassgpt.text.bpe import BPETokenizer
from glassgpt.weights.gguf_export import export_gguf
from glassgpt.weights.hub import pull
from glassgpt.weights.tensors import read_parameters

try:
    from llama_cpp import Llama
except ImportError:
    sys.exit("this needs llama.cpp: pip install llama-cpp-python (it is built with a C++ compiler)")

PROMPTS = [
    "The capital of France is",
    "Once upon a time, there was a",
    "Water boils at",
    "def fibonacci(n):",
    "The three primary colours are",
]
N = 64


def greedy(peer: Llama, prompt: list[int], n: int) -> tuple[list[int], list[np.ndarray]]:
    """llama.cpp's likeliest tokens, fed one by one, and the logits that each was taken from."""
    peer.reset()
    peer.eval(prompt)
    tokens, logits = [], []
    for _ in range(n):
        logits.append(np.array(peer.scores[peer.n_tokens - 1]))
        tokens.append(int(logits[-1].argmax()))
        peer.eval([tokens[-1]])
    return tokens, logits


def llama(path: Path) -> Llama:
    f32 = 0  # GGML_TYPE_F32: keys and values unrounded
    return Llama(
        str(path), n_ctx=512, n_threads=2, logits_all=True, type_k=f32, type_v=f32, flash_attn=False, verbose=False
    )


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    path = pull("smollm2")
    model, tokenizer = glassgpt.load(path)
    assert isinstance(tokenizer, BPETokenizer)
    bundle = open_model(path)
    with tempfile.TemporaryDirectory() as folder:
        unrounded = Path(folder) / "f32.gguf"
        export_gguf(bundle.config, read_parameters(bundle), tokenizer, unrounded, dtype="F32")
        as_shipped, in_float32 = llama(path), llama(unrounded)
        for text in PROMPTS:
            prompt = tokenizer.encode(text)
            assert prompt == as_shipped.tokenize(text.encode(), add_bos=False), "the two encode the prompt differently"
            ours = glassgpt.generate(model, prompt, N, temperature=0)
            theirs, their_logits = greedy(as_shipped, prompt, N)
            judge, _ = greedy(in_float32, prompt, N)
            print(f"\n{text!r}: {tokenizer.decode(ours)!r}")
            print(f"  equal to llama.cpp on the same weights in float32: {common(ours, judge)} of {N} tokens")
            print(f"  equal to llama.cpp on the file as it is:           {common(ours, theirs)} of {N} tokens")
            if (at := common(ours, theirs)) < N:
                logits = model.next_token_logits([prompt + ours[:at]])[0]
                for name, values in (("here", logits), ("llama.cpp", their_logits[at])):
                    both = ", ".join(f"{tokenizer.decode([t])!r} {values[t]:.3f}" for t in (ours[at], theirs[at]))
                    print(f"    token {at}: {name:10} {both}")


def common(a: list[int], b: list[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), len(a))


if __name__ == "__main__":
    main()
