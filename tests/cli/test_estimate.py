"""`glassgpt estimate`: a table for a person, one object for a script."""

import json
from pathlib import Path

from glassgpt.cli.main import main

BABY = str(Path(__file__).parents[2] / "recipes" / "baby.toml")


def test_a_person_is_told_parameters_memory_disk_and_time(capsys):
    assert main(["estimate", BABY]) == 0
    told = capsys.readouterr().out
    for part in ("12,656", "36 a step, 1,800 in 50 steps", "that are free", "s a step (measured", "checkpoints"):
        assert part in told


def test_json_is_one_object_whose_gaps_have_reasons(capsys):
    assert main(["estimate", BABY, "--json", "--set", "train.steps=0"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] == 12_656 and found["fits"] and found["memory_bytes"]["peak"] > 0
    assert found["seconds"] is None and "no steps" in found["seconds_note"]
