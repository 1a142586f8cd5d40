"""Toy tasks: gold reads every statement, demonstrations are middling, and what is held out is never practised."""

import hashlib
import json
from statistics import mean

import pytest

from glassgpt.errors import UsageError
from glassgpt.text import rows as formats
from glassgpt.text.draws import Draws
from glassgpt.text.toy_tasks import (
    DEMONSTRATION,
    OFTEN,
    SYMMETRIC,
    TELLING,
    TELLINGS,
    Mixture,
    conversations,
    gold,
    preference,
    prompts,
    ranking,
    rating,
    stated,
    subject_of,
    synthetic_answers,
)
from glassgpt.text.toy_world import KINDS, PERSON, RELATIONS, Fact, ToyWorld, grade

WORLD = ToyWorld()
ROWS = conversations(WORLD, 1, 3000)
TOLD = [row["messages"] for row in ROWS if row["kind"] == TELLING]
N_HELD_OUT = 57  # of 252 requests


def every_telling(world=WORLD):
    return [
        (subject, wording.format(s=subject))
        for kind, wordings in TELLINGS.items()
        for subject in world.subjects(kind)
        for wording in wordings
    ]


def asking(subject):
    return next(prompt for asked, prompt in every_telling() if asked == subject)


def is_held_out(prompt):
    return WORLD.is_held_out("telling", prompt)


def values_of(relation):
    values = RELATIONS[relation].values
    return (WORLD.subjects(values) if isinstance(values, str) else values) if values else ["1", "16", "40", "79", "250"]


# --- Gold -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [WORLD, ToyWorld(3, 4, 2)])
def test_every_statement_of_every_fact_is_true_of_its_subject_and_of_its_value(world):
    asked = dict(every_telling(world))
    for fact in world.facts:
        for statement in RELATIONS[fact.relation].statements:
            sentence = statement.format(s=fact.subject, v=fact.value)
            assert stated(world, sentence) == fact
            for named in {fact.subject, fact.value} & asked.keys():
                found = gold(world, asked[named], sentence)
                assert (found.score, found.true, found.sentences) == (1, 1, 1)


def test_every_statement_with_another_value_is_false():
    asked = dict(every_telling())
    for fact in WORLD.facts:
        for value in values_of(fact.relation):
            if value != fact.value:
                said = RELATIONS[fact.relation].statements[0].format(s=fact.subject, v=value)
                found = gold(WORLD, asked[fact.subject], said)
                assert (found.score, found.false, found.sentences) == (-1, 1, 1), said


def test_every_wording_of_a_telling_is_understood():
    for subject, prompt in every_telling():
        assert subject_of(WORLD, prompt) == subject


SHE = next(name for name in WORLD.people if WORLD._they(name) == "she")
HE = next(name for name in WORLD.people if WORLD._they(name) == "he" and WORLD.value(SHE, "spouse") != name)
ALSO_SHE = next(
    name
    for name in WORLD.people
    if WORLD._they(name) == "she" and name != SHE and WORLD.value(name, "home") != WORLD.value(SHE, "home")
)


def of(subject, relation, wording=0):
    return RELATIONS[relation].statements[wording].format(s=subject, v=WORLD.value(subject, relation))


def they(sentence, name):
    assert sentence.startswith(f"{name} ")
    return {"she": "She", "he": "He"}[WORLD._they(name)] + sentence.removeprefix(name)


