"""Rows in the formats that people have: what each says, and what is wrong with one, by file and line."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassgpt.errors import UsageError
from glassgpt.text.rows import (
    KINDS,
    CompletionRow,
    LabelledRow,
    MessagesRow,
    PreferenceRow,
    PromptRow,
    RankedRow,
    TextRow,
    hash_of,
    read_fields,
    read_rows,
    templated,
)

SFT = (MessagesRow, CompletionRow, TextRow)


def user(content):
    return {"role": "user", "content": content}


def bot(content):
    return {"role": "assistant", "content": content}


def written(tmp_path, *rows, name="rows.jsonl"):
    """A file of rows: objects, or lines as they are."""
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path = tmp_path / name
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def refusal(kinds, *paths):
    with pytest.raises(UsageError) as error:
        read_rows(paths, *kinds)
    return str(error.value)


# --- What is read -----------------------------------------------------------------------------------------------------

READ = [
    ({"text": "a"}, TextRow("a")),
    ({"messages": [user("q"), bot("a")]}, MessagesRow((user("q"), bot("a")))),
    ({"messages": [user("q"), bot("a")], "tools": [{"n": 1}]}, MessagesRow((user("q"), bot("a")), ({"n": 1},))),
    ({"prompt": "p", "completion": " c"}, CompletionRow("p", " c")),
    ({"prompt": [user("q")], "completion": [bot("a")]}, CompletionRow((user("q"),), (bot("a"),))),
    ({"prompt": "q", "completion": [bot("a")]}, CompletionRow((user("q"),), (bot("a"),))),
    ({"prompt": [user("q")], "completion": "a"}, CompletionRow((user("q"),), (bot("a"),))),
    ({"prompt": "p", "chosen": "c", "rejected": "r"}, PreferenceRow("p", "c", "r")),
    (
        {"prompt": [user("q")], "chosen": [bot("c")], "rejected": [bot("r")]},
        PreferenceRow((user("q"),), (bot("c"),), (bot("r"),)),
    ),
    (
        {"prompt": "q", "chosen": [user("q"), bot("c")], "rejected": [user("q"), bot("r")]},
        PreferenceRow((user("q"),), (bot("c"),), (bot("r"),)),
    ),
    (
        {"chosen": [user("q"), bot("a"), user("w"), bot("c")], "rejected": [user("q"), bot("a"), user("w"), bot("r")]},
        PreferenceRow((user("q"), bot("a"), user("w")), (bot("c"),), (bot("r"),)),
    ),
    (
        {"prompt": [user("q")], "chosen": [bot("a"), user("w"), bot("c")], "rejected": [bot("a"), user("w"), bot("r")]},
        PreferenceRow((user("q"), bot("a"), user("w")), (bot("c"),), (bot("r"),)),
    ),
    ({"prompt": "p", "completions": ["a", "b", "c"]}, RankedRow("p", ("a", "b", "c"), (1, 2, 3))),
    ({"prompt": "p", "completions": ["a", "b", "c"], "ranks": [2, 1, 2]}, RankedRow("p", ("a", "b", "c"), (2, 1, 2))),
    (
        {"prompt": [user("q")], "completions": ["a", [bot("b")]]},
        RankedRow((user("q"),), ((bot("a"),), (bot("b"),)), (1, 2)),
    ),
    ({"text": "a", "label": "good"}, LabelledRow("a", ("good",))),
    ({"text": "a", "label": 0}, LabelledRow("a", (0,))),
    ({"text": "a", "labels": ["x", "y"]}, LabelledRow("a", ("x", "y"), is_multi=True)),
    ({"text": "a", "labels": []}, LabelledRow("a", (), is_multi=True)),
    ({"prompt": "p"}, PromptRow("p")),
    ({"prompt": [user("q")], "answer": 4}, PromptRow((user("q"),), {"answer": 4})),
]


@pytest.mark.parametrize(("values", "row"), READ)
def test_each_format_is_read_for_what_it_says(values, row, tmp_path):
    [read] = read_rows([written(tmp_path, {**values, "id": 7} if not isinstance(row, PromptRow) else values)], *KINDS)
    assert read == row
    assert read.place == f"{tmp_path / 'rows.jsonl'} line 1"


def test_rows_of_several_kinds_and_files_keep_their_order(tmp_path):
    one = written(tmp_path, {"text": "a"}, b"", b"  ", {"prompt": "p", "completion": "c"})
    two = written(tmp_path, b'[{"text": "b"},', b'{"text": "c"}]', name="list.json")
    rows = read_rows([one, str(two)], *SFT)
    assert rows == [TextRow("a"), CompletionRow("p", "c"), TextRow("b"), TextRow("c")]
    assert [row.place for row in rows] == [f"{one} line 1", f"{one} line 4", f"{two} row 1", f"{two} row 2"]
    assert read_rows([written(tmp_path, {"text": "d"}, name="lines.json")], TextRow) == [TextRow("d")]


def test_what_a_stage_asks_for_is_read_from_rows_that_have_more(tmp_path):
    path = written(tmp_path, {"prompt": "p", "completion": "c", "text": "t", "label": 1})
    assert read_rows([path], TextRow) == [TextRow("t")]
    assert read_rows([path], LabelledRow) == [LabelledRow("t", (1,))]
    assert read_rows([path], TextRow, CompletionRow) == [CompletionRow("p", "c")]
    assert read_rows([path], PromptRow)[0].prompt == "p"


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a\\u2028b"}\r\n\r\n{"text": "\xe2\x80\xa8"}\r\n')
    assert read_rows([path], TextRow) == [TextRow("a\u2028b"), TextRow("\u2028")]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1), st.booleans())
def test_any_text_comes_back(texts, ascii_only):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.jsonl")
        lines = [json.dumps({"text": text}, ensure_ascii=ascii_only) for text in texts]
        path.write_bytes("\n".join(lines).encode())
        assert [row.text for row in read_rows([path], TextRow)] == texts


# --- What is wrong ----------------------------------------------------------------------------------------------------

WRONG = [
    (SFT, b"{", "not JSON"),
    (SFT, b'{"text": NaN}', "NaN is no number of JSON"),
    (SFT, b'{"text": ' + b"9" * 5000 + b"}", "not JSON"),
    (SFT, b"[" * 100_000, "nested too deeply"),
    (SFT, b'{"text": "\xff"}', "not UTF-8 at byte 10"),
    (SFT, b'["a"]', r'expected an object such as {"text": ...}, got ["a"]'),
    (SFT, b'{"text": "\\ud83d"}', "half a surrogate pair, '\\ud83d'"),
    (
        SFT,
        {},
        "completion rows (prompt, completion) or conversation rows (messages) or text rows (text), got an object",
    ),
    (SFT, {"txt": "a", "id": 1}, 'got the keys "txt", "id"'),
    (
        SFT,
        {"prompt": "p", "chosen": "c", "rejected": "r"},
        "this is a preference row (prompt, chosen, rejected), and this stage takes completion rows (prompt, ",
    ),
    ((PreferenceRow,), {"text": "a"}, "this is a text row (text), and this stage takes preference rows"),
    (SFT, {"text": 3}, "text must be a text, got 3"),
    (SFT, {"text": None}, "text must be a text, got null"),
    (SFT, {"text": ""}, "text is empty"),
    (SFT, {"prompt": "", "completion": "c"}, "prompt is empty"),
    (SFT, {"prompt": "p", "completion": ""}, "completion is empty"),
    (SFT, {"prompt": None, "completion": "c"}, "prompt must be a text or a list of messages, got null"),
    (SFT, {"prompt": [], "completion": [bot("a")]}, "prompt is empty"),
    (SFT, {"prompt": [user("q")], "completion": [user("a")]}, "completion must begin with a message of the assistant"),
    (SFT, {"prompt": [user("q")], "completion": [user("q")]}, "completion must begin with a message of the assistant"),
    (SFT, {"prompt": "q", "completion": [bot("a"), user("b")]}, "completion must end with a message of the assistant"),
    (SFT, {"messages": "hello"}, 'messages must be a list of messages, got "hello"'),
    (SFT, {"messages": []}, "messages is empty"),
    (SFT, {"messages": ["hello"]}, 'messages[0] must be a message, {"role": ..., "content": ...}, got "hello"'),
    (SFT, {"messages": [{"role": "user"}]}, "messages[0] must be a message"),
    (SFT, {"messages": [user("q"), {"role": "bot", "content": "a"}]}, "messages[1] must be one of system, developer"),
    (SFT, {"messages": [user("q"), {"role": ["x"], "content": "a"}]}, 'got ["x"]'),
    (SFT, {"messages": [user(["q"]), bot("a")]}, "the content of messages[0] must be a text"),
    (SFT, {"messages": [user("q"), bot(None)]}, "the content of messages[1] must be a text, got null"),
    (SFT, {"messages": [user("q"), bot("")]}, "the content of messages[1], of the assistant, is empty"),
    (SFT, {"messages": [user("q")]}, "messages must end with a message of the assistant, got one of the role user"),
    (SFT, {"messages": [user("q"), bot("a")], "tools": "x"}, "tools must be a list"),
    ((PreferenceRow,), {"prompt": "p", "chosen": "c", "rejected": "c"}, "chosen and rejected are the same"),
    ((PreferenceRow,), {"prompt": "p", "chosen": "c", "rejected": 1}, "rejected must be a text, got 1"),
    ((PreferenceRow,), {"chosen": [bot("c")], "rejected": [bot("r")]}, "expected a prompt, or answers that begin with"),
    ((PreferenceRow,), {"chosen": "c", "rejected": "r"}, 'got the keys "chosen", "rejected"'),
    ((RankedRow,), {"prompt": "p", "completions": []}, "completions must be a list of at least two answers, got []"),
    ((RankedRow,), {"prompt": "p", "completions": ["a"]}, "at least two answers"),
    ((RankedRow,), {"prompt": "p", "completions": ["a", 2]}, "completions[1] must be a text, got 2"),
    ((RankedRow,), {"prompt": "p", "completions": ["a", "b"], "ranks": [1]}, "a rank for each of 2 completions, got 1"),
    ((RankedRow,), {"prompt": "p", "completions": ["a", "b"], "ranks": [1, True]}, "ranks must be a list of numbers"),
    ((RankedRow,), {"prompt": "p", "completions": ["a", "b"], "ranks": [1, 1]}, "all ranks are 1"),
    ((LabelledRow,), {"text": "a", "label": 1.5}, "label must be a text or a whole number, got 1.5"),
    ((LabelledRow,), {"text": "a", "label": True}, "label must be a text or a whole number, got true"),
    ((LabelledRow,), {"text": "a", "label": ""}, "label must be a text or a whole number"),
    ((LabelledRow,), {"text": "a", "labels": "x"}, "labels must be a list"),
    ((LabelledRow,), {"text": "a", "labels": ["x", None]}, "labels[1] must be a text or a whole number, got null"),
    ((LabelledRow,), {"text": "a", "labels": ["x", "x"]}, "labels lists a label twice"),
    ((PromptRow,), {"prompt": [user("q"), bot("a")]}, "prompt ends with a message of the assistant"),
]


@pytest.mark.parametrize(("kinds", "row", "what"), WRONG)
def test_a_wrong_row_is_told_by_file_and_line(kinds, row, what, tmp_path):
    path = written(tmp_path, b"", row)
    assert refusal(kinds, path).startswith(f"1 of 1 rows is wrong:\n  {path} line 2: ")
    assert what in refusal(kinds, path)


def test_a_message_may_call_tools_in_place_of_content(tmp_path):
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}
    talk = [user("q"), call, {"role": "tool", "content": ""}, bot("a")]
    assert read_rows([written(tmp_path, {"messages": talk})], MessagesRow) == [MessagesRow(tuple(talk))]


def test_all_wrong_rows_are_counted_and_the_first_ten_listed(tmp_path):
    one = written(tmp_path, {"text": "a"}, *[{"text": i} for i in range(7)])
    two = written(tmp_path, *[b"{"] * 6, {"text": "b"}, name="two.jsonl")
    told = refusal(SFT, one, two).splitlines()
    assert told[0] == "13 of 15 rows are wrong:"
    assert told[1] == f"  {one} line 2: text must be a text, got 0"
    assert told[10].startswith(f"  {two} line 3: not JSON")
    assert told[11:] == ["  and 3 more"]


def test_a_wrong_list_is_told_by_its_file(tmp_path):
    assert "list.json: not JSON" in refusal(SFT, written(tmp_path, b'[{"text": "a"},', name="list.json"))
    assert "list.json row 1: expected an object" in refusal(SFT, written(tmp_path, b"[3]", name="list.json"))
    assert "name a file that holds a list .json" in refusal(SFT, written(tmp_path, b'[{"text": "a"}]'))


def test_files_without_rows_are_told_by_name(tmp_path):
    (tmp_path / "empty.jsonl").write_bytes(b"\n \n")
    full = written(tmp_path, {"text": "a"})
    assert "empty.jsonl is empty" in refusal(SFT, full, tmp_path / "empty.jsonl")
    assert "list.json is empty" in refusal(SFT, written(tmp_path, b"[]", name="list.json"))
    assert "there is no file" in refusal(SFT, tmp_path / "none.jsonl")
    assert "is a folder" in refusal(SFT, tmp_path)
    assert "at least one file" in refusal(SFT)


# --- Templates and hashes ---------------------------------------------------------------------------------------------


def test_any_fields_become_prompts_and_completions(tmp_path):
    path = written(tmp_path, {"article": "{x} a.b", "summary": "s", "n": 3, "a name": 1.5})
    [row] = templated(read_fields([path]), "{{Article}} {n}: {article}\nSummary ({a name}):", " {summary}")
    assert row == CompletionRow("{Article} 3: {x} a.b\nSummary (1.5):", " s")
    assert row.place == f"{path} line 1"


@pytest.mark.parametrize(
    "template",
    ["{x.__class__}", "{x[0]}", "{x!r}", "{x:>9}", "{x:{y}}", "{}", "{", "}", "{x", "{x:}}"],
)
def test_a_template_holds_names_and_no_more(template):
    with pytest.raises(UsageError, match="prompt template"):
        templated([], template, "{x}")
    with pytest.raises(UsageError, match="completion template"):
        templated([], "{x}", template)


def test_a_completion_template_needs_a_field():
    with pytest.raises(UsageError, match="names no field"):
        templated([], "{x}", "yes")


def test_rows_that_a_template_cannot_be_filled_from_are_told_by_line(tmp_path):
    path = written(tmp_path, {"q": "a", "a": "b"}, {"q": "a"}, {"q": "", "a": "b"}, {"q": [1], "a": True})
    with pytest.raises(UsageError) as error:
        templated(read_fields([path]), "{q}", "{a}")
    assert str(error.value).splitlines() == [
        "3 of 4 rows are wrong:",
        f'  {path} line 2: expected the field "a" of the template, got the key "q"',
        f"  {path} line 3: prompt is empty",
        f'  {path} line 4: the field "q" must be a text or a number, got [1]',
    ]
    with pytest.raises(UsageError, match="half a surrogate pair"):
        templated(read_fields([written(tmp_path, b'{"q": "\\ud83d", "a": "b"}')]), "{q}", "{a}")


def test_a_hash_is_of_what_rows_say_and_not_of_where(tmp_path):
    one = written(tmp_path, {"prompt": "p", "completion": "c", "id": 1}, {"text": "t"})
    two = written(tmp_path, b'[{"completion": "c", "prompt": "p"}, {"text": "\\u0074"}]', name="other.json")
    assert hash_of(read_rows([one], *SFT)) == hash_of(read_rows([two], *SFT))
    turned = [dict(reversed(message.items())) for message in (user("q"), bot("a"))]
    assert hash_of([MessagesRow((user("q"), bot("a")))]) == hash_of([MessagesRow(tuple(turned))])
    others = [[TextRow("t")], [TextRow("u")], [PromptRow("t")], [TextRow("t"), TextRow("t")], [TextRow("tt")], []]
    assert len({hash_of(rows) for rows in others}) == len(others)
