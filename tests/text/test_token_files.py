"""Prepared text: what is read back is what was there, in windows that follow from seed and step alone."""

import json
import math
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassgpt.errors import DamagedFileError, GlassGPTError, UnsupportedError, UsageError, WriteError
from glassgpt.text import documents
from glassgpt.text import prepare as preparing
from glassgpt.text.character import CharacterTokenizer
from glassgpt.text.cleaning import CleanedSources, Cleaning
from glassgpt.text.documents import Document, Source
from glassgpt.text.mixture import Mixture
from glassgpt.text.parentheses import Parentheses
from glassgpt.text.prepare import prepare
from glassgpt.text.sources import Files
from glassgpt.text.split import Split
from glassgpt.text.token_files import ROUNDS, TokenFiles, TokenPart, permuted
from glassgpt.text.toy_world import ToyWorld, ToyWorldSource
from glassgpt.text.vocabulary import KINDS, Vocabulary, byte_tokenizer

BYTES = Vocabulary("bytes")


class Listed(Source):
    name = "listed"

    def __init__(self, *texts):
        self.texts = texts

    def documents(self):
        for text in self.texts:
            yield text if isinstance(text, Document) else Document(text)

    def identity(self):
        return {"texts": repr(self.texts)}


def text_of(part, tokenizer):
    return tokenizer.decode(part.tokens)


# --- What is written --------------------------------------------------------------------------------------------------


def test_documents_are_followed_by_an_end_and_counted(tmp_path):
    files = prepare(Listed("ab", "é", "cd"), BYTES, tmp_path / "t", split=Split("position", 0.2))
    assert files.train.tokens.tolist() == [*b"ab", 256, *"é".encode(), 256, *b"c"]
    assert files.validation.tokens.tolist() == [*b"d", 256]
    assert files.train.starts.tolist() == [0, 3, 6]
    assert files.validation.starts.tolist() == [0]
    assert files.train.tokens.dtype == np.dtype("<u2")
    assert (files.train.n_bytes, files.validation.n_bytes) == (5, 1)
    assert files.end_token == 256
    assert files.manifest["parts"]["train"] == {"documents": 3, "tokens": 7, "bytes": 5}
    assert files.manifest["sources"][0]["epochs"] == 1.0


def test_characters_get_a_text_between_documents(tmp_path):
    files = prepare(
        Listed("ab", "ba"), Vocabulary("characters"), tmp_path / "t", split=Split("document", 0), between="|"
    )
    assert text_of(files.train, files.tokenizer) == "ab|ba"
    assert files.train.starts.tolist() == [0, 3]
    assert files.tokenizer.symbols == "ab|"
    assert files.validation is None
    assert files.end_token is None
    single = prepare(Listed("ab"), Vocabulary("characters"), tmp_path / "u", split=Split("document", 0))
    assert single.tokenizer.symbols == "ab"


def test_the_first_nine_tenths_train_as_in_nanogpt(tmp_path):
    text = "".join(ToyWorld().document(i) for i in range(50))
    files = prepare(Listed(text), Vocabulary("characters"), tmp_path / "t")
    assert text_of(files.train, files.tokenizer) == text[: int(0.9 * len(text))]
    assert text_of(files.validation, files.tokenizer) == text[int(0.9 * len(text)) :]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by", ["document", "position"])
