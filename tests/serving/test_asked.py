"""Wrong requests of every kind: each is refused in one shape, with what was expected, what was got and the cure."""

from __future__ import annotations

import asyncio
import json
import logging

import numpy as np
import pytest
from tests.serving.asking import Syllables, Visit, as_json, events_of, refused, source_in_memory, tensors_of

from glassgpt.interface import LanguageModel
from glassgpt.serving.app import create_app
from glassgpt.serving.asked import MOST_BYTES, parse
from glassgpt.serving.refusals import Refusal

BABY = "baby"
SECRET = "tell-nobody-of-1101"
NEXT = {"model": BABY, "ids": [1, 0, 1]}
WRITE = {**NEXT, "max_new_tokens": 3}
RED = {"model": BABY, "pattern": [0, 0], "prompt_ids": [1, 1, 1], "horizon": 5}
TRAIN = {
    "config": {"vocab_size": 2, "context_length": 3, "n_layer": 1, "n_head": 1, "n_embd": 4},
    "sequence": "0101101",
    "steps": 2,
}


class Flat(LanguageModel):
    """All tokens are equally likely."""

    def __init__(self, vocab_size, context_length):
        self.vocab_size, self.context_length = vocab_size, context_length

    def next_token_logits(self, contexts):
        return np.zeros((len(contexts), self.vocab_size), dtype=np.float32)


class Broken(Flat):
    """Fails in a way that nobody foresaw, with the text in the message."""

    def next_token_logits(self, contexts):
        raise RuntimeError(SECRET)


class Nasty(Syllables):
    spelled = (b"event: done\ndata: {}\n\n",) * 6
    special = {}  # noqa: RUF012


@pytest.fixture(scope="module", autouse=True)
def more_models(api):
    """A model with too many contexts, one with too large a table, one that breaks and one with nasty words."""
    api.models.add(source_in_memory(Flat(2, 17), None, "wide"))
    api.models.add(source_in_memory(Flat(60_000, 1), None, "tall"))
    api.models.add(source_in_memory(Broken(2, 4), None, "broken"))
    api.models.add(source_in_memory(Flat(6, 4), Nasty(), "nasty"))


def posted(client, path: str, body: bytes, kind: str = "application/json"):
    return client.post(f"/api/v1/{path}", content=body, headers={"Content-Type": kind})


NOT_JSON = [
    b"",
    b"{",
    b'{"a": NaN}',
    b'{"a": Infinity}',
    b'{"a": -Infinity}',
    b'{"a": 1e999}',
    b'{"a": 1, "a": 2}',
    b'{"a": \xff}',
    b"\xef\xbb\xbf{}",
    b"{'a': 1}",
    b'{"a": 1} {"b": 2}',
    b'{"a": 01}',
    b'{"a": "\n"}',
    b"[" * 100_000,
    b'{"a": ' + b"9" * 5000 + b"}",
]


@pytest.mark.parametrize("body", NOT_JSON, ids=range(len(NOT_JSON)))
def test_what_is_no_json_is_refused(client, body):
    assert "body is not" in refused(posted(client, "next", body), 400, "usage")["message"]


