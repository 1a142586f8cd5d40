"""What is thrown away, why, and that near-duplicates are found as comparing all pairs would."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassgpt.errors import UsageError
from glassgpt.text.cleaning import CleanedSources, Cleaning, repeated_lines, share_of_letters
from glassgpt.text.documents import Document, Source
from glassgpt.text.draws import Draws
from glassgpt.text.near_duplicates import BANDS, HASHES, ROWS, WINDOW, NearDuplicates, normalised, signature
from glassgpt.text.toy_world import ToyWorld

GOOD = "The miller has a cat, and the cat has a bell that one hears from afar."


class Listed(Source):
    name = "listed"

    def __init__(self, *texts):
        self.texts = texts

    def documents(self):
        for text in self.texts:
            yield text if isinstance(text, Document) else Document(text)

    def identity(self):
        return {"texts": repr(self.texts)}


def kept(*texts, cleaning=None):
    cleaned = CleanedSources([Listed(*texts)], cleaning or Cleaning())
    return [document.text for document in cleaned.sources[0].documents()], cleaned.report


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Too few.", "too short"),
        ("\n".join(["Buy now!", "Click here!"] * 6), "repeats its lines"),
        ("| 12,3 | -- | 4;5 | == | ## | %% | && | ++ | ** |", "more signs than letters"),
        ("QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo0NTY3ODkw", "no words of usual length"),
        ("a b c d e f g h i j k l m n o p q r s t u v w x", "no words of usual length"),
    ],
)
def test_garbage_is_thrown_away_with_its_reason(text, reason):
    texts, report = kept(text, GOOD)
    assert texts == [GOOD]
    assert report.thrown_away == {reason: 1}
    assert report.examples[reason][0].startswith(text[:20].split("\n")[0])
    assert report.kept_bytes == len(GOOD)


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "村の粉屋は猫を飼っている。猫には鈴がついていて、その音は遠くからでも聞こえる。",
        "磨坊主有一只猫,猫脖子上挂着一个铃铛,很远的地方都能听到铃铛的声音。",
        "У мельника есть кошка, а у кошки колокольчик, который слышно издалека.",
        "चक्कीवाले के पास एक बिल्ली है, और बिल्ली के पास एक घंटी है जो दूर से सुनाई देती है।",
        "لدى الطحان قطة، وللقطة جرس يسمعه المرء من بعيد.",
        "def words(text):\n    return [word for word in text.split(' ') if word]\n",
    ],
)
def test_text_of_any_language_stays(text):
    assert kept(text)[0] == [text]


def test_exact_and_near_duplicates_go_and_the_first_stays():
    near = GOOD.replace("afar", "a far")
    other = "Down by the river lives a fisher, and on Sundays the fisher mends the nets."
    texts, report = kept(GOOD, other, GOOD, near, GOOD.upper())
    assert texts == [GOOD, other]
    assert report.thrown_away == {"exact duplicate": 1, "near-duplicate": 2}
    assert "(as: The miller has a cat" in report.examples["near-duplicate"][0]
    assert report.lines()[0] == f"kept 2 of 5 documents, {len(GOOD + other)} bytes"


def test_what_two_sources_share_is_kept_once_and_at_every_pass_alike():
    one, other = CleanedSources([Listed(GOOD, "short"), Listed(GOOD + "!", GOOD)], Cleaning()).sources
    for _ in range(2):
        assert [document.text for document in one.documents()] == [GOOD]
        assert [document.text for document in other.documents()] == []
    assert one.identity() != CleanedSources([Listed(GOOD, "short")], Cleaning()).sources[0].identity()


def test_long_documents_are_kept_unseen():
    parts = [Document("x"), Document("y", True), Document("z", True)]
    texts, report = kept("short", *parts, GOOD)
    assert texts == ["x", "y", "z", GOOD]
    assert report.kept == 2


def test_rules_can_be_left_out_and_nothing_left_is_an_error():
    loose = Cleaning(None, None, None, None, None, exact_duplicates=False, near_duplicates=None)
    assert kept("%", "%", cleaning=loose)[0] == ["%", "%"]
    assert kept("a" * 30, cleaning=Cleaning(mean_word=None))[0] == ["a" * 30]
    assert kept(GOOD, GOOD + GOOD, cleaning=Cleaning(longest=100))[0] == [GOOD]
    with pytest.raises(UsageError, match=r"threw every document away: 2 thrown away .*: too short"):
        kept("a", "b")


def test_shares_are_what_they_say():
    assert repeated_lines("a\nb\n\na\n") == pytest.approx(1 / 3)
    assert repeated_lines("") == 0
    assert share_of_letters("ab 1!?_-") == 0.5


# --- Near-duplicates --------------------------------------------------------------------------------------------------


def jaccard(one, other):
    """The definition, on sets."""
    sets = []
    for text in (normalised(one).ljust(WINDOW), normalised(other).ljust(WINDOW)):
        sets.append({text[i : i + WINDOW] for i in range(len(text) - WINDOW + 1)})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def variants(n):
    """Documents of the toy world, each with copies in which more and more words are changed."""
    draws, world, texts = Draws("variants"), ToyWorld(), []
    for i in range(n):
        words = world.document(i).split()
        for changes in (0, 1, 3, 10):
            changed = list(words)
            for _ in range(changes if len(words) > 20 else 0):
                changed[draws.below(len(words))] = f"changed{draws.below(1000)}"
            texts.append(" ".join(changed))
    return texts


def test_the_share_of_equal_hashes_estimates_the_jaccard_similarity():
    texts = variants(15)
    signatures = [signature(text) for text in texts]
    errors = []
    for i, j in itertools.combinations(range(len(texts)), 2):
        true = jaccard(texts[i], texts[j])
        error = (signatures[i] == signatures[j]).mean() - true
        assert abs(error) <= 5 * np.sqrt(true * (1 - true) / HASHES) + 0.02
        errors.append(error)
    assert abs(np.mean(errors)) < 0.005


def test_all_pairs_compared_find_the_same_near_duplicates():
    texts = variants(30)
    found = NearDuplicates(0.8)
    firsts, wrong = [], 0
    for text in texts:
        alike = max((jaccard(text, other) for other in firsts), default=0.0)
        answer = found.find_or_add(text)
        if answer is None:
            firsts.append(text)
        assert answer is not None or alike < 0.93
        assert answer is None or jaccard(text, firsts[answer[0]]) > 0.67
        wrong += (answer is not None) != (alike >= 0.8)
    assert 30 <= len(firsts) < 110
    assert wrong <= 0.06 * len(texts)  # those whose similarity is within the estimate's error of 0.8


def test_the_chance_of_being_compared_is_as_stated():
    for similarity, stated in ((0.8, 0.998), (0.7, 0.92), (0.5, 0.27), (0.3, 0.01)):
        assert 1 - (1 - similarity**ROWS) ** BANDS == pytest.approx(stated, abs=0.006)


@settings(deadline=None)
@given(st.text(max_size=40))
def test_case_and_white_space_make_no_difference(text):
    assert signature(f"  {text} \n").tolist() == signature(text).tolist()
    found = NearDuplicates()
    assert found.find_or_add(text) is None
    assert found.find_or_add(text) == (0, 1.0)


def test_signatures_do_not_depend_on_the_block_and_stay_the_same(monkeypatch):
    text = " ".join(ToyWorld().document(i) for i in range(40))
    whole = signature(text)
    monkeypatch.setattr("glassgpt.text.near_duplicates.AT_ONCE", 100)
    assert signature(text).tolist() == whole.tolist()
    assert signature("the same on every machine")[:2].tolist() == [1442469393, 54911394]


def test_a_threshold_is_a_share():
    with pytest.raises(UsageError):
        NearDuplicates(0)
