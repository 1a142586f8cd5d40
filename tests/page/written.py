"""How the page writes numbers, said once more in Python, and whether a text on the screen is such a number.

A probability above 0 is never written as 0, and one below 1 never as 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal

SLACK = 1e-6  # the page and the package may differ so much, relative to the number, before they are rounded


def agrees(text: str, value: float, write: Callable[[float], str]) -> bool:
    """Whether `text` is `value` as it is written; beside the edge of a last digit, either of its sides."""
    return text in {write(value), write(value * (1 - SLACK)), write(value * (1 + SLACK))}


def fixed(value: float, digits: int) -> str:
    """JavaScript's toFixed: the exact value rounded, half away from zero."""
    return format(Decimal(float(value)).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP), "f")


def percent(probability: float, digits: int = 0) -> str:
    """
    >>> percent(0.785), percent(0.0001), percent(0.9999), percent(1.0), percent(0.00001, 2), percent(0.99999, 1)
    ('79%', '<1%', '>99%', '100%', '<0.01%', '>99.9%')
    """
    text = fixed(100 * probability, digits)
    if float(text) == 0:
        return "0%" if probability == 0 else f"<{text[:-1]}1%"
    if float(text) == 100:
        return "100%" if probability == 1 else f">99{'.' if digits else ''}{'9' * digits}%"
    return f"{text}%"


def tenth(probability: float) -> str:
    return percent(probability, 1)


def hundredth(probability: float) -> str:
    return percent(probability, 2)


def bar(probability: float) -> str:
    """A tenth of a percent, a hundredth below one percent."""
    return percent(probability, 2 if probability < 0.01 else 1)


def from_log(logarithm: float) -> str:
    """A probability of any size by its natural logarithm.

    >>> from_log(-math.inf), from_log(0.0), from_log(math.log(0.25)), from_log(math.log(4.13e-7)), from_log(-4700.0)
    ('0', '100%', '25.0%', '4.1e−7', '6.5e−2042')
    >>> from_log(math.log1p(-4.2e-4)), from_log(-8.585e-150)
    ('1 − 4.2e−4', '1 − 8.6e−150')
    """
    if logarithm == -math.inf:
        return "0"
    if logarithm == 0:
        return "100%"
    if logarithm > math.log(0.9995):
        return f"1 − {from_log(math.log(-math.expm1(logarithm)))}"
    if logarithm > math.log(0.001):
        return tenth(math.exp(logarithm))
    log10 = logarithm / math.log(10)
    power = math.floor(log10)
    mantissa = fixed(10 ** (log10 - power), 1)
    if mantissa == "10.0":
        mantissa, power = "1.0", power + 1
    return f"{mantissa}e{power}".replace("-", "−")


def signed(value: float, digits: int) -> str:
    """With its sign, unless it is written as 0."""
    text = fixed(abs(value), digits)
    return text if float(text) == 0 else ("−" if value < 0 else "+") + text


def bits(nats: float) -> float:
    return nats / math.log(2)
