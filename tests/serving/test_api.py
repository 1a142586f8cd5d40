"""What the server says is what Python says: the same logits, tables, texts and probabilities."""

from __future__ import annotations

import copy
import threading

import numpy as np
import pytest
import torch
from tests.serving.asking import PLAIN, SIX, Syllables, as_json, events_of, refused, source_in_memory, tensors_of

import glassgpt
from glassgpt.chain.markov import MarkovChain
from glassgpt.decoding.generate import generate
from glassgpt.decoding.processors import processors
from glassgpt.decoding.shaped import Shaped
from glassgpt.evaluation.red import estimate_red
from glassgpt.models.ablation import ablations
from glassgpt.models.change import Change, changed
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.models.trace import Want, embedding_rows, trace
from glassgpt.numerics import log_softmax
from glassgpt.serving import models
from glassgpt.serving.inside import mean_pooled, thumbs
from glassgpt.serving.meaning import widest_view
from glassgpt.serving.refusals import Cancelled
from glassgpt.training.recipe import read_recipe

UNTRAINED, BABY = "baby-gpt-untrained", "baby"
TEXT = "111101111011110"


@pytest.fixture(scope="module")
def six(api):
    """A GPT of six tokens with words, served as "tiny"."""
    model = GPT(GPTConfig(6, 12, 2, 2, 8), seed=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5)  # far from uniform
    api.models.add(source_in_memory(model, Syllables(), "tiny", config=model.config))
    yield model
    api.models.remove("tiny")


@pytest.fixture(scope="module")
def grouped(api):
    """Alibi in place of positions, and each two of four heads share keys and values."""
    model = GPT(GPTConfig(6, 12, 2, 4, 16, n_kv_head=2, position="alibi"), seed=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5)
    api.models.add(source_in_memory(model, Syllables(), "grouped", config=model.config))
    yield model
    api.models.remove("grouped")


def says(response) -> dict:
    assert response.status_code == 200, response.text
    return as_json(response.content)


def softmax(logits) -> np.ndarray:
    powers = np.exp(np.asarray(logits, dtype=np.float64) - np.max(logits))
    return powers / powers.sum()


# ---- what there is ---------------------------------------------------------------------------------------------------


def test_info_tells_the_sizes_of_every_model(client, baby_run):
    told = says(client.get("/api/v1/info"))
    assert told["version"] == glassgpt.__version__ and told["limits"]["max_states"] == 65536
    by_id = {model["id"]: model for model in told["models"]}
    assert list(by_id) == [UNTRAINED, BABY, "plain", "six", "says"]
    run = by_id[BABY]
    assert (run["kind"], run["ref"], run["title"]) == ("run", str(baby_run.path), "baby")
    assert (run["vocab_size"], run["context_length"], run["n_states"], run["n_parameters"]) == (2, 3, 8, 12_656)
    assert (run["n_layer"], run["n_head"], run["n_embd"]) == (4, 4, 16)
    assert run["steps"] == list(range(51)) and run["sequence"] == TEXT and run["symbols"] == ["0", "1"]
    assert run["state"] == "ready"
    assert by_id[UNTRAINED]["kind"] == "model" and by_id[UNTRAINED]["steps"] == []
    assert by_id["plain"]["symbols"] is None and by_id["plain"]["n_parameters"] is None
    assert by_id["six"]["symbols"] == ["ab", "a", "b", "\ufffd", "\ufffd", "<|end|>"]


# ---- logits and chains -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [None, 0, 25, 50])
def test_the_logits_are_the_models_bit_for_bit(ask, baby_run, step):
    model = baby_run.model(step)
    for ids in ([1, 0, 1], [0], [1, 1]):
        tensors, about = tensors_of(ask("next", model=BABY, step=step, ids=ids))
        assert tensors["logits"].tobytes() == model.next_token_logits([ids])[0].tobytes()
        assert as_json(about["ids"]) == ids and about["model"] == BABY and as_json(about["step"]) == step


def test_the_untrained_baby_is_the_tours(ask, baby_run):
    recipe = read_recipe("baby")
    expected = GPT(recipe.model, seed=recipe.run.seed).next_token_logits([[1, 0, 1]])[0]
    assert tensors_of(ask("next", model=UNTRAINED, ids=[1, 0, 1]))[0]["logits"].tobytes() == expected.tobytes()
    first = tensors_of(ask("next", model=BABY, step=0, ids=[1, 0, 1]))[0]
    assert first["logits"].tobytes() == expected.tobytes()


