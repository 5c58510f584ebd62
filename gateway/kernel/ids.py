"""Public ids: TypeIDs, a frozen noun prefix and a UUIDv7 in Crockford's base32 (``server_01j9z…``).

Invariant: the integer key of a row never leaves the process; the TypeID is the only name a client sees. UUIDv7 sorts
by time of creation, so newer rows lie together on disk. Specification: TypeID 0.3 (jetify-com/typeid).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from uuid import UUID

import uuid_utils.compat
from sqlmodel import Session

from gateway.kernel.errors import Invalid

UidSource = Callable[[], UUID]

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUES = {character: value for value, character in enumerate(ALPHABET)}
_PAIRS = [a + b for a in ALPHABET for b in ALPHABET]
_SHIFTS = tuple(range(120, -1, -10))
_TO_PYTHON = str.maketrans(ALPHABET, "0123456789abcdefghijklmnopqrstuv")
"""To the digits of Python's own numbers in base 32."""
DIGITS = 26
"""So many follow the prefix and its underscore."""


def system() -> UUID:
    """A new UUIDv7, monotonic within this process."""
    return uuid_utils.compat.uuid7()


def new(session: Session) -> UUID:
    """A new uid from the source which the session's database was opened with."""
    source: UidSource = session.info["uids"]
    return source()


def encode(prefix: str, uid: UUID) -> str:
    """The TypeID of a uid: 26 base32 digits behind the prefix."""
    return f"{prefix}_{digits(uid)}"


def digits(uid: UUID) -> str:
    """The 26 digits of a uid. They sort as it does."""
    number = uid.int
    return "".join([_PAIRS[(number >> shift) & 1023] for shift in _SHIFTS])


def of_digits(text: str) -> UUID:
    """The uid of digits that were made here; what clients send is for :func:`decode`."""
    return UUID(int=int(text.translate(_TO_PYTHON), 32))


def of_printed(text: str) -> UUID:
    """The uid in what a database prints of one: digits, or hexadecimal."""
    return of_digits(text) if len(text) == DIGITS else UUID(text)


@lru_cache(maxsize=4096)
def decode(text: str) -> tuple[str, UUID]:
    """Prefix and uid of a TypeID. Raises Invalid when the text is none; remembers those asked for lately."""
    prefix, _, shown = text.rpartition("_")
    if not prefix or len(shown) != DIGITS or shown[0] > "7" or len(prefix) > 63:  # noqa: PLR2004 - TypeID's own limit
        raise Invalid("This is not an id of this cloud.")
    number = 0
    try:
        for digit in shown:
            number = number << 5 | _VALUES[digit]
    except KeyError:
        raise Invalid("This is not an id of this cloud.") from None
    return prefix, UUID(int=number)
