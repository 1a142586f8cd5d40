"""Beams, the logits after each of a text's tokens, and what its tokens cost: all are Python's own numbers."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from tests.serving.asking import (
    PLAIN,
    SAYS,
    SIX,
    Gate,
    Visit,
    as_json,
    events_of,
    refused,
    source_in_memory,
    tensors_of,
    until,
)

from glassgpt.decoding.beam import beam_search, beam_steps
from glassgpt.evaluation.score import score
from glassgpt.interface import LanguageModel
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.serving.api import Api
from glassgpt.serving.app import create_app
from glassgpt.serving.beams import MOST_BEAMS, MOST_TOKENS
from glassgpt.serving.models import Models
from glassgpt.serving.reading import MOST_LOGITS

BABY = "baby"


def told(beam, pieces) -> dict:
    tokens = list(beam.tokens)
    return {
        "ids": tokens,
        "pieces": [pieces[token] for token in tokens],
        "logprobs": list(beam.logprobs),
        "logprob": beam.logprob,
        "score": beam.score,
    }


def searched(ask, **content) -> tuple[list[dict], list[dict]]:
    """The steps and the beams."""
    (*steps, (last, done)) = events_of(ask("beams", **content).text)
    assert {name for name, _ in steps} <= {"step"} and last == "done" and done.keys() == {"beams"}
    return [data for _, data in steps], done["beams"]


@pytest.mark.parametrize("n_beams", [1, 3, 8])
@pytest.mark.parametrize("penalty", [1.0, 0.0, -0.5])
def test_the_beams_are_pythons_bit_for_bit(ask, baby_run, n_beams, penalty):
    content = {"ids": [1, 0, 1, 1], "max_new_tokens": 6, "n_beams": n_beams, "length_penalty": penalty}
    steps, beams = searched(ask, model=BABY, **content)
    options = {"length_penalty": penalty}
    expected = beam_search(baby_run.model(), [1, 0, 1, 1], 6, n_beams, **options)
    assert beams == [told(beam, "01") | {"reason": "length"} for beam in expected]
    for data, step in zip(steps, beam_steps(baby_run.model(), [1, 0, 1, 1], 6, n_beams, **options), strict=True):
        assert data == {
            "running": [told(beam, "01") for beam in step.running],
            "dropped": [told(beam, "01") for beam in step.dropped],
            "finished": [told(beam, "01") for beam in step.finished],
        }


def test_a_beam_of_one_step_of_training_is_of_that_step(ask, baby_run):
    _, beams = searched(ask, model=BABY, step=7, ids=[1], max_new_tokens=5, n_beams=2)
    assert [beam["logprob"] for beam in beams] == [beam.logprob for beam in beam_search(baby_run.model(7), [1], 5, 2)]


def test_beams_end_where_the_model_ends(ask):
    """The end of a text is one of the vocabulary; special tokens have names, and half a character has none."""
    _, beams = searched(ask, model="six", ids=[0], max_new_tokens=4, n_beams=5)
    expected = beam_search(SIX, [0], 4, 5, end_token=5)
    assert [beam["ids"] for beam in beams] == [list(beam.tokens) for beam in expected]
    assert {beam["reason"] for beam in beams} == {"stop", "length"}
    for beam in beams:
        assert (beam["reason"] == "stop") == (beam["ids"][-1] == 5) == (beam["pieces"][-1] == "<|end|>")


def test_a_model_that_can_say_one_thing_has_one_beam(ask):
    _, beams = searched(ask, model="says", ids=[5, 1], max_new_tokens=20, n_beams=6)
    (expected,) = beam_search(SAYS, [5, 1], 20, 6, end_token=5)
    assert [(beam["ids"], beam["logprob"], beam["reason"]) for beam in beams] == [
        (list(expected.tokens), expected.logprob, "stop")
    ]


WRONG = [
    ({"ids": []}, 400, "usage", "1 token"),
    ({"ids": [2]}, 400, "usage", "0 to 1"),
    ({"n_beams": 0}, 400, "usage", "1 to 32"),
    ({"n_beams": MOST_BEAMS + 1}, 400, "usage", "n_beams"),
    ({"n_beams": 2.0}, 400, "usage", "n_beams"),
    ({"max_new_tokens": 0}, 400, "usage", "1 to 256"),
    ({"max_new_tokens": MOST_TOKENS + 1}, 400, "usage", "max_new_tokens"),
    ({"length_penalty": 11}, 400, "usage", "length_penalty"),
    ({"length_penalty": "1"}, 400, "usage", "length_penalty"),
    ({"temperature": 1}, 400, "usage", "temperature"),
    ({"step": 99}, 404, "missing", "0 to 50"),
]


@pytest.mark.parametrize(("content", "status", "kind", "word"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_search_is_refused(ask, content, status, kind, word):
    right = {"model": BABY, "ids": [1], "max_new_tokens": 3, "n_beams": 2}
    assert word in refused(ask("beams", **right | content), status, kind)["message"]


def test_the_limits_are_told(client):
    limits = as_json(client.get("/api/v1/info").content)["limits"]
    assert limits["max_beams"] == MOST_BEAMS and limits["max_beam_tokens"] == MOST_TOKENS
    assert limits["max_logits"] == MOST_LOGITS and limits["max_scored_tokens"] == 1024


def test_a_search_that_nobody_waits_for_ends_at_its_next_step():
    gate = Gate()
    api = Api(Models([source_in_memory(gate, None, "gate")]))
    app = create_app(api)

    async def leaving():
        search = {"model": "gate", "ids": [0, 1], "max_new_tokens": 50, "n_beams": 2}
        visit = Visit(app, "/api/v1/beams", search)
        going = asyncio.create_task(visit.run())
        gate.opened.release(3)
        await until(lambda: visit.text.count("event: step") == 3)
        visit.leaving.set()
        await asyncio.wait_for(going, 5)
        gate.opened.release(1)  # the step that was under way
        await until(lambda: api.models._served["gate"].worker.n_jobs == 0)
        return gate.n_asked

    try:
        assert asyncio.run(leaving()) == 4
    finally:
        gate.opened.release(10_000)
        api.close()
        api.wait_until_closed()


# ---- what was expected after each token ------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [1, 2, 5, 9])
def test_the_logits_after_each_of_the_last_tokens_are_the_models(ask, baby_run, last):
    ids = [1, 0, 1, 1, 1, 0, 1, 0, 0]
    logits = tensors_of(ask("next", model=BABY, ids=ids, last=last))[0]["logits"]
    expected = [baby_run.model().next_token_logits([ids[:end]])[0] for end in range(len(ids) - last + 1, len(ids) + 1)]
    assert logits.shape == (last, 2) and np.allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_logits_within_a_window_and_past_it(api, ask):
    """Of a text that the cache holds, and of one that slid out of it."""
    model = GPT(GPTConfig(6, 5, 2, 2, 8), seed=2)
    api.models.add(source_in_memory(model, None, "narrow", config=model.config))
    try:
        for n in (4, 5, 6, 12):
            ids = [i * i % 6 for i in range(n)]
            logits = tensors_of(ask("next", model="narrow", ids=ids, last=n))[0]["logits"]
            expected = [model.next_token_logits([ids[:end]])[0] for end in range(1, n + 1)]
            assert np.allclose(logits, expected, rtol=1e-5, atol=1e-6)
    finally:
        api.models.remove("narrow")


@pytest.mark.parametrize(
    ("last", "status", "kind"), [(0, 400, "usage"), (4, 400, "usage"), (1.0, 400, "usage"), ("1", 400, "usage")]
)
def test_more_logits_than_tokens_are_refused(ask, last, status, kind):
    assert "last" in refused(ask("next", model=BABY, ids=[1, 0, 1], last=last), status, kind)["message"]


class Flat(LanguageModel):
    vocab_size, context_length = 60_000, 2

    def next_token_logits(self, contexts):
        return np.zeros((len(contexts), self.vocab_size), dtype=np.float32)


def test_more_logits_than_an_answer_holds_are_refused(api, ask):
    api.models.add(source_in_memory(Flat(), None, "flat"))
    try:
        most = MOST_LOGITS // 60_000
        told = refused(ask("next", model="flat", ids=[0] * 100, last=most + 1), 413, "too_big")
        assert f"the last {most} tokens" in told["cure"]
        assert tensors_of(ask("next", model="flat", ids=[0] * 100, last=most))[0]["logits"].shape == (most, 60_000)
    finally:
        api.models.remove("flat")


# ---- what its tokens cost --------------------------------------------------------------------------------------------


def test_every_token_is_given_all_that_the_model_sees_before_it(ask, baby_run):
    ids = [1, 1, 1, 1, 0, 1, 1, 0, 0, 0]
    logprobs = as_json(ask("score", model=BABY, ids=ids).content)["logprobs"]
    assert logprobs == score(baby_run.model(), ids, stride=1).logprobs and logprobs[0] is None
    for i in range(1, len(ids)):
        logits = baby_run.model().next_token_logits([ids[:i]])[0].astype(np.float64)
        assert logprobs[i] == pytest.approx(logits[ids[i]] - np.log(np.exp(logits).sum()), abs=1e-5)


def test_one_token_costs_nothing_that_is_known_and_the_impossible_has_no_number(ask):
    assert as_json(ask("score", model="plain", ids=[3]).content) == {"logprobs": [None]}
    assert as_json(ask("score", model="says", ids=[5, 1, 2]).content)["logprobs"][2] is None


def test_a_text_that_is_too_long_is_not_scored(ask):
    refused(ask("score", model="plain", ids=[0] * 1025), 413, "too_big")
    assert (
        PLAIN.vocab_size == 4 and len(as_json(ask("score", model="plain", ids=[0] * 1024).content)["logprobs"]) == 1024
    )