def test_of_a_long_text_the_end_counts(ask, baby_run):
    ids = [0, 1, 1, 0, 1, 0, 1]
    tensors, about = tensors_of(ask("next", model=BABY, ids=ids))
    assert tensors["logits"].tobytes() == baby_run.model().next_token_logits([ids])[0].tobytes()
    assert as_json(about["ids"]) == [1, 0, 1]


@pytest.mark.parametrize("step", [None, 7])
def test_the_chain_is_the_markov_chains_table(ask, baby_run, step):
    tensors, about = tensors_of(ask("chain", model=BABY, step=step))
    assert tensors["logits"].shape == (8, 2) and as_json(about["context_length"]) == 3
    assert np.array_equal(log_softmax(tensors["logits"]), MarkovChain.from_model(baby_run.model(step)).logprobs)


def test_the_counts_are_how_often_each_token_followed(ask):
    counts = tensors_of(ask("chain", model=BABY))[0]["counts"]
    assert counts.dtype == np.int32
    by_hand = np.zeros((8, 2), dtype=int)
    for i in range(len(TEXT) - 3):
        by_hand[int(TEXT[i : i + 3], 2), int(TEXT[i + 3])] += 1
    assert np.array_equal(counts, by_hand)


def test_a_model_without_a_text_of_its_own_has_no_counts(ask):
    tensors, _ = tensors_of(ask("chain", model="plain"))
    assert tensors.keys() == {"logits"}
    assert np.array_equal(tensors["logits"], PLAIN.context_table().astype(np.float32))


# ---- words -----------------------------------------------------------------------------------------------------------


def test_text_becomes_tokens_with_names_and_bytes(ask):
    told = says(ask("tokenize", model="six", text="abb"))
    assert told == {"ids": [0, 2], "pieces": [{"id": 0, "text": "ab", "bytes": [97, 98]}, {"id": 2, "text": "b", "bytes": [98]}]}  # fmt: skip  # noqa: E501
    assert says(ask("tokenize", model=BABY, text="")) == {"ids": [], "pieces": []}


def test_pieces_have_names_even_where_there_are_no_words(ask):
    assert says(ask("pieces", model="six", ids=[5, 0]))["pieces"] == ["<|end|>", "ab"]
    assert says(ask("pieces", model="plain", ids=[3, 0]))["pieces"] == ["[3]", "[0]"]
    assert says(ask("pieces", model=BABY, ids=[]))["pieces"] == []


def test_text_for_a_model_without_words_is_refused(ask):
    assert "ids" in refused(ask("tokenize", model="plain", text="a"), 400, "usage")["cure"]


def test_what_the_vocabulary_lacks_is_named(ask):
    told = refused(ask("tokenize", model=BABY, text="1021"), 400, "usage")
    assert "'2'" in told["message"] and "01" in told["cure"]


# ---- writing ---------------------------------------------------------------------------------------------------------

SAMPLERS = [
    {},
    {"temperature": 0.5},
    {"temperature": 0},
    {"top_k": 1},
    {"temperature": 2, "top_k": 2, "top_p": 0.7},
    {"top_k": 0, "top_p": 1, "temperature": 1},
]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("seed", [0, 7])
def test_a_text_is_what_generate_draws(ask, baby_run, sampler, seed):
    stream = events_of(ask("generate", model=BABY, ids=[1, 0, 1, 1], max_new_tokens=12, seed=seed, **sampler).text)
    (*tokens, (last, done)) = stream
    options = {key: value for key, value in sampler.items() if (key, value) not in (("top_k", 0), ("top_p", 1))}
    expected = generate(baby_run.model(), [1, 0, 1, 1], 12, seed=seed, **options)
    assert [name for name, _ in tokens] == ["token"] * 12 and last == "done"
    assert [data["id"] for _, data in tokens] == expected == done["ids"]
    assert [data["i"] for _, data in tokens] == list(range(12))
    assert done["reason"] == "length" and done["text"] == "".join(map(str, expected))


def test_each_token_comes_with_what_the_model_thought(ask, baby_run):
    tokens = events_of(ask("generate", model="six", ids=[0, 2], max_new_tokens=6, temperature=0.3, top=4).text)[:-1]
    text = [0, 2]
    for _, data in tokens:
        p = softmax(SIX.next_token_logits([text])[0])
        assert np.exp(data["logprob"]) == pytest.approx(p[data["id"]], rel=1e-6)
        assert data["entropy"] == pytest.approx(-np.sum(p * np.log(p)), rel=1e-9)
        order = sorted(range(6), key=lambda i: (-p[i], i))[:4]
        assert [token for token, _, _ in data["top"]] == order
        assert [np.exp(logprob) for _, logprob, _ in data["top"]] == pytest.approx(p[order].tolist(), rel=1e-9)
        assert [piece for _, _, piece in data["top"]] == says(ask("pieces", model="six", ids=order))["pieces"]
        text.append(data["id"])


