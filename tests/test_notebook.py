"""What a notebook shows: the text true, the picture of the right thing and bounded, and what is left out told."""

from __future__ import annotations

import io
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

import glassgpt
from glassgpt import notebook
from glassgpt.chain import table
from glassgpt.chain.hitting import hitting_probability
from glassgpt.chain.markov import MarkovChain
from glassgpt.chain.walk import Red
from glassgpt.decoding.next_token import next_tokens
from glassgpt.decoding.processors import processors
from glassgpt.decoding.shaped import Shaped
from glassgpt.errors import TooLargeError, UsageError
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.models.trace import Trace, Want, trace
from glassgpt.notebook import MOST_ANSWERS, MOST_HEADS, MOST_TOKENS, Frame, show
from glassgpt.text.character import CharacterTokenizer

SVG = "{http://www.w3.org/2000/svg}"


def texts_of(figure):
    return [found.get_text() for found in figure.findobj(Text) if found.get_text()]


def painted_in(figure, gid=None, axis=0):
    """The numbers behind a figure's cells."""
    images = [image for axes in figure.axes for image in axes.images if image.get_gid() == gid]
    return np.concatenate([np.ma.getdata(image.get_array()) for image in images], axis=axis)


def chain_of(vocab_size, length, seed=0):
    return MarkovChain.from_probabilities(
        np.random.default_rng(seed).dirichlet(np.ones(vocab_size), vocab_size**length)
    )


@pytest.fixture(scope="module")
def gpt():
    return GPT(GPTConfig(vocab_size=5, context_length=8, n_layer=2, n_head=3, n_embd=12), seed=1)


@pytest.fixture(scope="module")
def things(gpt, baby_run):
    chain = chain_of(2, 3)
    return {
        "chain": chain,
        "trace": trace(gpt, [0, 1, 2, 1, 4], Want(attention="all", lens=2)),
        "next": next_tokens(gpt, [1, 2], "abcde".__getitem__)[0],
        "passage": hitting_probability(chain, Red.of_contexts(chain, [[0, 0, 0]]), 20, [1, 1, 1]),
        "run": baby_run,
    }


@pytest.mark.parametrize("name", ["chain", "trace", "next", "passage", "run"])
def test_an_object_alone_shows_a_text_and_a_picture(name, things):
    thing = things[name]
    data, about = thing._repr_mimebundle_()
    assert data.keys() == {"text/plain", "image/png"}
    assert data["text/plain"] == repr(thing) == repr(show(thing))
    image = Image.open(io.BytesIO(data["image/png"]))
    image.load()
    assert image.width == pytest.approx(about["image/png"]["width"] * 160 / 96, abs=2)
    assert len(data["image/png"]) < 100_000
    svg = ElementTree.fromstring(thing._repr_mimebundle_({"image/svg+xml"})[0]["image/svg+xml"])
    assert svg.tag == f"{SVG}svg" and not svg.findall(f".//{SVG}script")


def test_anything_else_is_refused():
    with pytest.raises(UsageError, match="one of MarkovChain, Trace, NextTokens, FirstPassage, Run; got int"):
        show(3)


# ---- a chain ---------------------------------------------------------------------------------------------------------


def test_a_small_chain_is_a_ring_of_its_own_probabilities():
    chain = MarkovChain.from_probabilities(np.array([[0.25, 0.75], [0.9, 0.1]]))
    (figure,) = show(chain).figures
    assert {"0", "1", "0 (25%)", "1 (75%)", "0 (90%)", "1 (10%)"} <= set(texts_of(figure))


def test_a_tokenizer_names_the_states_and_red_is_marked():
    chain = chain_of(2, 2)
    view = show(chain, CharacterTokenizer("a b"[:2]), red=["a ", [1, 1]])
    texts = texts_of(view.figures[0])
    assert {"aa", "a␣", "␣a", "␣␣"} <= set(texts) and texts.count("red") == 2
    assert repr(view).splitlines()[1].split() == ["state", "a", "␣"]


def test_shorter_contexts_are_in_the_ring_too():
    tables = [np.full((2, 2), 0.5), np.full((4, 2), 0.5)]
    view = show(MarkovChain.from_probabilities(*tables), red=[[1]])
    assert {"0", "1", "00", "01", "10", "11", "red"} <= set(texts_of(view.figures[0]))


@pytest.mark.parametrize(("vocab_size", "length"), [(4, 3), (2, 7)])
def test_what_is_too_much_for_a_ring_is_a_map(vocab_size, length):
    chain = chain_of(vocab_size, length)
    (figure,) = show(chain).figures
    assert painted_in(figure) == pytest.approx(chain.probs)


