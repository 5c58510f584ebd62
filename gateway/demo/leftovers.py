"""What the demo made, newest last, and how to take it away again.

Invariant: a thing is noted the moment its id is known, so that a failure at any later point finds it here. Taking away
goes on past what cannot be taken away and tells it at the end.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from gateway.client import Client, Problem
from gateway.demo.stage import Stage

JOB_S = 300.0


@dataclass(slots=True)
class Interruption:
    """Ctrl-C and SIGTERM, which raise KeyboardInterrupt, but never between a thing's making and its noting."""

    held_back: bool = False
    came: bool = False

    def listen(self) -> None:
        """Take both signals."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._come)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within this the interruption waits."""
        self.held_back = True
        try:
            yield
        finally:
            self.held_back = False
        if self.came:
            self.came = False
            raise KeyboardInterrupt

    def _come(self, _number: int, _frame: FrameType | None) -> None:
        if not self.held_back:
            raise KeyboardInterrupt
        self.came = True


@dataclass(slots=True)
class Leftovers:
    """Things that are there because of us."""

    client: Client
    interruption: Interruption = field(default_factory=Interruption)
    kept: list[tuple[str, Callable[[], None]]] = field(default_factory=list)

    def make(self, label: str, mutation: str, selection: str, *, job: bool = True, **given: Any) -> dict[str, Any]:
        """Make a thing by ``networkCreate`` or the like and note it; the payload, with the thing's id selected.

        It will go by the ``...Delete`` of the same noun, which answers with a job if ``job``.
        """
        noun = mutation.removesuffix("Create")
        with self.interruption.held():
            payload = self.client.do(mutation, f"{noun} {{ id }} {selection}", **given)
            self._note(label, f"{noun}Delete", payload[noun]["id"], job=job)
        return payload

    def _note(self, label: str, mutation: str, object_id: str, *, job: bool) -> None:
        def remove() -> None:
            try:
                payload = self.client.do(mutation, "job { id }" if job else "__typename", id=object_id)
            except Problem as problem:
                if problem.code == "NOT_FOUND":
                    return
                raise
            if job and payload["job"] is not None:
                self.client.follow(payload["job"]["id"], deadline_s=JOB_S)

        self.kept.append((label, remove))

    def clear(self, stage: Stage) -> bool:
        """Take everything away, newest first; whether all is gone. What stays can be tried again."""
        stays: list[tuple[str, Callable[[], None]]] = []
        while self.kept:
            label, remove = self.kept.pop()
            try:
                with stage.act(f"Delete the {label}"):
                    remove()
            except Problem as problem:
                stage.say(str(problem), "red")
                stays.append((label, remove))
        self.kept = stays[::-1]
        return not stays