def test_nothing_is_lost_with_any_vocabulary(tmp_path, kind, by):
    source = ToyWorldSource(ToyWorld(), 40_000)
    files = prepare(source, Vocabulary(kind, 500), tmp_path / "t", split=Split(by, 0.2), between="\n")
    n_characters = sum(len(document.text) for document in source.documents())
    for part in (files.train, files.validation):
        ids = part.tokens.astype(int)
        pieces = np.split(ids, part.starts[1:].astype(int))
        texts = [files.tokenizer.decode(piece) for piece in pieces]
        mine = [
            document.text
            for name, document in Split(by, 0.2).parts(source.documents(), n_characters)
            if name == part.name
        ]
        assert [text.removesuffix("\n") for text in texts] == [text.removesuffix("\n") for text in mine]
        assert part.n_bytes == sum(len(files.tokenizer.token_bytes(int(token))) for token in ids)
        assert part.n_documents == len(mine)
    assert files.tokenizer.vocab_size == files.manifest["vocab_size"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_text_in_parts_has_the_tokens_of_the_whole(tmp_path, monkeypatch, kind):
    text = "".join(ToyWorld().document(i) + " It's 'naïve'—1,024 字。\n\n" for i in range(60))
    path = tmp_path / "long.txt"
    path.write_text(text, encoding="utf-8", newline="")
    whole = prepare(Files([path]), Vocabulary(kind, 500), tmp_path / "whole", split=Split("position", 0))
    monkeypatch.setattr(documents.split_documents, "__defaults__", (300,))
    parts = prepare(Files([path]), whole.tokenizer, tmp_path / "parts", split=Split("position", 0))
    assert parts.train.tokens.tolist() == whole.train.tokens.tolist()
    end = [] if whole.end_token is None else [whole.end_token]
    assert whole.train.tokens.tolist() == whole.tokenizer.encode(text) + end
    assert parts.train.n_documents == 1


@pytest.mark.parametrize(("size", "dtype"), [(65_536, "<u2"), (65_537, "<u4")])
def test_ids_have_two_bytes_while_they_fit(tmp_path, size, dtype):
    symbols = "".join(chr(0x20000 + i) for i in range(size))
    files = prepare(Listed(symbols[-3:]), CharacterTokenizer(symbols), tmp_path / "t", split=Split("position", 0))
    assert files.train.tokens.dtype == np.dtype(dtype)
    assert files.train.tokens.tolist() == [size - 3, size - 2, size - 1]


def test_progress_is_told(tmp_path):
    told = []
    prepare(Listed("abc", "defg"), Vocabulary("bpe", 300), tmp_path / "t", on_progress=lambda *step: told.append(step))
    halves = [(3, 7), (6, 7), (7, 7)]  # the last tenth is one character: the second document is cut
    assert told == [
        ("reading", 3, None),
        ("reading", 7, None),
        *[("learning", *half) for half in halves],
        *[("tokenising", *half) for half in halves],
    ]


def test_a_large_corpus_teaches_by_a_sample(tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "LEARN_FROM", 20_000)
    source = ToyWorldSource(ToyWorld(), 100_000)
    sampled = prepare(source, Vocabulary("bpe", 400), tmp_path / "a")
    monkeypatch.undo()
    whole = prepare(source, Vocabulary("bpe", 400), tmp_path / "b")
    assert sampled.manifest["files"]["tokenizer.json"] != whole.manifest["files"]["tokenizer.json"]
    assert sampled.train.bytes_per_token == pytest.approx(whole.train.bytes_per_token, rel=0.05)


# --- Once and for all -------------------------------------------------------------------------------------------------


def prepared(folder, text="some text that is prepared", **options):
    return prepare(Listed(text), BYTES, folder, **options)


def snapshot(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_an_unchanged_corpus_is_not_tokenised_again(tmp_path):
    prepared(tmp_path)
    before = snapshot(tmp_path)
    again = prepared(tmp_path)
    assert snapshot(tmp_path) == before
    assert text_of(again.train, again.tokenizer) == "some text that is prepa"[: len(again.train)]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"text": "another text"}, r"corpus\.sources\[0\]\.texts"),
        ({"split": Split("position", 0.2)}, r"split\.validation was 0\.1, and is 0\.2"),
        ({"between": " "}, "between"),
    ],
)
def test_another_corpus_is_noticed_and_nothing_overwritten_unasked(tmp_path, change, named):
    prepared(tmp_path)
    before = snapshot(tmp_path)
    with pytest.raises(UsageError, match=named):
        prepared(tmp_path, **change)
    assert snapshot(tmp_path) == before
    changed = prepared(tmp_path, **change, replace=True)
    assert TokenFiles.open(tmp_path).manifest == changed.manifest != json.loads(before["manifest.json"][0])


