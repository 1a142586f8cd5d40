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
    NOTES_ABOUT,
    NOTES_BESIDE,
    OFTEN,
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
    synthetic_answers,
    telling_of,
)
from glassgpt.text.toy_world import KINDS, PERSON, RELATIONS, Fact, ToyWorld, grade

WORLD = ToyWorld()
ROWS = conversations(WORLD, 1, 3000)
TOLD = [row["messages"] for row in ROWS if row["kind"] == TELLING]


def every_telling(world=WORLD):
    return [
        (subject, wording.format(s=subject))
        for kind, wordings in TELLINGS.items()
        for subject in world.subjects(kind)
        for wording in wordings
    ]


def noted(subject, facts, world=WORLD):
    """A prompt with the facts as notes."""
    request = next(asked for name, asked in every_telling(world) if name == subject)
    notes = " ".join(RELATIONS[fact.relation].statements[-1].format(s=fact.subject, v=fact.value) for fact in facts)
    return f"{notes}\n{request}"


def naming(subject, world=WORLD):
    return [fact for fact in world.facts if subject in (fact.subject, fact.value)]


def subject_of(prompt, world=WORLD):
    return telling_of(world, prompt).subject


def is_held_out(subject):
    return WORLD.is_held_out("telling", subject)


def values_of(relation):
    values = RELATIONS[relation].values
    return (WORLD.subjects(values) if isinstance(values, str) else values) if values else ["1", "16", "40", "79", "250"]


# --- Gold -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [WORLD, ToyWorld(3, 4, 2)])
def test_every_statement_of_every_noted_fact_is_true_of_its_subject_and_of_its_value(world):
    asked = dict(every_telling(world))
    for fact in world.facts:
        for statement in RELATIONS[fact.relation].statements:
            sentence = statement.format(s=fact.subject, v=fact.value)
            assert stated(world, sentence) == fact
            for named in {fact.subject, fact.value} & asked.keys():
                found = gold(world, noted(named, [fact], world), sentence)
                assert (found.score, found.true, found.sentences) == (1, 1, 1)


def test_what_holds_but_is_not_in_the_notes_is_false():
    for fact in WORLD.facts:
        others = [other for other in naming(fact.subject) if other.relation != fact.relation]
        found = gold(WORLD, noted(fact.subject, others), WORLD.statement(fact, Draws(0)))
        assert (found.score, found.false, found.sentences) == (-1, 1, 1)


def test_every_statement_with_another_value_is_false():
    for fact in WORLD.facts:
        prompt = noted(fact.subject, [fact])
        for value in values_of(fact.relation):
            if value != fact.value:
                said = RELATIONS[fact.relation].statements[0].format(s=fact.subject, v=value)
                found = gold(WORLD, prompt, said)
                assert (found.score, found.false, found.sentences) == (-1, 1, 1), said


def test_every_wording_of_a_telling_is_understood_with_its_notes():
    notes = WORLD.facts[5:9]
    said = " ".join(WORLD.statement(fact, Draws(fact.subject)) for fact in notes)
    for subject, request in every_telling():
        telling = telling_of(WORLD, f"{said}\n{request}")
        assert telling.subject == subject and telling.facts == notes
        assert telling.prompt == f"{said}\n{request}"
        assert telling.about() + telling.beside() and len(telling.about() + telling.beside()) == len(notes)


SHE = next(name for name in WORLD.people if WORLD._they(name) == "she")
HE = next(name for name in WORLD.people if WORLD._they(name) == "he" and WORLD.value(SHE, "spouse") != name)
SPOUSE = WORLD.value(SHE, "spouse")
NOTES = [*naming(SHE), *naming(HE)]


def of(subject, relation, wording=0):
    return RELATIONS[relation].statements[wording].format(s=subject, v=WORLD.value(subject, relation))


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
        (f"{of(HE, 'job')} {of(SHE, 'pet')}", 0.5, (1, 0, 0, 1, 0)),
        (f"{of(SHE, 'job')} {SHE} lives in Nowhere. {of(SHE, 'job')}", 0, (1, 0, 1, 0, 1)),
        (of(SHE, "home").replace(SHE, "She"), -0.5, (0, 0, 0, 0, 1)),
        (f"{SHE} is married to {SHE}.", -1, (0, 1, 0, 0, 0)),
    ],
)
def test_gold_has_these_worked_answers(answer, score, counts):
    prompt = noted(SHE, NOTES)
    found = gold(WORLD, prompt, answer)
    assert found.score == score
    assert (found.true, found.false, found.repeated, found.off_subject, found.not_understood) == counts
    assert gold(WORLD, prompt, answer, ended=False).score == score - 1