def test_of_many_states_with_shorter_ones_the_full_contexts_are_drawn_and_said_to_be():
    tables = [np.random.default_rng(n).dirichlet(np.ones(2), 2**n) for n in range(1, 8)]
    view = show(MarkovChain.from_probabilities(*tables), red=[[1] * 7, [0]])
    texts = texts_of(view.figures[0])
    assert "the 128 full contexts" in texts and "◂ red states (1)" in texts


def test_the_map_of_65_536_states_spells_a_few_of_them_alone(monkeypatch):
    chain, spelled, spell = chain_of(2, 16), [], table.spell_context
    monkeypatch.setattr(table, "spell_context", lambda context, symbols: spelled.append(1) or spell(context, symbols))
    data, _ = chain._repr_mimebundle_()
    assert len(data["image/png"]) < 200_000 and 0 < len(spelled) < 100
    assert data["text/plain"].endswith("... 65,526 more")


@pytest.mark.parametrize(("vocab_size", "length"), [(2, 17), (4096, 1)])
def test_a_chain_too_large_to_draw_unasked_says_so_and_what_draws_it(vocab_size, length, monkeypatch):
    chain = MarkovChain.from_probabilities(np.full((vocab_size**length, vocab_size), 1 / vocab_size))
    data, about = chain._repr_mimebundle_()
    assert data.keys() == {"text/plain"} and about == {}
    assert "(No picture: a notebook draws up to 65,536 states and 4,194,304 transitions unasked; " in data["text/plain"]
    assert "draw_transition_heat_map" in data["text/plain"] and "probs" not in vars(chain)


def test_a_text_as_red_needs_a_tokenizer_and_a_red_state_must_be_one():
    with pytest.raises(UsageError, match="'000' is a text: give the tokenizer too"):
        show(chain_of(2, 3), red=["000"])
    with pytest.raises(UsageError, match="outside the vocabulary"):
        show(chain_of(2, 3), red=[[0, 0, 2]])


# ---- the inside of a model -------------------------------------------------------------------------------------------


def test_a_trace_names_its_tokens_and_shows_all_heads_and_answers(gpt):
    found = trace(gpt, [0, 1, 2, 1, 4], Want(attention="all", lens=2))
    view = show(found, CharacterTokenizer("abcde"))
    assert repr(view).startswith("Trace of 5 tokens: a b c b e\n")
    answers, heads = view.figures
    assert painted_in(answers, "probabilities") == pytest.approx(np.exp(found.lens_logprobs[..., 0]))
    assert {"abcde"[token] for token in found.lens_tokens[..., 0].flat} <= set(texts_of(answers))
    assert len([axes for axes in heads.axes if str(axes.get_gid()).startswith("layer")]) == 6
    assert all(figure.texts[0].get_gid() != "title" for figure in view.figures)  # nothing is left out


def test_the_text_of_a_trace_has_its_shapes_and_the_likeliest_next_tokens(gpt):
    found = trace(gpt, [0, 1, 2], Want(attention=[1], residual=True, lens=2))
    lines = repr(found).splitlines()
    assert lines[:3] == ["Trace of 3 tokens: 0 1 2", "attention (1, 3, 3, 3)", "residual (3, 3, 12)"]
    (first, second), probs = found.lens_tokens[-1, -1], np.exp(found.lens_logprobs[-1, -1])
    assert lines[-1] == f"next: {first} {probs[0]:.4f}, {second} {probs[1]:.4f}"


def large_trace():
    """30 layers of 9 heads over 100 tokens, which look at themselves."""
    weights = np.broadcast_to(np.eye(100), (30, 9, 100, 100))
    logprobs = np.log(np.tile(np.linspace(0.1, 0.9, 100), (31, 1)))[..., None]
    tokens = np.arange(100)
    return Trace(
        tokens,
        attention_layers=tuple(range(30)),
        attention=weights,
        lens_tokens=np.tile(tokens, (31, 1))[..., None],
        lens_logprobs=logprobs,
    )


def test_of_a_large_trace_some_layers_and_tokens_are_drawn_and_it_is_said_which():
    answers, heads = show(large_trace()).figures
    gids = [str(axes.get_gid()) for axes in heads.axes if str(axes.get_gid()).startswith("layer")]
    n = MOST_HEADS // 9
    assert len(gids) == 9 * n and gids[0] == "layer 0 head 0" and gids[-1] == "layer 29 head 8"
    assert f"{n} of 30 layers, the first {MOST_TOKENS} of 100 tokens" in texts_of(heads)
    last = MOST_ANSWERS // 31
    assert f"the last {last} of 100 tokens" in texts_of(answers)
    drawn = painted_in(answers, "probabilities", axis=1)
    assert drawn == pytest.approx(np.exp(large_trace().lens_logprobs[:, -last:, 0]))
    assert len(repr(large_trace())) < 300


