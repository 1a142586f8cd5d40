"""Where text comes from, and what is no text."""

import gc
import io
import json
import os
import sys
import types
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassgpt.errors import DamagedFileError, UnsupportedError, UsageError
from glassgpt.text import sources
from glassgpt.text.sources import Files, HubDataset, PythonDocs, source_of, standard_input


def texts(source):
    return [document.text for document in source.documents()]


def file_of(tmp_path, content, name="notes.txt"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


def test_a_file_is_a_document_unless_it_is_split(tmp_path):
    path = str(file_of(tmp_path, b"one\ntwo\n\nthree\n"))
    assert texts(source_of(path)) == ["one\ntwo\n\nthree\n"]
    assert texts(source_of(path, split="blank lines")) == ["one\ntwo", "three"]
    assert texts(source_of(path, split="lines")) == ["one", "two", "three"]
    assert texts(source_of(path, split="two")) == ["one", "three"]


def test_a_folder_is_the_text_files_below_it_in_order(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    for name in ("c.txt", "a.md", "b/x.rst", ".git/y.txt", ".z.txt"):
        file_of(tmp_path, name.encode(), name)
    file_of(tmp_path, b"\x89PNG\0", "picture.png")
    file_of(tmp_path, b"", "empty.txt")
    assert texts(source_of(str(tmp_path))) == ["a.md", "b/x.rst", "c.txt"]
    assert texts(source_of(f"{tmp_path}/*.txt")) == ["c.txt"]
    assert texts(source_of(f"{tmp_path}/**/*.rst")) == ["b/x.rst"]


def test_a_byte_order_mark_is_dropped_and_windows_line_ends_are_made_plain(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "BLOCK", 4)
    path = file_of(tmp_path, b"\xef\xbb\xbfa\r\nbc\r\n\rd\n\r\n\xef\xbb\xbf")
    assert texts(Files([path])) == ["a\nbc\n\rd\n\n\ufeff"]
    assert texts(Files([path], newlines="keep")) == ["a\r\nbc\r\n\rd\n\r\n\ufeff"]


@settings(deadline=None)
@given(st.text(alphabet="aé字👩\n", max_size=30), st.integers(4, 9))
def test_characters_may_lie_across_blocks(tmp_path_factory, text, block):
    path = file_of(tmp_path_factory.mktemp("t"), f"x{text}".encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "BLOCK", block)
        assert texts(Files([path])) == [f"x{text}"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"caf\xe9 au lait", r"notes\.txt is not UTF-8 at byte 3"),
        (b"x" * 100 + b"\xff", "not UTF-8 at byte 100"),
        (b"x" * 99 + "é".encode()[:1], "not UTF-8 at byte 99"),
        (b"x" * 63 + b"\xf0\x9f\x91" + b"yz", "not UTF-8 at byte 63"),
        ("\ufeffhello".encode("utf-16-le"), r"notes\.txt is written in UTF-16.*iconv"),
        (b"\xef\xbb\xbfab\0c", "is no text: it holds a byte 0 at position 5"),
        (b"x" * 70 + b"\0", "byte 0 at position 70"),
    ],
)
def test_what_is_no_text_is_refused_by_its_byte(tmp_path, monkeypatch, content, message):
    monkeypatch.setattr(sources, "BLOCK", 64)
    with pytest.raises(UnsupportedError, match=message):
        texts(Files([file_of(tmp_path, content)]))


