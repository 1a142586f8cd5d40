"""Training beside nanoGPT's recipes, in one run: `python benchmarks/training.py [--data FILE] [--only small|large]`.

nanoGPT is re-stated here in plain torch from its description, with what it does on a processor: separate operations,
AdamW without fusing, float32, torch's own dropout. FILE is a text, meant to be tiny Shakespeare; without one a piece of
Python's documentation of the same size is taken, and the losses are then no longer those that others know.

small: 4 layers, 128 wide, context 64, 2,000 steps of 12 windows, beside `recipes/shakespeare-char.toml` as
`glassgpt train` runs it, on the same tokens. Half of nanoGPT's steps go before ours and half after. nanoGPT's time is
that of its steps; ours is all that `train` does, and the same to its last step, without the last evaluation. Both
models are measured by the same function on the whole validation part, in windows of 64.

large: 6 layers, 384 wide, context 256, batch 64, dropout 0.2 (10.65 million parameters). A step of each in turn,
medians. Where nanoGPT's takes longer than 15 s, both take fewer rows. The last lines: the same without dropout, and the
matrix products of a step alone, which no program that computes in float32 with this library does without. Where the
processor has instructions for bfloat16, which `train` finds out by measuring, both in bfloat16 (autocast) as well:
nanoGPT's recipe leaves a processor at float32.
"""

from __future__ import annotations

import argparse
import math
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glassgpt.models.config import GPTConfig, parameter_shapes
from glassgpt.models.gpt_torch import GPT
from glassgpt.text.token_files import TokenFiles, TokenPart
from glassgpt.training.choices import GAIN
from glassgpt.training.evaluate import validation_loss
from glassgpt.training.loop import Watch, train
from glassgpt.training.objective import NextToken, Rows
from glassgpt.training.recipe import TrainSection, read_recipe
from glassgpt.training.trainer import Choices, Trainer

RECIPE = Path(__file__).parents[1] / "recipes" / "shakespeare-char.toml"
BYTES = 1_115_394  # of tiny Shakespeare
CONTEXT, BATCH, STEPS, WARMUP = 64, 12, 2000, 100
LARGE = {"context_length": 256, "n_layer": 6, "n_head": 6, "n_embd": 384}
ROWS, ROUNDS, PATIENCE = 64, 5, 15.0


# ---- nanoGPT, re-stated ----


class Attention(nn.Module):
    def __init__(self, width: int, n_head: int, dropout: float) -> None:
        super().__init__()
        self.n_head, self.dropout = n_head, dropout
        self.c_attn = nn.Linear(width, 3 * width, bias=False)
        self.c_proj = nn.Linear(width, width, bias=False)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        q, k, v = (y.view(B, T, self.n_head, -1).transpose(1, 2) for y in self.c_attn(x).split(C, dim=2))
        share = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=share, is_causal=True)
        return self.drop(self.c_proj(y.transpose(1, 2).contiguous().view(B, T, C)))


class Layer(nn.Module):
    def __init__(self, width: int, n_head: int, dropout: float) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = (nn.LayerNorm(width, bias=False) for _ in range(2))
        self.attn = Attention(width, n_head, dropout)
        self.c_fc = nn.Linear(width, 4 * width, bias=False)
        self.c_proj = nn.Linear(4 * width, width, bias=False)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.drop(self.c_proj(F.gelu(self.c_fc(self.ln_2(x)))))


class NanoGPT(nn.Module):
    def __init__(self, vocab_size: int, context_length: int, n_layer: int, n_head: int, n_embd: int, dropout: float):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocab_size, n_embd), nn.Embedding(context_length, n_embd)
        self.drop = nn.Dropout(dropout)
        self.h = nn.ModuleList([Layer(n_embd, n_head, dropout) for _ in range(n_layer)])
        self.ln_f = nn.LayerNorm(n_embd, bias=False)
        self.lm_head = nn.Linear(n_embd, vocab_size, bias=False)
        self.wte.weight = self.lm_head.weight
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, 0.0, 0.02 / (math.sqrt(2 * n_layer) if "c_proj" in name else 1.0))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.drop(self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1])))
        for layer in self.h:
            x = layer(x)
        return self.lm_head(self.ln_f(x))


