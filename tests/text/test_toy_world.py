"""The toy world: consistent, the same everywhere, and gradable; what is held out never occurs."""

import hashlib
import re
from collections import Counter

import numpy as np
import pytest

from glassgpt.errors import UsageError
from glassgpt.text.toy_world import (
    CAUSES,
    HELD_OUT,
    KINDS,
    RELATIONS,
    TWO_FACTS,
    Question,
    ToyWorld,
    ToyWorldSource,
    grade,
)

WORLD = ToyWorld()
DOCUMENTS = [document.text for document in ToyWorldSource(WORLD, 500_000).documents()]
CORPUS = "\n\n".join(DOCUMENTS)


def every_question():
    return [question for kind in KINDS for question in WORLD._all_questions[kind]]


def test_the_same_seed_gives_the_same_bytes_everywhere():
    worlds = ToyWorld(7), ToyWorld(8)
    texts = ["\n".join(world.document(i) for i in range(200)) for world in worlds]
    assert (
        hashlib.sha256(texts[0].encode()).hexdigest()
        == "1f70cfc576b4265e14af867b51895f941dfe7fd88099f7089ea0422ee0bf6603"
    )
    assert texts[0] != texts[1]


def test_documents_are_short_plain_text_made_one_by_one():
    assert all(document.isascii() and 8 < len(document) < 1500 for document in DOCUMENTS)
    assert ToyWorld().document(1234) == DOCUMENTS[1234]
    assert 500_000 <= sum(map(len, DOCUMENTS)) < 501_500


# --- Consistency ------------------------------------------------------------------------------------------------------


def test_marriage_and_friendship_hold_both_ways_and_mayors_live_in_their_towns():
    for relation in ("spouse", "friend"):
        for person in WORLD.people:
            other = WORLD.value(person, relation)
            assert other != person
            assert WORLD.value(other, relation) == person
    for town in WORLD.towns:
        assert WORLD.value(WORLD.value(town, "mayor"), "home") == town
    assert len(WORLD.facts) == 9 * 48 + 3 * 12 + 2 * 24


@pytest.mark.parametrize("seed", [0, 1])
def test_every_statement_of_a_fact_in_the_text_is_true(seed):
    world = ToyWorld(seed)
    text = CORPUS if seed == 0 else "\n".join(world.document(i) for i in range(700))
    found = Counter()
    for name, relation in RELATIONS.items():
        subjects = {subject.lower(): subject for subject in world.subjects(relation.subject)}
        for template in relation.statements:
            pattern = re.escape(template).replace(r"\{s\}", r"(?P<s>\w+)").replace(r"\{v\}", r"(?P<v>\w+)")
            for match in re.finditer(
                r"(?<![\w ])" + pattern + r"|(?<=[.!?] )" + pattern.replace("P<s>", "P<t>").replace("P<v>", "P<w>"),
                text,
            ):
                subject, value = match["s"] or match["t"], match["v"] or match["w"]
                if subject.lower() not in subjects:
                    continue  # "She lives in ..."
                assert world.value(subjects[subject.lower()], name) == value, match.group()
                found[name] += 1
    assert min(found[name] for name in RELATIONS) > 10, found


def test_every_fact_is_stated_in_the_first_150_kilobytes():
    for fact in WORLD.facts:
        said = [form.format(s=fact.subject, v=fact.value) for form in RELATIONS[fact.relation].statements]
        assert any(sentence in CORPUS[:150_000] for sentence in said), fact


def test_pronouns_agree_within_a_life():
    for document in DOCUMENTS[:2000]:
        if document.startswith(("This is about", "Everybody knows", "Let me tell")):
            assert not ("She " in document and " He " in document), document


def test_every_sum_in_the_text_is_right():
    found = re.findall(
        r"(\d+) ([+x-]) (\d+) = (\d+)\b", re.sub(r"\d+ \+ (\d+ \+ \d+)", r"\1", CORPUS).replace(" + 1 =", " +1=")
    )
    assert len(found) > 1500
    for a, sign, b, result in found:
        assert {"+": int(a) + int(b), "-": int(a) - int(b), "x": int(a) * int(b)}[sign] == int(result)


def test_each_cause_has_one_effect_in_the_text():
    effects = dict(CAUSES)
    assert len({*effects.values()}) == len(CAUSES)
    for cause, effect in CAUSES:
        sentences = [document for document in DOCUMENTS if cause in document and "Question:" not in document]
        assert sentences
        assert all(effect in document for document in sentences)


def test_words_are_as_frequent_as_zipf_found():
    counts = np.array([count for _, count in Counter(re.findall(r"\w+", CORPUS)).most_common(300)], dtype=float)
    slope = np.polyfit(np.log(np.arange(1, 301)), np.log(counts), 1)[0]
    assert -1.4 < slope < -0.6


# --- Held out ---------------------------------------------------------------------------------------------------------


