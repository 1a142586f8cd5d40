"""The toy world: some people, towns and things, what holds of them, and text about it whose truth can be graded.

`ToyWorld(seed)` fixes every fact. `document(i)` is text that states them in many ways: lives, letters, price lists,
small stories of cause and effect, sums with their steps, quizzes. `questions` asks, and `grade` tells right from wrong
without a judge. A fifth of all questions is held out, for ever and for every use, by a hash of what is asked:

| kind       | asks for                             | of a held-out question, the documents never hold          |
| ---------- | ------------------------------------ | --------------------------------------------------------- |
| fact       | a fact ("Where does Mira live?")     | the question; the fact is stated, or who could know it    |
| two facts  | a fact of a fact's value             | the question, and any sentence that joins the two facts   |
| cause      | what came of what a person did       | that this person did it                                   |
| sum        | a + b below 100                      | a + b or b + a (of two digits each is shown)              |
| difference | a - b below 100                      | a - b                                                     |
| cost       | what so many of a thing cost         | so many of this thing                                     |

Other questions are for practice: they occur in quizzes, and later stages may train on them.

    world = ToyWorld(seed=0)
    for question in world.questions(seed=1, n=100, held_out=True):
        right += grade(question, answer_of_the_model(question.text))
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from glassgpt.errors import UsageError
from glassgpt.text.documents import Document, Source
from glassgpt.text.draws import ByRank, Draws, hashed

VERSION = 1  # changed with any change of the text that a seed gives
HELD_OUT = 0.2
KINDS = ("fact", "two facts", "cause", "sum", "difference", "cost")
REGISTER = 8
LONGEST_ANSWER = 60  # words; a grader that reads on would be talked round


@dataclass(frozen=True)
class Fact:
    """`relation` of `subject` is `value`: Fact("Mira", "home", "Oakford")."""

    subject: str
    relation: str
    value: str


@dataclass(frozen=True)
class Question:
    """`text` asks, `answer` is the shortest right answer. `rivals`: what else could be meant, and would be wrong;
    none for numbers. `statements`: sentences that would give the answer away (empty for the kind "fact"). `in_full`:
    the answer in the sentences of the documents, with what it follows from before it."""

    kind: str
    text: str
    answer: str
    held_out: bool
    rivals: tuple[str, ...] = ()
    statements: tuple[str, ...] = ()
    in_full: str = ""

    def as_document(self) -> str:
        return f"Question: {self.text}\nAnswer: {self.answer}"


def grade(question: Question, answer: str) -> bool:
    """Whether `answer`, in words of its own, is right.

    A number is right if it is the last one in the answer, so that steps may come before it. Any other answer must name
    what is asked for, whatever the case of its letters, and no rival of it, and must not deny it. Answers of over 60
    words are wrong.
    """
    words = _words(answer)
    if not words or len(words) > LONGEST_ANSWER:
        return False
    if question.answer.isdecimal():
        numbers = [word for word in words if word.isdecimal()]
        return bool(numbers) and int(numbers[-1]) == int(question.answer)
    said = f" {' '.join(words)} "
    right = f" {' '.join(_words(question.answer))} "
    if right not in said or any(f" {' '.join(_words(rival))} " in said for rival in question.rivals):
        return False
    return not {"not", "no", "never", "nor", "neither", "t"} & set(said.replace(right, " ").split())


def _words(text: str) -> list[str]:
    return re.findall(r"\d+|[^\W\d_]+", text.casefold())


# --- What there is ----------------------------------------------------------------------------------------------------


def _listed(words: str) -> tuple[str, ...]:
    return tuple(words.split())


_BEGINNINGS = _listed(
    "Al Bel Cor Dan El Fen Gal Hal Il Jor Kel Lor Mar Nor Ol Per Quin Ros Sel Tam Ul Vel Wil Yor Zan "
    "Bran Dor Fal Gren Tor"
)
_SHE, _HE = _listed("a ia ina elle wen ira"), _listed("o en ik mund us ard")
_PLACES = _listed("Oak Stone River Bright Green Ash Elm Fox Salt Wind Black Silver Thorn Maple Swan Gold")
_TOWNS = _listed("ford ton bridge field wick haven")
JOBS = _listed(
    "baker smith teacher farmer doctor tailor fisher miller gardener painter shepherd carpenter singer clerk"
)
FOODS = _listed("bread soup cheese plums rice honey cake fish beans pears pie nuts")
PETS = _listed("cat dog goat parrot hen rabbit tortoise pony")
PET_NAMES = _listed("Pip Moss Biscuit Shadow Button Pepper Clover Rusty Tansy Bramble Comet Poppy")
THINGS = _listed(
    "lamp kettle basket drum ladder cloak violin blanket mirror hammer candle bucket chair clock kite saddle spoon "
    "bell bottle pillow rope brush flute coat"
)
MATERIALS = _listed("wood iron wool glass copper clay silk leather")
GOODS = _listed("apples roses boats cheese bells pottery honey ribbons cider stories")
RIVERS = _listed("Lin Arrow Wend Teal Mere Sable Tarn Brook")

CAUSES = (  # what somebody did, and what came of it; no effect is part of another
    ("went out in the rain without a coat", "got wet"),
    ("ate too many plums", "had a stomach ache"),
    ("left the window open all night", "woke up cold"),
    ("forgot to water the roses", "found them dry"),
    ("stayed up until dawn", "fell asleep at noon"),
    ("ran across the ice", "slipped and fell"),
    ("left the gate open", "lost the goat"),
    ("walked all day in new shoes", "had sore feet"),
    ("put too much salt in the soup", "poured the soup away"),
    ("lent a friend the only lamp", "sat in the dark"),
    ("saved a coin every day", "bought a new kite"),
    ("practised the flute every morning", "won the prize"),
    ("planted beans in spring", "picked beans in summer"),
    ("told the truth about the broken mirror", "was forgiven"),
    ("looked too long at the sun", "saw spots"),
    ("carried the heavy bucket alone", "hurt an arm"),
    ("helped an old man with his cart", "was given a pie"),
    ("read the map upside down", "came to the wrong town"),
    ("left bread in the oven", "smelled smoke"),
    ("fed the birds in winter", "heard them sing in spring"),
    ("forgot to wind the clock", "came late to the market"),
    ("sang to the crying child", "made the child smile"),
    ("climbed the tall ladder in the wind", "grew dizzy"),
    ("left a cake beside the dog", "had nothing left to eat"),
)

PERSON, TOWN, THING = "person", "town", "thing"


@dataclass(frozen=True)
class Relation:
    """A relation: whose it is, ways to state and to ask for it ({s} the subject, {v} the value), and its values."""

    subject: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    values: Sequence[str] | str


RELATIONS = {
    "home": Relation(
        PERSON,
        ("{s} lives in {v}.", "The home of {s} is in {v}.", "{s} has a house in {v}."),
        ("Where does {s} live?", "In which town is the home of {s}?"),
        TOWN,
    ),
    "job": Relation(
        PERSON,
        ("{s} is a {v}.", "{s} works as a {v}.", "By trade {s} is a {v}."),
        ("What is the job of {s}?", "What does {s} work as?"),
        JOBS,
    ),
    "age": Relation(
        PERSON, ("{s} is {v} years old.", "The age of {s} is {v}."), ("How old is {s}?", "What is the age of {s}?"), ""
    ),
    "food": Relation(
        PERSON,
        ("{s} likes {v} best.", "The favourite food of {s} is {v}.", "{s} could eat {v} every day."),
        ("What does {s} like to eat best?", "What is the favourite food of {s}?"),
        FOODS,
    ),
    "pet": Relation(PERSON, ("{s} has a {v}.", "{s} keeps a {v}."), ("What pet does {s} have?",), PETS),
    "pet name": Relation(
        PERSON,
        ("The pet of {s} is called {v}.", "{s} calls the pet {v}."),
        ("What is the pet of {s} called?",),
        PET_NAMES,
    ),
    "thing": Relation(
        PERSON, ("{s} owns a fine {v}.", "{s} is proud of an old {v}."), ("What is {s} proud to own?",), THINGS
    ),
    "spouse": Relation(
        PERSON,
        ("{s} is married to {v}.", "{s} and {v} are married."),
        ("Who is {s} married to?", "To whom is {s} married?"),
        PERSON,
    ),
    "friend": Relation(
        PERSON,
        ("The best friend of {s} is {v}.", "{s} and {v} are best friends."),
        ("Who is the best friend of {s}?",),
        PERSON,
    ),
    "goods": Relation(
        TOWN,
        ("{s} is known for its {v}.", "People come to {s} for the {v}."),
        ("What is {s} known for?",),
        GOODS,
    ),
    "river": Relation(
        TOWN,
        ("The river {v} runs through {s}.", "{s} lies on the river {v}."),
        ("Which river runs through {s}?",),
        RIVERS,
    ),
    "mayor": Relation(
        TOWN, ("{v} is the mayor of {s}.", "The mayor of {s} is {v}."), ("Who is the mayor of {s}?",), PERSON
    ),
    "price": Relation(
        THING,
        ("A {s} costs {v} coins.", "The price of a {s} is {v} coins.", "You can buy a {s} for {v} coins."),
        ("How many coins does a {s} cost?", "What is the price of a {s}?"),
        "",
    ),
    "material": Relation(
        THING, ("A {s} is made of {v}.", "They make a {s} out of {v}."), ("What is a {s} made of?",), MATERIALS
    ),
}

_NUMBERS = {"age": [str(age) for age in range(16, 80)], "price": [str(coins) for coins in range(2, 41)]}

# A fact of a fact's value: (first relation, second relation) and ways to state and to ask for the two as one.
TWO_FACTS: dict[tuple[str, str], tuple[str, str]] = {
    ("spouse", "home"): (
        "The one whom {s} married lives in {v}.",
        "In which town lives the one whom {s} married?",
    ),
    ("friend", "job"): ("The best friend of {s} works as a {v}.", "What does the best friend of {s} work as?"),
    ("friend", "pet"): ("The best friend of {s} keeps a {v}.", "What pet does the best friend of {s} keep?"),
    ("home", "goods"): (
        "The town where {s} lives is known for its {v}.",
        "What is the town where {s} lives known for?",
    ),
    ("home", "river"): (
        "The river that runs past the house of {s} is the {v}.",
        "Which river runs past the house of {s}?",
    ),
    ("home", "mayor"): ("The mayor of the town where {s} lives is {v}.", "Who is the mayor where {s} lives?"),
    ("thing", "price"): (
        "What {s} is proud to own would cost {v} coins.",
        "How many coins would the thing cost that {s} is proud to own?",
    ),
    ("thing", "material"): (
        "What {s} is proud to own is made of {v}.",
        "What is the thing made of that {s} is proud to own?",
    ),
}

# --- The world --------------------------------------------------------------------------------------------------------


class ToyWorld:
    """All that holds, decided by `seed` and the numbers of people and towns. Nothing here ever changes."""

    def __init__(self, seed: int = 0, n_people: int = 48, n_towns: int = 12) -> None:
        """`n_people`: even, 4 to 300; `n_towns`: 2 to 90, and no more than people."""
        if not (4 <= n_people <= 300 and n_people % 2 == 0 and 2 <= n_towns <= min(90, n_people)):
            raise UsageError(
                f"a toy world has an even number of people from 4 to 300 and from 2 to 90 towns, no more than people; "
                f"got {n_people} and {n_towns}"
            )
        self.seed, self.n_people, self.n_towns = seed, n_people, n_towns
        draws = Draws("world", VERSION, seed)
        names = [(first + end, end in _SHE) for first in _BEGINNINGS for end in (*_SHE, *_HE)]
        people = draws.shuffled(names)[:n_people]
        self.people = [name for name, _ in people]
        self._is_she = dict(people)
        self.towns = draws.shuffled([place + end for place in _PLACES for end in _TOWNS])[:n_towns]
        self.things = draws.shuffled(THINGS)
        self._values: dict[tuple[str, str], str] = {}
        self._settle(draws)
        self._people_by_rank, self._things_by_rank = ByRank(self.people), ByRank(self.things)

    def _settle(self, draws: Draws) -> None:
        """Decide every fact. Marriage and best friendship hold both ways; a mayor lives in the town."""
        for i, town in enumerate(self.towns):
            self._values[self.people[i], "home"] = town
            self._values[town, "mayor"] = self.people[i]
        for person in self.people[self.n_towns :]:
            self._values[person, "home"] = draws.pick(self.towns)
        for relation in ("spouse", "friend"):
            pairs = draws.shuffled(self.people)
            for one, other in zip(pairs[::2], pairs[1::2], strict=True):
                self._values[one, relation], self._values[other, relation] = other, one
        for name, of in RELATIONS.items():
            if name in ("home", "mayor", "spouse", "friend"):
                continue
            for subject in self.subjects(of.subject):
                self._values[subject, name] = draws.pick(_NUMBERS.get(name, of.values))

    def subjects(self, kind: str) -> list[str]:
        return {PERSON: self.people, TOWN: self.towns, THING: self.things}[kind]

    def value(self, subject: str, relation: str) -> str:
        """What holds: value("Mira", "home")."""
        return self._values[subject, relation]

    @cached_property
    def facts(self) -> list[Fact]:
        """Every fact there is, in one order."""
        return [
            Fact(subject, name, self.value(subject, name))
            for name, relation in RELATIONS.items()
            for subject in self.subjects(relation.subject)
        ]

    def statement(self, fact: Fact, draws: Draws) -> str:
        """The fact as a sentence."""
        return draws.pick(RELATIONS[fact.relation].statements).format(s=fact.subject, v=fact.value)

    def is_held_out(self, kind: str, *key: object) -> bool:
        """Whether what is asked belongs to the part that documents and practice leave out."""
        return hashed("held out", VERSION, self.seed, kind, *key) < HELD_OUT * 2**64

    # ---- questions -------------------------------------------------------------------------------------------

    def questions(
        self, seed: int, n: int, *, held_out: bool, kinds: Sequence[str] = KINDS, exclude: Sequence[Question] = ()
    ) -> list[Question]:
        """`n` different questions, as many of each kind while there are such; `held_out` to judge by, else to practise.

        None of them is among `exclude`. Raises UsageError if there are fewer than `n`.
        """
        if unknown := set(kinds) - set(KINDS):
            raise UsageError(f"a question is one of {', '.join(KINDS)}, got {min(unknown)!r}")
        draws = Draws("questions", seed)
        taken = set(exclude)
        pools = []
        for kind in kinds:
            pool = [question for question in self._all_questions[kind] if question.held_out == held_out]
            pools.append(draws.shuffled([question for question in pool if question not in taken]))
        if sum(map(len, pools)) < n:
            raise UsageError(f"there are {sum(map(len, pools)):,} such questions, and {n:,} are asked for")
        chosen: list[Question] = []
        while len(chosen) < n:
            for pool in pools:
                if pool and len(chosen) < n:
                    chosen.append(pool.pop())
        return chosen

    @cached_property
    def _all_questions(self) -> dict[str, list[Question]]:
        ask: dict[str, Callable[[], Iterator[Question]]] = {
            "fact": self._ask_facts,
            "two facts": self._ask_two_facts,
            "cause": self._ask_causes,
            "sum": self._ask_sums,
            "difference": self._ask_differences,
            "cost": self._ask_costs,
        }
        return {kind: list(ask[kind]()) for kind in KINDS}

    def _ask_facts(self) -> Iterator[Question]:
        for fact in self.facts:
            held_out = self.is_held_out("fact", fact.subject, fact.relation)
            rivals = self._rivals(fact.relation, fact.value, fact.subject)
            in_full = _plainly(fact)
            for text in RELATIONS[fact.relation].questions:
                yield Question("fact", text.format(s=fact.subject), fact.value, held_out, rivals, in_full=in_full)

    def _ask_two_facts(self) -> Iterator[Question]:
        for (first, second), (statement, text) in TWO_FACTS.items():
            for person in self.people:
                middle = self.value(person, first)
                value = self.value(middle, second)
                if value == person:
                    continue
                held_out = self.is_held_out("two facts", person, first, second)
                rivals = self._rivals(second, value, person, middle)
                said = (statement.format(s=person, v=value),)
                in_full = f"{_plainly(Fact(person, first, middle))} {_plainly(Fact(middle, second, value))}"
                yield Question("two facts", text.format(s=person), value, held_out, rivals, said, in_full)

    def _ask_causes(self) -> Iterator[Question]:
        effects = [effect for _, effect in CAUSES]
        for person in self.people:
            for cause, effect in CAUSES:
                held_out = self.is_held_out("cause", person, cause)
                rivals = tuple(other for other in effects if other != effect)
                said = (f"{person} {cause}", f"{person} {effect}")
                asked, in_full = f"{person} {cause}. What came of it?", f"{person} {effect}."
                yield Question("cause", asked, effect, held_out, rivals, said, in_full)

    def _ask_sums(self) -> Iterator[Question]:
        for a in range(100):
            for b in range(100 - a):
                said = (f" {a} + {b} =", f" {b} + {a} =")
                held_out = self._is_sum_held_out(a, b)
                yield Question("sum", f"What is {a} + {b}?", str(a + b), held_out, (), said, _steps(a, b))

    def _ask_differences(self) -> Iterator[Question]:
        for a in range(100):
            for b in range(a + 1):
                held_out = self.is_held_out("difference", a, b)
                asked, said = f"What is {a} - {b}?", (f" {a} - {b} =",)
                yield Question("difference", asked, str(a - b), held_out, (), said, _steps_down(a, b))

    def _ask_costs(self) -> Iterator[Question]:
        for thing in self.things:
            for n in range(2, 10):
                text = f"How many coins do {n} {_plural(thing)} cost?"
                price = self.value(thing, "price")
                cost = str(n * int(price))
                held_out = self.is_held_out("cost", thing, n)
                worked_out = f"{_steps_times(n, int(price))} So {n} {_plural(thing)} cost {cost} coins."
                in_full = f"{_plainly(Fact(thing, 'price', price))} {worked_out}"
                yield Question("cost", text, cost, held_out, (), (f" {n} {_plural(thing)}",), in_full)

    def _is_sum_held_out(self, a: int, b: int) -> bool:
        return max(a, b) > 9 and self.is_held_out("sum", *sorted((a, b)))

    def _rivals(self, relation: str, value: str, *named: str) -> tuple[str, ...]:
        """The other values that a relation may have, but for those whose name comes up in asking."""
        values = RELATIONS[relation].values
        among = self.subjects(values) if isinstance(values, str) and values else values
        return tuple(other for other in among if other != value and other not in named)

    # ---- documents -------------------------------------------------------------------------------------------

    def document(self, i: int) -> str:
        """Document `i` of as many as are wanted: some hundred bytes that follow from the world and `i` alone.

        People, towns and things come up as often as their rank allows; but every REGISTER-th document is an entry of a
        register that goes round all of them, so that each fact is stated by 150 kB, and ever again.
        """
        draws = Draws("document", VERSION, self.seed, self.n_people, self.n_towns, i)
        if i % REGISTER == 0:
            return self._register_entry(i // REGISTER, draws)
        write = _BY_WEIGHT[draws.below(len(_BY_WEIGHT))]
        return write(self, draws)

    def _person(self, draws: Draws) -> str:
        return self._people_by_rank.draw(draws)

    def _they(self, person: str) -> str:
        return "she" if self._is_she[person] else "he"

    def _facts_about(self, subject: str, kind: str) -> list[Fact]:
        return [Fact(subject, name, self.value(subject, name)) for name in RELATIONS if RELATIONS[name].subject == kind]

    def _register_entry(self, number: int, draws: Draws) -> str:
        """All facts about one subject."""
        kinds = [(subject, kind) for kind in (PERSON, TOWN, THING) for subject in self.subjects(kind)]
        subject, kind = kinds[number % len(kinds)]
        facts = draws.shuffled(self._facts_about(subject, kind))
        return " ".join([f"From the register: {subject}.", *(self.statement(fact, draws) for fact in facts)])

    def _life(self, draws: Draws) -> str:
        """Who somebody is, and now and then what follows from it."""
        person = self._person(draws)
        facts = draws.shuffled(self._facts_about(person, PERSON))[: draws.between(4, 8)]
        sentences = [self.statement(fact, draws) for fact in facts]
        they = self._they(person).capitalize()
        for i in range(1, len(sentences)):
            if sentences[i].startswith(f"{person} ") and f"{person} and" not in sentences[i] and draws.random() < 0.5:
                sentences[i] = they + sentences[i].removeprefix(person)
        opening = draws.pick(_OPENINGS).format(s=person)
        return " ".join(filter(None, [opening, *sentences, *self._joined_facts(person, draws)]))

    def _joined_facts(self, person: str, draws: Draws) -> list[str]:
        """Up to two sentences that join two facts, none of them held out."""
        chosen = draws.shuffled(list(TWO_FACTS))[: draws.below(3)]
        return [
            TWO_FACTS[pair][0].format(s=person, v=self.value(self.value(person, pair[0]), pair[1]))
            for pair in chosen
            if not self.is_held_out("two facts", person, *pair)
        ]

    def _town(self, draws: Draws) -> str:
        town = ByRank(self.towns).draw(draws)
        sentences = [self.statement(fact, draws) for fact in draws.shuffled(self._facts_about(town, TOWN))]
        living = [person for person in self.people if self.value(person, "home") == town]
        told = draws.shuffled(living)[: draws.between(1, 4)]
        sentences += [self.statement(Fact(person, "home", town), draws) for person in told]
        return " ".join([draws.pick(_ABOUT_TOWNS).format(s=town), *sentences])

    def _market(self, draws: Draws) -> str:
        lines = []
        for thing in dict.fromkeys(self._things_by_rank.draw(draws) for _ in range(draws.between(3, 6))):
            lines.append(self.statement(Fact(thing, "price", self.value(thing, "price")), draws))
            if draws.random() < 0.4:
                lines.append(self.statement(Fact(thing, "material", self.value(thing, "material")), draws))
            n = draws.between(2, 9)
            if not self.is_held_out("cost", thing, n) and draws.random() < 0.6:
                price = int(self.value(thing, "price"))
                lines.append(f"So {n} {_plural(thing)} cost {n} x {price} = {n * price} coins.")
        return "\n".join([draws.pick(_ABOUT_MARKETS), *lines])

    def _story(self, draws: Draws) -> str:
        """Somebody did something, and something came of it."""
        person = self._person(draws)
        allowed = [pair for pair in CAUSES if not self.is_held_out("cause", person, pair[0])]
        cause, effect = draws.pick(allowed or [CAUSES[0]])
        if not allowed:
            return self._life(draws)
        they, day = self._they(person), draws.pick(_DAYS)
        told = draws.pick(_TELLING).format(
            s=person, they=they, They=they.capitalize(), cause=cause, effect=effect, day=day
        )
        witness = self._person(draws)
        if witness != person and draws.random() < 0.5:
            told += " " + draws.pick(_WITNESSES).format(s=witness, them="her" if they == "she" else "him")
        facts = draws.shuffled(self._facts_about(person, PERSON))[: draws.below(3)]
        return " ".join([*(self.statement(fact, draws) for fact in facts), told])

    def _letter(self, draws: Draws) -> str:
        """One writes to another what is true of a third."""
        writer, reader, third = (self._person(draws) for _ in range(3))
        if writer == reader:
            reader = self.value(writer, "friend")
        facts = draws.shuffled(self._facts_about(third, PERSON))[: draws.between(2, 4)]
        told = " ".join(self.statement(fact, draws) for fact in facts)
        return f"Dear {reader},\n{draws.pick(_LETTERS)} {told} {draws.pick(_FAREWELLS)}\n{writer}"

    def _exercise(self, draws: Draws) -> str:
        return "\n".join(self._sum(draws) for _ in range(draws.between(2, 6)))

    def _sum(self, draws: Draws) -> str:
        """A sum or a difference that is not held out, with or without its steps, or as a little story."""
        while True:
            a = draws.below(100)
            b = draws.below(100 - a)
            if not self._is_sum_held_out(a, b):
                break
        form = draws.below(4)
        if form == 0:
            return f"What is {a} + {b}? {_steps(a, b)}"
        if form == 1:
            person = self._person(draws)
            they = self._they(person)
            return f"{person} had {a} coins and found {b} more. Now {they} has {a} + {b} = {a + b} coins."
        if form == 2 and not self.is_held_out("difference", a + b, b):
            return f"Take {b} from {a + b}: {a + b} - {b} = {a}."
        return f"The sum {a} + {b} = {a + b}."

    def _quiz(self, draws: Draws) -> str:
        """Questions with their answers, for practice: none of them is held out."""
        asked: list[Question] = []
        while len(asked) < 3:
            question = draws.pick(self._all_questions[draws.pick(KINDS)])
            if not question.held_out:
                asked.append(question)
        return "\n\n".join(question.as_document() for question in asked)


def _plainly(fact: Fact) -> str:
    """The fact in the first of the ways to state it."""
    return RELATIONS[fact.relation].statements[0].format(s=fact.subject, v=fact.value)


def _steps(a: int, b: int) -> str:
    """A sum in two columns, as it is done by hand.

    >>> _steps(27, 48)
    '7 + 8 = 15, write 5, carry 1. 2 + 4 + 1 = 7. So 27 + 48 = 75.'
    """
    ones, tens = a % 10 + b % 10, a // 10 + b // 10
    carried = ones > 9
    first = f"{a % 10} + {b % 10} = {ones}" + (f", write {ones % 10}, carry 1" if carried else "")
    second = f"{a // 10} + {b // 10}{' + 1' if carried else ''} = {tens + carried}"
    return f"{first}. {second}. So {a} + {b} = {a + b}."


def _steps_down(a: int, b: int) -> str:
    """A difference in two columns.

    >>> _steps_down(75, 48)
    '15 - 8 = 7, borrow 1. 7 - 1 - 4 = 2. So 75 - 48 = 27.'
    """
    borrowed = a % 10 < b % 10
    ones = a % 10 + 10 * borrowed - b % 10
    first = f"{a % 10 + 10 * borrowed} - {b % 10} = {ones}" + (", borrow 1" if borrowed else "")
    second = f"{a // 10}{' - 1' if borrowed else ''} - {b // 10} = {a // 10 - borrowed - b // 10}"
    return f"{first}. {second}. So {a} - {b} = {a - b}."


def _steps_times(n: int, price: int) -> str:
    """A product of a digit with a number below 100: of its ones and its tens, and their sum.

    >>> _steps_times(3, 27)
    '3 x 7 = 21. 3 x 20 = 60. 60 + 21 = 81.'
    """
    ones, tens = price % 10, price - price % 10
    return f"{n} x {ones} = {n * ones}. {n} x {tens} = {n * tens}. {n * tens} + {n * ones} = {n * price}."


def _plural(thing: str) -> str:
    return thing + ("es" if thing.endswith(("sh", "ch")) else "s")


_OPENINGS = (
    "This is about {s}.",
    "Everybody knows {s}.",
    "Let me tell you of {s}.",
    "You may have met {s}.",
    "{s} is well liked.",
    "",
    "",
)
_ABOUT_TOWNS = (
    "{s} is a small town.",
    "Far from the sea lies {s}.",
    "Travellers like {s}.",
    "This is the town of {s}.",
)
_ABOUT_MARKETS = ("On the market:", "What things cost:", "A list of prices:", "The shop is open today.")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_TELLING = (
    "On {day} {s} {cause}. So {they} {effect}.",
    "{s} {cause}, and because of that {they} {effect}.",
    "Because {s} {cause}, {they} {effect}.",
    "Last {day} {s} {cause}. Soon {they} {effect}.",
    "Why was it that {they} {effect}? It was because {s} {cause}.",
    "First {s} {cause}. Then {they} {effect}. The one came of the other.",
)
_WITNESSES = (
    "{s} saw it all.",
    "{s} laughed and helped {them}.",
    "{s} had warned {them}.",
    "When {s} heard of it, nobody was surprised.",
)
_LETTERS = ("I hope you are well.", "You asked me for news.", "Here is what I have heard.", "It has been a long week.")
_FAREWELLS = ("Write to me soon.", "More next time.", "With love,", "Come and see us.")
_BY_WEIGHT: list[Callable[[ToyWorld, Draws], str]] = [
    *[ToyWorld._life] * 6,
    *[ToyWorld._town] * 2,
    *[ToyWorld._market] * 3,
    *[ToyWorld._story] * 5,
    *[ToyWorld._letter] * 2,
    *[ToyWorld._exercise] * 4,
    *[ToyWorld._quiz] * 3,
]


class ToyWorldSource(Source):
    """The first documents of a world, up to the one that reaches `n_bytes`, made as they are read."""

    def __init__(self, world: ToyWorld, n_bytes: int = 3_000_000) -> None:
        if n_bytes < 1:
            raise UsageError(f"a source needs a byte or more, got {n_bytes}")
        self.world, self.n_bytes, self.name = world, n_bytes, "toy-world"

    def documents(self) -> Iterator[Document]:
        written = i = 0
        while written < self.n_bytes:
            text = self.world.document(i)
            written, i = written + len(text), i + 1  # ASCII alone: a character is a byte
            yield Document(text)

    def identity(self) -> dict[str, str | int]:
        world = self.world
        settings = {"seed": world.seed, "n_people": world.n_people, "n_towns": world.n_towns, "n_bytes": self.n_bytes}
        return {"kind": f"toy-world-{VERSION}", **settings}
