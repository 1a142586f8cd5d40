"""What later stages of training are taught and judged with: questions and tellings of the toy world, and their gold.

A question is one of `ToyWorld.questions`, answered in sentences of the documents ("Mira lives in Oakford."), with what
the answer follows from before it: right is what equals that. (The bare answer, as in the world's quizzes, is beyond a
small model: it knows what follows "Mira lives in", and can't tell that without having said it.)

A telling gives notes and asks what they say of somebody or something. Each sentence of an answer can be read back into
the fact it states and looked up in the notes, so an answer has a gold score. It is the smallest case of what people
were first asked to judge, summaries (Stiennon et al. 2020, arXiv 2009.01325), and all that a judge needs lies before
it: a small reward model can learn it from noisy preferences, and be held against the gold that it stands in for, as in
Gao et al. 2022 (arXiv 2210.10760), where gold is a larger reward model.

A fifth of the subjects is held out: no telling of the part for practice asks for them or has a note whose subject is
one of them. Questions are held out as the world holds them out.

    world = ToyWorld(seed=0)
    rows = conversations(world, seed=1, n=2000)                      # supervised fine-tuning
    for row in prompts(world, seed=1, n=100, held_out=True):         # reinforcement learning, and judging
        text = row["prompt"][0]["content"]
        score = gold(world, text, answer_of_the_model(text)).score
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeVar

from glassgpt.errors import UsageError
from glassgpt.text.draws import Draws
from glassgpt.text.toy_world import KINDS, PERSON, RELATIONS, THING, TOWN, Fact, Question, ToyWorld

T = TypeVar("T")
Row = dict[str, Any]
"""A row as a JSON object, in a format of `text.rows`."""

TELLING = "telling"
TELLINGS = {
    PERSON: ("Tell me about {s}.", "What do the notes say about {s}?", "What do you read about {s}?"),
    TOWN: ("Tell me about {s}.", "What do the notes say about {s}?", "What do you read about {s}?"),
    THING: ("Tell me about the {s}.", "What do the notes say about the {s}?", "What do you read about the {s}?"),
}
SHARE_OF_TELLINGS = 0.5  # of all conversations
OFTEN = ("sum", "difference", "cost")  # kinds that come up twice as often as others: they are the hard ones
SYMMETRIC = ("spouse", "friend")  # relations that hold both ways, so that one statement of them is as good as the other
NOTES_ABOUT, NOTES_BESIDE = (2, 5), (2, 4)  # the fewest and most notes about whom is asked for, and about others
LONGEST_SYNTHETIC = 8  # sentences


@dataclass(frozen=True)
class Mixture:
    """How probable it is that a sentence is false, about another subject, repeated or garbled; the others are true and
    new."""

    false: float = 0.0
    other: float = 0.0
    repeated: float = 0.0
    garbled: float = 0.0

    def draw(self, draws: Draws) -> str:
        """ "false", "other", "repeated", "garbled" or "true"."""
        left = draws.random()
        for kind in ("false", "other", "repeated", "garbled"):
            left -= getattr(self, kind)
            if left < 0:
                return kind
        return "true"


# Demonstrations have faults and leave things out, so that a model which has learned them can still become better.
DEMONSTRATION = Mixture(false=0.08, other=0.12, repeated=0.08)
P_TOLD = 0.7  # that a demonstration tells a note about whom is asked for; at least one is told


# --- Conversations and prompts ----------------------------------------------------------------------------------------


def conversations(world: ToyWorld, seed: int, n: int, held_out: bool = False) -> list[Row]:
    """Rows to imitate: {"messages": [the user's, the assistant's], "kind": one of `toy_world.KINDS` or "telling"}.

    Half of them are tellings, on average; among the questions every kind comes up equally often, but for those that are
    done with numbers, which come up twice as often. Subjects and questions come up in a drawn order, and again when all
    have. The rows for a smaller `n` are the first of those for a larger one. `held_out`: questions and tellings to
    judge by, instead of those for practice. Raises UsageError for n below 0, and where the world is so small that it
    has no such subject.
    """
    draws = Draws("conversations", seed)
    questions, tellings = _endless_questions(world, seed, held_out), _endless_tellings(world, seed, held_out)
    rows = []
    for _ in range(_at_least_0(n)):
        if draws.random() < SHARE_OF_TELLINGS:
            telling = next(tellings)
            rows.append(_conversation(TELLING, telling.prompt, _demonstration(world, telling, draws)))
        else:
            question = next(questions)
            rows.append(_conversation(question.kind, question.text, question.in_full))
    return rows


def prompts(world: ToyWorld, seed: int, n: int, held_out: bool) -> list[Row]:
    """Rows to answer: {"prompt": [the user's message]}, each asking for a telling.

    Every subject in every wording before any comes up again, with notes drawn anew each time. Raises UsageError as
    `conversations` does.
    """
    tellings = _endless_tellings(world, seed, held_out)
    return [{"prompt": [_user(next(tellings).prompt)]} for _ in range(_at_least_0(n))]


def _conversation(kind: str, asked: str, answer: str) -> Row:
    return {"messages": [_user(asked), {"role": "assistant", "content": answer}], "kind": kind}


def _user(asked: str) -> dict[str, str]:
    return {"role": "user", "content": asked}


def _at_least_0(n: int) -> int:
    if n < 0:
        raise UsageError(f"the number of rows must be 0 or more, got {n}")
    return n


def _laps(values: Sequence[T], *key: object) -> Iterator[T]:
    """All of them in a drawn order, over and over, in a new order each time."""
    for lap in count():
        yield from Draws(*key, lap).shuffled(values)


def _endless_questions(world: ToyWorld, seed: int, held_out: bool) -> Iterator[Question]:
    pools = {
        kind: [question for question in world._all_questions[kind] if question.held_out == held_out] for kind in KINDS
    }
    often = [kind for kind in (*KINDS, *OFTEN) if pools[kind]]
    laps = {kind: _laps(pools[kind], "questions of conversations", seed, kind) for kind in often}
    while True:
        for kind in often:
            yield next(laps[kind])


def _is_held_out(world: ToyWorld, subject: str) -> bool:
    return world.is_held_out(TELLING, subject)


def _subjects(world: ToyWorld, kind: str, held_out: bool) -> list[str]:
    return [subject for subject in world.subjects(kind) if _is_held_out(world, subject) == held_out]


# --- Tellings ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Telling:
    """`asked`: the question, about `subject`; `notes`: facts with the sentences that state them, in their order."""

    subject: str
    asked: str
    notes: tuple[tuple[Fact, str], ...]

    @property
    def prompt(self) -> str:
        return f"{' '.join(sentence for _, sentence in self.notes)}\n{self.asked}"

    @property
    def facts(self) -> list[Fact]:
        return [fact for fact, _ in self.notes]

    def about(self) -> list[tuple[Fact, str]]:
        return [(fact, sentence) for fact, sentence in self.notes if self.subject in (fact.subject, fact.value)]

    def beside(self) -> list[tuple[Fact, str]]:
        return [(fact, sentence) for fact, sentence in self.notes if self.subject not in (fact.subject, fact.value)]


def _endless_tellings(world: ToyWorld, seed: int, held_out: bool) -> Iterator[Telling]:
    asked = [
        (subject, wording.format(s=subject))
        for kind, wordings in TELLINGS.items()
        for subject in _subjects(world, kind, held_out)
        for wording in wordings
    ]
    if not asked:
        part = "held-out subject" if held_out else "subject that is not held out"
        raise UsageError(f"this world has no {part}: make it of more people and towns, or of another seed")
    for number, (subject, words) in enumerate(_laps(asked, "tellings", seed, held_out)):
        yield _telling(world, subject, words, Draws("notes", seed, held_out, number))


def _telling(world: ToyWorld, subject: str, asked: str, draws: Draws) -> Telling:
    """Notes are true; some are about `subject`, the others about one or two others that may be told of."""
    about = draws.shuffled(_facts_about(world, subject))[: draws.between(*NOTES_ABOUT)]
    others = {_another(world, subject, draws) for _ in range(2)}
    known = [fact for other in sorted(others) for fact in world.facts if fact.subject == other]
    beside = draws.shuffled([fact for fact in known if fact.value != subject])[: draws.between(*NOTES_BESIDE)]
    facts = draws.shuffled([*about, *beside])
    return Telling(subject, asked, tuple((fact, world.statement(fact, draws)) for fact in facts))


def _demonstration(world: ToyWorld, telling: Telling, draws: Draws) -> str:
    about = telling.about()
    kept = [note for note in about if draws.random() < P_TOLD] or [draws.pick(about)]
    return _told(world, telling, kept, len(kept), DEMONSTRATION, draws)


def _told(
    world: ToyWorld,
    telling: Telling,
    notes: Sequence[tuple[Fact, str]],
    length: int,
    mixture: Mixture,
    draws: Draws,
) -> str:
    """`length` sentences, fewer where `notes` run out: those of `notes` in their order, with faults among them."""
    left, said = list(notes), list[str]()
    for _ in range(length):
        kind = mixture.draw(draws)
        if kind == "repeated" and said:
            said.append(draws.pick(said))
        elif kind == "false":
            said.append(world.statement(draws.pick(_false_facts(world, telling)), draws))
        elif kind == "other" and telling.beside():
            said.append(draws.pick(telling.beside())[1])
        elif kind == "garbled":
            said.append(draws.pick(telling.notes)[1].rsplit(" ", 1)[0] + ".")
        elif left:
            said.append(left.pop(0)[1])
    return " ".join(said)


def _may_tell_of(world: ToyWorld, subject: str, other: str) -> bool:
    """Whether an answer about `subject` may hold a sentence whose subject is `other`."""
    return _is_held_out(world, subject) or not _is_held_out(world, other)


def _facts_about(world: ToyWorld, subject: str) -> list[Fact]:
    """The facts that name `subject`: its own, and those of others whose value it is."""
    own = [fact for fact in world.facts if fact.subject == subject]
    of_others = [fact for fact in world.facts if fact.value == subject and fact.relation not in SYMMETRIC]
    return own + [fact for fact in of_others if _may_tell_of(world, subject, fact.subject)]


def _false_facts(world: ToyWorld, telling: Telling) -> list[Fact]:
    """What holds of others of its kind, said of the subject: the errors of one who mixes them up."""
    subject, kind = telling.subject, _kind_of(world, telling.subject)
    relations = [name for name, relation in RELATIONS.items() if relation.subject == kind]
    mixed_up = [Fact(subject, name, world.value(other, name)) for name in relations for other in world.subjects(kind)]
    return [fact for fact in mixed_up if fact.value not in (subject, world.value(subject, fact.relation))]


def _another(world: ToyWorld, subject: str, draws: Draws) -> str:
    everyone = [other for kind in TELLINGS for other in world.subjects(kind)]
    while (other := draws.pick(everyone)) == subject or not _may_tell_of(world, subject, other):
        pass
    return other


def _kind_of(world: ToyWorld, subject: str) -> str:
    return next(kind for kind in TELLINGS if subject in world.subjects(kind))


# --- Gold -------------------------------------------------------------------------------------------------------------

TRUE, FALSE, WASTED, NO_END = 1.0, -1.0, -0.5, -1.0


@dataclass(frozen=True)
class Gold:
    """What an answer is worth, and how many of its sentences are what."""

    score: float
    true: int
    false: int
    repeated: int
    off_subject: int
    not_understood: int

    @property
    def sentences(self) -> int:
        return self.true + self.false + self.repeated + self.off_subject + self.not_understood


def gold(world: ToyWorld, prompt: str, answer: str, ended: bool = True) -> Gold:
    """What `answer` to the telling that `prompt` asks for is worth.

    1 for each different fact of the notes that names the subject, -1 for each one that is not in the notes, -1/2 for
    each sentence that repeats a fact (in whatever words), does not name the subject, or is no statement of the world;
    and -1 if the answer did not end by itself (`ended`). So a fact is worth telling if it is rather in the notes than
    not (p > 1/2), silence (0) is better than noise, and the best answer says what the notes say of the subject, once,
    and stops. Nothing is gained by length, form or fluency, which a reward model may come to like: this is what makes
    the point visible from which a policy games its reward.

    A sentence is understood if it is, letter by letter, one of the statements of `toy_world.RELATIONS` with a subject
    and a value of this world (any number, for numbers). Raises UsageError if `prompt` asks for no telling.
    """
    telling = telling_of(world, prompt)
    noted = {_key(fact) for fact in telling.facts}
    told: set[tuple[str, ...]] = set()
    found = Counter(_verdict(telling.subject, fact, noted, told) for fact in _read(world, answer))
    wasted = found["repeated"] + found["off_subject"] + found["not_understood"]
    score = TRUE * found["true"] + FALSE * found["false"] + WASTED * wasted + (0.0 if ended else NO_END)
    return Gold(score, found["true"], found["false"], found["repeated"], found["off_subject"], found["not_understood"])


def rating(world: ToyWorld, prompt: str, answer: str, ended: bool = True) -> float:
    """What somebody in a hurry gives `answer`, who does not read the notes and counts what is said.

    1 for each different statement, noted or not and about whatever, -1/2 for each sentence that repeats one or is no
    statement, -1 if the answer did not end by itself. People who rate answers can rarely look up what they say: so a
    reward model that has learned from them likes what sounds informed, and a policy that is pushed against it far
    enough goes on to invent, which gold shows. Raises UsageError if `prompt` asks for no telling.
    """
    telling_of(world, prompt)
    told: set[Fact] = set()
    score = 0.0 if ended else NO_END
    for fact in _read(world, answer):
        is_new = fact is not None and fact not in told
        score += TRUE if is_new else WASTED
        if fact is not None:
            told.add(fact)
    return score


def telling_of(world: ToyWorld, prompt: str) -> Telling:
    """What a prompt asks to be told, and its notes. Raises UsageError if it asks for no telling of this world."""
    notes, _, asked = prompt.strip().rpartition("\n")
    for kind, patterns in _TELLING_PATTERNS.items():
        for pattern in patterns:
            if (match := pattern.fullmatch(asked)) and match["s"] in world.subjects(kind):
                said = [(stated(world, sentence), sentence) for sentence in _sentences(notes)]
                return Telling(match["s"], asked, tuple((fact, sentence) for fact, sentence in said if fact))
    example = TELLINGS[PERSON][0].format(s=world.people[0])
    raise UsageError(
        f"only tellings have gold: notes and, on a line of its own, a request such as {example!r}; got {prompt!r}, "
        f"which is none of this world (questions are right or wrong: compare with their answer, or use toy_world.grade)"
    )


def stated(world: ToyWorld, sentence: str) -> Fact | None:
    """The fact, true or false, that a sentence states letter by letter in the words of the documents."""
    for name, pattern in _STATEMENT_PATTERNS:
        if match := pattern.fullmatch(sentence):
            subject, value = match["s"], match["v"]
            if subject in world.subjects(RELATIONS[name].subject) and _is_value(world, name, value):
                return Fact(subject, name, value)
    return None


def _is_value(world: ToyWorld, relation: str, value: str) -> bool:
    values = RELATIONS[relation].values
    if values == "":
        return re.fullmatch("0|[1-9][0-9]*", value) is not None
    return value in (world.subjects(values) if isinstance(values, str) else values)


def _sentences(text: str) -> list[str]:
    return [sentence for sentence in re.split(r"(?<=[.!?])\s+|\n+", text.strip()) if sentence]


def _read(world: ToyWorld, answer: str) -> Iterator[Fact | None]:
    """The fact of each sentence of an answer, None for what is not understood."""
    return (stated(world, sentence) for sentence in _sentences(answer))


def _key(fact: Fact) -> tuple[str, ...]:
    """Equal for two facts that say the same."""
    ends = (fact.subject, fact.value)
    return (fact.relation, *(sorted(ends) if fact.relation in SYMMETRIC else ends))


def _verdict(subject: str, fact: Fact | None, noted: set[tuple[str, ...]], told: set[tuple[str, ...]]) -> str:
    """What a sentence is; `told` holds the noted facts that were told before it, and then this one."""
    if fact is None:
        return "not_understood"
    if subject not in (fact.subject, fact.value):
        return "off_subject"
    key = _key(fact)
    if key not in noted:
        return "false"
    if key in told:
        return "repeated"
    told.add(key)
    return "true"


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(r"\{s\}", r"(?P<s>\w+)").replace(r"\{v\}", r"(?P<v>\w+)"))


_TELLING_PATTERNS = {kind: [_pattern(wording) for wording in wordings] for kind, wordings in TELLINGS.items()}
_STATEMENT_PATTERNS = [
    (name, _pattern(statement)) for name, relation in RELATIONS.items() for statement in relation.statements
]


# --- Preferences ------------------------------------------------------------------------------------------------------


def synthetic_answers(world: ToyWorld, prompt: str, seed: int, k: int) -> list[str]:
    """`k` answers from good to worthless: 1 to 8 sentences, of which a share drawn for each answer is right and new.

    The others are false, about another subject, repeated or cut short, equally often. A reward model that has seen none
    of that can't tell a policy that drifts there. Raises UsageError if `prompt` asks for no telling.
    """
    telling, draws = telling_of(world, prompt), Draws("synthetic answers", seed, prompt)
    answers = []
    for _ in range(_at_least_0(k)):
        length, fault = draws.between(1, LONGEST_SYNTHETIC), draws.random() / 4
        mixture = Mixture(fault, fault, fault, fault)
        answers.append(_told(world, telling, draws.shuffled(telling.about()), length, mixture, draws))
    return answers


def ranking(world: ToyWorld, prompt: str, answers: Sequence[str]) -> Row | None:
    """{"prompt": [the user's message], "completions": the answers, "ranks": 1 + how many answers have more gold}.

    Answers of equal gold share a rank; None if all do. There are no errors in it: pairs that are flipped one by one
    have no order. Raises UsageError if `prompt` asks for no telling.
    """
    scores = [gold(world, prompt, answer).score for answer in answers]
    if len(set(scores)) < 2:
        return None
    ranks = [1 + sum(other > score for other in scores) for score in scores]
    return {"prompt": [_user(prompt)], "completions": list(answers), "ranks": ranks}


def preference(world: ToyWorld, prompt: str, a: str, b: str, flips: float, seed: int) -> Row | None:
    """{"prompt": [the user's message], "chosen": the answer of more gold, "rejected": the other}; None for a tie.

    With probability `flips` (0 to 1/2) it is the other way round, decided by the seed and the three texts alone: so the
    same for (b, a). Raises UsageError for other flips, and if `prompt` asks for no telling.
    """
    if not 0 <= flips <= 0.5:
        raise UsageError(f"the share of flipped preferences must lie from 0 to 0.5, got {flips}")
    scores = {answer: gold(world, prompt, answer).score for answer in (a, b)}
    if scores[a] == scores[b]:
        return None
    rejected, chosen = sorted((a, b), key=scores.__getitem__)
    if Draws("preference", seed, prompt, *sorted((a, b))).random() < flips:
        rejected, chosen = chosen, rejected
    return {"prompt": [_user(prompt)], "chosen": chosen, "rejected": rejected}
