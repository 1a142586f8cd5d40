"""`glassgpt doctor`: what it finds, what it remembers, and what load makes of it."""

import json

import numpy as np
import pytest

from glassgpt.cli import doctor
from glassgpt.cli.main import main
from glassgpt.interface import LanguageModel
from glassgpt.models import native
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.weights import machine as facts


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A doctor who works on a small model, for a moment, and keeps notes in a folder of his own."""
    monkeypatch.setenv("GLASSGPT_CACHE", str(tmp_path))
    monkeypatch.setattr(doctor, "SECONDS", 0.02)
    monkeypatch.setattr(doctor, "WORTH_REMEMBERING", 0)
    model = GPT(GPTConfig(40, 64, 2, 2, 32))
    tokens = np.random.default_rng(0).integers(0, 40, 40)
    monkeypatch.setattr(doctor, "subject_of", lambda ref: (model, tokens))
    facts.machine.cache_clear()
    yield model
    facts.machine.cache_clear()


def examined(capsys):
    assert main(["doctor", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_way_is_tried_against_float64_and_the_sound_ones_are_called_safe(small, capsys):
    found = examined(capsys)
    ways = {row["way"]: row for row in found["ways"]}
    assert ways["torch, float32"]["safe"]
    assert ways["torch, float32"]["worst_error"] < 1e-4
    assert ways["torch, float32"]["mean_kl"] < ways["torch, bfloat16"]["mean_kl"]
    if native.why_not() is None:
        assert ways["engine, float32"]["safe"]
        assert ways["engine, float32"]["mean_kl"] < ways["engine, int8"]["mean_kl"] < ways["engine, int4"]["mean_kl"]
    assert found["fastest"] in ways


def test_a_way_that_answers_nonsense_is_not_called_safe(small, capsys, monkeypatch):
    class Nonsense(LanguageModel):
        vocab_size, context_length = small.vocab_size, small.context_length

        def next_token_logits(self, contexts):
            return -np.asarray(small.next_token_logits(contexts)) * 3

    wrong = doctor.Way("another device", "float32", Nonsense)
    right = doctor.ways
    monkeypatch.setattr(doctor, "ways", lambda subject, compiled: [*right(subject, compiled), wrong])
    found = examined(capsys)
    assert "another device" in found["unsafe"]
    assert found["fastest"] != "another device"


def test_a_way_that_fails_is_told_with_its_reason(small, capsys, monkeypatch):
    def fails():
        raise RuntimeError("no such instruction\nand more")

    right = doctor.ways
    monkeypatch.setattr(doctor, "ways", lambda *args: [*right(*args), doctor.Way("broken", "float32", fails)])
    (broken,) = (row for row in examined(capsys)["ways"] if row["way"] == "broken")
    assert not broken["works"]
    assert broken["reason"] == "no such instruction"


def test_what_was_found_is_remembered_for_this_machine_alone(small, capsys, tmp_path):
    before = facts.machine()
    found = examined(capsys)
    kept = facts.machine()
    assert kept.native == found["load_uses_engine"]
    assert kept.fast_bfloat16 == found["prompts_in_bfloat16"]
    assert kept.threads == found["engine_threads"]
    content = json.loads((tmp_path / "doctor.json").read_text())
    (tmp_path / "doctor.json").write_text(json.dumps(content | {"key": "another machine"}))
    facts.machine.cache_clear()
    assert facts.machine() == before


@pytest.mark.parametrize("content", ["", "{", "[]", '{"native": true}', '{"key": "k", "threads": "many"}', "\x00"])
def test_broken_notes_are_as_good_as_none(small, tmp_path, content):
    before = facts.machine()
    (tmp_path / "doctor.json").write_text(content)
    facts.machine.cache_clear()
    assert facts.machine() == before


def test_the_table_is_for_a_person(small, capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "torch, float32" in out
    assert "The fastest safe way here" in out


def test_a_model_too_short_to_try_is_refused(baby_run, capsys):
    assert main(["doctor", "no/such/model@3"]) == 1
    assert "no/such/model" in capsys.readouterr().err


def test_the_baby_gpt_can_be_examined_too(baby_run, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("GLASSGPT_CACHE", str(tmp_path))
    monkeypatch.setattr(doctor, "SECONDS", 0.01)
    facts.machine.cache_clear()
    code = main(["doctor", str(baby_run.path), "--json"])
    facts.machine.cache_clear()
    captured = capsys.readouterr()
    assert code == 0, captured.err
    assert json.loads(captured.out)["fastest"]
    assert not (tmp_path / "doctor.json").exists(), "a tiny model tells nothing of this machine"
