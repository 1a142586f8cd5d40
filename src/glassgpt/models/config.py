"""The shape of a GPT: what must be known before its weights mean anything."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_type_hints

from glassgpt.errors import UsageError

Position = Literal["learned", "sinusoidal", "rope", "alibi"]
Norm = Literal["layernorm", "rmsnorm"]
SIZES = ("vocab_size", "context_length", "n_layer", "n_head", "n_embd", "bias")
MLP = Literal["gelu", "gelu_tanh", "relu2", "swiglu"]


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3.1's stretch of the rotary wavelengths for texts longer than it was first trained on (arXiv 2407.21783).

    Wavelengths longer than original_context_length / low_freq_factor are stretched `factor` times, those shorter than
    original_context_length / high_freq_factor stay, and between the two the stretch is interpolated.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context_length: int

    def __post_init__(self) -> None:
        if not 0 < self.low_freq_factor < self.high_freq_factor < float("inf"):
            raise UsageError(
                "rope scaling wants 0 < low_freq_factor < high_freq_factor, got "
                f"{self.low_freq_factor} and {self.high_freq_factor}"
            )
        if not (1 <= self.factor < float("inf") and self.original_context_length >= 1):
            raise UsageError(
                "rope scaling wants a factor and an original context length of at least 1, got "
                f"{self.factor} and {self.original_context_length}"
            )


@dataclass(frozen=True)
class GPTConfig:
    """A GPT's sizes and the few choices in which GPT-1, GPT-2, Llama and Qwen3 differ.

    Sizes carry the names of OpenAI's checkpoints (`n_embd` is d_model in papers). Left at None, `n_kv_head` is `n_head`
    (fewer: grouped-query attention, arXiv 2305.13245), `head_size` is n_embd / n_head, `n_hidden` (the width inside the
    MLP) is 4 n_embd, and `mlp_bias` is `bias`, which says whether the Linear layers have biases.

    `position`: learned (GPT-2), sinusoidal (arXiv 1706.03762), rope (arXiv 2104.09864, halves turned as in Llama's
    Hugging Face files) or alibi (arXiv 2108.12409). `norm`: layernorm (weight and bias) or rmsnorm (arXiv 1910.07467,
    weight only), before each half-block and at the end, or with `post_norm` after each half-block (GPT-1). `mlp`: gelu
    (exact), gelu_tanh (GPT-2's approximation), relu2 (arXiv 2109.08668) or swiglu (arXiv 2002.05202). `qk_norm`
    normalises queries and keys of each head (Qwen3, arXiv 2505.09388). `tied` shares the token embedding with the
    output layer. Raises UsageError for a shape that cannot be.
    """

    vocab_size: int
    context_length: int
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    bias: bool = True
    n_kv_head: int | None = None
    head_size: int | None = None
    n_hidden: int | None = None
    mlp_bias: bool | None = None
    position: Position = "learned"
    norm: Norm = "layernorm"
    mlp: MLP = "gelu"
    post_norm: bool = False
    qk_norm: bool = False
    tied: bool = True
    norm_epsilon: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None

    def __post_init__(self) -> None:
        for name in ("vocab_size", "context_length", "n_layer", "n_head", "n_embd"):
            self._at_least_one(name)
        if self.vocab_size < 2:
            raise UsageError("model.vocab_size must be at least 2: with one token there is nothing to predict")
        if self.head_size is None and self.n_embd % self.n_head:
            raise UsageError(
                f"model.n_embd must be a multiple of model.n_head, so that every head gets the same width; "
                f"got {self.n_embd} and {self.n_head}"
            )
        for name, value in self._derived().items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        for name in ("n_kv_head", "head_size", "n_hidden"):
            self._at_least_one(name)
        self._check_choices()

    def _at_least_one(self, name: str) -> None:
        if getattr(self, name) < 1:
            raise UsageError(f"model.{name} must be at least 1, got {getattr(self, name)}")

    def _check_choices(self) -> None:
        hints = get_type_hints(type(self))
        for name in ("position", "norm", "mlp"):
            if getattr(self, name) not in get_args(hints[name]):
                names = ", ".join(get_args(hints[name]))
                raise UsageError(f"model.{name} must be one of {names}; got {getattr(self, name)!r}")
        if self.n_head % self.kv_heads:
            raise UsageError(
                "model.n_head must be a multiple of model.n_kv_head, so that every key head serves as many query "
                f"heads; got {self.n_head} and {self.kv_heads}"
            )
        if self.position == "rope" and self.head_width % 2:
            raise UsageError(f"rotary positions turn pairs: model.head_size must be even, got {self.head_width}")
        if self.rope_scaling is not None and self.position != "rope":
            raise UsageError(f"model.rope_scaling needs model.position = 'rope', got {self.position!r}")
        for name in ("norm_epsilon", "rope_theta"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UsageError(f"model.{name} must be a positive number, got {getattr(self, name)}")

    def choices(self) -> dict[str, Any]:
        """The sizes, and of the rest what is not as it would be by default: enough to build the same config again.

        >>> GPTConfig(2, 3, n_layer=4, n_head=4, n_embd=16, mlp="swiglu").choices()
        {'vocab_size': 2, 'context_length': 3, 'n_layer': 4, 'n_head': 4, 'n_embd': 16, 'bias': True, 'mlp': 'swiglu'}
        """
        usual = {field.name: field.default for field in fields(self)} | self._derived()
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if name in SIZES or value != usual[name]}

    def _derived(self) -> dict[str, Any]:
        """What the choices that were left open follow from."""
        return {
            "n_kv_head": self.n_head,
            "head_size": self.n_embd // self.n_head,
            "n_hidden": 4 * self.n_embd,
            "mlp_bias": self.bias,
        }

    # The derived sizes as plain ints, which the type checker cannot see in the fields.

    @property
    def kv_heads(self) -> int:
        return self.n_kv_head or self.n_head

    @property
    def head_width(self) -> int:
        return self.head_size or self.n_embd // self.n_head

    @property
    def hidden_width(self) -> int:
        return self.n_hidden or 4 * self.n_embd

    @property
    def qkv_width(self) -> int:
        """Queries, keys and values side by side, as `c_attn` gives them."""
        return (self.n_head + 2 * self.kv_heads) * self.head_width

    @property
    def n_parameters(self) -> int:
        """Trained numbers, a tied output matrix counted once.

        >>> GPTConfig(2, 3, n_layer=4, n_head=4, n_embd=16, bias=False).n_parameters
        12656
        """
        return sum(_product(shape) for shape in parameter_shapes(self).values())


def parameter_shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    """The name and shape of every parameter, Linear matrices as (in, out): what a model of this shape consists of.

    Names are GPT-2's own. `c_attn` holds queries, keys and values side by side; with swiglu, `c_fc` holds the gate and
    the value side by side.
    """
    C, D, F = config.n_embd, config.head_width, config.hidden_width
    norm: dict[str, tuple[int, ...]] = {"weight": (C,)}
    if config.norm == "layernorm":
        norm["bias"] = (C,)
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (config.vocab_size, C)}
    if config.position == "learned":
        shapes["wpe.weight"] = (config.context_length, C)
    linear = {
        "attn.c_attn": (C, config.qkv_width, config.bias),
        "attn.c_proj": (config.n_head * D, C, config.bias),
        "mlp.c_fc": (C, 2 * F if config.mlp == "swiglu" else F, config.mlp_bias),
        "mlp.c_proj": (F, C, config.mlp_bias),
    }
    for layer in range(config.n_layer):
        for name in ("ln_1", "ln_2"):
            shapes |= {f"h.{layer}.{name}.{part}": shape for part, shape in norm.items()}
        for name, (n_in, n_out, bias) in linear.items():
            shapes[f"h.{layer}.{name}.weight"] = (n_in, n_out)
            if bias:
                shapes[f"h.{layer}.{name}.bias"] = (n_out,)
        if config.qk_norm:
            shapes[f"h.{layer}.attn.q_norm.weight"] = (D,)
            shapes[f"h.{layer}.attn.k_norm.weight"] = (D,)
    if not config.post_norm:
        shapes |= {f"ln_f.{part}": shape for part, shape in norm.items()}
    if not config.tied:
        shapes["lm_head.weight"] = (config.vocab_size, C)
    return shapes


PARTS = {
    "wte": "token embeddings",
    "wpe": "position embeddings",
    "attn.c_attn": "queries, keys, values",
    "attn.c_proj": "what attention gives back",
    "mlp.c_fc": "into the MLP",
    "mlp.c_proj": "out of the MLP",
    "norm": "norms",
    "lm_head": "output layer",
}


def parameter_counts(config: GPTConfig) -> dict[str, int]:
    """How many parameters each part has, in all layers together; they add up to `n_parameters`.

    >>> parameter_counts(GPTConfig(2, 3, n_layer=1, n_head=1, n_embd=4, bias=False, norm="rmsnorm"))["into the MLP"]
    64
    """
    counts = dict.fromkeys(PARTS.values(), 0)
    for name, shape in parameter_shapes(config).items():
        part = name.split(".", 2)[2] if name.startswith("h.") else name
        part = part.rpartition(".")[0]
        counts[PARTS.get(part, PARTS["norm"])] += _product(shape)
    return {part: count for part, count in counts.items() if count}


def _product(shape: tuple[int, ...]) -> int:
    result = 1
    for size in shape:
        result *= size
    return result
