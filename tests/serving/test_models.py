"""What is served: read when it is first asked, with its words, its ends and its steps, from any kind of reference."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import numpy as np
import pytest
from tests.serving.asking import SIX, Syllables, Visit, as_json, source_in_memory, until

import glassgpt
from glassgpt.errors import DamagedFileError, UsageError
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.serving.api import Api
from glassgpt.serving.app import create_app
from glassgpt.serving.asked import Asked
from glassgpt.serving.generation import Writing
from glassgpt.serving.models import Models
from glassgpt.serving.names import Names
from glassgpt.serving.refusals import Refusal
from glassgpt.serving.sources import source_of
from glassgpt.text.bpe import BYTE_SYMBOLS, SPLITTINGS, BPETokenizer
from glassgpt.weights.hf_folder import export_hf
from glassgpt.weights.tensors import tensors_of

WORDS = {symbol: byte for byte, symbol in enumerate(BYTE_SYMBOLS)} | {"th": 256, "the": 257, "Ġthe": 258}
MERGES = [("t", "h"), ("th", "e"), ("Ġ", "the")]
END = 259
CONFIG = GPTConfig(260, 8, 1, 2, 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Hugging Face folder of a GPT with byte-level words."""
    made = tmp_path_factory.mktemp("folders") / "The Model, v1"
    words = BPETokenizer(WORDS, MERGES, SPLITTINGS["gpt-2"], {"<|endoftext|>": END}, {}, Path("words"))
    export_hf(made, CONFIG, tensors_of(GPT(CONFIG, seed=1)), words, end_tokens=(END,))
    return made


@pytest.fixture
def models():
    models = Models()
    yield models
    models.close()
    models.wait_until_closed()


def answer(served, work):
    return served.submit(work).answer.result(30)


def test_a_folder_is_the_model_that_load_gives(folder, models):
    served = models.add(source_of(str(folder)))
    model, tokenizer = glassgpt.load(folder)
    assert served.id == "the-model-v1" and served.source.kind == "model" and served.source.ends == {END}
    ids = served.names.encode("the end of the é")
    assert ids == tokenizer.encode("the end of the é")
    mine = answer(served, lambda: served.model().next_token_logits([ids[-8:]]))
    assert mine.tobytes() == model.next_token_logits([ids[-8:]]).tobytes()


def test_special_tokens_and_halves_of_characters_have_names(folder, models):
    names = models.add(source_of(str(folder))).names
    assert (names[END], names.bytes_of(END)) == ("<|endoftext|>", b"")
    assert (names[258], names.bytes_of(258)) == (" the", b" the")
    (first, second) = names.encode("é")
    assert "\ufffd" not in names[first] and names.bytes_of(first) + names.bytes_of(second) == "é".encode()
    assert END not in names.encode("<|endoftext|>")
    assert len(names.all_of_them()) == 260


def test_rows_that_no_word_stands_for_have_numbers_for_names():
    names = Names(Syllables(), 9)
    assert names[7] == "[7]" and names.bytes_of(7) == b""
    with pytest.raises(Refusal, match="no tokenizer"):
        Names(None, 9).encode("a")


def test_a_text_ends_with_the_models_end(folder, models):
    served = models.add(source_of(str(folder)))
    writing = Writing.asked(Asked({"ids": [1], "temperature": 1, "max_new_tokens": 2000, "seed": 1, "top": 0}), 260)
    done = answer(served, lambda: writing.written(served, None))
    assert done["reason"] == "stop" and done["ids"][-1] == END and END not in done["ids"][:-1]
    assert done["text"] == served.names.tokenizer.decode(done["ids"][:-1])


def test_nothing_is_read_before_it_is_asked_and_then_one_hears_how_far_it_is(folder, models):
    served = models.add(source_of(str(folder)))
    assert served.state() == ("ready", "its weights are read when it is first asked")
    heard = []

    plain = served.source.read

    def read(step, progress):
        def telling(done, total):
            progress(done, total)
            heard.append((done, total, served.state()))

        return plain(step, telling)

    object.__setattr__(served.source, "read", read)
    answer(served, served.model)
    done = [n for n, _, _ in heard]
    assert done == sorted(done) and done[-1] == CONFIG.n_parameters == heard[0][1]
    assert all(state[0] == "loading" for _, _, state in heard)
    assert heard[0][2][1] == f"{done[0]:,} of {CONFIG.n_parameters:,} parameters are read"
    assert served.state() == ("ready", "")