def test_the_texts_of_the_tokens_join_to_the_text_whole_characters_only(ask):
    stream = events_of(ask("generate", model="says", ids=[5, 1], max_new_tokens=20).text)
    assert [data["text"] for _, data in stream[:-1]] == ["ab", "", "é", "b", ""]
    assert stream[-1][1] == {"ids": [0, 3, 4, 2, 5], "text": "abéb", "reason": "stop"}


def test_what_the_model_excludes_is_in_no_list_and_json_stays_json(ask):
    first = events_of(ask("generate", model="says", ids=[5, 1], max_new_tokens=1, top=6).text)[0][1]
    assert [token for token, _, _ in first["top"]] == [0] and first["entropy"] == 0


def test_nothing_to_write_is_done_at_once(ask):
    assert events_of(ask("generate", model=BABY, ids=[1], max_new_tokens=0).text) == [
        ("done", {"ids": [], "text": "", "reason": "length"})
    ]


def test_an_unfinished_character_at_the_end_is_told_in_the_whole_text(ask):
    done = events_of(ask("generate", model="says", ids=[5, 1], max_new_tokens=2).text)[-1][1]
    assert done["ids"] == [0, 3] and done["text"] == "ab\ufffd"


# ---- red -------------------------------------------------------------------------------------------------------------


def within_by_hand(rows: np.ndarray, pattern: list[int], prompt: list[int], horizon: int) -> list[float]:
    """P(the pattern within n tokens), by carrying the probability of every (last three tokens) that is not red yet."""
    mass, hit, result = {tuple(prompt[-3:]): 1.0}, 0.0, [0.0]
    for _ in range(horizon):
        after: dict[tuple[int, ...], float] = {}
        for context, p in mass.items():
            for token in range(2):
                text = (*context, token)
                share = p * rows[int("".join(map(str, context)), 2), token]
                if list(text[-len(pattern) :]) == pattern:
                    hit += share
                else:
                    after[text[1:]] = after.get(text[1:], 0.0) + share
        mass = after
        result.append(hit)
    return result


@pytest.mark.parametrize("sampler", [{}, {"temperature": 0.5}, {"temperature": 3}])
def test_red_is_exact_at_every_horizon(client, ask, baby_run, sampler):
    model = Shaped(baby_run.model(), processors(**sampler))
    rows = np.stack([softmax(row) for row in model.context_table()])
    expected = within_by_hand(rows, [0, 0, 0], [1, 1, 1], 40)
    job = says(ask("red", model=BABY, pattern=[0, 0, 0], prompt_ids=[1, 1, 1], horizon=40, budget_s=5, **sampler))[
        "job"
    ]
    stream = events_of(client.get(f"/api/v1/jobs/{job}/events").text)
    assert [(name, data["n"]) for name, data in stream] == [("estimate", 1), ("estimate", 10), ("estimate", 40), ("done", 40)]  # fmt: skip  # noqa: E501
    for name, data in stream[:-1]:
        assert name == "estimate" and data["method"] == "exact" and data["low"] == data["log10_p"] == data["high"]
    within = [0.0 if log10 is None else 10**log10 for log10 in stream[-1][1]["log10_within"]]
    assert within == pytest.approx(expected, rel=1e-9, abs=0)
    assert stream[0][1]["log10_p"] is None  # it takes three tokens, and JSON has no minus infinity


def test_red_may_begin_after_a_short_prompt_or_in_the_long_run(client, ask, baby_run):
    for prompt in ([1], []):
        job = says(ask("red", model=BABY, pattern=[0, 0], prompt_ids=prompt, horizon=3))["job"]
        name, done = events_of(client.get(f"/api/v1/jobs/{job}/events").text)[-1]
        assert name == "done" and -2 < done["log10_p"] < 0


