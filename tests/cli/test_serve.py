"""`glassgpt serve`: where it listens, what it refuses, and that Ctrl-C ends it."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import webbrowser
from contextlib import closing

import pytest

from glassgpt.cli import serve
from glassgpt.errors import DamagedFileError, GlassGPTError, UsageError
from glassgpt.serving import server

RUN = """
import sys
from glassgpt.cli import main
main.COMMANDS.setdefault("serve", "the page")
sys.exit(main.main(["serve", *sys.argv[1:]]))
"""


def args_of(*arguments):
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    return parser.parse_args(arguments)


@pytest.fixture
def served(monkeypatch):
    """What the server is given instead of being run."""
    given = {}

    def remember(sources, doors, sock, on_start):
        given.update(sources=sources, doors=doors, port=sock.getsockname()[1])
        on_start()

    monkeypatch.setattr(server, "serve", remember)
    return given


def test_without_a_model_there_is_the_baby(served, capsys):
    assert serve.run(args_of("--no-open", "--port", "0")) == 0
    (source,) = served["sources"]
    assert source.config.n_parameters == 12_656 and served["doors"].host == "127.0.0.1"
    assert f"http://127.0.0.1:{served['port']}/" in capsys.readouterr().err


def test_models_are_looked_at_before_anything_is_served(served, baby_run, tmp_path):
    serve.run(args_of("--no-open", "--port", "0", str(baby_run.path), f"{baby_run.path}@7"))
    whole, at_seven = served["sources"]
    assert (whole.step, at_seven.step) == (None, 7) and whole.steps == list(range(51))
    with pytest.raises(DamagedFileError, match="there is no"):
        serve.run(args_of("--no-open", "--port", "0", str(tmp_path / "nothing")))
    with pytest.raises(UsageError, match="keeps no step 99"):
        serve.run(args_of("--no-open", "--port", "0", f"{baby_run.path}@99"))


def test_other_machines_are_not_let_in_without_a_key(served):
    with pytest.raises(UsageError, match="--key"):
        serve.run(args_of("--no-open", "--port", "0", "--host", "0.0.0.0"))
    assert not served
    serve.run(args_of("--no-open", "--port", "0", "--host", "0.0.0.0", "--key", "correct-horse"))
    assert served["doors"].key == "correct-horse"


def test_where_the_usual_port_is_taken_a_free_one_is_found(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(serve, "PORT", taken.getsockname()[1])
        with serve.listening("127.0.0.1", None) as sock:
            assert sock.getsockname()[1] not in (0, serve.PORT)
        with pytest.raises(GlassGPTError, match="another --port"):
            serve.listening("127.0.0.1", serve.PORT)


@pytest.mark.parametrize("port", ["-1", "65536"])
def test_a_port_that_is_none_is_refused(served, port):
    with pytest.raises(UsageError, match="--port"):
        serve.run(args_of("--port", port))


def test_a_host_that_is_not_here_is_refused(served):
    with pytest.raises(GlassGPTError, match="--host"):
        serve.run(args_of("--no-open", "--port", "0", "--host", "192.0.2.1", "--key", "correct-horse"))


def test_a_browser_is_opened_only_where_there_is_a_screen(monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    serve.open_browser("http://localhost/")
    assert not opened
    monkeypatch.setenv("DISPLAY", ":0")
    thread = serve.open_browser("http://localhost/")
    thread.join(5)
    assert opened == ["http://localhost/"]


def test_help_needs_no_torch():
    code = (
        f"import sys\nsys.argv.append('--help')\ntry:\n    exec({RUN!r})\nexcept SystemExit:\n    pass\n"
        "print({'torch', 'starlette', 'uvicorn', 'numpy'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "--no-open" in done.stdout and done.stdout.endswith("set()\n"), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, -signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_signal_ends_it_cleanly(number, code):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", RUN, "--port", "0", "--no-open"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        first = process.stderr.readline()
        port = int(re.search(r"http://127\.0\.0\.1:(\d+)/", first).group(1))
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
            connection.request("GET", "/api/v1/info")
            with connection.getresponse() as response:
                assert json.loads(response.read())["models"][0]["n_states"] == 8
        process.send_signal(number)
        _, rest = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == code
    assert rest == ("glassgpt serve: stopped by Ctrl-C\n" if number == signal.SIGINT else "")
