"""What `test_processes` runs under torchrun: several trainings one after another, since a process takes long to start.

Arguments: a JSON file of jobs, and a folder for what each process saw of each.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch

from glassgpt.errors import GlassGPTError
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.training.loop import Watch, train
from glassgpt.training.objective import NextToken
from glassgpt.training.optim import optimizer_tensors
from glassgpt.training.processes import gathered, processes
from glassgpt.training.recipe import TrainSection, read_recipe
from glassgpt.training.trainer import Trainer

RANK = int(os.environ.get("RANK", "0"))


def poisoned(step):
    """NextToken.loss, not a number in the last process from its call number `step` on."""
    calls, real = iter(range(10**9)), NextToken.loss

    def loss(self, logits_of, rows):
        is_bad = next(calls) >= step and int(os.environ["WORLD_SIZE"]) == RANK + 1
        return real(self, logits_of, rows) * (torch.nan if is_bad else 1)

    return real, loss


def three_steps(vocab_size, among):
    """Three steps of a small model of random tokens: losses, and some of the weights and of AdamW's second moments."""
    config = GPTConfig(vocab_size, 8, n_layer=1, n_head=2, n_embd=8)
    section = TrainSection(steps=3, batch_size=5, shard=True, learning_rate=1e-4)
    trainer = Trainer(GPT(config), section, NextToken(), among=among)
    tokens = np.random.default_rng(0).integers(vocab_size, size=(5, 9))
    losses = [trainer.step(i, {"inputs": tokens[:, :-1], "targets": tokens[:, 1:]}).loss for i in range(3)]
    weights = gathered(trainer.model.state_dict().items(), keep=among.first)
    optimizer = optimizer_tensors(trainer.model, trainer.optimizers, keep=among.first)
    shown = weights["wte.weight"][-5:].tolist() if weights else []
    moments = optimizer["optimizer.wte.weight.exp_avg_sq"][-5:].tolist() if optimizer else []
    return {"losses": losses, "weights": shown, "optimizer": moments}


def run(job):
    if "vocab_size" in job:
        with processes("cpu") as among:
            return three_steps(job["vocab_size"], among)
    asked = iter(range(10**9))
    stop = job.get("stop")
    watch = Watch(should_stop=lambda: RANK == 1 and next(asked) == stop)  # one process is asked to
    real, NextToken.loss = poisoned(job["nan"]) if "nan" in job else (NextToken.loss, NextToken.loss)
    recipe = read_recipe(job["recipe"], job["set"])
    try:
        run = train(recipe, job["out"], watch=watch, device="cpu", allow_changes=job.get("allow_changes", False))
        return {"losses": [row["loss"] for row in run.metrics()], "kept": run.steps}
    except GlassGPTError as error:
        return {"error": type(error).__name__, "message": str(error), "is_told": error.is_told}
    finally:
        NextToken.loss = real


if __name__ == "__main__":
    jobs, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    for number, job in enumerate(jobs):
        (folder / f"{number}-{RANK}.json").write_text(json.dumps(run(job)))
