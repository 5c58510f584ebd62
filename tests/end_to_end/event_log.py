"""The event log as one subscriber gets it, read on a thread of its own while a test goes on."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

from gateway.client import Client, Problem
from tests.end_to_end.processes import wait_for

EVENTS = """subscription($after: String, $filter: EventFilter) {
 events(after: $after, filter: $filter) { cursor kind objectId } }"""


@dataclass
class EventLog:
    """What was pushed so far, oldest first. ``reconnect_s``: how long a lost connection is tried again."""

    client: Client
    reconnect_s: float = 0.0
    seen: list[dict[str, str]] = field(default_factory=list)

    def begin(self) -> None:
        """Subscribe; returns when the subscription is known to be there."""
        threading.Thread(target=self._read, daemon=True).start()
        wait_for("the subscription", lambda: self._noise() and self.seen)

    def of(self, thing: str) -> list[dict[str, str]]:
        """What happened to one object."""
        return [each for each in self.seen if each["objectId"] == thing]

    def _read(self) -> None:
        with suppress(Problem):  # the cloud ends before the thread does
            for data in self.client.subscribe(EVENTS, reconnect_s=self.reconnect_s):
                self.seen.append(data["events"])

    def _noise(self) -> bool:
        pair = self.client.do("keypairCreate", "keypair { id }", name=f"noise-{time.monotonic_ns()}")
        self.client.do("keypairDelete", "id", id=pair["keypair"]["id"])
        return True
