"""Pictures that need no model: of a text, and of why nets learn at all. `see` draws them beside those of runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from glassgpt.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENOUGH = 1_000_000  # characters of a text: more of it would draw the same picture


# ---- Of a text -------------------------------------------------------------------------------------------------------


def text_of(ref: str) -> str:
    """What `ref` names, as `data.files` of a recipe would: a file, a folder, python-docs, toy-world. At most ENOUGH."""
    from glassgpt.text.sources import source_of

    texts, length = list[str](), 0
    for document in source_of(ref).documents():
        texts.append(document.text)
        length += len(document.text)
        if length >= ENOUGH:
            break
    text = "\n".join(texts)[:ENOUGH]
    if not text.strip():
        raise UsageError(f"{ref} holds no text: give a text file, a folder of them, or python-docs")
    return text


def letters(text: str, title: str | None) -> Figure:
    from glassgpt.evaluation.ngrams import letter_frequencies
    from glassgpt.figures.ngrams import draw_letter_bars

    found = letter_frequencies(text)
    return draw_letter_bars(found.names, found.counts, title)


def words(text: str, title: str | None) -> Figure:
    from glassgpt.evaluation.ngrams import word_frequencies
    from glassgpt.figures.ngrams import draw_word_bars

    found = word_frequencies(text)
    return draw_word_bars(found.names, found.counts, title)


def letter_pairs(text: str, title: str | None) -> Figure:
    from glassgpt.evaluation import ngrams
    from glassgpt.figures.ngrams import draw_letter_pairs

    found = ngrams.letter_pairs(text)
    return draw_letter_pairs(found.signs, found.counts, found.totals, title)


def ngram_texts(text: str, title: str | None) -> Figure:
    from glassgpt.evaluation.ngrams import write
    from glassgpt.figures.ngrams import NGramText, draw_ngram_texts

    rows = [NGramText(**asdict(one)) for unit in ("letters", "words") for one in write(text, unit)]
    return draw_ngram_texts(rows, title)


OF_TEXTS: dict[str, tuple[Callable[[str, str | None], Figure], str]] = {
    "letters": (letters, "how often each letter occurs in a text (REF: a file, a folder, python-docs)"),
    "words": (words, "how often the most frequent words of a text occur, and Zipf's law"),
    "letter-pairs": (letter_pairs, "which letter follows which in a text, as a map"),
    "ngram-texts": (ngram_texts, "what letter and word n-grams write that have counted a text"),
}


# ---- Of nothing but a seed -------------------------------------------------------------------------------------------


def fits(title: str | None) -> Figure:
    from glassgpt.figures.fits import draw_fits, noisy_fits

    return draw_fits(noisy_fits(), title=title)


def attractors(title: str | None) -> Figure:
    from glassgpt.evaluation.attractors import attractor_nets
    from glassgpt.figures.attractors import draw_attractors

    return draw_attractors(attractor_nets(), title)


def activations(title: str | None) -> Figure:
    from glassgpt.evaluation.activations import activation_curves
    from glassgpt.figures.activations import draw_activations

    return draw_activations(activation_curves(), title)


def digits(title: str | None) -> Figure:
    from glassgpt.evaluation.digits import digit_net, examples
    from glassgpt.figures.digits import draw_digit_answers

    return draw_digit_answers(examples(digit_net()), title)


def digits_blurred(title: str | None) -> Figure:
    from glassgpt.evaluation.digits import blurred, digit_net
    from glassgpt.figures.digits import draw_blurred_digit

    return draw_blurred_digit(blurred(digit_net()), title)


def digit_map(title: str | None) -> Figure:
    from glassgpt.evaluation import digits
    from glassgpt.figures.digits import draw_digit_map

    return draw_digit_map(digits.digit_map(digits.digit_net()), title)


LESSONS: dict[str, tuple[Callable[[str | None], Figure], str]] = {
    "fits": (fits, "curves with ever more parameters through noisy points (no REF)"),
    "attractors": (attractors, "nets of growing sizes that learn which of three points is nearest (no REF)"),
    "activations": (activations, "the activation functions of the models here, and their slopes (no REF)"),
    "digits": (digits, "a small net reads handwritten digits (no REF; the classify extra)"),
    "digits-blurred": (digits_blurred, "the same net, and a digit that is ever more blurred"),
    "digit-map": (digit_map, "where the net's last layer puts the digits that it never saw"),
}
