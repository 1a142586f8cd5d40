"""The page as a file, made in Python: the same bytes as the page itself writes, the same numbers as the chain."""

from __future__ import annotations

import base64
import html
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from glassgpt.chain.information import EmpiricalChain
from glassgpt.chain.markov import MarkovChain
from glassgpt.errors import TooLargeError, UsageError
from glassgpt.serving import saved
from glassgpt.serving.saved import content_of, framed, live_page, saved_page, tables_of_chain, tables_of_run
from glassgpt.text.character import CharacterTokenizer

GOLDEN = json.loads((Path(__file__).parents[2] / "page" / "golden" / "saved.json").read_text(encoding="utf-8"))


def chain_of(*lengths):
    return MarkovChain.from_probabilities(*(np.random.default_rng(n).dirichlet(np.ones(2), 2**n) for n in lengths))


def numbers(text, dtype="<f4"):
    return np.frombuffer(base64.b64decode(text), dtype)


def probabilities(text):
    logits = numbers(text).reshape(-1, 2).astype(np.float64)
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.fixture
def built(tmp_path, monkeypatch):
    folder = tmp_path / "dist"
    folder.mkdir()
    (folder / "saved.js").write_text("start('</script>');")
    (folder / "saved.css").write_text("b { color: red }")
    monkeypatch.setattr(saved, "PAGES", (tmp_path / "nowhere", folder))


def test_a_page_has_the_bytes_that_the_page_itself_would_write():  # which page/tests/saved.test.ts holds to the same
    made_of = {name: value for name, value in GOLDEN.items() if name != "page"}
    assert live_page(**made_of) == GOLDEN["page"]


def test_a_chain_is_in_it_with_its_numbers_and_names():
    chain = chain_of(3)
    content = content_of(tables_of_chain(chain, CharacterTokenizer("ab"), "mine"), [0, 5], "en", "2025-01-02")
    (model,) = content["info"]["models"]
    assert (model["title"], model["n_states"], model["symbols"], model["steps"]) == ("mine", 8, ["a", "b"], [])
    (table,) = content["chains"]
    assert (table["id"], table["step"]) == (model["id"], None)
    assert probabilities(table["logits"]) == pytest.approx(chain.probs, abs=1e-6)
    assert content["hash"] == "#/chain?m=model&red=0.5." and content["counts"] == content["replies"] == []


def test_what_cannot_follow_is_minus_infinity():
    table = tables_of_chain(MarkovChain.from_probabilities(np.array([[0.0, 1.0], [0.5, 0.5]])))
    logits = numbers(content_of(table, [], "en", "")["chains"][0]["logits"])
    assert logits[0] == -np.inf and np.isfinite(logits[1:]).all()


def test_contexts_that_are_not_full_yet_are_in_it_where_the_chain_has_them():
    chain = chain_of(1, 2, 3)
    replies = content_of(tables_of_chain(chain), [], "en", "")["replies"]
    assert [reply["ids"] for reply in replies] == [[0], [1], [0, 0], [0, 1], [1, 0], [1, 1]]
    for reply in replies:
        assert probabilities(reply["logits"])[0] == pytest.approx(chain.probs[chain.index(reply["ids"])], abs=1e-6)


def test_a_run_is_in_it_at_every_kept_step_with_the_counts_of_its_text(baby_run):
    tables = tables_of_run(baby_run)
    content = content_of(tables, [0], "en", "")
    assert [table["step"] for table in content["chains"]] == content["info"]["models"][0]["steps"] == list(range(51))
    for step in (0, 7, 50):
        expected = MarkovChain.from_model(baby_run.model(step)).probs
        assert probabilities(content["chains"][step]["logits"]) == pytest.approx(expected, abs=1e-6)
    data = EmpiricalChain.of_text(baby_run.tokenizer.encode("111101111011110"), 2, 3)
    assert numbers(content["counts"][0]["counts"], "<i4").reshape(8, 2).tolist() == data.counts.tolist()
    assert content["hash"] == "#/chain?m=model@50&red=0." and len(content["replies"]) == 6


@pytest.mark.parametrize(("room", "steps"), [(48, [0, 25, 50]), (16, [50])])
def test_of_a_run_that_would_be_too_much_some_steps_are_in_it_and_the_last_always(baby_run, monkeypatch, room, steps):
    monkeypatch.setattr(saved, "MOST_NUMBERS", room)
    tables = tables_of_run(baby_run)
    assert list(tables.chains) == tables.about["steps"] == steps


def test_a_run_that_keeps_no_step_is_in_it_as_it_is(baby_run, monkeypatch):
    monkeypatch.setattr(type(baby_run), "steps", [])
    tables = tables_of_run(baby_run)
    assert list(tables.chains) == [None] and tables.about["steps"] == []
    assert content_of(tables, [], "en", "")["hash"] == "#/chain?m=model"


@pytest.mark.parametrize("vocab_size", [2, 1024])
def test_what_the_page_cannot_list_is_refused(vocab_size):
    length = 17 if vocab_size == 2 else 1
    chain = MarkovChain.from_probabilities(np.full((vocab_size**length, vocab_size), 1 / vocab_size))
    with pytest.raises(TooLargeError, match=r"65,536 states, 500,000 transitions\): look at the model with"):
        tables_of_chain(chain)


def test_the_program_is_that_of_the_built_page(built):
    page = saved_page(tables_of_chain(chain_of(2)), language="zh", date="2025-01-02")
    assert "<script>start('\\x3C/script>');</script>" in page and "<style>b { color: red }</style>" in page
    assert '<html lang="zh-Hans">' in page and '"date":"2025-01-02"' in page
    assert re.search(r'"date":"\d{4}-\d\d-\d\d"', saved_page(tables_of_chain(chain_of(2))))
    with pytest.raises(UsageError, match="the page speaks en and zh, not 'fr'"):
        saved_page(tables_of_chain(chain_of(2)), language="fr")


def test_without_a_built_page_it_is_said_how_to_build_it(tmp_path, monkeypatch):
    monkeypatch.setattr(saved, "PAGES", (tmp_path,))
    with pytest.raises(UsageError, match="npm ci and npm run build in page/"):
        saved_page(tables_of_chain(chain_of(2)))


def test_a_frame_holds_the_page_whole_and_shut_off():
    frame = framed(GOLDEN["page"], 300)
    (inner,) = re.findall(r'srcdoc="([^"]*)"', frame)
    assert html.unescape(inner).replace('<base href="about:srcdoc">\n', "") == GOLDEN["page"]
    assert re.fullmatch(r"<iframe [^<>]*></iframe>", frame) and "allow-same-origin" not in frame


def test_a_title_of_someone_elses_stays_a_text(built):
    tables = tables_of_chain(chain_of(2), title="</title><script>alert(1)</script>")
    page = saved_page(replace(tables, about={**tables.about, "ref": "</script>"}))
    assert page.count("<script") == 2 and "alert(1)</script>" not in page