def test_what_can_not_be_read_is_an_error_until_it_can(folder, models, tmp_path):
    served = models.add(source_in_memory(SIX, Syllables(), "six"))
    broken = [True]

    def read(step, progress):
        if broken:
            raise DamagedFileError("model.safetensors is gone: restore it")
        return SIX

    object.__setattr__(served.source, "read", read)
    with pytest.raises(DamagedFileError):
        answer(served, served.model)
    assert (
        served.state()
        == ("error", "model.safetensors is gone: restore it")
        == tuple(served.about()[key] for key in ("state", "message"))
    )
    broken.clear()
    assert answer(served, served.model) is SIX and served.state() == ("ready", "")


def test_a_page_hears_of_loading_while_it_waits(models):
    served = models.add(source_in_memory(SIX, None, "six"))
    gate = threading.Event()

    def read(step, progress):
        progress(3, 10)
        assert gate.wait(20)
        return SIX

    object.__setattr__(served.source, "read", read)
    app = create_app(Api(models))

    async def asking():
        waiting = Visit(app, "/api/v1/next", {"model": "six", "ids": [1]})
        task = asyncio.create_task(waiting.run())
        await until(lambda: served.state()[0] == "loading" and served.state()[1].startswith("3"))
        info = Visit(app, "/api/v1/info", method="GET")
        await asyncio.wait_for(info.run(), 5)
        gate.set()
        await asyncio.wait_for(task, 5)
        return as_json(info.text)["models"][0], waiting.sent[0]["status"]

    told, status = asyncio.run(asking())
    assert (told["state"], told["message"], status) == ("loading", "3 of 10 parameters are read", 200)


def test_a_runs_step_may_be_in_its_name(baby_run, models):
    served = models.add(source_of(f"{baby_run.path}@7"))
    model = answer(served, served.model)
    assert np.array_equal(model.context_table(), baby_run.model(7).context_table())
    assert np.array_equal(answer(served, lambda: served.model(3)).context_table(), baby_run.model(3).context_table())


def test_only_so_many_steps_stay_in_memory(baby_run, models, monkeypatch):
    monkeypatch.setattr("glassgpt.serving.models.NUMBERS_KEPT", 3 * 12_656)
    served = models.add(source_of(str(baby_run.path)))

    def look():
        first = served.model(0)
        for step in (1, 0, 2, 0, 3):
            served.model(step)
        return first is served.model(0), list(served._models)

    assert answer(served, look) == (True, [2, 3, 0])


def test_two_of_one_name_have_two_ids(models, baby_run):
    sources = [source_of(str(baby_run.path)), source_of(f"{baby_run.path}@7")]
    assert [models.add(source).id for source in sources] == ["baby", "baby-2"]
    assert models.add(source_in_memory(SIX, None, "!?")).id == "model"


@pytest.mark.parametrize("ref", ["", "no/such/folder", "nothing-here", "/etc/passwd"])
def test_a_reference_to_nothing_is_refused_at_once(ref):
    with pytest.raises((DamagedFileError, UsageError)):
        source_of(ref)


def test_a_model_that_writes_no_text_is_refused(monkeypatch, baby_run):
    import dataclasses

    from glassgpt.serving import sources

    bundle = dataclasses.replace(baby_run.bundle(), head="reward")
    monkeypatch.setattr(sources, "open_model", lambda ref: bundle)
    with pytest.raises(UsageError, match="reward"):
        source_of("anything")


def test_what_is_added_after_the_end_does_no_work():
    models = Models()
    models.close()
    served = models.add(source_in_memory(SIX, None, "six"))
    with pytest.raises(Refusal):
        served.submit(lambda: 1)
    models.wait_until_closed()