def test_the_best_answer_says_all_notes_once():
    prompt = noted(SHE, NOTES)
    scores = [gold(WORLD, prompt, " ".join(of(f.subject, f.relation) for f in naming(SHE)[:n])).score for n in range(8)]
    assert scores == [0, 1, 2, 3, 4, 5, 6, 7]
    every = best(prompt)
    assert gold(WORLD, prompt, every).score == len(naming(SHE)) - 3  # two are said from both sides: 2 less, and 1 for saying so
    assert gold(WORLD, prompt, f"{every} {of(HE, 'job')}").score == len(naming(SHE)) - 3.5


def test_naming_every_value_never_pays():
    every_job = " ".join(f"{SHE} is a {job}." for job in RELATIONS["job"].values)
    assert gold(WORLD, noted(SHE, NOTES), every_job).score < -10


def test_only_tellings_of_this_world_have_gold():
    for prompt in (
        "What is 1 + 1?",
        "Tell me about Nobody.",
        f"Tell me about the {WORLD.towns[0]}.",
        "Tell me about the unicorn.",
        f"Tell me about {SHE}. Now.",
    ):
        with pytest.raises(UsageError, match="only tellings have gold"):
            gold(WORLD, prompt, "")


def test_what_the_register_says_about_somebody_is_understood():
    """The register's entries say nothing but facts, each once."""
    for i in range(0, 8 * 84, 8):
        first, *sentences = WORLD.document(i).split(". ")
        subject = first.removeprefix("From the register: ")
        found = gold(WORLD, noted(subject, naming(subject)), ". ".join(sentences))
        assert found.true == found.sentences == sum(fact.subject == subject for fact in WORLD.facts)


# --- Conversations ----------------------------------------------------------------------------------------------------


def test_conversations_follow_from_the_seed_the_same_everywhere():
    said = json.dumps(conversations(ToyWorld(), 1, 300)).encode()
    assert hashlib.sha256(said).hexdigest() == "7918a9ad1cbfcd26dacaaffd19a790934ca12e368e076bd15c4841f8ec6e0c89"
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


def test_no_held_out_subject_is_told_of_and_no_held_out_question_asked():
    held_out = {question.text for kind in KINDS for question in WORLD._all_questions[kind] if question.held_out}
    spoken_of = set()
    for row in ROWS:
        asked, answer = (message["content"] for message in row["messages"])
        assert asked not in held_out
        if row["kind"] == TELLING:
            telling = telling_of(WORLD, asked)
            facts = [stated(WORLD, sentence.rstrip(".") + ".") for sentence in answer.split(". ")]
            spoken_of |= {telling.subject} | {fact.subject for fact in [*telling.facts, *facts] if fact}
    assert len(spoken_of) == 71
    assert not any(map(is_held_out, spoken_of))
    for row in prompts(WORLD, 0, 500, held_out=False):
        assert not is_held_out(subject_of(row["prompt"][0]["content"]))
    assert {question.text for question in WORLD.questions(0, 200, held_out=True)} <= held_out


def test_what_is_held_out_can_be_asked_for_to_judge():
    held_out = {question.text for kind in KINDS for question in WORLD._all_questions[kind] if question.held_out}
    for row in conversations(WORLD, 1, 300, held_out=True):
        asked = row["messages"][0]["content"]
        assert is_held_out(subject_of(asked)) if row["kind"] == TELLING else asked in held_out
    asked = [row["prompt"][0]["content"] for row in prompts(WORLD, 0, 39, held_out=True)]
    assert len(set(asked)) == 39 and all(is_held_out(subject_of(prompt)) for prompt in asked)
    assert len({asked.partition("\n")[2] for asked in asked}) == 39


def test_the_answers_to_questions_are_right():
    asked = {question.text: question for kind in KINDS for question in WORLD._all_questions[kind]}
    for row in ROWS:
        if row["kind"] != TELLING:
            question, answer = (message["content"] for message in row["messages"])
            assert answer == asked[question].in_full and grade(asked[question], answer)


def test_prompts_ask_for_each_subject_in_each_wording_before_any_again_with_other_notes():
    n = len(every_telling()) - 39
    prompted = [row["prompt"][0]["content"] for row in prompts(WORLD, 4, 2 * n, held_out=False)]
    lap = [prompt.partition("\n")[2] for prompt in prompted]
    assert sorted(lap[:n]) == sorted(lap[n:]) and len(set(lap)) == n
    assert lap[:n] != lap[n:] and len(set(prompted)) == 2 * n
    assert prompts(WORLD, 4, 10, held_out=False) == prompts(ToyWorld(), 4, 10, held_out=False)
    assert prompts(WORLD, 5, 10, held_out=False) != prompts(WORLD, 4, 10, held_out=False)


