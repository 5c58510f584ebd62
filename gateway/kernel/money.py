"""Money: exact decimal amounts, stored as whole millionths of the cloud's currency, never as floats.

A price comes in as an exact decimal with at most six places and goes out as a text with exactly six, so what a plan
says and what anybody adds up from it agree to the last digit. What the currency is, a setting says; nothing here
converts one into another.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Final

from pydantic import Field

MICROS: Final = 1_000_000
"""Millionths in one unit of the currency."""

Price = Annotated[Decimal, Field(ge=0, max_digits=15, decimal_places=6)]
"""An amount of an input: from 0 to 999,999,999.999999."""


def micros(price: Decimal | None) -> int | None:
    """Millionths of the currency."""
    return None if price is None else int(price * MICROS)


def shown(amount: int | None) -> str | None:
    """Millionths as a decimal text with six places: 1_500_000 as ``1.500000``, a difference with its sign."""
    if amount is None:
        return None
    whole, rest = divmod(abs(amount), MICROS)
    return f"{'-' if amount < 0 else ''}{whole}.{rest:06d}"