@pytest.mark.parametrize("sampler", [{}, {"temperature": 1.5, "top_k": 5, "top_p": 0.99}])
def test_where_states_cannot_be_listed_red_is_pythons_estimate(client, ask, six, sampler):
    asked = {"model": "tiny", "pattern": [1, 2, 1], "prompt_ids": [5, 0, 1], "horizon": 20, "walks": 40, "seed": 3}
    job = says(ask("red", **asked, **sampler))["job"]
    stream = events_of(client.get(f"/api/v1/jobs/{job}/events").text)
    model = Shaped(six, processors(**sampler))
    *_, expected = estimate_red(model, [[1, 2, 1]], [5, 0, 1], 20, walks=40, seed=3)
    assert {name for name, _ in stream[:-1]} <= {"estimate", "progress"} and stream[0][1]["n_walks"] == 0
    name, done = stream[-1]
    assert (name, done["method"], done["n"], done["n_walks"]) == ("done", "estimate", 20, 40)
    assert done["at"] == list(range(21)) and done["is_trusted"] == expected.is_trusted
    assert done["effective_walks"] == expected.effective_walks and done["largest_share"] == expected.largest_share
    for curve, log in [("within", expected.log_within), ("low", expected.log_low), ("high", expected.log_high)]:
        told = [-np.inf if log10 is None else log10 for log10 in done[f"log10_{curve}"]]
        np.testing.assert_allclose(told, log / np.log(10), rtol=1e-12)
    assert done["low"] < done["log10_p"] < done["high"] and done["log10_p"] == done["log10_within"][-1]
    assert done["log10_within"][1] is None  # it takes two tokens, and JSON has no minus infinity


def test_an_estimate_of_what_can_only_follow_at_once_is_exact(client, ask, six):
    job = says(ask("red", model="tiny", pattern=[4], prompt_ids=[1], horizon=1))["job"]
    _, done = events_of(client.get(f"/api/v1/jobs/{job}/events").text)[-1]
    assert done["method"] == "exact" and done["n_walks"] == 0
    (logits,) = six.next_token_logits([[1]])
    assert done["low"] == done["high"] == pytest.approx(float(log_softmax(logits)[4] / np.log(10)))


def test_a_budget_ends_an_estimate_with_what_is_known(client, ask, six):
    job = says(ask("red", model="tiny", pattern=[4, 4], prompt_ids=[1], horizon=9, budget_s=0))["job"]
    _, done = events_of(client.get(f"/api/v1/jobs/{job}/events").text)[-1]
    assert (done["n_walks"], done["high"], done["is_trusted"]) == (0, 0.0, False)
    assert done["low"] == done["log10_within"][2]  # what can follow at once


def test_curves_under_way_are_told_with_few_points(monkeypatch, client, ask, six):
    monkeypatch.setattr("glassgpt.serving.red.PULSE", 0.0)
    job = says(ask("red", model="tiny", pattern=[4], prompt_ids=[1], horizon=200, walks=8))["job"]
    stream = events_of(client.get(f"/api/v1/jobs/{job}/events").text)
    names = [name for name, _ in stream]
    assert names.count("estimate") == 3 and names.count("progress") > 100
    at = stream[0][1]["at"]
    assert at[0] == 0 and at[-1] == 200 and len(at) <= 40
    assert all(data["underway"] == 4 and 0 <= data["n_drawn"] < 200 for name, data in stream if name == "progress")


def test_a_job_is_dropped_once(client, ask):
    job = says(ask("red", model=BABY, pattern=[0], prompt_ids=[1, 1, 1], horizon=1))["job"]
    assert says(client.delete(f"/api/v1/jobs/{job}")) == {"job": job}
    refused(client.delete(f"/api/v1/jobs/{job}"), 404, "missing")
    refused(client.get(f"/api/v1/jobs/{job}/events"), 404, "missing")


# ---- inside ----------------------------------------------------------------------------------------------------------


def test_a_trace_is_the_models(ask, baby_run):
    want = ["embeddings", "attention:0", "attention:3", "attention_thumbs", "lens:2", "residual_norms", "mlp:1"]
    tensors, about = tensors_of(ask("trace", model=BABY, step=20, ids=[1, 0, 1], want=want))
    found = trace(baby_run.model(20), [1, 0, 1], Want(True, (0, 3), True, (1,), 2))
    assert as_json(about["want"]) == want
    assert np.array_equal(tensors["token"], found.token_embeddings)
    assert np.array_equal(tensors["position"], found.position_embeddings)
    assert np.allclose(tensors["sum"], tensors["token"] + tensors["position"], atol=1e-7)
    assert tensors["attention:3"].shape == (4, 3, 3)
    assert np.array_equal(tensors["attention:3"], found.attention[1])
    assert np.allclose(tensors["attention:0"].sum(axis=-1), 1, atol=1e-6)
    assert np.array_equal(tensors["mlp:1"], found.hidden[0])
    assert tensors["residual_norms"].shape == (5, 3)
    assert np.allclose(tensors["residual_norms"][0], np.sqrt((tensors["sum"] ** 2).sum(axis=-1)), rtol=1e-5)
    assert tensors["lens_ids"].dtype == np.int32 and tensors["lens_ids"].shape == (5, 3, 2)
    logprobs = log_softmax(baby_run.model(20).next_token_logits([[1, 0, 1]])[0])
    assert tensors["lens_logprobs"][4, 2] == pytest.approx(sorted(logprobs, reverse=True), abs=1e-5)
    assert np.array_equal(tensors["attention_thumbs"][3], found.attention[1])  # short enough to be shown as it is


