"""The documents as the tests read them: paragraphs without code, code spans, fenced blocks, links, headings."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^(?P<mark><!-- tested -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block. ``tested`` ones are run as they stand."""

    language: str
    text: str
    tested: bool


@dataclass(frozen=True, slots=True)
class Page:
    """One Markdown file of the project."""

    path: Path

    def __str__(self) -> str:
        """Its path in the tree."""
        return str(self.path.relative_to(ROOT))

    @property
    def text(self) -> str:
        """All of it."""
        return self.path.read_text(encoding="utf-8")

    @property
    def prose(self) -> str:
        """All but its fenced blocks."""
        return _FENCE.sub("", self.text)

    @property
    def blocks(self) -> list[Block]:
        """Its fenced blocks."""
        found = _FENCE.finditer(self.text)
        return [Block(each["language"], each["text"], each["mark"] is not None) for each in found]

    @property
    def spans(self) -> list[str]:
        """What stands between backticks, in lines."""
        return [" ".join(each.split()) for each in re.findall(r"`([^`]+)`", self.prose)]

    @property
    def links(self) -> list[str]:
        """The targets of its links."""
        return [each["target"] for each in _LINK.finditer(re.sub(r"`[^`]+`", "", self.prose))]

    @property
    def anchors(self) -> set[str]:
        """The anchors of its headings, as GitHub makes them."""
        heads = re.findall(r"^#+ (.*)$", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in heads}

    @property
    def everything_said(self) -> Iterator[str]:
        """Code of both kinds."""
        yield from self.spans
        yield from (each.text for each in self.blocks)


@cache
def pages() -> tuple[Page, ...]:
    """Every page of the project, as git knows them."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    found = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60).stdout
    return tuple(Page(ROOT / name) for name in sorted(found.split()) if (ROOT / name).exists())
