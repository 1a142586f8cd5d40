"""The tour ends in the page, which shows the model that it has trained."""

import json
import re
import signal
import subprocess
import sys
import urllib.request

import pytest


@pytest.mark.slow
def test_the_tour_serves_its_model_until_it_is_stopped(tmp_path):
    words = [sys.executable, "-m", "glassgpt", "tour", "--out", "out"]
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            said = ""
            while (found := re.search(r"GlassGPT is at (http://127\.0\.0\.1:\d+/)", said)) is None:
                line = process.stderr.readline()
                assert line, said
                said += line
            with urllib.request.urlopen(found[1] + "api/v1/info") as answer:
                (model,) = json.load(answer)["models"]
            assert model["n_parameters"] == 12_656 and model["n_states"] == 8 and model["steps"][-1] == 50
            with urllib.request.urlopen(found[1]) as answer:
                assert "GlassGPT" in answer.read().decode()
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()
    assert (tmp_path / "out" / "report.json").exists()


@pytest.mark.slow
def test_a_tour_without_the_page_ends_by_itself(tmp_path):
    words = [sys.executable, "-m", "glassgpt", "tour", "--out", "out", "--no-page"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0 and "GlassGPT is at" not in done.stderr, done.stderr