class NanoTraining:
    """Its steps: random windows, a cosine after warm-up, clipping, AdamW with decay on matrices alone."""

    def __init__(self, model: NanoGPT, precision: str = "float32") -> None:
        self.model, self.number, self.halved = model, 0, precision == "bfloat16"
        self.random = torch.Generator().manual_seed(1337)
        matrices = [p for p in model.parameters() if p.dim() > 1]
        vectors = [p for p in model.parameters() if p.dim() < 2]
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99))

    def draw(self, part: TokenPart) -> tuple[Tensor, Tensor]:
        starts = torch.randint(len(part) - CONTEXT, (BATCH,), generator=self.random).tolist()
        windows = np.stack([part.tokens[i : i + CONTEXT + 1].astype(np.int64) for i in starts])
        return torch.from_numpy(windows[:, :-1]), torch.from_numpy(windows[:, 1:])

    def step(self, inputs: Tensor, targets: Tensor) -> None:
        share = (self.number - WARMUP) / (STEPS - WARMUP)
        falling = 1e-4 + 0.5 * (1 + math.cos(math.pi * share)) * (1e-3 - 1e-4)
        for group in self.optimizer.param_groups:
            group["lr"] = 1e-3 * (self.number + 1) / (WARMUP + 1) if self.number < WARMUP else falling
        with torch.autocast("cpu", torch.bfloat16, enabled=self.halved):
            loss = F.cross_entropy(self.model(inputs).flatten(0, 1), targets.flatten())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.number += 1


# ---- The small recipe ----


def small(data: str) -> None:
    overrides = [f"data.files={data}", f"data.total_bytes={BYTES}"] if data == "python-docs" else [f"data.files={data}"]
    recipe = read_recipe(RECIPE, overrides)
    with tempfile.TemporaryDirectory() as folder:
        prepared = train(read_recipe(RECIPE, [*overrides, "train.steps=0"]), Path(folder, "zero"))  # to have its tokens
        files = TokenFiles.open(prepared.path / "tokens")
        assert files.validation is not None
        nano = NanoTraining(NanoGPT(files.tokenizer.vocab_size, CONTEXT, 4, 4, 128, 0.0))
        seconds_nano = seconds(lambda: nano_steps(nano, files.train))
        began, last = time.perf_counter(), [0.0]
        watch = Watch(on_step=lambda step, loss: last.__setitem__(0, time.perf_counter()))
        run = train(recipe, Path(folder, "ours"), watch=watch)
        seconds_all, seconds_steps = time.perf_counter() - began, last[0] - began
        seconds_nano += seconds(lambda: nano_steps(nano, files.train))
        losses = [validation_loss(model.eval(), files.validation, CONTEXT) for model in (nano.model, run.model())]
    tokens = BATCH * CONTEXT * STEPS, recipe.train.steps * (recipe.train.batch_size or 0) * recipe.model.context_length
    print(f"{'small recipe':28}{'seconds':>9}{'tokens':>12}{'tokens/s':>10}{'validation loss':>17}")
    for name, time_taken, n, loss in (
        ("nanoGPT, its steps", seconds_nano, tokens[0], losses[0]),
        ("glassgpt, all of train", seconds_all, tokens[1], losses[1]),
        ("glassgpt, to its last step", seconds_steps, tokens[1], losses[1]),
    ):
        print(f"{name:28}{time_taken:9.1f}{n:12,}{n / time_taken:10,.0f}{loss:17.4f}")
    print(
        f"time, ours to nanoGPT's: {seconds_all / seconds_nano:.2f} in all, {seconds_steps / seconds_nano:.2f} to ",
        end="",
    )
    print(f"the last step; loss {losses[1] - losses[0]:+.4f} nats a character, over {len(files.validation):,}\n")