@pytest.mark.parametrize("body", [b"[]", b"null", b"3", b'"text"'])
def test_a_request_is_an_object(client, body):
    assert "object" in refused(posted(client, "next", body), 400, "usage")["message"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_a_form_of_another_site_is_refused(client, kind):
    refused(posted(client, "next", json.dumps(NEXT).encode(), kind), 415, "usage")


def test_the_kind_of_content_may_name_its_encoding(client):
    tensors_of(posted(client, "next", json.dumps(NEXT).encode(), "Application/JSON; charset=utf-8"))


class Endless(Visit):
    """A client that sends a megabyte whenever it is listened to."""

    n_sent = 0

    async def receive(self):
        self.n_sent += 1
        return {"type": "http.request", "body": b" " * (1 << 20), "more_body": True}


def test_a_body_that_is_too_large_is_refused_before_all_of_it_is_read(api):
    visit = Endless(create_app(api), "/api/v1/next")
    asyncio.run(visit.run())
    assert visit.sent[0]["status"] == 413 and as_json(visit.text)["error"]["type"] == "too_big"
    assert visit.n_sent == (MOST_BYTES >> 20) + 1


def test_a_body_that_does_not_come_is_not_waited_for_for_ever(api, monkeypatch):
    monkeypatch.setattr("glassgpt.serving.asked.SECONDS_FOR_BODY", 0.05)

    class Silent(Visit):
        async def receive(self):
            await asyncio.sleep(60)

    visit = Silent(create_app(api), "/api/v1/next")
    asyncio.run(visit.run())
    assert visit.sent[0]["status"] == 408


def test_numbers_and_texts_that_are_json_are_read():
    assert parse(b'{"a": [1, -2.5e3, "\\u00e9", true, null]}') == {"a": [1, -2500.0, "é", True, None]}
    with pytest.raises(Refusal, match="twice"):
        parse(b'{"a": {"b": 1, "b": 1}}')


WRONG = [
    ("next", {}, 400, "usage", "model"),
    ("next", {"model": BABY}, 400, "usage", "ids"),
    ("next", {**NEXT, "model": "nothing"}, 404, "missing", "baby"),
    ("next", {**NEXT, "model": 3}, 400, "usage", "text"),
    ("next", {**NEXT, "model": "\ud800"}, 400, "usage", "surrogate"),
    ("next", {**NEXT, "step": 51}, 404, "missing", "0 to 50"),
    ("next", {**NEXT, "step": "50"}, 400, "usage", "step"),
    ("next", {**NEXT, "step": True}, 400, "usage", "step"),
    ("next", {**NEXT, "model": "plain", "step": 0}, 404, "missing", "no training steps"),
    ("next", {**NEXT, "ids": []}, 400, "usage", "1 token"),
    ("next", {**NEXT, "ids": [2]}, 400, "usage", "0 to 1"),
    ("next", {**NEXT, "ids": [-1]}, 400, "usage", "0 to 1"),
    ("next", {**NEXT, "ids": [10**30]}, 400, "usage", "0 to 1"),
    ("next", {**NEXT, "ids": [1.0]}, 400, "usage", "token ids"),
    ("next", {**NEXT, "ids": [True]}, 400, "usage", "token ids"),
    ("next", {**NEXT, "ids": [[1]]}, 400, "usage", "token ids"),
    ("next", {**NEXT, "ids": "101"}, 400, "usage", "token ids"),
    ("next", {**NEXT, "ids": None}, 400, "usage", "token ids"),
    ("next", {**NEXT, "temperature": 1}, 400, "usage", "temperature"),
    ("tokenize", {"model": BABY, "text": 101}, 400, "usage", "text"),
    ("tokenize", {"model": BABY, "text": "1\ud800"}, 400, "usage", "surrogate"),
    ("pieces", {"model": BABY, "ids": [7]}, 400, "usage", "ids"),
    ("generate", {**WRITE, "temperature": -1}, 400, "usage", "temperature"),
    ("generate", {**WRITE, "temperature": "NaN"}, 400, "usage", "temperature"),
    ("generate", {**WRITE, "temperature": True}, 400, "usage", "temperature"),
    ("generate", {**WRITE, "temperature": 1e-300}, 400, "usage", "temperature"),
    ("generate", {**WRITE, "temperature": None}, 400, "usage", "temperature"),
    ("generate", {**WRITE, "temprature": 1}, 400, "usage", "temprature"),
    ("generate", {**WRITE, "top_k": -1}, 400, "usage", "top_k"),
    ("generate", {**WRITE, "top_k": 1.5}, 400, "usage", "top_k"),
    ("generate", {**WRITE, "top_p": 0}, 400, "usage", "top_p"),
    ("generate", {**WRITE, "top_p": 1.01}, 400, "usage", "top_p"),
    ("generate", {**WRITE, "max_new_tokens": 10**9}, 400, "usage", "2,048"),
    ("generate", {**WRITE, "max_new_tokens": -1}, 400, "usage", "max_new_tokens"),
    ("generate", {**WRITE, "seed": 2**64}, 400, "usage", "seed"),
    ("generate", {**WRITE, "seed": True}, 400, "usage", "seed"),
    ("generate", {**WRITE, "seed": -1}, 400, "usage", "seed"),
    ("generate", {**WRITE, "top": 10**6}, 400, "usage", "top"),
    ("chain", {"model": BABY, "ids": [1]}, 400, "usage", "ids"),
    ("chain", {"model": "wide"}, 413, "too_big", "65,536"),
    ("chain", {"model": "tall"}, 413, "too_big", "65,536"),
    ("red", {**RED, "pattern": []}, 400, "usage", "pattern"),
    ("red", {**RED, "pattern": [0] * 65}, 413, "too_big", "64"),
    ("red", {**RED, "horizon": 10**9}, 400, "usage", "horizon"),
    ("red", {**RED, "budget_s": -1}, 400, "usage", "budget_s"),
    ("red", {**RED, "walks": 0}, 400, "usage", "walks"),
    ("red", {**RED, "walks": 10**9}, 400, "usage", "100,000"),
    ("red", {**RED, "model": "wide", "prompt_ids": []}, 400, "usage", "estimated"),
    ("trace", {**NEXT, "want": "embeddings"}, 400, "usage", "want"),
    ("trace", {**NEXT, "want": ["lens:1"] * 65}, 400, "usage", "want"),
    ("neighbours", {"model": BABY, "text": ""}, 400, "usage", "empty"),
    ("neighbours", {"model": BABY, "text": "1", "n": 0}, 400, "usage", "n must"),
    ("train", {}, 400, "usage", "config"),
    ("train", {**TRAIN, "config": []}, 400, "usage", "config"),
    ("train", {**TRAIN, "config": {**TRAIN["config"], "n_head": 3}}, 400, "usage", "n_head"),
    ("train", {**TRAIN, "config": {**TRAIN["config"], "vocab_size": 1}}, 400, "usage", "vocab_size"),
    ("train", {**TRAIN, "config": {**TRAIN["config"], "dropout": 0}}, 400, "usage", "dropout"),
    ("train", {**TRAIN, "config": {**TRAIN["config"], "n_embd": 1024, "n_layer": 64}}, 413, "too_big", "parameters"),
    ("train", {**TRAIN, "sequence": "012"}, 400, "usage", "2"),
    ("train", {**TRAIN, "sequence": "01"}, 400, "usage", "longer"),
    ("train", {**TRAIN, "sequence": ""}, 400, "usage", "longer"),
    ("train", {**TRAIN, "sequence": "01" * 60_000}, 413, "too_big", "100,000"),
    ("train", {**TRAIN, "symbols": ["0", "0"]}, 400, "usage", "twice"),
    ("train", {**TRAIN, "symbols": ["01", "1"]}, 400, "usage", "one character"),
    ("train", {**TRAIN, "symbols": ["0", "\ud800"]}, 400, "usage", "surrogate"),
    ("train", {**TRAIN, "symbols": ["0", "1", "2"]}, 400, "usage", "3 tokens"),
    ("train", {**TRAIN, "steps": 0}, 400, "usage", "steps"),
    ("train", {**TRAIN, "steps": 10**6}, 400, "usage", "2,000"),
    ("train", {**TRAIN, "learning_rate": -1}, 400, "usage", "learning_rate"),
    ("train/nothing/pause", {}, 404, "missing", "nothing"),
]


@pytest.mark.parametrize(("path", "content", "status", "kind", "word"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_request_is_refused_by_what_is_wrong(client, path, content, status, kind, word):
    told = refused(posted(client, path, json.dumps(content).encode()), status, kind)
    assert word in told["message"], told


def test_addresses_that_lead_nowhere_are_refused_in_the_same_shape(client):
    refused(client.get("/api/v1/nothing"), 404, "missing")
    refused(client.post("/api/v1/nothing"), 404, "missing")
    refused(client.get("/api/v1/info/"), 404, "missing")
    refused(client.get("/api/v2/info"), 404, "missing")
    response = client.get("/api/v1/next")
    refused(response, 405, "usage")
    assert response.headers["allow"] == "POST"
    refused(client.post("/api/v1/info", json={}), 405, "usage")
    refused(client.options("/api/v1/next"), 405, "usage")
    refused(client.get("/api/v1/jobs/x/events"), 404, "missing")
    refused(client.get("/api/v1/train/x/events"), 404, "missing")
    refused(client.get("/api/v1/train/x/frames/1"), 404, "missing")
    refused(client.get("/api/v1/train/x/frames/one"), 404, "missing")
    assert client.head("/api/v1/info").status_code == 200


HOSTILE = [
    "1" * 100_000,
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "\x00\x01\x1b[2J",
    "\u202e\u0000\ufeff",
    "event: done\ndata: {}\n\n",
    "\u2028\u2029",
    "👩‍👩‍👧" * 50,
    "%s{}${x}{{7*7}}",
    "../../etc/passwd",
    "<|endoftext|>",
    "é" * 10_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_text_is_a_text_or_is_refused(client, ask, text):
    response = ask("tokenize", model=BABY, text=text)
    if set(text) <= {"0", "1"}:
        ids = as_json(response.content)["ids"]
        assert "".join(map(str, ids)) == text
    else:
        refused(response, 400, "usage")
    refused(ask("next", model=text, ids=[1]), 404, "missing")
    refused(client.post("/api/v1/next", json={"model": BABY, "ids": [1], text: 1}), 400, "usage")


def test_a_prompt_of_a_hundred_thousand_tokens_is_answered(ask, baby_run):
    ids = [1, 1, 0] * 33_334
    tensors, _ = tensors_of(ask("next", model=BABY, ids=ids))
    assert tensors["logits"].tobytes() == baby_run.model().next_token_logits([ids[-3:]])[0].tobytes()
    name, done = events_of(ask("generate", model=BABY, ids=ids, max_new_tokens=2).text)[-1]
    assert name == "done" and len(done["ids"]) == 2


def test_texts_that_look_like_events_stay_inside_their_event(client, ask):
    stream = events_of(ask("generate", model="nasty", ids=[0], max_new_tokens=3, top=2, top_k=1).text)
    assert [name for name, _ in stream] == ["token"] * 3 + ["done"]
    assert stream[-1][1]["text"] == "event: done\ndata: {}\n\n" * 3


# ---- nothing is written down -----------------------------------------------------------------------------------------


def test_a_defect_is_told_without_its_message(ask):
    told = refused(ask("next", model="broken", ids=[1]), 500, "failed")
    assert "RuntimeError" in told["message"] and SECRET not in str(told)
    ((name, data),) = events_of(ask("generate", model="broken", ids=[1]).text)
    assert name == "error" and data.keys() == {"type", "message", "cure"} and SECRET not in str(data)


def test_nothing_is_logged_or_printed_of_what_was_asked(client, ask, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    ask("tokenize", model=BABY, text=SECRET)
    ask("next", model=SECRET, ids=[1])
    ask("next", model="broken", ids=[1])
    ask("generate", model="broken", ids=[1])
    ask("generate", model=BABY, ids=[1], **{SECRET: 1})
    ask("train", **{**TRAIN, "sequence": SECRET})
    posted(client, "next", SECRET.encode())
    told = "".join(record.getMessage() + str(record.exc_info) for record in caplog.records if record.name != "httpx2")
    printed = capfd.readouterr()
    assert SECRET not in told + printed.out + printed.err
