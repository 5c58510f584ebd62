"""What the screen of a simulated guest shows: a test picture that says so, as pure functions.

A picture is a grid of colours by their number in :data:`PALETTE`, one byte each. Below the word there are a lamp, which
goes to the next colour with each key that is pressed, and a dot where the pointer was last: whoever looks sees that it
arrives. No guest runs.
"""

from __future__ import annotations

from dataclasses import dataclass

WIDTH, HEIGHT = 320, 200
PALETTE: tuple[tuple[int, int, int], ...] = (
    (0, 0, 0), (255, 255, 255), (192, 192, 0), (0, 192, 192), (0, 192, 0), (192, 0, 192), (192, 0, 0), (0, 0, 192),
)  # fmt: skip
BLACK, WHITE = 0, 1
WORD = "SIMULATED"
BARS_HEIGHT = 80
BLOCK = 5
WORD_TOP = 100
LAMP_TOP, LAMP_SIDE = 160, 24
DOT_SIDE = 5
# Columns of five by seven dots, the lowest bit on top.
GLYPHS = {
    "S": (0x46, 0x49, 0x49, 0x49, 0x31),
    "I": (0x00, 0x41, 0x7F, 0x41, 0x00),
    "M": (0x7F, 0x02, 0x0C, 0x02, 0x7F),
    "U": (0x3F, 0x40, 0x40, 0x40, 0x3F),
    "L": (0x7F, 0x40, 0x40, 0x40, 0x40),
    "A": (0x7E, 0x11, 0x11, 0x11, 0x7E),
    "T": (0x01, 0x01, 0x7F, 0x01, 0x01),
    "E": (0x7F, 0x49, 0x49, 0x49, 0x41),
    "D": (0x7F, 0x41, 0x41, 0x22, 0x1C),
}
GLYPH_WIDTH, GLYPH_HEIGHT = 6, 7


@dataclass(frozen=True, slots=True)
class Shown:
    """What may change on the screen: how many keys were pressed, and where the pointer was last."""

    keys: int = 0
    pointer: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """How a client wants its pixels: RFC 6143, 7.4, true colour only. ``most`` and ``shifts`` are red, green, blue."""

    bits: int = 32
    big_endian: bool = False
    most: tuple[int, int, int] = (255, 255, 255)
    shifts: tuple[int, int, int] = (16, 8, 0)

    def pixel(self, colour: int) -> bytes:
        """One colour of the palette as a pixel."""
        value = 0
        for part, most, shift in zip(PALETTE[colour], self.most, self.shifts, strict=True):
            value |= (part * most // 255) << shift
        size = self.bits // 8
        return (value & ((1 << self.bits) - 1)).to_bytes(size, "big" if self.big_endian else "little")


def picture(shown: Shown) -> list[bytes]:
    """The rows of the screen from the top."""
    bar = WIDTH // (len(PALETTE) - 1)
    bars = bytes(min(at // bar, len(PALETTE) - 2) + 1 for at in range(WIDTH))
    rows = [bytearray(bars if at < BARS_HEIGHT else bytes(WIDTH)) for at in range(HEIGHT)]
    left = (WIDTH - len(WORD) * GLYPH_WIDTH * BLOCK) // 2
    for place, letter in enumerate(WORD):
        for column, dots in enumerate(GLYPHS[letter]):
            for line in range(GLYPH_HEIGHT):
                if dots >> line & 1:
                    _square(rows, left + (place * GLYPH_WIDTH + column) * BLOCK, WORD_TOP + line * BLOCK, BLOCK, WHITE)
    _square(rows, (WIDTH - LAMP_SIDE) // 2, LAMP_TOP, LAMP_SIDE, shown.keys % len(PALETTE))
    if shown.pointer is not None:
        _square(rows, shown.pointer[0] - DOT_SIDE // 2, shown.pointer[1] - DOT_SIDE // 2, DOT_SIDE, WHITE)
    return [bytes(row) for row in rows]


def pixels(rows: list[bytes], area: tuple[int, int, int, int], wanted: PixelFormat) -> bytes:
    """An area (left, top, width, height) as the client wants it, row by row."""
    left, top, width, height = area
    colours = [wanted.pixel(number) for number in range(len(PALETTE))]
    return b"".join(b"".join(colours[each] for each in row[left : left + width]) for row in rows[top : top + height])


def _square(rows: list[bytearray], left: int, top: int, side: int, colour: int) -> None:
    for row in rows[max(top, 0) : max(top + side, 0)]:
        from_, to = max(left, 0), max(min(left + side, WIDTH), 0)
        row[from_:to] = bytes([colour]) * max(to - from_, 0)