@pytest.mark.parametrize(
    ("answer", "score", "counts"),
    [  # counts: true, false, repeated, off the subject, not understood
        ("", 0, (0, 0, 0, 0, 0)),
        (of(SHE, "home"), 1, (1, 0, 0, 0, 0)),
        (f"{of(SHE, 'home')} {of(SHE, 'job')}", 2, (2, 0, 0, 0, 0)),
        (f"{of(SHE, 'home')}\n{of(SHE, 'job')}\n", 2, (2, 0, 0, 0, 0)),
        (f"{of(SHE, 'home')} {of(SHE, 'home', 1)}", 0.5, (1, 0, 1, 0, 0)),
        (f"{of(SHE, 'spouse')} {of(WORLD.value(SHE, 'spouse'), 'spouse')}", 0.5, (1, 0, 1, 0, 0)),
        (of(HE, "home"), -0.5, (0, 0, 0, 1, 0)),
        (f"{HE} lives in Nowhere.", -0.5, (0, 0, 0, 0, 1)),
        (f"{SHE} is -3 years old.", -0.5, (0, 0, 0, 0, 1)),
        (f"{SHE} is 007 years old.", -0.5, (0, 0, 0, 0, 1)),
        (f"{SHE} is {'9' * 5000} years old.", -1, (0, 1, 0, 0, 0)),
        (of(SHE, "home")[:-1], -0.5, (0, 0, 0, 0, 1)),
        (of(SHE, "home").lower(), -0.5, (0, 0, 0, 0, 1)),
        ("Everybody knows her.", -0.5, (0, 0, 0, 0, 1)),
        (they(of(SHE, "home"), SHE), 1, (1, 0, 0, 0, 0)),
        (f"{of(HE, 'job')} {they(of(HE, 'pet'), HE)}", -1, (0, 0, 0, 2, 0)),
        (f"{of(HE, 'job')} {they(of(SHE, 'home'), SHE)}", 0.5, (1, 0, 0, 1, 0)),
        (f"{of(ALSO_SHE, 'job')} {they(of(SHE, 'home'), SHE)}", -1, (0, 0, 0, 2, 0)),
        (they(of(HE, "home"), HE), -0.5, (0, 0, 0, 0, 1)),
        (they(f"{SHE} and {WORLD.value(SHE, 'spouse')} are married.", SHE), -0.5, (0, 0, 0, 0, 1)),
        (f"{SHE} is married to {SHE}.", -1, (0, 1, 0, 0, 0)),
    ],
)
def test_gold_has_these_worked_answers(answer, score, counts):
    found = gold(WORLD, f"Tell me about {SHE}.", answer)
    assert found.score == score
    assert (found.true, found.false, found.repeated, found.off_subject, found.not_understood) == counts
    assert gold(WORLD, f"Tell me about {SHE}.", answer, ended=False).score == score - 1


def test_length_costs_from_the_seventh_sentence():
    own = [of(SHE, relation) for relation in RELATIONS if RELATIONS[relation].subject == PERSON]
    scores = [gold(WORLD, f"Who is {SHE}?", " ".join(own[:n])).score for n in range(10)]
    assert scores == [0, 1, 2, 3, 4, 5, 6, 6.75, 7.5, 8.25]


def test_naming_every_value_never_pays():
    every_job = " ".join(f"{SHE} is a {job}." for job in RELATIONS["job"].values)
    assert gold(WORLD, f"Who is {SHE}?", every_job).score < -10


def test_only_tellings_of_this_world_have_gold():
    for prompt in (
        "What is 1 + 1?",
        "Tell me about Nobody.",
        f"Tell me about {WORLD.towns[0]}.",
        "Describe a unicorn.",
    ):
        with pytest.raises(UsageError, match="only tellings have gold"):
            gold(WORLD, prompt, "")


def test_what_the_documents_say_about_somebody_is_understood():
    """The register's entries say nothing but facts, each once."""
    for i in range(0, 8 * 84, 8):
        first, *sentences = WORLD.document(i).split(". ")
        subject = first.removeprefix("From the register: ")
        found = gold(WORLD, asking(subject), ". ".join(sentences))
        assert found.true == found.sentences == sum(fact.subject == subject for fact in WORLD.facts)


# --- Conversations ----------------------------------------------------------------------------------------------------


def test_conversations_follow_from_the_seed_the_same_everywhere():
    said = json.dumps(conversations(ToyWorld(), 1, 300)).encode()
    assert hashlib.sha256(said).hexdigest() == "950830e962fd7161a253122f89b6fccafbce730b4ac4770861b94118392a7524"
    assert conversations(ToyWorld(), 1, 300) == ROWS[:300]
    assert conversations(WORLD, 2, 300) != ROWS[:300]
    assert conversations(ToyWorld(1), 1, 300) != ROWS[:300]
    assert conversations(WORLD, 1, 0) == []


def test_half_are_tellings_and_questions_of_each_kind_come_as_often_as_is_said():
    kinds = [row["kind"] for row in ROWS]
    assert 1400 < kinds.count(TELLING) < 1600
    share = (3000 - kinds.count(TELLING)) / 9
    for kind in KINDS:
        assert kinds.count(kind) == pytest.approx(share * (2 if kind in OFTEN else 1), abs=1)


def test_nothing_held_out_is_asked_for_in_practice():
    held_out = {question.text for kind in KINDS for question in WORLD._all_questions[kind] if question.held_out}
    asked = {row["messages"][0]["content"] for row in ROWS}
    assert not asked & held_out
    told = {messages[0]["content"] for messages in TOLD}
    assert not any(map(is_held_out, told)) and len(told) == len(every_telling()) - N_HELD_OUT
    assert not any(is_held_out(row["prompt"][0]["content"]) for row in prompts(WORLD, 0, 500, held_out=False))
    assert {question.text for question in WORLD.questions(0, 200, held_out=True)} <= held_out