def test_nothing_and_white_space_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"notes\.txt is empty"):
        source_of(str(file_of(tmp_path, b"")))
    with pytest.raises(UsageError, match="holds no text"):
        texts(source_of(str(file_of(tmp_path, b" \n\n"))))
    with pytest.raises(UsageError, match="there is no text file"):
        source_of(str(tmp_path / "missing.txt"))
    with pytest.raises(UsageError, match="there is no text file"):
        source_of(str(tmp_path / "*.rst"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="holds no text file"):
        source_of(str(tmp_path / "folder"))
    with pytest.raises(UsageError, match="newlines must be"):
        source_of(str(file_of(tmp_path, b"x")), newlines="mac")
    with pytest.raises(UsageError, match="is empty"):
        source_of("")
    with pytest.raises(UsageError, match="split"):
        source_of(str(file_of(tmp_path, b"x")), split="")


@pytest.mark.skipif(os.name == "nt", reason="there are no such files")
def test_what_is_no_ordinary_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    for path in (tmp_path / "pipe.txt", "/dev/zero"):
        with pytest.raises(UsageError, match="no ordinary file"):
            source_of(str(path))


def test_a_file_that_changes_or_goes_while_it_is_read_is_noticed(tmp_path):
    path = file_of(tmp_path, b"before")
    source = Files([path])
    source.identity()
    assert texts(source) == ["before"]
    path.write_bytes(b"before and after")
    with pytest.raises(DamagedFileError, match="changed while it was being read"):
        texts(source)
    path.unlink()
    with pytest.raises(DamagedFileError, match="cannot be read: No such file"):
        texts(source)


def test_the_identity_follows_content_and_settings_and_not_the_name(tmp_path):
    one, other = file_of(tmp_path, b"same", "a.txt"), file_of(tmp_path, b"same", "b.txt")
    assert Files([one]).identity() == Files([other]).identity()
    assert Files([one]).identity() != Files([one], split="lines").identity()
    assert Files([one]).identity() != Files([file_of(tmp_path, b"sane", "c.txt")]).identity()


def test_a_jsonl_file_holds_a_document_a_line(tmp_path):
    rows = [{"text": "one\n\ntwo", "id": 1}, {"text": "é\u2028字"}]
    content = "\n\n".join(json.dumps(row) for row in rows).encode() + b"\r\n"
    path = file_of(tmp_path, content, "a.jsonl")
    assert texts(source_of(str(path))) == ["one\n\ntwo", "é\u2028字"]
    with pytest.raises(UsageError, match=r"line 1 of .* has no 'body': it has 'text', 'id'"):
        texts(source_of(str(path), field="body"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "line 2 of .* is not JSON"),
        (b"\xff", "line 2 of .* is not JSON"),
        (b"[" * 100_000, "line 2 of .* is not JSON"),
        (b"[1]", "line 2 of .* must be an object with a text"),
        (b'{"text": 3}', "line 2 of .* must be an object with a text"),
        (rb'{"text": "\ud800"}', r"line 2 of .* holds '\\ud800'"),
        (rb'{"text": "\u0000"}', r"line 2 of .* holds '\\x00'"),
        (b'"' + b"x" * 9000, "a line of over 4,096 bytes"),
    ],
)
def test_a_wrong_line_of_jsonl_is_named(tmp_path, monkeypatch, line, message):
    if b"xxxx" in line:
        monkeypatch.setattr(sources, "LONGEST_JSON_LINE", 4096)
    path = file_of(tmp_path, b'{"text": "fine"}\n' + line, "a.jsonl")
    with pytest.raises(DamagedFileError, match=message):
        texts(Files([path]))


def test_standard_input_is_kept_for_a_second_pass_and_then_thrown_away():
    source = standard_input(io.BytesIO(b"one\r\n\r\ntwo"), split="blank lines")
    folder = source.paths[0].parent
    assert texts(source) == texts(source) == ["one", "two"]
    del source
    gc.collect()
    assert not folder.exists()
    with pytest.raises(UsageError, match="standard input is empty"):
        standard_input(io.BytesIO(b""))


def library(tmp_path):
    (tmp_path / "pack" / "test").mkdir(parents=True)
    (tmp_path / "pack" / "__init__.py").write_text('"""A pack."""\n')
    (tmp_path / "pack" / "test" / "no.py").write_text('"""No."""\n')
    (tmp_path / "pack" / "one.py").write_text(
        'def f(a, *, b=1):\n    """Adds.  \n\n    More."""\n\n\nclass C:\n    def g(self):\n        """Goes."""\n'
    )
    (tmp_path / "broken.py").write_text("def (")
    (tmp_path / "bare.py").write_text("x = 1\n")
    return tmp_path


def test_python_docs_are_docstrings_under_their_names(tmp_path):
    source = PythonDocs(library(tmp_path))
    own = texts(source)[-2:]
    assert own == [
        "pack\n\nA pack.\n",
        "pack.one.f(a, *, b=1)\n\nAdds.\n\nMore.\n\npack.one.C.g(self)\n\nGoes.\n",
    ]
    assert len(texts(source)) > 50  # the topics of help()
    before = source.identity()
    (tmp_path / "bare.py").write_text('"""Now it says something."""\n')
    assert PythonDocs(tmp_path).identity() != before


def test_without_pydoc_data_there_is_advice(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(UnsupportedError, match=r"comes without pydoc_data.*toy-world"):
        source_of("python-docs")


def test_names_lead_to_sources():
    assert source_of("toy-world").name == "toy-world"
    assert source_of("python-docs").name == "python-docs"


def hub(monkeypatch, rows):
    asked = {}

    def load_dataset(path, name, **settings):
        asked.update(path=path, name=name, **settings)
        return iter(rows)

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    return asked


def test_a_data_set_of_the_hub_is_streamed(monkeypatch):
    asked = hub(monkeypatch, [{"text": "one"}, {"text": "two"}, {"text": "three"}])
    source = HubDataset("owner/set", "en", revision="abc", n_documents=2)
    assert texts(source) == ["one", "two"]
    assert asked == {"path": "owner/set", "name": "en", "split": "train", "revision": "abc", "streaming": True}
    assert source_of("hub:owner/set/en").identity() != source.identity()
    with pytest.raises(UsageError, match=r"hub:owner/set/en has no text under 'body': its rows have text"):
        texts(source_of("hub:owner/set/en", field="body"))


def test_without_the_datasets_library_there_is_advice(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'glassgpt\[datasets\]'"):
        source_of("hub:owner/set")


def test_files_are_read_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file_of(tmp_path, b"here")
    assert texts(source_of("notes.txt")) == texts(Files([Path("notes.txt")])) == ["here"]
