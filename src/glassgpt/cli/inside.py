"""Pictures of a model with a text in it, whatever REF it is: what comes next, and what happens inside."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from glassgpt.cli.sampler import processors_of
from glassgpt.cli.tokenize import piece_of
from glassgpt.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from glassgpt.decoding.next_token import NextTokens
    from glassgpt.figures.meaning_space import MeaningSpace
    from glassgpt.interface import LanguageModel, Tokenizer
    from glassgpt.models.trace import Trace, Want

COMPARED: tuple[dict[str, Any], ...] = (
    {"temperature": 0.5},
    {},
    {"temperature": 1.5},
    {"top_k": 3},
    {"top_p": 0.8},
    {"temperature": 1.5, "top_p": 0.8},
)
FAN = 8  # likely next tokens that are drawn at each step of a path
MOST_WORDS_WITH_NEIGHBOURS = 4


def add_inside(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("inside a model")
    group.add_argument("--text", metavar="TEXT", help="what the model has read")
    group.add_argument("--words", metavar="WORDS", help="of embedding-map and neighbours: words joined by commas")
    group.add_argument(
        "--layer", type=int, default=0, metavar="L", help="of attention-head and head: which layer, from 0"
    )
    group.add_argument(
        "--head", type=int, default=0, metavar="H", help="of attention-head and head: which head, from 0"
    )
    group.add_argument(
        "--off", metavar="PART", help="of ablation: whose bars, LAYER.HEAD or LAYER.mlp (the strongest head)"
    )
    group.add_argument("--max-new-tokens", type=int, default=20, metavar="N", help="of meaning-*: tokens to write (20)")
    group.add_argument("--seed", type=int, default=0, help="of what is drawn by chance (0)")


@dataclass(frozen=True)
class Inside:
    """A model, its tokenizer, and what was asked for."""

    model: LanguageModel
    tokenizer: Tokenizer
    args: argparse.Namespace

    @classmethod
    def open(cls, args: argparse.Namespace) -> Inside:
        from glassgpt.loading import load

        model, tokenizer = load(args.ref)
        if tokenizer is None:
            raise UsageError(f"{args.ref} has no tokenizer, and this picture names tokens: give a folder that has one")
        return cls(model, tokenizer, args)

    @property
    def title(self) -> str | None:
        return self.args.title

    @cached_property
    def ids(self) -> list[int]:
        text = self.args.prompt if self.args.text is None else self.args.text
        if not text:
            raise UsageError('this picture is of a text that the model reads: give one with --text "..."')
        return self.tokenizer.encode(text)

    @property
    def text(self) -> str:
        return self.tokenizer.decode(self.ids)

    @property
    def pieces(self) -> list[str]:
        return [self.piece(token) for token in self.ids]

    def piece(self, token: int) -> str:
        return piece_of(self.tokenizer, int(token))

    def word_tokens(self) -> list[int]:
        from glassgpt.evaluation.meaning_space import word_tokens

        if not self.args.words:
            raise UsageError("this picture is of words: give them with --words, as in --words cat,dog,bread,soup")
        return list(word_tokens(self.tokenizer, self.args.words.split(",")))

    def trace(self, want: Want) -> Trace:
        from glassgpt.models.trace import trace

        return trace(self.model, self.ids, want)


# ---- What comes next -------------------------------------------------------------------------------------------------


def next_token(inside: Inside) -> Figure:
    from glassgpt.figures.next_token import draw_next_token

    (found,) = _next(inside, [processors_of(inside.args)])
    return draw_next_token(found, inside.text, inside.title)


def samplers(inside: Inside) -> Figure:
    from glassgpt.decoding.processors import processors
    from glassgpt.figures.next_token import draw_samplers

    return draw_samplers(_next(inside, [processors(**one) for one in COMPARED]), inside.text, inside.title)


def _next(inside: Inside, samplers: Sequence[Any]) -> list[NextTokens]:
    from glassgpt.decoding.next_token import next_tokens

    return next_tokens(inside.model, inside.ids, inside.piece, samplers)


# ---- Embeddings, attention, layers -----------------------------------------------------------------------------------


def embedding_sum(inside: Inside) -> Figure:
    from glassgpt.figures.embeddings import EmbeddingSum, draw_embedding_sum
    from glassgpt.models.trace import Want

    found = inside.trace(Want(embeddings=True))
    position = inside.model.config.position  # type: ignore[attr-defined]
    parts = (found.token_embeddings, found.position_embeddings, found.embeddings)
    return draw_embedding_sum(EmbeddingSum(inside.pieces, *parts, position), inside.title)  # type: ignore[arg-type]


def embedding_map(inside: Inside) -> Figure:
    from glassgpt.figures.embeddings import draw_embedding_map
    from glassgpt.figures.embeddings import embedding_map as mapped
    from glassgpt.models.trace import embedding_rows

    words = inside.args.words.split(",") if inside.args.words else []
    rows, at = embedding_rows(inside.model), inside.word_tokens()
    return draw_embedding_map(mapped(rows[at], words, None, inside.args.seed), inside.title)


def neighbours(inside: Inside) -> Figure:
    from glassgpt.figures.embeddings import draw_neighbours, neighbours_of
    from glassgpt.models.trace import embedding_rows

    rows, at = embedding_rows(inside.model), inside.word_tokens()
    names = [inside.piece(token) for token in range(len(rows))]
    return draw_neighbours([neighbours_of(rows, i, names) for i in at[:MOST_WORDS_WITH_NEIGHBOURS]], inside.title)


def parameters(inside: Inside) -> Figure:
    from glassgpt.figures.parameters import draw_parameter_counts
    from glassgpt.models.config import parameter_counts
    from glassgpt.models.trace import torch_gpt_in

    config = torch_gpt_in(inside.model).config
    return draw_parameter_counts(parameter_counts(config), config.n_layer, inside.title)


def weights(inside: Inside) -> Figure:
    """Every matrix, inputs downwards: the embeddings, then those of each layer."""
    from glassgpt.figures.parameters import draw_weights
    from glassgpt.models.gpt_torch import as_numpy
    from glassgpt.models.trace import torch_gpt_in

    gpt = torch_gpt_in(inside.model)
    bands: dict[str, dict[str, Any]] = {}
    for name, values in gpt.named_parameters():
        if values.ndim == 2:
            is_inner = name.startswith("h.")
            _, layer, part = name.split(".", 2) if is_inner else ("", "", name)
            matrix = as_numpy(values.detach())
            is_table = part.startswith("w")  # a row for each token or place; torch's layers are (out, in)
            bands.setdefault(f"layer {layer}" if is_inner else "", {})[MATRICES[part]] = (
                matrix if is_table else matrix.T
            )
    return draw_weights(bands, gpt.config.n_parameters, inside.title)


MATRICES = {
    "wte.weight": "tokens",
    "wpe.weight": "positions",
    "attn.c_attn.weight": "q, k, v",
    "attn.c_proj.weight": "out",
    "mlp.c_fc.weight": "MLP in",
    "mlp.c_proj.weight": "MLP out",
    "lm_head.weight": "output",
}


def attention(inside: Inside) -> Figure:
    from glassgpt.figures.attention import draw_attention_grid

    return draw_attention_grid(_attention(inside, "all"), inside.title)


def attention_head(inside: Inside) -> Figure:
    from glassgpt.figures.attention import draw_attention_head

    layer, head = inside.args.layer, inside.args.head
    return draw_attention_head(_attention(inside, [layer]), layer, head, inside.title)


def head(inside: Inside) -> Figure:
    from glassgpt.figures.head import HeadSteps, draw_head
    from glassgpt.models.trace import Want

    layer, number = inside.args.layer, inside.args.head
    found = inside.trace(Want(attention=[layer], heads=[layer]))
    return draw_head(HeadSteps(inside.pieces, **found.steps_of(layer, number)), layer, number, inside.title)


def _attention(inside: Inside, layers: Any) -> Any:
    from glassgpt.figures.attention import AttentionMaps
    from glassgpt.models.trace import Want

    found = inside.trace(Want(attention=layers))
    return AttentionMaps(inside.pieces, inside.ids, found.attention_layers, found.attention)  # type: ignore[arg-type]


def lens(inside: Inside) -> Figure:
    import numpy as np

    from glassgpt.figures.lens import LensGrid, draw_lens
    from glassgpt.models.trace import Want

    found = inside.trace(Want(lens=1))
    assert found.lens_tokens is not None and found.lens_logprobs is not None
    top = found.lens_tokens[..., 0]
    named = [[inside.piece(token) for token in row] for row in top]
    return draw_lens(LensGrid(inside.pieces, inside.ids, named, top, np.exp(found.lens_logprobs[..., 0])), inside.title)


def ablation(inside: Inside) -> Figure:
    import numpy as np

    from glassgpt.figures.ablation import AblationMap, Without, draw_ablation, likeliest_of_both
    from glassgpt.models.ablation import Part, ablated_logits, ablations
    from glassgpt.models.trace import torch_gpt_in
    from glassgpt.numerics import LN2, log_softmax

    config, named = torch_gpt_in(inside.model).config, inside.args.off
    chosen = None if named is None else Part.named(named, config)  # before the work, not after it
    found = ablations(inside.model, inside.ids)
    part = found.strongest_head() if chosen is None else chosen
    ablated = ablated_logits(inside.model, inside.ids, part)
    p, q = np.exp(log_softmax(found.logits)), np.exp(log_softmax(ablated))
    top = likeliest_of_both(p, q)
    kl = found.mlps_kl[part.layer] if part.head is None else found.heads_kl[part.layer, part.head]
    names = [inside.piece(token) for token in top]
    bars = Without(part.layer, part.head, names, p[top], q[top], float(kl) / LN2)
    return draw_ablation(AblationMap(inside.text, found.heads / LN2, found.mlps / LN2), bars, inside.title)


# ---- Meaning space ---------------------------------------------------------------------------------------------------


def meaning_path(inside: Inside) -> Figure:
    from glassgpt.figures.meaning_space import draw_path

    return draw_path(_meaning(inside), inside.title)


def meaning_fans(inside: Inside) -> Figure:
    from glassgpt.figures.meaning_space import draw_fans

    return draw_fans(_meaning(inside), None, inside.title)


def meaning_3d(inside: Inside) -> Figure:
    from glassgpt.figures.meaning_space import draw_path_3d

    return draw_path_3d(_meaning(inside), inside.title)


def _meaning(inside: Inside) -> MeaningSpace:
    from glassgpt.evaluation.meaning_space import meaning_path as walked
    from glassgpt.figures.meaning_space import meaning_space

    seed, ids = inside.args.seed, inside.ids
    path = walked(inside.model, ids, inside.args.max_new_tokens, FAN, processors=processors_of(inside.args), seed=seed)
    fans = (path.fan_states, path.fan_tokens, path.fan_probs)
    return meaning_space(path.states, path.tokens, *fans, inside.piece, inside.piece(ids[-1]), seed)


INSIDE: dict[str, tuple[Callable[[Inside], Figure], str]] = {
    "parameters": (parameters, "how many parameters each part of a model has"),
    "weights": (weights, "every parameter as a colour, layer by layer"),
    "next-token": (next_token, "the likeliest tokens after --text, under a sampler, as bars"),
    "samplers": (samplers, "what temperature, top-k and top-p make of the next token after --text"),
    "embedding-sum": (embedding_sum, "token embeddings + position embeddings = what the first layer reads, of --text"),
    "embedding-map": (embedding_map, "where the embeddings of --words lie, in two dimensions"),
    "neighbours": (neighbours, "the tokens whose embeddings are nearest to those of --words"),
    "attention": (attention, "what every head of every layer looks at in --text"),
    "attention-head": (attention_head, "one head, --layer and --head, large"),
    "head": (head, "inside one head, step by step: queries, keys, scores, mask, softmax, values, mix"),
    "lens": (lens, "what each layer would say comes next, at every place of --text"),
    "ablation": (ablation, "which heads and MLPs the token after --text hangs on: each switched off in turn"),
    "meaning-path": (
        meaning_path,
        "the path of --text through meaning space as the model writes on, in two dimensions",
    ),
    "meaning-fans": (meaning_fans, "where the likely next tokens would have led, step by step"),
    "meaning-3d": (meaning_3d, "the same path in three dimensions"),
}