def test_what_is_held_out_never_occurs():
    held_out = [question for question in every_question() if question.held_out]
    assert len(held_out) > 1000
    for question in held_out:
        for text in (question.text, *question.statements):
            assert text not in CORPUS, text


def test_held_out_sums_and_differences_occur_in_no_form():
    for a, sign, b in set(re.findall(r"(?<!\d)(\d+) ([+-]) (\d+)(?! \+)", CORPUS)):
        a, b = int(a), int(b)
        if sign == "+" and max(a, b) > 9:
            assert not WORLD._is_sum_held_out(a, b)
        if sign == "-":
            assert not WORLD.is_held_out("difference", a, b)


def test_about_a_fifth_of_each_kind_is_held_out_and_practice_occurs():
    for kind in KINDS:
        questions = WORLD._all_questions[kind]
        share = sum(question.held_out for question in questions) / len(questions)
        assert abs(share - HELD_OUT) < 5 * (HELD_OUT * (1 - HELD_OUT) / len(questions)) ** 0.5 + 0.02
        assert any(question.text in CORPUS for question in questions if not question.held_out)
        assert any(said in CORPUS for question in questions for said in question.statements) or kind == "fact"


def test_every_question_has_one_answer():
    answers = {}
    for question in every_question():
        assert answers.setdefault(question.text, question.answer) == question.answer


def test_questions_follow_from_the_seed_and_are_all_different():
    drawn = WORLD.questions(1, 60, held_out=True)
    assert drawn == ToyWorld().questions(1, 60, held_out=True)
    assert drawn != WORLD.questions(2, 60, held_out=True)
    assert len(set(drawn)) == 60
    assert Counter(question.kind for question in drawn) == dict.fromkeys(KINDS, 10)
    assert all(question.held_out for question in drawn)
    more = WORLD.questions(1, 60, held_out=True, exclude=drawn)
    assert not set(more) & set(drawn)
    practice = WORLD.questions(1, 100, held_out=False, kinds=["sum", "cause"])
    assert {question.kind for question in practice} == {"sum", "cause"}
    assert not any(question.held_out for question in practice)


def test_the_answers_to_questions_of_two_facts_are_facts_of_facts():
    for (first, second), (_, text) in TWO_FACTS.items():
        asked = {question.text: question.answer for question in WORLD._all_questions["two facts"]}
        for person in WORLD.people:
            value = WORLD.value(WORLD.value(person, first), second)
            assert asked.get(text.format(s=person), value) == value


# --- Grading ----------------------------------------------------------------------------------------------------------


def test_every_answer_is_right_and_every_rival_wrong():
    for question in every_question():
        assert grade(question, question.answer)
        assert grade(question, f"I think it is {question.answer.upper()}.")
        assert not any(grade(question, rival) for rival in question.rivals)
        assert not grade(question, "")


TOWN = Question("fact", "Where does Mira live?", "Oakford", True, rivals=("Ashton", "Elmwick"))
SUM = Question("sum", "What is 27 + 48?", "75", True)


@pytest.mark.parametrize(
    ("question", "answer", "right"),
    [
        (TOWN, "Mira lives in Oakford.", True),
        (TOWN, "OAKFORD", True),
        (TOWN, "Oakfordshire", False),
        (TOWN, "Ashton", False),
        (TOWN, "Oakford or Ashton", False),
        (TOWN, "Mira does not live in Oakford", False),
        (TOWN, "Mira doesn't live in Oakford", False),
        (TOWN, "Oakford " * 61, False),
        (TOWN, "...", False),
        (SUM, "7 + 8 = 15, write 5, carry 1. 2 + 4 + 1 = 7. So 27 + 48 = 75.", True),
        (SUM, "75", True),
        (SUM, "075", True),
        (SUM, "It is 75, not 76", False),
        (SUM, "750", False),
        (SUM, "seventy-five", False),
    ],
)
def test_answers_are_graded_as_a_person_would(question, answer, right):
    assert grade(question, answer) is right


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ToyWorld(0, 7), "even number"),
        (lambda: ToyWorld(0, 302), "from 4 to 300"),
        (lambda: ToyWorld(0, 10, 11), "no more than people"),
        (lambda: ToyWorldSource(WORLD, 0), "a byte or more"),
        (lambda: WORLD.questions(0, 10**6, held_out=True), "are asked for"),
        (lambda: WORLD.questions(0, 1, held_out=True, kinds=["riddle"]), "'riddle'"),
    ],
)
def test_impossible_worlds_are_refused(call, message):
    with pytest.raises(UsageError, match=message):
        call()


@pytest.mark.parametrize(("n_people", "n_towns"), [(4, 2), (300, 90)])
def test_worlds_may_be_small_or_large(n_people, n_towns):
    world = ToyWorld(1, n_people, n_towns)
    assert len({*world.people, *world.towns, *world.things}) == n_people + n_towns + 24
    assert all(world.document(i) for i in range(50))
    assert ToyWorldSource(world).identity() != ToyWorldSource(WORLD).identity()
