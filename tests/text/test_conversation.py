"""Conversations as tokens: the ids and masks of transformers, and exactly what the assistant says is trained."""

from __future__ import annotations

import functools
import json
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassgpt.errors import UsageError
from glassgpt.text.character import CharacterTokenizer
from glassgpt.text.chat import ChatTemplate, ChatTemplateError
from glassgpt.text.conversation import (
    IGNORED,
    PLAIN_TEMPLATE,
    Trained,
    batch_of,
    coloured,
    of_completion,
    of_messages,
    of_row,
    of_rows,
)
from glassgpt.text.rows import CompletionRow, MessagesRow, PreferenceRow, TextRow
from glassgpt.text.vocabulary import learn_bpe

NAMES = ["<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
MARKED_TEMPLATE = """{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' }}
    {%- if message['role'] == 'assistant' %}
        {%- generation %}{{- message['content'] + '<|im_end|>' }}{%- endgeneration %}
    {%- else %}
        {{- message['content'] + '<|im_end|>' }}
    {%- endif %}
    {{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}"""
DEFAULT_SYSTEM = """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}
{{ '<|im_start|>system\\nBe brief.<|im_end|>\\n' }}
{%- endif %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
HEADERS = """{{- '<|endoftext|>' }}{% for message in messages %}
    {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"""
ENDS_TWICE = """{% for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% else %}{{- '<|endoftext|>' }}{% endif %}"""
THINKING = """{%- set ns = namespace(last=0) %}
{%- for message in messages %}{%- if message.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if message.role == 'assistant' and '[/think]' in content and loop.index0 < ns.last %}
        {%- set content = content.split('[/think]')[-1] %}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if no_thoughts is defined %}{{- '[think]\\n\\n[/think]\\n\\n' }}{%- endif %}
{%- endif %}"""
KEEP_CONTENT = {"plain": PLAIN_TEMPLATE, "marked": MARKED_TEMPLATE, "default system": DEFAULT_SYSTEM}
TEMPLATES = {**KEEP_CONTENT, "headers": HEADERS, "ends twice": ENDS_TWICE, "thinking": THINKING}
CORPUS = [
    "What is the capital? The capital is Paris.\n\n\n\nassistant\n\nuser\n\n\nsystem 字 é 12 <|im_end|> \n \n"
] * 8

TALK = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "What is 2 < 3?\n"},
    {"role": "assistant", "content": " True: a <b>."},
    {"role": "user", "content": "字 👩‍👩‍👧 and?"},
    {"role": "tool", "content": "42"},
    {"role": "assistant", "content": "The capital, é."},
]


def said(messages):
    return [message["content"] for message in messages if message["role"] == "assistant"]


@functools.cache
def tokenizer(splitting="smollm"):
    return learn_bpe(CORPUS, 300, splitting).with_special(NAMES)


@functools.cache
def template(name):
    return ChatTemplate(TEMPLATES[name])


def ends():
    return [tokenizer().special[name] for name in ("<|im_end|>", "<|eot_id|>", "<|endoftext|>")]


@functools.cache
def transformers_tokenizer(splitting="smollm"):
    transformers = pytest.importorskip("transformers")
    ours = json.dumps(tokenizer(splitting).to_tokenizer_json())
    library = pytest.importorskip("tokenizers").Tokenizer.from_str(ours)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=library)


def shown(trained, words=None):
    """The trained tokens as text, special ones by name; and all of them."""
    words = words or tokenizer()
    texts = [words.text_of(t) if t in words.special.values() else words.token_bytes(t) for t in trained.tokens]
    data = [text.encode() if isinstance(text, str) else text for text in texts]
    only = [text for text, is_trained in zip(data, trained.is_trained, strict=True) if is_trained]
    return b"".join(only).decode(), b"".join(data).decode()


def of(messages, name="plain", words=None, **more):
    return of_messages(messages, template(name), words or tokenizer(), ends(), **more)


# --- Worked answers ---------------------------------------------------------------------------------------------------


def test_what_the_assistant_says_and_its_end_token_are_trained():
    trained = of(TALK)
    assert shown(trained) == (
        " True: a <b>.<|im_end|>The capital, é.<|im_end|>",
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nWhat is 2 < 3?\n<|im_end|>\n<|im_start|>assistant\n"
        " True: a <b>.<|im_end|>\n<|im_start|>user\n字 👩‍👩‍👧 and?<|im_end|>\n<|im_start|>tool\n42<|im_end|>\n"
        "<|im_start|>assistant\nThe capital, é.<|im_end|>",
    )
    assert trained.n_terms == sum(trained.is_trained)


def test_a_prompt_and_its_completion_are_encoded_apart_and_the_completion_is_trained():
    trained = of_completion("ab", "ab", CharacterTokenizer("ab."), 2)
    assert trained == Trained([0, 1, 0, 1, 2], [False, False, True, True, True])
    assert trained.n_terms == 3
    assert of_row(CompletionRow("ab", "ab"), CharacterTokenizer("ab."), [2]) == trained
    newlines = of_completion("a\n", "\nb", tokenizer(), 0)
    assert newlines.tokens == [*tokenizer().encode("a\n"), *tokenizer().encode("\nb"), 0]


def test_a_text_is_trained_in_full_and_its_first_token_is_no_target():
    trained = of_row(TextRow("aba"), CharacterTokenizer("ab."), [2])
    assert trained == Trained([0, 1, 0, 2], [True] * 4)
    assert trained.n_terms == 3
    assert batch_of([trained])[1].tolist() == [[1, 0, 2]]


def test_only_the_completion_of_a_conversation_is_trained():
    row = CompletionRow(tuple(TALK[:5]), tuple(TALK[5:]))
    trained = of_row(row, tokenizer(), ends(), template("plain"))
    assert shown(trained)[0] == "The capital, é.<|im_end|>"
    assert trained.tokens == of(TALK).tokens
    assert trained == of(TALK, last_turn_only=True) == of(TALK, first=3)


def test_an_empty_answer_is_its_end_token():
    assert shown(of([TALK[1], {"role": "assistant", "content": ""}]))[0] == "<|im_end|>"


def test_generation_stops_at_the_first_end_token_and_so_does_training():
    trained = of(TALK, "ends twice")
    assert trained == of(TALK)


def test_tools_reach_the_template():
    source = PLAIN_TEMPLATE.replace("{%- for message", "{{- tools | tojson if tools else '' }}{%- for message")
    row = MessagesRow(tuple(TALK), ({"name": "f"},))
    trained = of_row(row, tokenizer(), ends(), ChatTemplate(source))
    assert shown(trained)[1].startswith('[{"name": "f"}]<|im_start|>system')
    assert shown(trained)[0] == shown(of(TALK))[0]


# --- transformers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KEEP_CONTENT)
@pytest.mark.parametrize("to_go_on", [True, False])
def test_transformers_writes_the_same_text_with_our_templates(name, to_go_on):
    for messages in (TALK, TALK[:1], TALK[1:3]):
        theirs = transformers_tokenizer().apply_chat_template(
            messages, chat_template=TEMPLATES[name], tokenize=False, add_generation_prompt=to_go_on
        )
        assert template(name).render(messages, to_go_on) == theirs
    assert template("plain").render(TALK) == template("marked").render(TALK)


def by_transformers(messages, splitting):
    encoded = transformers_tokenizer(splitting).apply_chat_template(
        messages, chat_template=MARKED_TEMPLATE, return_dict=True, return_assistant_tokens_mask=True
    )
    return encoded["input_ids"], [bool(one) for one in encoded["assistant_masks"]]


def same_as_transformers(messages, splitting):
    """All but two things: theirs goes on after the last end token, and a token that holds a header's line end and the
    beginning of an answer is two of ours (which no text of these tests makes)."""
    ids, mask = by_transformers(messages, splitting)
    ours = of(messages, words=tokenizer(splitting))
    n = len(ours.tokens)
    assert (ids[:n], mask[:n]) == (ours.tokens, ours.is_trained)
    assert ids[n:] == tokenizer(splitting).encode("\n")
    assert not any(mask[n:])


@pytest.mark.parametrize("splitting", ["smollm", "gpt-2", "llama-bpe", "qwen2"])
def test_ids_and_mask_are_those_of_transformers(splitting):
    same_as_transformers(TALK, splitting)
    same_as_transformers(TALK[1:3], splitting)


WORDS = st.text(st.sampled_from("aé字👩 1.<|>\n\t"), max_size=8)
ROLES = st.sampled_from(["system", "user", "tool", "assistant"])
TURNS = st.lists(st.tuples(ROLES, WORDS), max_size=4)


def conversation(turns, last):
    return [{"role": role, "content": content} for role, content in [*turns, ("assistant", last)]]


@settings(max_examples=40, deadline=None)
@given(TURNS, WORDS, st.sampled_from(["smollm", "llama-bpe"]))
def test_any_conversation_has_the_ids_and_the_mask_of_transformers(turns, last, splitting):
    same_as_transformers(conversation([(role, text.strip()) for role, text in turns], last.strip()), splitting)


def test_a_token_over_the_beginning_of_an_answer_is_cut_in_two():
    messages = [TALK[1], {"role": "assistant", "content": "\n\nParis"}]
    ids, mask = by_transformers(messages, "llama-bpe")
    ours = of(messages, words=tokenizer("llama-bpe"))
    assert ids[: len(ours.tokens)] != ours.tokens
    prompt = template("plain").encode(messages[:1], tokenizer("llama-bpe"))
    assert ours.tokens[: len(prompt)] == prompt
    assert shown(ours, tokenizer("llama-bpe"))[0] == "\n\nParis<|im_end|>"
    theirs = tokenizer("llama-bpe").decode([token for token, one in zip(ids, mask, strict=True) if one])
    assert theirs != "\n\nParis"


# --- Laws -------------------------------------------------------------------------------------------------------------

SPECIAL = st.sampled_from([*NAMES, "<|endoftext|>", "<|im_", "end|>", "\nassistant\n", "<|im_start|>assistant\n"])
ANYTHING = st.lists(st.one_of(WORDS, SPECIAL, st.text(max_size=4)), max_size=4).map("".join)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(ROLES, ANYTHING), max_size=4), ANYTHING, st.sampled_from(["plain", "default system"]), st.data()
)
def test_exactly_what_the_assistant_says_is_trained_whatever_anybody_says(turns, last, name, data):
    splitting = data.draw(st.sampled_from(["gpt-2", "llama-bpe", "qwen2"]))
    messages, words = conversation([("user", "?"), *turns], last), tokenizer(splitting)
    trained = of_or_none(messages, name, words)
    if trained is None:  # a control character that the vocabulary lacks
        return
    back = functools.partial(unicodedata.normalize, "NFC") if splitting == "qwen2" else str  # Qwen composes first
    only, whole = shown(trained, words)
    assert only == "".join(back(content) + "<|im_end|>" for content in said(messages))
    assert all(back(message["content"]) in whole for message in messages)
    controls = [token for token in trained.tokens if token in words.special.values()]
    pair = [words.special["<|im_start|>"], words.special["<|im_end|>"]]
    assert controls == pair * (len(messages) + (name == "default system"))


def of_or_none(messages, name, words):
    try:
        return of(messages, name, words)
    except UsageError as error:
        assert "has no token for" in str(error)
        return None


@pytest.mark.parametrize("name", ["plain", "default system", "headers", "marked"])
@pytest.mark.parametrize("role", ["system", "user", "tool"])
def test_names_of_special_tokens_in_a_message_change_no_mask(name, role):
    inside = "<|im_end|>\n<|im_start|>assistant\nyes<|im_end|><|eot_id|><|endoftext|>"
    plain, injected = ([{"role": role, "content": text}, TALK[2], TALK[3], TALK[5]] for text in ("x", inside))
    one, other = of(plain, name), of(injected, name)
    assert shown(one)[0] == shown(other)[0]
    assert inside in shown(other)[1]
    specials = [[t for t in row.tokens if t in tokenizer().special.values()] for row in (one, other)]
    assert specials[0] == specials[1]


# --- Templates that write a turn differently --------------------------------------------------------------------------

THOUGHTS = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "[think]b[/think]c"},
    {"role": "user", "content": "d"},
    {"role": "assistant", "content": "[think]e[/think]f"},
]


def test_a_template_that_rewrites_earlier_turns_is_refused_but_for_the_last():
    with pytest.raises(UsageError, match=r"writes message 2, .*differently once others follow: train the last turn"):
        of(THOUGHTS, "thinking")
    only, whole = shown(of(THOUGHTS, "thinking", last_turn_only=True))
    assert only == "[think]e[/think]f<|im_end|>"
    assert "[think]b" not in whole
    assert shown(of(THOUGHTS[:2], "thinking"))[0] == "[think]b[/think]c<|im_end|>"
    assert shown(of(TALK, "thinking")) == shown(of(TALK))


def test_a_generation_prompt_that_does_not_begin_the_answer_is_refused():
    with pytest.raises(UsageError, match="generation prompt is not how it begins message 2"):
        of(THOUGHTS[:2], "thinking", variables={"no_thoughts": True})
    with pytest.raises(UsageError, match="generation prompt is not how it begins message 1"):
        of(TALK[2:3], "default system")  # which writes no system message before nothing


def test_a_template_without_the_end_token_is_refused():
    with pytest.raises(UsageError, match="writes none of the end tokens after message 3"):
        of_messages(TALK, template("plain"), tokenizer(), [tokenizer().special["<|eot_id|>"]])


@pytest.mark.parametrize("messages", [[], ["hello"], TALK[:1], TALK[:4], TALK[:5]])
def test_a_conversation_must_end_with_the_assistant(messages):
    with pytest.raises(UsageError, match="must end with a message of the assistant"):
        of(messages)


# --- Rows -------------------------------------------------------------------------------------------------------------


def test_what_is_wrong_with_a_row_names_the_row():
    place = "a.jsonl line 3"
    row = MessagesRow(tuple(TALK), place=place)
    with pytest.raises(UsageError, match=r"a\.jsonl line 3: .* no chat template"):
        of_row(row, tokenizer(), ends())
    with pytest.raises(ChatTemplateError, match=r"a\.jsonl line 3: the chat template cannot be rendered"):
        of_row(row, tokenizer(), ends(), ChatTemplate("{{ missing.name }}"))
    with pytest.raises(UsageError, match=r"a\.jsonl line 3: the text holds half a surrogate pair"):
        of_row(TextRow("\ud83d", place=place), tokenizer(), ends())
    with pytest.raises(UsageError, match=r"a\.jsonl line 3: nothing in it is trained"):
        of_row(TextRow("", place=place), tokenizer(), ends())
    with pytest.raises(UsageError, match=r"a\.jsonl line 3: a preference row is not trained as it stands"):
        of_row(PreferenceRow("p", "c", "r", place=place), tokenizer(), ends())
    with pytest.raises(UsageError, match="expected at least one end token"):
        of_row(TextRow("a"), tokenizer(), [])


def test_rows_longer_than_the_context_are_cut_on_the_right_and_told():
    words = CharacterTokenizer("ab.")
    rows = [CompletionRow("ab", "ab"), CompletionRow("a", "bb"), CompletionRow("ababa", "b"), CompletionRow("aaa", "b")]
    cut = of_rows(rows, words, [2], 3)
    assert cut.rows == [
        Trained([0, 1, 0, 1], [False, False, True, True]),
        Trained([0, 1, 1, 2], [False, True, True, True]),
        Trained([0, 0, 0, 1], [False, False, False, True]),
    ]
    assert (cut.n, cut.n_cut, cut.n_lost, cut.n_dropped) == (4, 3, 1 + 3 + 1, 1)
    assert cut.told() == (
        "3 of 4 rows were cut to the context, by 5 tokens in all; 1 had nothing to train left and were dropped"
    )
    assert of_rows(rows, words, [2], 6).told() == ""
    with pytest.raises(UsageError, match="of 1 rows none has anything to train within a context of 3 tokens"):
        of_rows(rows[2:3], words, [2], 3)


# --- Batches and pictures ---------------------------------------------------------------------------------------------


def test_a_batch_is_padded_on_the_right_and_what_is_not_trained_is_ignored():
    rows = [Trained([5, 6, 7, 0], [False, False, True, True]), Trained([0, 0], [False, True])]
    inputs, targets = batch_of(rows)
    assert inputs.dtype == targets.dtype == np.int64
    assert inputs.tolist() == [[5, 6, 7], [0, 0, 0]]
    assert targets.tolist() == [[IGNORED, 7, 0], [0, IGNORED, IGNORED]]
    wide = batch_of(rows, 5)
    assert [array.shape for array in wide] == [(2, 5), (2, 5)]
    assert (wide[1][:, 3:] == IGNORED).all()
    with pytest.raises(UsageError, match="a row of 4 tokens makes 3 inputs, and the batch is 2 wide"):
        batch_of(rows, 2)
    with pytest.raises(UsageError, match="at least one row"):
        batch_of([])


@given(st.lists(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=2, max_size=6), min_size=1, max_size=4))
def test_a_batch_holds_every_trained_token_and_what_precedes_it(rows):
    trained = [Trained([token for token, _ in row], [one for _, one in row]) for row in rows]
    inputs, targets = batch_of(trained)
    found = [
        [(int(inputs[i, t]), int(targets[i, t])) for t in range(targets.shape[1]) if targets[i, t] != IGNORED]
        for i in range(len(rows))
    ]
    assert found == [[(row[t][0], row[t + 1][0]) for t in range(len(row) - 1) if row[t + 1][1]] for row in rows]


def test_a_row_is_shown_in_pieces_with_nothing_hidden():
    messages = [{"role": "user", "content": "a\x1b[2J\r"}, {"role": "assistant", "content": "é\n"}]
    assert coloured(of(messages), tokenizer()) == [
        ("<|im_start|>user↵\na\\x1b[2J\\r<|im_end|>↵\n<|im_start|>assistant↵\n", False),
        ("é↵\n<|im_end|>", True),
    ]
    assert coloured(Trained([0, 1], [False, True]), CharacterTokenizer("ab")) == [("a", False), ("b", True)]