def nano_steps(nano: NanoTraining, part: TokenPart) -> None:
    for _ in range(STEPS // 2):
        nano.step(*nano.draw(part))


# ---- The large recipe ----


def large() -> None:
    config = GPTConfig(65, bias=False, **LARGE)
    nano, rows = nano_work(0.2), random_rows(ROWS)
    while seconds(lambda: nano(rows)) > PATIENCE and len(rows["inputs"]) > 4:  # noqa: B023
        rows = random_rows(len(rows["inputs"]) // 2)
    n_rows = len(rows["inputs"])
    alone = products(config, n_rows)
    work: dict[str, Callable[[Rows], object]] = {
        "nanoGPT": nano,
        "glassgpt": our_work(config, 0.2),
        "nanoGPT, no dropout": nano_work(0.0),
        "glassgpt, no dropout": our_work(config, 0.0),
        "matrix products alone": lambda rows: alone(),
    }
    if bfloat16_pays(config):
        work["nanoGPT, bfloat16"] = nano_work(0.2, "bfloat16")
        work["glassgpt, bfloat16"] = our_work(config, 0.2, "bfloat16")
        work["glassgpt, bf16, no dropout"] = our_work(config, 0.0, "bfloat16")
    taken: dict[str, list[float]] = {name: [] for name in work}
    for round_ in range(ROUNDS + 1):
        for name, step in work.items():
            time_taken = seconds(lambda: step(rows))  # noqa: B023
            if round_:  # the first warms up
                taken[name].append(time_taken)
    medians = {name: statistics.median(times) for name, times in taken.items()}
    n_tokens = n_rows * config.context_length
    print(
        f"{f'large recipe, {n_rows} of {ROWS} rows':28}{'s/step':>9}{'tokens/s':>10}{'GFLOP/s':>10}{'to nanoGPT':>12}"
    )
    for name, median in medians.items():
        rate = (matrices(config) if "alone" in name else operations(config)) * n_tokens / median / 1e9
        print(f"{name:28}{median:9.2f}{n_tokens / median:10,.0f}{rate:10.0f}{medians['nanoGPT'] / median:11.2f}x")
    for name in ("glassgpt", "glassgpt, bfloat16"):
        each = [a / b for a, b in zip(taken["nanoGPT"], taken.get(name, []), strict=False)]
        if each:
            print(f"nanoGPT's time to that of {name}, round by round: {', '.join(f'{ratio:.2f}' for ratio in each)}")
    print()


def bfloat16_pays(config: GPTConfig) -> bool:
    """As `train` decides: by trying, on a few rows, the better of two tries of each."""
    rows, works = random_rows(4), [our_work(config, 0.0, name) for name in ("float32", "bfloat16")]
    plain, halved = (min(seconds(lambda work=work: work(rows)) for _ in range(2)) for work in works)
    return halved < GAIN * plain


def nano_work(dropout: float, precision: str = "float32") -> Callable[[Rows], object]:
    nano = NanoTraining(NanoGPT(65, dropout=dropout, **LARGE), precision)
    return lambda rows: nano.step(torch.from_numpy(rows["inputs"]), torch.from_numpy(rows["targets"]))


def our_work(
    config: GPTConfig, dropout: float, precision: Literal["float32", "bfloat16"] = "float32"
) -> Callable[[Rows], object]:
    section = TrainSection(steps=5000, dropout=dropout, warmup_steps=100)
    trainer = Trainer(GPT(config), section, NextToken(), Choices(precision, threads=torch.get_num_threads()))
    return lambda rows: trainer.step(0, rows)


def products(config: GPTConfig, n_rows: int) -> Callable[[], None]:
    """Each of the network's matrices forward, and twice on the way back."""
    n = n_rows * config.context_length
    widths = {width for shape in shapes(config) for width in shape}
    batches = {width: torch.ones(n, width) for width in widths}

    def multiply() -> None:
        for n_in, n_out in shapes(config):
            matrix, x, grad = torch.ones(n_out, n_in), batches[n_in], batches[n_out]
            _ = x @ matrix.T, grad @ matrix, grad.T @ x

    return multiply


def shapes(config: GPTConfig) -> list[tuple[int, ...]]:
    """(in, out) of every matrix that activations are multiplied with; the tied embedding is the head."""
    named = parameter_shapes(config).items()
    return [shape for name, shape in named if len(shape) == 2 and "wpe" not in name]


def matrices(config: GPTConfig) -> float:
    """Operations a token with the matrices: forward two for each number, twice as many on the way back."""
    return 6.0 * sum(math.prod(shape) for shape in shapes(config))


def operations(config: GPTConfig) -> float:
    """With attention's products, counted for all keys, as if it were not causal."""
    return matrices(config) + 12.0 * config.n_layer * config.n_embd * config.context_length


def random_rows(n: int) -> Rows:
    windows = np.random.default_rng(0).integers(0, 65, (n, LARGE["context_length"] + 1))
    return {"inputs": windows[:, :-1], "targets": windows[:, 1:]}


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="python-docs", help="a text file; tiny Shakespeare, to compare with others")
    parser.add_argument("--only", choices=("small", "large"))
    arguments = parser.parse_args()
    torch.manual_seed(1337)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}, ", end="")
    print(f"{torch.backends.cpu.get_cpu_capability()}; the text: {Path(arguments.data).name}\n")
    if arguments.only != "large":
        small(arguments.data)
    if arguments.only != "small":
        large()


if __name__ == "__main__":
    main()
