"""Holes in a database's JSON: where it left to Python what it would print otherwise, or slowly.

PostgreSQL leaves an id as its uid in hexadecimal between two marks of a byte, within the quotes of its string; all ids
of an answer are turned into TypeIDs together, by shifting one long integer. (SQLite prints them by itself.) Any other
hole is an array of its number, columns and the end mark.

Invariant: what a client stored can never be taken for a hole, because a mark is a random word that each process makes
for itself and tells nobody, or a byte that no JSON has of itself. The answer is pure ASCII, like the
ordinary encoder's.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from gateway.kernel.ids import ALPHABET
from gateway.reads.errors import NotAsPromised
from gateway.reads.tree import Fill, Render

MARK = f"~{secrets.token_hex(8)}~"
"""Begins and ends a hole."""
ID_MARK = "\x01"
"""Stands before and behind an id; JSON has it only escaped."""
POISON = f"~{secrets.token_hex(8)}!"
"""Stands where the schema promised what the row does not hold: the executor is to tell the error."""

_HOLES = re.compile(rb'\["%s([0-9]+)",(.*?),"%s"\]' % (MARK.encode(), MARK.encode()))
_ID_MARK, _POISON = ID_MARK.encode(), POISON.encode()
_FOREIGN = re.compile(r"[^\x00-\x7e]+")
_DIGITS = bytes.maketrans(bytes(range(32)), ALPHABET.encode())
_LANE_BITS = 256
_KEPT = 1024
_MOST_KNOWN = 32_768
_known: dict[bytes, bytes] = {}
"""The digits of uids that were read lately: pages are read again and again."""


class Holes:
    """The holes of one statement. What few-valued ones were filled with is remembered. ``guarded``: whether the
    statement may tell of a broken promise.
    """

    def __init__(self) -> None:
        self.guarded = True
        self._fills: list[tuple[Fill, bool]] = []
        self._renders: dict[int, Render] = {}
        self._kept: dict[bytes, bytes] = {}

    def add(self, fill: Fill, *, keep: bool) -> int:
        """A new hole's number."""
        self._fills.append((fill, keep))
        return len(self._fills) - 1

    def render(self, render: Render) -> int:
        """The number of a new hole that is filled for whoever asks."""
        number = self.add(_by_whom, keep=False)
        self._renders[number] = render
        return number

    def filled(self, text: bytes, asker: Any = None) -> bytes:
        """The database's JSON with all holes filled for ``asker``, in ASCII. Raises NotAsPromised."""
        if self.guarded and _POISON in text:
            raise NotAsPromised
        if self._fills:
            text = _HOLES.sub((lambda each: self._rendered(each, asker)) if self._renders else self._fill, text)
        text = with_ids(text)
        return text if text.isascii() and b"\x7f" not in text else _escaped(text)

    def _rendered(self, found: re.Match[bytes], asker: Any) -> bytes:
        render = self._renders.get(int(found[1]))
        return self._fill(found) if render is None else render(json.loads(b"[" + found[2] + b"]"), asker)

    def _fill(self, found: re.Match[bytes]) -> bytes:
        whole = found[0]
        known = self._kept.get(whole)
        if known is not None:
            return known
        fill, keep = self._fills[int(found[1])]
        made = fill(json.loads(b"[" + found[2] + b"]"))
        if keep:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            self._kept[whole] = made
        return made


def with_ids(text: bytes) -> bytes:
    """The text with TypeIDs where marked uids were."""
    pieces = text.split(_ID_MARK)
    if len(pieces) == 1:
        return text
    uids = pieces[1::2]
    try:
        pieces[1::2] = map(_known.__getitem__, uids)
    except KeyError:
        if len(_known) > _MOST_KNOWN:
            _known.clear()
        missing = [uid for uid in dict.fromkeys(uids) if uid not in _known]
        _known.update(zip(missing, encoded(missing), strict=True))
        pieces[1::2] = map(_known.__getitem__, uids)
    return b"".join(pieces)


def encoded(uids: Sequence[bytes]) -> list[bytes]:
    """The 26 digits of each uid (hexadecimal, with or without hyphens).

    Each uid gets a lane of 256 bits in one integer; five steps spread its 160 bits (30 of them zero) into 32 bytes of
    five bits, halving the groups each time, for all lanes at once.
    """
    count = len(uids)
    lanes = (b"0" * 32).join(uids).translate(None, b"-").decode()
    number = int.from_bytes(bytes.fromhex(lanes), "big")
    for low, high, shift in _masks(count):
        number = (number & low) | ((number & high) << shift)
    digits = number.to_bytes(count * 32, "big").translate(_DIGITS)
    return [digits[start : start + 26] for start in range(6, count * 32, 32)]


@lru_cache(maxsize=64)
def _masks(count: int) -> list[tuple[int, int, int]]:
    """Which bits of all lanes stay and which move by how many places, in each of the five steps."""
    ones = sum(1 << (_LANE_BITS * lane) for lane in range(count))
    found = []
    group, room = 80, 128
    while group >= 5:  # noqa: PLR2004 - a digit's bits
        low = sum(((1 << group) - 1) << place for place in range(0, _LANE_BITS, 2 * room))
        found.append((low * ones, (low << group) * ones, room - group))
        group, room = group // 2, room // 2
    return found


def _escaped(text: bytes) -> bytes:
    """The same JSON in ASCII, as the ordinary encoder escapes."""
    quote: Callable[[str], str] = json.encoder.encode_basestring_ascii
    return _FOREIGN.sub(lambda found: quote(found[0])[1:-1], text.decode()).encode("ascii")


def _by_whom(_values: list[Any]) -> bytes:
    raise AssertionError("a hole that is filled for whoever asks was filled for nobody")


def fill_json(values: list[Any]) -> bytes:
    """The filling that prints one column's JSON value as the ordinary encoder does."""
    return _dumps(values[0])


def fill_float(values: list[Any]) -> bytes:
    """The filling that prints one column's number as a float."""
    return b"null" if values[0] is None else _dumps(float(values[0]))


def _dumps(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")


__all__ = ["ID_MARK", "MARK", "POISON", "Holes", "encoded", "fill_float", "fill_json", "with_ids"]
