"""What Hugging Face's files call a parameter of ours, and how it lies there: one table, read in both directions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from glassgpt.errors import DamagedFileError
from glassgpt.models.config import GPTConfig, parameter_shapes
from glassgpt.weights.stored import Reading, StoredTensor


@dataclass(frozen=True)
class Source:
    """The tensors of a file that, side by side along a Linear layer's outputs, are one parameter of ours.

    `shapes`: of each as the file has it; `turned`: it holds Linear matrices as (out, in), and ours are (in, out).
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    turned: bool

    def join(self, parts: list[np.ndarray]) -> np.ndarray:
        if self.turned:
            return (parts[0] if len(parts) == 1 else np.concatenate(parts)).T
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)

    def split(self, value: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        value = value.T if self.turned else value
        ends = np.cumsum([shape[0] for shape in self.shapes])[:-1]
        for name, part in zip(self.names, np.split(value, ends) if len(self.names) > 1 else [value], strict=True):
            yield name, np.ascontiguousarray(part)


GPT1 = {"wte": "tokens_embed", "wpe": "positions_embed"}
LLAMA = {
    "wte": ("model.embed_tokens",),
    "ln_f": ("model.norm",),
    "lm_head": ("lm_head",),
    "ln_1": ("input_layernorm",),
    "ln_2": ("post_attention_layernorm",),
    "attn.c_attn": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attn.c_proj": ("self_attn.o_proj",),
    "attn.q_norm": ("self_attn.q_norm",),
    "attn.k_norm": ("self_attn.k_norm",),
    "mlp.c_fc": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.c_proj": ("mlp.down_proj",),
}
LINEAR = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")

# Buffers that older files carry beside the parameters: masks and frequencies, which follow from the config.
BUFFERS = re.compile(r"(?:h\.\d+\.attn\.(?:bias|masked_bias)|(?:model\.layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq"
                     r"|position_ids)$")  # fmt: skip
FEWEST_IN_A_LAYER = 6  # tensors: two norms and four matrices
PREFIX = "transformer."  # before every name but lm_head, in files of the whole model and not just its body


def hf_sources(config: GPTConfig, model_type: str) -> dict[str, Source]:
    """For each of our parameters, where it lies in a file of this model type (names without `PREFIX`)."""
    if model_type in ("llama", "qwen3"):
        return {name: _llama_source(name, shape, config) for name, shape in parameter_shapes(config).items()}
    rename = GPT1 if model_type == "openai-gpt" else {}
    sources = {}
    for name, shape in parameter_shapes(config).items():
        module, _, rest = name.partition(".")
        sources[name] = Source((f"{rename.get(module, module)}.{rest}",), (shape,), turned=False)
    return sources


def _llama_source(name: str, shape: tuple[int, ...], config: GPTConfig) -> Source:
    module, _, part = name.rpartition(".")
    prefix = ""
    if module.startswith("h."):
        _, layer, module = module.split(".", 2)
        prefix = f"model.layers.{layer}."
    names = tuple(f"{prefix}{file_name}.{part}" for file_name in LLAMA[module])
    turned = module in LINEAR and part == "weight"
    widths = {
        "attn.c_attn": [n * config.head_width for n in (config.n_head, config.kv_heads, config.kv_heads)],
        "mlp.c_fc": [config.hidden_width] * 2,
    }.get(module, [shape[-1]] if turned else [shape[0]])
    rest = (shape[0],) if turned else shape[1:]
    return Source(names, tuple((width, *rest) for width in widths), turned)


def our_parameters(
    stored: Mapping[str, StoredTensor], config: GPTConfig, model_type: str, source: Path
) -> dict[str, StoredTensor]:
    """A file's tensors under our names, nothing missing and nothing left over.

    Nothing is read yet. Raises DamagedFileError naming the first tensor that is missing, too many, or of another shape.
    """
    stored = _without_buffers(stored)
    if FEWEST_IN_A_LAYER * config.n_layer > len(stored):  # before anything is made whose size a lying config decides
        raise DamagedFileError(f"{source} holds {len(stored)} tensors, too few for {config.n_layer} layers")
    sources = hf_sources(config, model_type)
    wanted = {name: shape for s in sources.values() for name, shape in zip(s.names, s.shapes, strict=True)}
    if config.tied and "lm_head.weight" in stored:
        stored = _without_tied_head(stored, sources["wte.weight"].names[0], source)
    if missing := [name for name in wanted if name not in stored]:
        raise DamagedFileError(
            f"{source} lacks {len(missing)} of the {len(wanted)} tensors that its config asks for, {missing[0]} first"
        )
    if extra := sorted(stored.keys() - wanted.keys()):
        raise DamagedFileError(f"{source} holds {extra[0]}, which a model of its config does not have")
    for name, shape in wanted.items():
        if stored[name].shape != shape:
            raise DamagedFileError(
                f"{source}: {name} should be of shape {shape} by its config, and is {stored[name].shape}"
            )
    shapes = parameter_shapes(config)
    return {ours: _joined(s, [stored[name] for name in s.names], shapes[ours]) for ours, s in sources.items()}


def _without_buffers(stored: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    plain = {name.removeprefix(PREFIX): tensor for name, tensor in stored.items()}
    if len(plain) < len(stored):
        plain = dict(stored)  # with and without the prefix: then one of the two is left over
    return {name: tensor for name, tensor in plain.items() if not BUFFERS.match(name)}


def _without_tied_head(stored: dict[str, StoredTensor], embedding: str, source: Path) -> dict[str, StoredTensor]:
    """The tensors without the output matrix, which must be the embedding again: seen to when that is read."""
    rest = {name: tensor for name, tensor in stored.items() if name != "lm_head.weight"}
    head, table = stored["lm_head.weight"], stored.get(embedding)
    contradiction = DamagedFileError(
        f"{source}: its config says that lm_head.weight is the embedding, and the file holds another: "
        "set tie_word_embeddings to false if that is meant"
    )

    def read() -> np.ndarray:
        assert table is not None
        value = table.read()
        if not np.array_equal(value, head.read(), equal_nan=True):
            raise contradiction
        return value

    if table is None:
        return rest
    if head.shape != table.shape:
        raise contradiction
    return rest | {embedding: StoredTensor(table.shape, table.dtype, read)}


def _joined(source: Source, parts: list[StoredTensor], shape: tuple[int, ...]) -> StoredTensor:
    return StoredTensor(shape, parts[0].dtype, lambda: source.join([part.read() for part in parts]))


def hf_stored(params: Mapping[str, StoredTensor], config: GPTConfig, model_type: str) -> dict[str, StoredTensor]:
    """Our parameters under a file's names, each made as the file holds it when it is read."""
    sources = hf_sources(config, model_type)
    return {
        name: StoredTensor(shape, params[ours].dtype, partial(_part, sources[ours], params[ours], name))
        for ours in params
        for name, shape in zip(sources[ours].names, sources[ours].shapes, strict=True)
    }


def _part(source: Source, whole: StoredTensor, name: str) -> np.ndarray:
    return dict(source.split(whole.read()))[name]


def hf_tensors(params: Mapping[str, np.ndarray], config: GPTConfig, model_type: str) -> dict[str, np.ndarray]:
    """As `hf_stored`, of arrays that are in memory."""
    stored = {name: StoredTensor.of(value) for name, value in params.items()}
    return dict(Reading(hf_stored(stored, config, model_type)))
