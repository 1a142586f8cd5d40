"""Every picture that `see` lists is drawn, and what it needs and lacks is told."""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from glassgpt.cli.inside import INSIDE
from glassgpt.cli.lessons import LESSONS, OF_TEXTS
from glassgpt.cli.main import main
from glassgpt.cli.tokenize import piece_of
from glassgpt.loading import load
from glassgpt.numerics import jensen_shannon, log_softmax

TEXT = "Mira has a lamp. Alon has a kite."
HOSTILE = "Mira \x00\x07\u202e has $x$ <script> 🜏 a\tlamp" * 3


def see(*arguments):
    return main(["see", *map(str, arguments)])


def is_picture(path):
    return path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("figure", INSIDE)
def test_every_picture_of_a_model_with_a_text_in_it_is_drawn(figure, base, tmp_path, capsys):
    out = tmp_path / "picture.png"
    more = ["--words", "Mira,Alon,lamp"] if figure in ("embedding-map", "neighbours") else ["--text", TEXT]
    assert see(figure, base, *more, "--out", out, "--max-new-tokens", 5, "--json") == 0
    assert is_picture(out)
    assert json.loads(capsys.readouterr().out) == {"figure": figure, "file": str(out)}


@pytest.mark.parametrize("figure", ["next-token", "attention", "head", "ablation", "lens", "meaning-path"])
def test_a_hostile_text_is_drawn_as_the_text_it_is(figure, base, tmp_path):
    out = tmp_path / "picture.png"
    text = HOSTILE[:20] if figure == "head" else HOSTILE[:40]  # which has room for 24 tokens
    assert see(figure, base, "--text", text, "--out", out, "--max-new-tokens", 4) == 0 and is_picture(out)


def test_the_bars_are_of_the_head_that_was_asked_for(base, tmp_path, monkeypatch):
    """And their numbers those of weights with that head's columns set to zero."""
    drawn = []
    monkeypatch.setattr("glassgpt.figures.ablation.draw_ablation", lambda *data: drawn.append(data) or Figure())
    assert see("ablation", base, "--text", TEXT, "--off", "0.1", "--out", tmp_path / "picture.svg") == 0
    [(effects, bars, title)] = drawn
    model, tokenizer = load(base)
    D = model.config.head_width
    model.h[0].attn.c_proj.weight.data[:, D : 2 * D] = 0
    ids = tokenizer.encode(TEXT)
    probs = np.exp(log_softmax(model.next_token_logits([ids])[0]))
    assert (bars.layer, bars.head, title) == (0, 1, None)
    named = {piece_of(tokenizer, int(token)): probs[token] for token in np.argsort(-probs)[:6]}
    shown = dict(zip(bars.names, bars.ablated, strict=True))
    for name, probability in named.items():
        assert abs(shown[name] - probability) < 1e-5
    whole = np.exp(log_softmax(load(base)[0].next_token_logits([ids])[0]))
    assert abs(effects.heads[0, 1] - float(jensen_shannon(whole, probs)) / np.log(2)) < 1e-6


def test_the_steps_are_of_the_head_that_was_asked_for(base, tmp_path, monkeypatch):
    """And its queries times its keys give the weights of the same head that attention-head draws."""
    drawn = {}
    for module, name in (("head", "draw_head"), ("attention", "draw_attention_head")):
        keep = lambda *data, name=name: drawn.update({name: data}) or Figure()  # noqa: E731
        monkeypatch.setattr(f"glassgpt.figures.{module}.{name}", keep)
    for figure in ("head", "attention-head"):
        out = tmp_path / f"{figure}.svg"
        assert see(figure, base, "--text", TEXT, "--layer", 1, "--head", 1, "--title", "A", "--out", out) == 0
    (steps, *named), (maps, *_) = drawn["draw_head"], drawn["draw_attention_head"]
    assert named == [1, 1, "A"] and list(steps.tokens) == list(maps.tokens)
    scores = steps.queries @ steps.keys.T / steps.queries.shape[1] ** 0.5
    ahead = np.triu(np.full(scores.shape, -np.inf), 1)
    np.testing.assert_allclose(np.exp(log_softmax(scores + ahead)), maps.weights[0, 1], atol=1e-5)


@pytest.mark.parametrize("figure", OF_TEXTS)
def test_every_picture_of_a_text_is_drawn(figure, tmp_path):
    (tmp_path / "text.txt").write_text("the cat sat on the mat. a dog saw the cat and ran. " * 20)
    out = tmp_path / "picture.png"
    assert see(figure, tmp_path / "text.txt", "--out", out) == 0 and is_picture(out)


@pytest.mark.parametrize("figure", ["fits", "activations"])
def test_every_lesson_is_drawn_from_nothing(figure, tmp_path):
    assert see(figure, "--out", tmp_path / "picture.png") == 0 and is_picture(tmp_path / "picture.png")


@pytest.mark.slow
@pytest.mark.parametrize("figure", sorted(set(LESSONS) - {"fits", "activations"}))
def test_every_lesson_that_trains_a_net_is_drawn_from_nothing(figure, tmp_path):
    assert see(figure, "--out", tmp_path / "picture.png") == 0 and is_picture(tmp_path / "picture.png")


@pytest.mark.parametrize("figure", ["landscape", "landscape-around"])
def test_the_landscape_of_a_run_is_drawn(figure, baby_run, tmp_path):
    assert see(figure, baby_run.path, "--out", tmp_path / "picture.png") == 0 and is_picture(tmp_path / "picture.png")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["attention", "RUN"], "give a model and a file to write"),
        (["letters", "--out", "a.png"], "give a text and a file to write"),
        (["fits"], "give a file to write"),
        (["fits", "--out", "a.txt"], "can be saved as .png, .svg or .pdf"),
        (["attention", "RUN", "--out", "a.png"], 'give one with --text "..."'),
        (["neighbours", "RUN", "--out", "a.png"], "give them with --words"),
        (["neighbours", "RUN", "--words", "qqqq", "--out", "a.png"], "qqqq"),
        (["attention-head", "RUN", "--text", "Mira has a lamp.", "--layer", "7", "--out", "a.png"], "7"),
        (["attention-head", "RUN", "--text", "Mira has a lamp.", "--head", "7", "--out", "a.png"], "7"),
        (["head", "RUN", "--text", "Mira has a lamp.", "--layer", "7", "--out", "a.png"], "7"),
        (["head", "RUN", "--text", "Mira has a lamp.", "--head", "7", "--out", "a.png"], "0 to 1, got 7"),
        (["ablation", "RUN", "--text", "Mira has a lamp.", "--off", "0.9", "--out", "a.png"], "a part is LAYER.HEAD"),
        (["letters", "no-such-file.txt", "--out", "a.png"], "no-such-file.txt"),
    ],
)
def test_what_is_missing_or_wrong_is_told(arguments, message, base, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert see(*(base if part == "RUN" else part for part in arguments)) in (1, 2)
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said
    assert not list(tmp_path.iterdir())