# ---- weights ---------------------------------------------------------------------------------------------------------


def test_the_weights_are_the_models_own(ask, baby_run):
    tensors, told = tensors_of(ask("weights", model=BABY, step=20, want=["wte.weight", "h.3.ln_2.bias"]))
    own = dict(baby_run.model(20).named_parameters())
    assert tensors.keys() == {"wte.weight", "h.3.ln_2.bias"}
    assert all(np.array_equal(tensors[name], own[name].detach().numpy()) for name in tensors)
    assert as_json(told["shapes"]) == {name: list(parameter.shape) for name, parameter in own.items()}
    assert tensors_of(ask("weights", model=BABY, want=[]))[0] == {}
    refused(ask("weights", model=BABY, want=["wte"]), 400, "usage")


def test_every_question_may_be_about_a_model_with_one_weight_changed(ask, baby_run):
    change = {"name": "h.1.attn.c_attn.weight", "at": [5, 7], "value": 1.5}
    twin = changed(baby_run.model(20), Change(change["name"], (5, 7), 1.5))
    asked = {"model": BABY, "step": 20, "change": change}
    tensors, told = tensors_of(ask("chain", **asked))
    assert np.array_equal(tensors["logits"], twin.context_table())
    assert as_json(told["change"]) == change
    for ids in ([1], [1, 0, 1]):
        assert np.array_equal(tensors_of(ask("next", **asked, ids=ids))[0]["logits"], twin.next_token_logits([ids])[0])
    seen = tensors_of(ask("trace", **asked, ids=[1, 0, 1], want=["attention:1"]))[0]
    assert np.array_equal(seen["attention:1"], trace(twin, [1, 0, 1], Want(attention=(1,))).attention[0])
    assert tensors_of(ask("weights", **asked, want=[change["name"]]))[0][change["name"]][5, 7] == 1.5
    ((_, done),) = [e for e in events_of(ask("generate", **asked, ids=[1, 0, 1], seed=3).text) if e[0] == "done"]
    assert done["ids"] == generate(twin, [1, 0, 1], len(done["ids"]), seed=3)
    before = tensors_of(ask("chain", model=BABY, step=20))[0]["logits"]  # the model itself is as it was
    assert np.array_equal(before, baby_run.model(20).context_table())
    assert not np.array_equal(before, tensors["logits"])


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({"name": "h.9.attn"}, "usage"),
        ({"at": [0, 99]}, "usage"),
        ({"at": [0]}, "usage"),
        ({"at": [0, 0, 0]}, "too_big"),
        ({"value": 1e7}, "usage"),
        ({"value": "1"}, "usage"),
        ({"more": 1}, "usage"),
    ],
)
def test_a_change_that_means_nothing_is_refused(ask, wrong, kind):
    change = {"name": "wte.weight", "at": [0, 0], "value": 0.5} | wrong
    refused(ask("chain", model=BABY, step=20, change=change), {"usage": 400, "too_big": 413}[kind], kind)


def test_weights_of_large_models_and_of_none_are_not_changed(monkeypatch, ask):
    change = {"name": "wte.weight", "at": [0, 0], "value": 0.5}
    refused(ask("landscape", model=BABY, plane="path", seed=0, change=change), 400, "usage")
    refused(ask("chain", model="plain", change=change), 501, "usage")
    refused(ask("weights", model="plain", want=[]), 501, "usage")
    monkeypatch.setattr(models, "MAX_CHANGEABLE", 10_000)
    refused(ask("next", model=BABY, ids=[1], change=change), 413, "too_big")
    refused(ask("weights", model=BABY, want=["wte.weight"]), 413, "too_big")


def test_nothing_is_sent_that_was_not_wanted(ask):
    assert tensors_of(ask("trace", model=BABY, ids=[1, 0], want=["residual_norms"]))[0].keys() == {"residual_norms"}


@pytest.mark.parametrize("head", [0, 3])
def test_the_steps_of_a_head_are_the_models(ask, baby_run, head):
    want = [f"head:2.{head}", "attention:1"]
    tensors, _ = tensors_of(ask("trace", model=BABY, step=20, ids=[1, 0, 1], want=want))
    found = trace(baby_run.model(20), [1, 0, 1], Want(attention=(1, 2), heads=(2,)))
    steps = {"queries": found.queries, "keys": found.keys, "values": found.values, "scores": found.scores}
    steps |= {"weights": found.attention[1:], "mix": found.mixes, "written": found.written}
    assert tensors.keys() == {"attention:1"} | {f"head:2.{head}:{name}" for name in steps}
    for name, value in steps.items():
        assert np.array_equal(tensors[f"head:2.{head}:{name}"], value[0, head]), name
    assert np.array_equal(tensors["attention:1"], found.attention[0])