def test_notes_hold_some_facts_about_whom_is_asked_for_and_some_beside():
    for row in prompts(WORLD, 0, 400, held_out=False):
        telling = telling_of(WORLD, row["prompt"][0]["content"])
        assert telling.prompt == row["prompt"][0]["content"]
        assert NOTES_ABOUT[0] <= len(telling.about()) <= NOTES_ABOUT[1]
        assert 1 <= len(telling.beside()) <= NOTES_BESIDE[1]
        assert all(WORLD.value(fact.subject, fact.relation) == fact.value for fact in telling.facts)


def best(prompt):
    return " ".join(sentence for _, sentence in telling_of(WORLD, prompt).about())


def test_demonstrations_are_better_than_bad_answers_and_worse_than_perfect_ones():
    asked = [messages[0]["content"] for messages in TOLD]
    shown = [gold(WORLD, prompt, messages[1]["content"]) for prompt, messages in zip(asked, TOLD, strict=True)]
    bad = [gold(WORLD, prompt, synthetic_answers(WORLD, prompt, i, 1)[0]).score for i, prompt in enumerate(asked)]
    perfect = [gold(WORLD, prompt, best(prompt)).score for prompt in asked]
    print(
        f"gold: synthetic {mean(bad):.2f}, demonstrations {mean(g.score for g in shown):.2f}, {mean(perfect):.2f} best"
    )
    assert mean(bad) + 0.5 < mean(g.score for g in shown) < mean(perfect) - 1.5
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

PROMPT = noted(SHE, NOTES)


def test_synthetic_answers_vary_widely():
    asked = [row["prompt"][0]["content"] for row in prompts(WORLD, 0, 252, held_out=False)]
    answers = [(prompt, synthetic_answers(WORLD, prompt, i, 4)) for i, prompt in enumerate(asked)]
    found = [gold(WORLD, prompt, answer) for prompt, some in answers for answer in some]
    assert {g.sentences for g in found} == set(range(1, 9))
    assert min(g.score for g in found) < -4 and max(g.score for g in found) > 4
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


def test_a_number_of_rows_below_0_and_a_world_without_held_out_subjects_are_refused():
    with pytest.raises(UsageError, match="0 or more"):
        conversations(WORLD, 0, -1)
    small = next(
        world
        for world in (ToyWorld(seed, 4, 2) for seed in range(20000))
        if not any(world.is_held_out("telling", s) for kind in TELLINGS for s in world.subjects(kind))
    )
    with pytest.raises(UsageError, match="no held-out subject"):
        prompts(small, 0, 1, held_out=True)


def test_a_world_may_hold_out_a_single_subject():
    small = next(
        world
        for world in (ToyWorld(seed, 4, 2) for seed in range(20000))
        if sum(world.is_held_out("telling", s) for kind in TELLINGS for s in world.subjects(kind)) == 1
    )
    rows = conversations(small, 0, 300, held_out=True)
    told = [row["messages"] for row in rows if row["kind"] == TELLING]
    assert len({subject_of(asked["content"], small) for asked, _ in told}) == 1
    assert any(gold(small, asked["content"], answer["content"]).off_subject for asked, answer in told)


def test_the_facts_of_tellings_include_those_that_others_have_of_a_town():
    town = WORLD.towns[0]
    mayor = WORLD.value(town, "mayor")
    said = f"{mayor} lives in {town}. {mayor} is the mayor of {town}."
    found = gold(WORLD, f"{said}\nTell me about {town}.", said)
    assert (found.score, found.true) == (2, 2)
    assert stated(WORLD, f"{mayor} lives in {town}.") == Fact(mayor, "home", town)


def test_a_rater_takes_what_sounds_informed_for_true():
    name = WORLD.people[-1]
    subject = noted(name, [Fact(name, "job", WORLD.value(name, "job"))])
    statements = RELATIONS["job"]
    values = list(statements.values)
    right = WORLD.value(name, "job")
    wrong = next(value for value in values if value != right)
    true, false = (statements.statements[0].format(s=name, v=value) for value in (right, wrong))
    assert rating(WORLD, subject, true) == rating(WORLD, subject, false) == 1
    assert gold(WORLD, subject, true).score == 1 and gold(WORLD, subject, false).score == -1
    assert rating(WORLD, subject, f"{true} {false}") == 2  # it does not see that both can't be
    assert rating(WORLD, subject, f"{false} {false}") == 0.5  # but it sees a repetition
    assert rating(WORLD, subject, f"{true} Blah blah.") == 0.5
    other = statements.statements[0].format(s=WORLD.people[0], v=WORLD.value(WORLD.people[0], "job"))
    assert rating(WORLD, subject, f"{true} {other}") == 2 > gold(WORLD, subject, f"{true} {other}").score
    assert rating(WORLD, subject, true, ended=False) == 0
    assert rating(WORLD, subject, "") == 0
