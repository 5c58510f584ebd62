"""What the demo made, newest last, and how to take it away again.

Invariant: a thing is noted the moment its id is known, so that a failure at any later point finds it here. Taking away
goes on past what cannot be taken away and tells it at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.client import Client, Problem
from gateway.demo.stage import Stage

JOB_S = 300.0


@dataclass(slots=True)
class Leftovers:
    """Things that are there because of us."""

    client: Client
    kept: list[tuple[str, Callable[[], None]]] = field(default_factory=list)

    def note(self, label: str, mutation: str, object_id: str, *, job: bool = True) -> None:
        """This thing goes by that mutation, which answers with a job if ``job``."""

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