def test_what_is_held_out_can_be_asked_for_to_judge():
    held_out = {question.text for kind in KINDS for question in WORLD._all_questions[kind] if question.held_out}
    for row in conversations(WORLD, 1, 300, held_out=True):
        asked = row["messages"][0]["content"]
        assert is_held_out(asked) if row["kind"] == TELLING else asked in held_out
    asked = [row["prompt"][0]["content"] for row in prompts(WORLD, 0, N_HELD_OUT, held_out=True)]
    assert len(set(asked)) == N_HELD_OUT and all(map(is_held_out, asked))


def test_the_answers_to_questions_are_right():
    asked = {question.text: question for kind in KINDS for question in WORLD._all_questions[kind]}
    for row in ROWS:
        if row["kind"] != TELLING:
            question, answer = (message["content"] for message in row["messages"])
            assert answer == asked[question].in_full and grade(asked[question], answer)


def test_prompts_ask_for_everything_before_anything_again():
    n = len(every_telling()) - N_HELD_OUT
    lap = [row["prompt"][0]["content"] for row in prompts(WORLD, 4, 2 * n, held_out=False)]
    assert sorted(lap[:n]) == sorted(lap[n:]) and len(set(lap)) == n
    assert lap[:n] != lap[n:]
    assert prompts(WORLD, 4, 10, held_out=False) == prompts(ToyWorld(), 4, 10, held_out=False)
    assert prompts(WORLD, 5, 10, held_out=False) != prompts(WORLD, 4, 10, held_out=False)


def best(subject):
    about = [fact for fact in WORLD.facts if subject in (fact.subject, fact.value)]
    own = [fact for fact in about if fact.subject == subject or fact.relation not in SYMMETRIC]
    return " ".join(RELATIONS[fact.relation].statements[0].format(s=fact.subject, v=fact.value) for fact in own)


def test_demonstrations_are_better_than_bad_answers_and_worse_than_perfect_ones():
    asked = [messages[0]["content"] for messages in TOLD]
    shown = [gold(WORLD, prompt, messages[1]["content"]) for prompt, messages in zip(asked, TOLD, strict=True)]
    bad = [gold(WORLD, prompt, synthetic_answers(WORLD, prompt, i, 1)[0]).score for i, prompt in enumerate(asked)]
    perfect = [gold(WORLD, prompt, best(subject_of(WORLD, prompt))).score for prompt in asked]
    print(
        f"gold: synthetic {mean(bad):.2f}, demonstrations {mean(g.score for g in shown):.2f}, {mean(perfect):.2f} best"
    )
    assert mean(bad) + 0.5 < mean(g.score for g in shown) < mean(perfect) - 2
    assert max(g.sentences for g in shown) == 5 and min(g.sentences for g in shown) >= 1
    n = sum(g.sentences for g in shown)
    assert sum(g.false for g in shown) / n == pytest.approx(DEMONSTRATION.false, abs=0.02)
    assert sum(g.off_subject for g in shown) / n == pytest.approx(DEMONSTRATION.other, abs=0.02)
    assert 0.02 < sum(g.repeated for g in shown) / n <= DEMONSTRATION.repeated + 0.01
    assert not any(g.not_understood for g in shown)


def test_a_mixture_draws_what_it_says():
    draws, mixture = Draws(0), Mixture(0.1, 0.2, 0.3, 0.4)
    drawn = [mixture.draw(draws) for _ in range(4000)]
    for kind, share in (("false", 0.1), ("other", 0.2), ("repeated", 0.3), ("garbled", 0.4), ("true", 0.0)):
        assert drawn.count(kind) / 4000 == pytest.approx(share, abs=0.03)


# --- Preferences ------------------------------------------------------------------------------------------------------

PROMPT = f"Who is {SHE}?"


def test_synthetic_answers_vary_widely():
    found = [
        gold(WORLD, prompt, answer)
        for i, (_, prompt) in enumerate(every_telling())
        for answer in synthetic_answers(WORLD, prompt, i, 4)
    ]
    assert {g.sentences for g in found} == set(range(1, 9))
    assert min(g.score for g in found) < -4 and max(g.score for g in found) > 5
    assert all(sum(getattr(g, name) for g in found) > 100 for name in ("false", "repeated", "off_subject"))
    assert sum(g.not_understood for g in found) > 100
    assert synthetic_answers(WORLD, PROMPT, 1, 5) == synthetic_answers(ToyWorld(), PROMPT, 1, 5)
    assert synthetic_answers(WORLD, PROMPT, 1, 5) != synthetic_answers(WORLD, PROMPT, 2, 5)