def test_heads_that_share_keys_are_sent_those_that_they_read_and_alibi_its_slope(ask, grouped):
    want = [f"head:1.{head}" for head in range(4)]
    tensors, _ = tensors_of(ask("trace", model="grouped", ids=[1, 4, 2], want=want))
    ahead = np.triu(np.full((3, 3), -np.inf), 1)
    for head, slope in enumerate([1 / 4, 1 / 16, 1 / 64, 1 / 256]):
        of = {name.rsplit(":", 1)[1]: value for name, value in tensors.items() if name.startswith(f"head:1.{head}:")}
        assert of["slope"].tolist() == [slope]
        assert np.allclose(of["queries"] @ of["keys"].T / 2, of["scores"], atol=1e-6)  # heads are 4 wide
        lowered = of["scores"] - slope * np.subtract.outer(range(3), range(3)) + ahead
        assert np.allclose(np.exp(log_softmax(lowered)), of["weights"], atol=1e-6)
        assert np.allclose(of["weights"] @ of["values"], of["mix"], atol=1e-6)
        assert np.allclose(of["mix"] @ grouped.h[1].attn.c_proj.weight.detach().numpy().T[4 * head : 4 * head + 4],
                           of["written"], atol=1e-6)  # fmt: skip
    assert np.array_equal(tensors["head:1.0:keys"], tensors["head:1.1:keys"])
    assert not np.array_equal(tensors["head:1.1:keys"], tensors["head:1.2:keys"])


def test_long_texts_have_small_pictures_of_means():
    pictures = np.random.default_rng(1).random((2, 50, 50))
    small = mean_pooled(pictures, 32)
    edges = [i * 50 // 32 for i in range(33)]
    for i, j in [(0, 0), (5, 17), (31, 31)]:
        part = pictures[:, edges[i] : edges[i + 1], edges[j] : edges[j + 1]]
        assert small[:, i, j] == pytest.approx(part.mean(axis=(1, 2)), rel=1e-6)


def test_thumbs_are_the_same_however_many_layers_are_looked_at_together(monkeypatch, baby_run):
    together = thumbs(baby_run.model(), [1, 0, 1])
    monkeypatch.setattr("glassgpt.serving.inside.NUMBERS_AT_ONCE", 1)
    assert np.array_equal(thumbs(baby_run.model(), [1, 0, 1]), together) and together.shape == (4, 4, 3, 3)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "attention",
            "attention:",
            "attention:4",
            "attention:-1",
            "lens:0",
            "lens:3",
            "mlp:x",
            "lens:²",
            "everything",
        ),
        *("head", "head:0", "head:4.0", "head:0.4", "head:1.mlp", "head:1.²", "head:-1.0", "head:1.0.0"),
        *("off", "off:", "off:4.0", "off:0.4", "off:1.MLP", "off:1.²", "logits:1"),
    ],
)
def test_what_cannot_be_wanted_is_refused(ask, name):
    refused(ask("trace", model=BABY, ids=[1], want=[name]), 400, "usage")


def test_a_model_that_is_no_gpt_has_no_inside(ask):
    refused(ask("trace", model="plain", ids=[1], want=["embeddings"]), 501, "usage")
    refused(ask("neighbours", model="six", text="a"), 501, "usage")


def test_a_trace_is_of_one_window(ask):
    refused(ask("trace", model=BABY, ids=[1, 0, 1, 1], want=["embeddings"]), 413, "too_big")


@pytest.mark.parametrize("part", ["1.0", "0.mlp"])
def test_a_part_can_be_switched_off(ask, six, part):
    """The same logits as from weights with which it has nothing to write."""
    ids = [1, 4, 2, 0]
    tensors, _ = tensors_of(ask("trace", model="tiny", ids=ids, want=["logits", f"off:{part}"]))
    model = copy.deepcopy(six)
    assert np.allclose(tensors["logits"], model.next_token_logits([ids])[0], atol=1e-5)
    with torch.no_grad():
        if part == "1.0":
            model.h[1].attn.c_proj.weight[:, :4] = 0
        else:
            for parameter in model.h[0].mlp.c_proj.parameters():
                parameter.zero_()
    assert tensors.keys() == {"logits", f"off:{part}"}
    assert np.allclose(tensors[f"off:{part}"], model.next_token_logits([ids])[0], atol=1e-5)
    assert not np.allclose(tensors[f"off:{part}"], tensors["logits"], atol=1e-3)