def test_a_trace_that_holds_nothing_to_draw_says_what_to_ask_for(gpt):
    data, _ = trace(gpt, [0, 1, 2], Want(residual=True))._repr_mimebundle_()
    assert data.keys() == {"text/plain"} and 'trace with Want(attention="all", lens=1)' in data["text/plain"]


def test_what_can_be_drawn_is_drawn_and_the_rest_is_told(gpt):
    data, _ = trace(gpt, [0, 1], Want(attention="all", lens=1))._repr_mimebundle_()
    assert "image/png" in data
    assert "(No picture: a head shows its habits from the third token on" in data["text/plain"]


# ---- others ----------------------------------------------------------------------------------------------------------


def test_next_tokens_and_passages_are_told_to_their_digits(gpt):
    chain = MarkovChain.from_probabilities(np.array([[0.9, 0.1], [0.5, 0.5]]))
    passage = hitting_probability(chain, Red.of_contexts(chain, [[1]]), 2, [0])
    assert repr(passage) == "after 2 tokens: red 0.1900, running on without 0.8100, stopped without 0"
    (found,) = next_tokens(gpt, [1, 2], "abcde".__getitem__, [processors(temperature=0.5)], 2)
    lines = repr(found).splitlines()
    assert lines[0] == f"next token under temperature 0.5, {found.drawn_bits:.2f} bits:"
    assert [float(line.split()[0]) for line in lines[1:]] == pytest.approx(found.drawn, abs=6e-5)
    assert [line.split(maxsplit=1)[1] for line in lines[1:]] == [*map(repr, found.tokens), "3 others"]


def test_a_passage_is_drawn_from_its_own_numbers():
    chain = chain_of(2, 3)
    passage = hitting_probability(chain, Red.of_contexts(chain, [[0, 0, 0]]), 30, [1, 1, 1])
    (figure,) = show(passage).figures
    drawn = [line.get_ydata() for axes in figure.axes for line in axes.lines]
    assert any(len(y) > 20 and y[-1] == pytest.approx(float(passage.within[-1].log10())) for y in drawn)
    assert any(len(y) > 20 and y[-1] == pytest.approx(float(passage.survival[-1].log10())) for y in drawn)


def test_a_run_says_where_it_is_and_draws_its_loss(baby_run):
    assert repr(baby_run) == f"Run {baby_run.path}: finished, 51 steps kept from 0 to 50"
    (figure,) = show(baby_run).figures
    (loss,) = [line.get_ydata() for axes in figure.axes for line in axes.lines if line.get_gid() == "loss"]
    assert list(loss) == [row["loss"] for row in baby_run.metrics()]


def test_a_shaped_model_says_what_it_is(gpt):
    assert repr(Shaped(gpt, processors(temperature=0.7, top_k=2))) == "Shaped(GPT: temperature 0.7, top-k 2)"


# ---- the page in a frame ---------------------------------------------------------------------------------------------


def test_a_frame_holds_the_whole_page_and_can_be_saved(built, tmp_path):
    frame = show(chain_of(2, 3), CharacterTokenizer("01"), red=["000"]).interactive(height=500)
    assert frame._repr_html_().startswith("<iframe ") and "height:500px" in frame._repr_html_()
    assert '"hash":"#/chain?m=model&red=0."' in frame.page and '"symbols":["0","1"]' in frame.page
    assert frame.save(tmp_path / "page.html").read_text(encoding="utf-8") == frame.page
    assert repr(frame) == "Frame(height=500)"


def test_red_states_of_a_run_and_of_a_chain_with_shorter_contexts_are_numbered_as_the_page_does(built, baby_run):
    assert show(baby_run, red=["101", [0, 1, 0]]).red == (5, 2)
    tables = [np.full((2, 2), 0.5), np.full((4, 2), 0.5)]
    assert show(MarkovChain.from_probabilities(*tables), red=[[1, 0], [1]]).red == (2,)


def test_what_has_no_page_says_so(things):
    with pytest.raises(UsageError, match="of a chain or a run"):
        show(things["passage"]).interactive()
    with pytest.raises(TooLargeError, match=r"2\^17 states"):
        show(chain_of(2, 17)).interactive()


@pytest.fixture
def built(tmp_path, monkeypatch):
    from glassgpt.serving import saved

    folder = tmp_path / "dist"
    folder.mkdir()
    (folder / "saved.js").write_text("start();")
    (folder / "saved.css").write_text("b { color: red }")
    monkeypatch.setattr(saved, "PAGES", (folder,))


def test_the_room_is_found_at_the_root():
    assert glassgpt.show is notebook.show and isinstance(Frame("<html>"), Frame)