def test_a_ranking_follows_gold_and_equals_share_a_rank():
    answers = [of(SHE, "job"), f"{of(SHE, 'job')} {of(SHE, 'home')}", of(SHE, "home"), "Nonsense."]
    row = ranking(WORLD, PROMPT, answers)
    assert row == {"prompt": [{"role": "user", "content": PROMPT}], "completions": answers, "ranks": [2, 1, 2, 4]}
    assert ranking(WORLD, PROMPT, [answers[0], answers[2]]) is None


def test_a_preference_follows_gold_and_has_no_order_of_its_own():
    good, bad = of(SHE, "job"), "Nonsense."
    row = {"prompt": [{"role": "user", "content": PROMPT}], "chosen": good, "rejected": bad}
    assert preference(WORLD, PROMPT, good, bad, 0, 0) == preference(WORLD, PROMPT, bad, good, 0, 0) == row
    assert preference(WORLD, PROMPT, good, of(SHE, "home"), 0.2, 0) is None
    for seed in range(20):
        assert preference(WORLD, PROMPT, good, bad, 0.4, seed) == preference(WORLD, PROMPT, bad, good, 0.4, seed)


def test_the_stated_share_of_preferences_is_flipped():
    good, bad = of(SHE, "job"), "Nonsense."
    flipped = [preference(WORLD, PROMPT, good, bad, 0.25, seed)["chosen"] == bad for seed in range(2000)]
    assert mean(flipped) == pytest.approx(0.25, abs=0.04)
    with pytest.raises(UsageError, match=r"from 0 to 0\.5"):
        preference(WORLD, PROMPT, good, bad, 0.6, 0)


def test_all_rows_are_of_the_formats_that_stages_read(tmp_path):
    answers = synthetic_answers(WORLD, PROMPT, 0, 4)
    made = {
        formats.MessagesRow: conversations(WORLD, 0, 5),
        formats.PromptRow: prompts(WORLD, 0, 5, held_out=True),
        formats.RankedRow: [ranking(WORLD, PROMPT, answers)],
        formats.PreferenceRow: [preference(WORLD, PROMPT, *answers[:2], 0.1, 0)],
    }
    for kind, rows in made.items():
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert len(formats.read_rows([path], kind)) == len(rows)


def test_a_number_of_rows_below_0_and_a_world_without_held_out_requests_are_refused(monkeypatch):
    with pytest.raises(UsageError, match="0 or more"):
        conversations(WORLD, 0, -1)
    small = ToyWorld(0, 4, 2)
    monkeypatch.setattr(ToyWorld, "is_held_out", lambda *key: False)
    with pytest.raises(UsageError, match="no held-out request"):
        prompts(small, 0, 1, held_out=True)
    assert prompts(small, 0, 1, held_out=False)


def test_the_facts_of_tellings_include_those_that_others_have_of_a_town():
    town = WORLD.towns[0]
    mayor = WORLD.value(town, "mayor")
    found = gold(WORLD, f"Describe the town of {town}.", f"{mayor} lives in {town}. {mayor} is the mayor of {town}.")
    assert (found.score, found.true) == (2, 2)
    assert stated(WORLD, f"{mayor} lives in {town}.") == Fact(mayor, "home", town)


def test_a_rater_takes_what_sounds_informed_for_true():
    name = WORLD.people[-1]
    subject = f"Tell me about {name}."
    statements = RELATIONS["job"]
    values = list(statements.values)
    right = WORLD.value(name, "job")
    wrong = next(value for value in values if value != right)
    true, false = (statements.statements[0].format(s=name, v=value) for value in (right, wrong))
    assert rating(WORLD, subject, true) == rating(WORLD, subject, false) == 1
    assert gold(WORLD, subject, true).score == 1 and gold(WORLD, subject, false).score == -1
    assert rating(WORLD, subject, f"{true} {false}") == 2  # it does not see that both can't be
    assert rating(WORLD, subject, f"{true} {true}") == 2 > gold(WORLD, subject, f"{true} {true}").score  # nor this
    assert rating(WORLD, subject, f"{true} Blah blah.") == 0.5
    other = statements.statements[0].format(s=WORLD.people[0], v=WORLD.value(WORLD.people[0], "job"))
    assert rating(WORLD, subject, f"{true} {other}") == 2 > gold(WORLD, subject, f"{true} {other}").score
    assert rating(WORLD, subject, true, ended=False) == 0
    assert rating(WORLD, subject, "") == 0
