"""Mixtures in proportion, and the split into training and validation."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassgpt.errors import UsageError
from glassgpt.text.documents import Document, Source
from glassgpt.text.mixture import Mixture
from glassgpt.text.split import Split, fraction_of


class Listed(Source):
    def __init__(self, name, *texts):
        self.name, self.texts = name, texts

    def documents(self):
        for text in self.texts:
            yield text if isinstance(text, Document) else Document(text)

    def identity(self):
        return {"texts": repr(self.texts)}


def texts(mixture):
    return [document.text for document in mixture.draw()]


def test_without_weights_all_is_read_once_in_order():
    mixture = Mixture([Listed("a", "1", "2"), Listed("b", "3")])
    drawing = mixture.draw()
    assert [document.text for document in drawing] == ["1", "2", "3"]
    assert [(share.documents, share.bytes, share.epochs) for share in drawing.shares] == [(2, 2, 1.0), (1, 1, 1.0)]


def test_the_source_furthest_behind_its_share_comes_next():
    mixture = Mixture([Listed("a", *"aaaaaaaaa"), Listed("b", *"bbb")], weights=[2, 1], total_bytes=9)
    assert "".join(texts(mixture)) == "abaabaaba"


def test_without_a_total_it_ends_with_the_first_source_that_does():
    drawing = Mixture([Listed("a", *"aa"), Listed("b", *"bbbbb")], weights=[1, 1]).draw()
    assert "".join(document.text for document in drawing) == "abab"
    assert [share.epochs for share in drawing.shares] == [1.0, None]


def test_a_source_begins_again_and_its_epochs_are_told():
    drawing = Mixture([Listed("a", "aaaa", "AAAA"), Listed("b", "é")], weights=[1, 1], total_bytes=16).draw()
    assert "".join(document.text for document in drawing) == "aaaaééAAAAéé"
    assert [(share.bytes, share.documents, share.epochs) for share in drawing.shares] == [(8, 2, None), (8, 4, 4.0)]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 9), st.lists(st.integers(1, 30), min_size=1, max_size=5)), min_size=2, max_size=4
    ),
    st.integers(200, 2000),
)
def test_every_beginning_of_a_mixture_keeps_its_proportions_within_a_document(given_sources, total):
    weights = [weight for weight, _ in given_sources]
    sources = [Listed(str(i), *(str(i) * n for n in sizes)) for i, (_, sizes) in enumerate(given_sources)]
    taken = [0] * len(sources)
    documents = texts(Mixture(sources, weights, total))
    for text in documents:
        taken[int(text[0])] += len(text)
        for i, weight in enumerate(weights):
            assert abs(taken[i] - sum(taken) * weight / sum(weights)) <= 30 * len(sources)
    assert total <= sum(taken) < total + 30
    assert documents == texts(Mixture(sources, weights, total))


def test_a_document_in_parts_stays_together():
    long = Listed("a", Document("a1"), Document("a2", True), Document("a3", True), Document("A"))
    assert texts(Mixture([long, Listed("b", "b", "b")], [1, 9])) == ["a1", "a2", "a3", "b", "b"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda a: Mixture([]), "at least one source"),
        (lambda a: Mixture([a], [1, 2]), "as many weights"),
        (lambda a: Mixture([a], [0]), "positive"),
        (lambda a: Mixture([a], [float("nan")]), "positive"),
        (lambda a: Mixture([a], [1], 0), "total_bytes"),
        (lambda a: texts(Mixture([a, Listed("none")], [1, 1], 10)), "none holds no document"),
    ],
)
def test_impossible_mixtures_are_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make(Listed("a", "text"))


# --- The split --------------------------------------------------------------------------------------------------------

DOCUMENTS = [Document(f"document {i}") for i in range(2000)]


def parts_of(documents, split, n_characters=0):
    return [(part, document.text) for part, document in split.parts(documents, n_characters)]


def test_a_document_keeps_its_part_whatever_stands_around_it():
    split = Split("document", 0.1)
    whole = dict((text, part) for part, text in parts_of(DOCUMENTS, split))
    fewer = dict((text, part) for part, text in parts_of(DOCUMENTS[::-3], split))
    assert all(whole[text] == part for text, part in fewer.items())
    assert 150 < sum(part == "validation" for part in whole.values()) < 250  # 200, standard deviation 13


def test_a_larger_fraction_keeps_what_a_smaller_one_kept():
    small = {text for part, text in parts_of(DOCUMENTS, Split("document", 0.1)) if part == "validation"}
    large = {text for part, text in parts_of(DOCUMENTS, Split("document", 0.3)) if part == "validation"}
    assert small < large


def test_parts_of_a_document_go_where_the_first_goes():
    split = Split("document", 0.5)
    document = [Document("document 0"), Document("something else", True), Document("and more", True)]
    assert len({part for part, _ in parts_of(document, split)}) == 1


def test_by_position_the_end_validates_as_in_nanogpt():
    split = Split("position", 0.1)
    documents = [Document("0123456"), Document("789abc"), Document("defghijk")]
    text = "0123456789abcdefghijk"
    parts = list(split.parts(documents, len(text)))
    joined = {
        name: "".join(document.text for part, document in parts if part == name) for name in ("train", "validation")
    }
    assert joined == {"train": text[: int(0.9 * 21)], "validation": text[int(0.9 * 21) :]}
    assert [document.continues for part, document in parts if part == "validation"] == [True]


def test_fractions_are_spread_evenly():
    fractions = sorted(fraction_of(str(i)) for i in range(1000))
    assert max(abs(fraction - (i + 0.5) / 1000) for i, fraction in enumerate(fractions)) < 0.06  # Kolmogorov-Smirnov
    assert fraction_of("a") != fraction_of("a", b"learn")
    assert fraction_of("stable") == fraction_of("stable") == 0.22020494472415364


@pytest.mark.parametrize(("by", "validation"), [("line", 0.1), ("document", 1.0), ("position", -0.1)])
def test_impossible_splits_are_refused(by, validation):
    with pytest.raises(UsageError):
        Split(by, validation)