def test_a_changed_file_is_noticed(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("some notes, and then some")
    prepare(Files([path]), BYTES, tmp_path / "t")
    path.write_text("some notes, and then more")
    with pytest.raises(UsageError, match=r"corpus\.sources\[0\]\.sha256"):
        prepare(Files([path]), BYTES, tmp_path / "t")
    path.write_text("some notes, and then some")
    with pytest.raises(UsageError, match=r"vocabulary"):
        prepare(Files([path]), byte_tokenizer(), tmp_path / "t")


def test_a_file_that_grows_while_it_is_prepared_is_noticed(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("a line\n" * 100)

    def grow(stage, done, total):
        if stage == "reading":
            with path.open("a") as file:
                file.write("one more\n")

    with pytest.raises(DamagedFileError, match=r"log\.txt was changed while it was being read"):
        prepare(Files([path]), BYTES, tmp_path / "t", on_progress=grow)
    assert not (tmp_path / "t").exists() or not any((tmp_path / "t").iterdir())


def test_what_is_damaged_is_noticed_and_made_again(tmp_path):
    prepared(tmp_path)
    whole = snapshot(tmp_path)
    for name in whole:
        content = whole[name][0]
        for damaged in (b"", content[:-1], bytes([content[0] ^ 1]) + content[1:], None):
            if name == "manifest.json" and damaged == content[:-1]:
                continue  # without its last line end it says the same
            (tmp_path / name).unlink()
            if damaged is not None:
                (tmp_path / name).write_bytes(damaged)
            with pytest.raises(DamagedFileError, match=r"manifest\.json" if name == "manifest.json" else name):
                TokenFiles.open(tmp_path)
            prepared(tmp_path)
            assert {key: value[0] for key, value in snapshot(tmp_path).items()} == {k: v[0] for k, v in whole.items()}


def test_a_manifest_of_another_time_or_kind_is_refused(tmp_path):
    prepared(tmp_path)
    path = tmp_path / "manifest.json"
    content = json.loads(path.read_text())
    content["parts"]["train"]["bytes"] += 1
    path.write_text(json.dumps(content))
    with pytest.raises(DamagedFileError, match="was edited or damaged"):
        TokenFiles.open(tmp_path)
    del content["sha256"]
    content["format"] = "glassgpt-tokens-0"
    content["sha256"] = preparing.manifest_hash(content)
    path.write_text(json.dumps(content))
    with pytest.raises(DamagedFileError, match="format 'glassgpt-tokens-0'"):
        TokenFiles.open(tmp_path)
    for wrong in ("[]", "{}", "3", "{", '{"sha256": 1}'):
        path.write_text(wrong)
        with pytest.raises(DamagedFileError, match=r"manifest\.json"):
            TokenFiles.open(tmp_path)
    with pytest.raises(DamagedFileError, match="holds no prepared text"):
        TokenFiles.open(tmp_path / "nowhere")


@pytest.mark.parametrize("replace", [False, True])
def test_stopping_at_any_moment_leaves_the_old_tokens_or_none(tmp_path, monkeypatch, replace):
    """Every write, fsync and rename fails in turn, as on a full disk."""
    folder = tmp_path / "t"
    if replace:
        prepared(folder, "the old text of this folder")
    calls = 0

    def failing_at(n):
        nonlocal calls
        calls = 0

        def watch(real):
            def call(*arguments, **options):
                nonlocal calls
                calls += 1
                if calls == n:
                    raise OSError(28, "No space left on device")
                return real(*arguments, **options)

            return call

        monkeypatch.setattr(os, "fsync", watch(os.fsync))
        monkeypatch.setattr(os, "replace", watch(os.replace))
        monkeypatch.setattr(preparing.NewFile, "write", watch(preparing.NewFile.write))

    for n in range(1, 100):
        with monkeypatch.context():
            failing_at(n)
            try:
                prepared(folder, "the new text of this folder", replace=True)
                failed = False
            except (OSError, WriteError):
                failed = True
            monkeypatch.undo()
        assert not list(folder.glob(".*"))
        try:
            files = TokenFiles.open(folder)
        except DamagedFileError as error:
            assert failed
            assert "has no manifest.json" in str(error)
        else:
            text = text_of(files.train, files.tokenizer)
            assert text.startswith("the new") or (failed and replace and text.startswith("the old"))
        if not failed:
            break
        if replace:
            shutil.rmtree(folder)
            prepared(folder, "the old text of this folder")
    assert n > 8


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_killed_processes_leave_nothing_behind(tmp_path):
    code = f"""
        import os, signal
        from glassgpt.text.prepare import prepare
        from glassgpt.text.parentheses import Parentheses
        from glassgpt.text.vocabulary import Vocabulary
        def die(stage, done, total):
            if stage == "tokenising" and done > 1000:
                os.kill(os.getpid(), signal.SIGKILL)
        prepare(Parentheses(0, 500), Vocabulary("bytes"), {str(tmp_path)!r}, on_progress=die)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, timeout=60)
    assert done.returncode == -9, done.stderr
    assert len(list(tmp_path.glob(".*.partial"))) == 4
    with pytest.raises(DamagedFileError, match="holds no prepared text"):
        TokenFiles.open(tmp_path)
    prepare(Parentheses(0, 500), BYTES, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "manifest.json",
        "tokenizer.json",
        "train.bin",
        "train.starts.bin",
        "validation.bin",
        "validation.starts.bin",
    ]


# --- Windows ----------------------------------------------------------------------------------------------------------


def part_of(n, starts=(0,)):
    return TokenPart("train", np.arange(n, dtype=np.uint16), np.array(starts, dtype=np.uint64), n)


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(0, 2**64 - 1))
def test_a_permutation_sends_every_place_to_one_place(n, seed):
    keys = np.random.PCG64(seed).random_raw(ROUNDS)
    assert sorted(permuted(np.arange(n), n, keys).tolist()) == list(range(n))


def test_permutations_are_as_even_as_chance():
    n, counts = 6, np.zeros((6, 6))
    for seed in range(1200):
        order = permuted(np.arange(n), n, np.random.PCG64(seed).random_raw(ROUNDS))
        counts[np.arange(n), order] += 1
    assert np.abs(counts - 200).max() < 5 * math.sqrt(200)


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 60), st.integers(1, 20), st.integers(1, 7), st.integers(0, 5))
def test_an_epoch_sees_every_window_once_and_targets_follow_inputs(n, T, batch_size, seed):
    part = part_of(n)
    if n <= T:
        with pytest.raises(UsageError, match=f"has {n} tokens and the context {T}"):
            part.batch(0, batch_size, T, seed)
        return
    windows = part.windows_of_an_epoch(T)
    starts = np.concatenate([part.batch(step, batch_size, T, seed).starts for step in range(3 * windows)])
    for epoch in range(batch_size * 3 * windows // windows):
        mine = sorted(starts[epoch * windows : (epoch + 1) * windows].tolist())
        assert [start - mine[0] for start in mine] == [T * i for i in range(windows)]
        assert mine[-1] + T < n
        assert windows == 1 or n - windows * T < 2 * T
    batch = part.batch(1, batch_size, T, seed)
    assert batch.inputs.shape == batch.targets.shape == (batch_size, T)
    assert batch.inputs.dtype == batch.targets.dtype == np.int64
    assert (batch.targets == batch.inputs + 1).all()
    assert (batch.inputs == batch.starts[:, None] + np.arange(T)).all()


def test_a_batch_follows_from_seed_and_step_alone():
    part = part_of(5000)
    one = part.batch(1234, 8, 16, seed=7).starts.tolist()
    assert one == part.batch(1234, 8, 16, seed=7).starts.tolist() == [2398, 3678, 3934, 4974, 1390, 4814, 2734, 2526]
    assert one != part.batch(1235, 8, 16, seed=7).starts.tolist()
    assert one != part.batch(1234, 8, 16, seed=8).starts.tolist()
    assert part.epoch(1234, 8, 16) == 1234 * 8 / part.windows_of_an_epoch(16)
    assert part.batch(0, 1, 16, seed=2**64 - 1).inputs.shape == (1, 16)


@settings(deadline=None)
@given(st.integers(2, 100), st.integers(1, 20), st.integers(1, 5))
def test_evaluation_goes_over_every_target_once(n, T, batch_size):
    batches = list(part_of(n).windows(T, batch_size))
    assert np.concatenate([batch.targets.ravel() for batch in batches]).tolist() == list(range(1, n))
    assert all(len(batch.inputs) <= batch_size for batch in batches)


def test_documents_of_a_window_are_told_apart():
    part = part_of(10, starts=(0, 3, 4, 9))
    (batch,) = part.windows(9)
    assert batch.documents.tolist() == [[0, 0, 0, 1, 2, 2, 2, 2, 2]]
    assert part.batch(0, 2, 4, 0).documents.shape == (2, 4)


@pytest.mark.parametrize("arguments", [(-1, 1, 4), (0, 0, 4), (0, 1, 0)])
def test_impossible_batches_are_refused(arguments):
    with pytest.raises(UsageError):
        part_of(10).batch(*arguments, seed=0)
    with pytest.raises(UsageError, match="has 1 tokens"):
        list(part_of(1).windows(4))


# --- Bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", UsageError),
        (b"  \n ", UsageError),
        (b"\xff\xfea\0", UnsupportedError),
        (b"abc\0def", UnsupportedError),
        (b"caf\xe9", UnsupportedError),
        (b"x", UsageError),  # one character: nothing is left to validate
    ],
)
def test_bad_files_leave_nothing(tmp_path, content, error):
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(error) as caught:
        prepare(
            Files([path]),
            Vocabulary("characters"),
            tmp_path / "t",
            split=Split("document", 0.0 if content != b"x" else 0.1),
        )
    assert isinstance(caught.value, GlassGPTError)
    assert not (tmp_path / "t" / "manifest.json").exists()
    assert not list(tmp_path.glob("t/.*"))


def test_a_tokenizer_that_lacks_a_character_is_named_with_it(tmp_path):
    with pytest.raises(UsageError, match="'c' is not in the vocabulary of 2 characters"):
        prepare(Listed("abc"), CharacterTokenizer("ab"), tmp_path / "t")


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "t").write_text("a file")
    with pytest.raises(UsageError, match="is a file, and a folder is needed"):
        prepared(tmp_path / "t")


def test_a_mixture_is_prepared_with_its_epochs(tmp_path):
    mixture = Mixture([Parentheses(0, 10), ToyWorldSource(ToyWorld(), 20_000)], [1, 3], total_bytes=8000)
    files = prepare(mixture, BYTES, tmp_path / "t", split=Split("document", 0.1))
    told = {source["name"]: source for source in files.manifest["sources"]}
    assert told["parentheses"]["epochs"] > 5
    assert told["toy-world"]["epochs"] is None
    assert told["toy-world"]["bytes"] / 8000 == pytest.approx(0.75, abs=0.1)


def test_what_was_thrown_away_is_told_and_decided_only_when_it_is_needed(tmp_path):
    texts = ["The miller has a cat with a bell.", "A fisher lives by the river.", "%%%", "A fisher lives by the river."]
    for _ in range(2):
        cleaned = CleanedSources([Listed(*texts)], Cleaning(shortest=None))
        files = prepare(cleaned.sources[0], BYTES, tmp_path / "t", split=Split("position", 0))
    assert "_decided" not in vars(cleaned)
    assert files.train.n_documents == 2
    assert files.manifest["cleaning"]["kept"] == 2
    assert files.manifest["cleaning"]["thrown_away"] == {"more signs than letters": 1, "exact duplicate": 1}
    with pytest.raises(UsageError, match=r"corpus\.sources\[0\]\.cleaned"):
        prepare(CleanedSources([Listed(*texts)], Cleaning()).sources[0], BYTES, tmp_path / "t")


ONE_LINE = """
    import re, sys
    from pathlib import Path
    from glassgpt.text.prepare import prepare
    from glassgpt.text.sources import Files
    from glassgpt.text.vocabulary import Vocabulary
    files = prepare(Files([Path(sys.argv[1])]), Vocabulary(sys.argv[3], 2000), sys.argv[2])
    files.train.batch(3, 8, 64, 0)
    peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
    print(files.train.n_bytes + files.validation.n_bytes, int(peak[1]) // 1024)
"""


def peak_of_one_line(tmp_path, megabytes, kind):
    """Bytes prepared, and the peak memory in MiB of a process that prepares a file of one line."""
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak memory of a process is read from Linux's /proc")
    world = ToyWorld(1)
    text = " ".join(" ".join(world.document(i).split()) for i in range(4000)).encode()
    path = tmp_path / "one-line.txt"
    with path.open("wb") as file:
        while file.tell() < megabytes * 1_000_000:
            file.write(text)
    arguments = [str(path), str(tmp_path / "t"), kind]
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(ONE_LINE), *arguments], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    n_bytes, peak = map(int, done.stdout.split())
    assert n_bytes == path.stat().st_size
    return peak


def test_a_file_of_one_line_needs_little_memory(tmp_path):
    assert peak_of_one_line(tmp_path, 50, "bytes") < 200


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_gigabyte_of_one_line_needs_less_than_300_mebibytes(tmp_path, kind):
    assert peak_of_one_line(tmp_path, 1000, kind) < 300
