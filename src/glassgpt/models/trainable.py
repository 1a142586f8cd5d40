"""What of a base model is trained: all of it, its last layers, its head alone, or little that is added to it.

The choice alone, which recipes and run folders hold; `adaptation` carries it out in torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args, get_type_hints

from glassgpt.errors import UsageError
from glassgpt.models.config import GPTConfig

MAPS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")


@dataclass(frozen=True)
class Trainable:
    """`what`: all; last (the last `n_layer` blocks and the final norm); head (what is no GPT, or of a plain GPT its
    output layer and final norm); lora (of `rank` and `alpha`, on the maps `targets`); adapters (of `width` numbers).
    A head that was added for a stage is trained in every case. `base`: how the maps of blocks that stay as they are are
    held, float32, int8 or int4.
    """

    what: Literal["all", "last", "head", "lora", "adapters"] = "all"
    n_layer: int = 1
    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = MAPS
    width: int = 16
    base: Literal["float32", "int8", "int4"] = "float32"

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for key in ("what", "base"):
            if getattr(self, key) not in get_args(hints[key]):
                known = ", ".join(get_args(hints[key]))
                raise UsageError(f"trainable.{key} must be one of {known}; got {getattr(self, key)!r}")
        for key in ("n_layer", "rank", "width"):
            if getattr(self, key) < 1:
                raise UsageError(f"trainable.{key} must be 1 or more, got {getattr(self, key)}")
        if not 0 < self.alpha < math.inf:
            raise UsageError(f"trainable.alpha must be a positive number, got {self.alpha}")
        if not self.targets or set(self.targets) - set(MAPS) or len(set(self.targets)) < len(self.targets):
            raise UsageError(f"trainable.targets names some of {', '.join(MAPS)}, each once; got {list(self.targets)}")
        if self.base != "float32" and self.what not in ("lora", "adapters", "head"):
            raise UsageError(
                f"trainable.base = {self.base!r} rounds weights that are not trained: set trainable.what to lora, "
                f"adapters or head, got {self.what!r}"
            )


def part_widths(config: GPTConfig, name: str) -> list[int]:
    """How a map's output is divided into maps that Hugging Face's Llama and Qwen3 hold apart; GPT-2 holds it as one."""
    apart = config.position == "rope" and config.norm == "rmsnorm" and config.mlp == "swiglu"
    if name == "attn.c_attn":
        whole = [config.qkv_width]
        return [n * config.head_width for n in (config.n_head, config.kv_heads, config.kv_heads)] if apart else whole
    if name == "mlp.c_fc":
        return (
            [config.hidden_width] * (2 if apart else 1)
            if config.mlp != "swiglu" or apart
            else [2 * config.hidden_width]
        )
    return [config.n_embd]