def test_one_part_at_a_time(ask):
    refused(ask("trace", model=BABY, ids=[1], want=["off:0.0", "off:0.1"]), 400, "usage")


def test_every_part_is_switched_off_in_one_job(client, ask, six):
    ids = [1, 4, 2, 0]
    job = says(ask("ablations", model="tiny", ids=ids))["job"]
    *told, done = events_of(client.get(f"/api/v1/jobs/{job}/events").text)
    assert done == ("done", {"n": 6, "of": 6})
    found, seen = ablations(six, ids), []
    for name, data in told:
        assert name == "parts" and data["of"] == 6
        for part, js, kl in zip(data["parts"], data["js_nats"], data["kl_nats"], strict=True):
            layer, head = part.split(".")
            at = (int(layer),) if head == "mlp" else (int(layer), int(head))
            heads_or_mlps = (found.mlps, found.mlps_kl) if head == "mlp" else (found.heads, found.heads_kl)
            assert (js, kl) == pytest.approx(tuple(one[at] for one in heads_or_mlps), rel=1e-4, abs=1e-9)
            seen.append(part)
        assert data["n"] == len(seen)
    assert seen == ["0.0", "0.1", "0.mlp", "1.0", "1.1", "1.mlp"] and found.heads.max() > 1e-4


def test_the_ablations_of_a_model_without_heads_or_of_a_long_text_are_refused(ask, six):
    refused(ask("ablations", model="plain", ids=[1]), 501, "usage")
    refused(ask("ablations", model=BABY, ids=[1, 0, 1, 1]), 413, "too_big")
    refused(ask("ablations", model="tiny", ids=[]), 400, "usage")
    refused(ask("ablations", model="tiny", ids=[1], off="0.0"), 400, "usage")


def test_ablations_stop_where_nobody_waits_for_them(api, ask, client, monkeypatch, six):
    """After the first parts the job is dropped: the second are never begun."""
    asked, has_begun, may_go_on = [], threading.Event(), threading.Event()

    def slowly(model, tokens, parts):
        for some in (parts[:1], parts[1:]):
            asked.append(some)
            has_begun.set()
            assert may_go_on.wait(20)
            yield some, np.zeros((len(some), 6), dtype=np.float32)

    monkeypatch.setattr("glassgpt.serving.inside.without", slowly)
    name = says(ask("ablations", model="tiny", ids=[1, 2]))["job"]
    job = api.jobs[name]
    assert has_begun.wait(20)
    assert says(client.delete(f"/api/v1/jobs/{name}")) == {"job": name}
    may_go_on.set()
    with pytest.raises(Cancelled):
        job.answer.result(20)
    assert len(asked) == 1


# ---- meaning ---------------------------------------------------------------------------------------------------------


def test_a_path_goes_on_greedily_and_its_fans_are_the_next_tokens(ask, six):
    told = says(ask("project", model="tiny", ids=[1, 4], steps=5, top=3))
    text = generate(six, [1, 4], 5, temperature=0)
    assert [point["id"] for point in told["path"]] == [4, *text] and told["points"] == []
    assert len(told["fans"]) == 5 and all(len(fan) == 3 for fan in told["fans"])
    for i, fan in enumerate(told["fans"]):
        p = softmax(six.next_token_logits([[1, 4, *text[:i]]])[0])
        assert [point["prob"] for point in fan] == pytest.approx(sorted(p, reverse=True)[:3], rel=1e-4)
        assert fan[0]["id"] == text[i]
        assert fan[0]["xyz"] == pytest.approx(told["path"][i + 1]["xyz"], abs=1e-5)  # the one that was written
    assert 0 < sum(told["explained"]) <= 1 + 1e-9 and sorted(told["explained"], reverse=True) == told["explained"]


def test_a_path_lies_where_the_last_layer_puts_the_text(ask, six):
    told = says(ask("project", model="tiny", ids=[1], steps=3, top=1))
    text = [1, *[point["id"] for point in told["path"][1:]]]
    with torch.inference_mode():
        states = six.hidden(torch.tensor([text]))[0].numpy().astype(np.float64)
    seen = np.array([point["xyz"] for point in told["path"]])
    for i in range(4):
        for j in range(4):  # four places lie in three dimensions: no distance is lost
            assert np.linalg.norm(seen[i] - seen[j]) == pytest.approx(np.linalg.norm(states[i] - states[j]), abs=1e-5)


