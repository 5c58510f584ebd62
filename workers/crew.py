"""Threads for calls that may hang, shared by all hosts of a process.

A vendor's C call cannot be interrupted. So a caller waits for its call until the deadline and no longer; a call that is
late then is given up: its thread is left to it, no longer counts among those at work, and ends when the call does.
Invariant: so one host, however it hangs, holds at most ``each`` threads, all hosts together at most ``most`` that are
in time, those that hang already get no more once ``hung`` do, and a host that answers never waits for one that does
not.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

IDLE_S = 30.0
"""A thread that has had nothing to do for so long ends."""


class LateError(Exception):
    """The call was not done in time; it may yet have its effect."""


class HungError(Exception):
    """Nothing was called: too many calls to this host hang."""


@dataclass(slots=True, eq=False)
class _Task:
    key: Hashable
    work: Callable[[], Any]
    result: Future[Any]
    given_up: bool = False


class Crew:
    """See the module. Thread-safe."""

    def __init__(self, *, each: int = 8, most: int = 256, hung: int = 256) -> None:
        self._each, self._most, self._most_hung = each, most, hung
        self._change = threading.Condition()
        self._queue: SimpleQueue[_Task | None] = SimpleQueue()
        self._idle = 0
        self._at_work = 0
        self._busy: Counter[Hashable] = Counter()
        self._hung: Counter[Hashable] = Counter()

    def run(self, key: Hashable, work: Callable[[], T], seconds: float) -> T:
        """Do ``work`` on a thread and answer with what it answers or raises. Raises LateError after so many seconds,
        HungError at once when ``key`` may have no further thread.
        """
        until = time.monotonic() + seconds
        task = _Task(key, work, Future())
        self._admit(task, until)
        try:
            found: T = task.result.result(timeout=max(until - time.monotonic(), 0.0))
        except NotInTime:
            if task.result.done():  # the work itself raised a TimeoutError
                raise
            self._give_up(task)
            raise LateError from None
        return found

    @property
    def hung(self) -> int:
        """How many calls are late and have not come back."""
        return self._hung.total()

    def close(self) -> None:
        """Let idle threads end."""
        with self._change:
            for _ in range(self._idle):
                self._queue.put(None)
            self._idle = 0

    def _admit(self, task: _Task, until: float) -> None:
        key = task.key
        with self._change:
            while self._busy[key] >= self._each or self._at_work >= self._most:
                self._refuse_hung(key)
                if not self._change.wait(until - time.monotonic()) and time.monotonic() >= until:
                    raise LateError
            self._refuse_hung(key)
            self._busy[key] += 1
            self._at_work += 1
            if self._idle:
                self._idle -= 1
            else:
                threading.Thread(target=self._loop, name=f"host-{key}", daemon=True).start()
            self._queue.put(task)

    def _refuse_hung(self, key: Hashable) -> None:
        hung = self._hung[key]
        if hung >= self._each or (hung and self._hung.total() >= self._most_hung):
            raise HungError
        if not hung:
            del self._hung[key]

    def _give_up(self, task: _Task) -> None:
        with self._change:
            if task.result.done():
                return
            task.given_up = True
            self._at_work -= 1
            self._hung[task.key] += 1
            self._change.notify_all()

    def _loop(self) -> None:
        while True:
            try:
                task = self._queue.get(timeout=IDLE_S)
            except Empty:
                task = self._leave()
            if task is None:
                return
            self._do(task)
            if not self._done(task):
                return

    def _leave(self) -> _Task | None:
        """End, unless something was put in the queue in this very moment."""
        with self._change:
            try:
                return self._queue.get_nowait()
            except Empty:
                self._idle -= 1
                return None

    def _do(self, task: _Task) -> None:
        if task.given_up:  # it was late before it had begun
            return
        try:
            found = task.work()
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the caller's
            with self._change:
                task.result.set_exception(error)
        else:
            with self._change:
                task.result.set_result(found)

    def _done(self, task: _Task) -> bool:
        """Count the call out; whether the thread goes on."""
        with self._change:
            _less(self._busy, task.key)
            if task.given_up:
                _less(self._hung, task.key)
            else:
                self._at_work -= 1
                self._idle += 1
            self._change.notify_all()
            return not task.given_up


def _less(counter: Counter[Hashable], key: Hashable) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]