def test_past_the_window_a_text_stands_where_its_end_does(ask, six):
    """Nothing jumps: what fits into the window and what doesn't are computed alike."""
    fits = says(ask("project", model="tiny", ids=[1, 4], steps=10, top=2))
    slides = says(ask("project", model="tiny", ids=[1, 4], steps=11, top=2))
    text = [1, 4, *[point["id"] for point in slides["path"][1:]]]
    assert text[2:] == generate(six, [1, 4], 11, temperature=0) and len(text) == 13 > six.context_length
    assert [point["id"] for point in fits["path"]] == [point["id"] for point in slides["path"]][:-1]
    with torch.inference_mode():
        states = np.stack([six.hidden(torch.tensor([text[:n][-12:]]))[0, -1].numpy() for n in range(2, 14)])
    view = widest_view(states.astype(np.float64), np.empty((0, 8)))
    assert np.allclose([point["xyz"] for point in slides["path"]], view(states), atol=1e-5)
    for i, fan in enumerate(slides["fans"]):
        p = softmax(six.next_token_logits([text[: i + 2]])[0])
        assert [point["prob"] for point in fan] == pytest.approx(sorted(p, reverse=True)[:2], rel=1e-4)
        assert fan[0]["xyz"] == pytest.approx(slides["path"][i + 1]["xyz"], abs=1e-5)


def test_a_word_of_several_tokens_lies_in_their_midst(ask, six):
    told = says(ask("project", model="tiny", words=["a", "b", "aa", "ba"]))
    a, b, twice, both = (np.array(point["xyz"]) for point in told["points"])
    assert [point["id"] for point in told["points"]] == [1, 2, None, None]
    assert np.allclose(twice, a, atol=1e-9) and np.allclose(both, (a + b) / 2, atol=1e-9)
    rows = embedding_rows(six).astype(np.float64)
    found = says(ask("neighbours", model="tiny", text="ba", n=6))
    midst = (rows[1] + rows[2]) / 2
    cosines = rows @ midst / np.linalg.norm(rows, axis=1) / np.linalg.norm(midst)
    assert found["id"] is None and {near["id"] for near in found["neighbours"]} == {0, 3, 4, 5}
    for near in found["neighbours"]:
        assert near["cosine"] == pytest.approx(cosines[near["id"]], abs=1e-6)


def test_words_keep_their_distances_where_nothing_is_lost(ask, baby_run):
    told = says(ask("project", model=BABY, words=["0", "1"]))
    rows = embedding_rows(baby_run.model()).astype(np.float64)
    zero, one = (np.array(point["xyz"]) for point in told["points"])
    assert np.linalg.norm(one - zero) == pytest.approx(np.linalg.norm(rows[1] - rows[0]), abs=1e-9)
    assert [(point["id"], point["text"]) for point in told["points"]] == [(0, "0"), (1, "1")]
    assert told["path"] == told["fans"] == [] and told["explained"] == pytest.approx([1, 0, 0], abs=1e-9)


def test_the_first_axis_may_lead_from_word_to_word(ask, six):
    told = says(ask("project", model="tiny", words=["a", "b", "ab"], axes=["a", "b"]))
    a, b, ab = (point["xyz"] for point in told["points"])
    rows = embedding_rows(six).astype(np.float64)
    axis = (rows[2] - rows[1]) / np.linalg.norm(rows[2] - rows[1])
    assert b[0] - a[0] == pytest.approx(np.linalg.norm(rows[2] - rows[1]), rel=1e-6)
    assert ab[0] - a[0] == pytest.approx((rows[0] - rows[1]) @ axis, rel=1e-5)
    assert a[1] == pytest.approx(b[1], abs=1e-9)
    refused(ask("project", model=BABY, words=["0", "1"], axes=["0", "0"]), 400, "usage")
    refused(ask("project", model=BABY, words=["0", "1"], axes=["0"]), 400, "usage")


def test_a_projection_is_of_words_or_of_a_text(ask):
    refused(ask("project", model=BABY), 400, "usage")
    refused(ask("project", model=BABY, words=["0"], ids=[0]), 400, "usage")
    refused(ask("project", model=BABY, words=["0", ""]), 400, "usage")
    refused(ask("project", model=BABY, words=["2"]), 400, "usage")
    assert says(ask("project", model=BABY, words=["0"]))["explained"] == [0, 0, 0]


def test_neighbours_point_the_same_way(ask, six):
    told = says(ask("neighbours", model="tiny", text="a", n=3))
    rows = embedding_rows(six).astype(np.float64)
    cosines = rows @ rows[1] / np.linalg.norm(rows, axis=1) / np.linalg.norm(rows[1])
    order = [i for i in np.argsort(-cosines) if i != 1][:3]
    assert (told["id"], told["text"]) == (1, "a")
    assert [near["id"] for near in told["neighbours"]] == order
    assert [near["cosine"] for near in told["neighbours"]] == pytest.approx(cosines[order].tolist(), abs=1e-6)
