"""What every resolver finds in ``info.context``: who asks, the way to the database, and the operation's loaders.

One context per operation. Domain functions are synchronous, so reads and writes hop to a small thread pool; each
loader batch has its own short read session and each mutation one unit of work.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import defaultdict
from collections.abc import Awaitable, Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlmodel import Session
from strawberry.dataloader import DataLoader

from gateway.kernel.access import Subject
from gateway.kernel.db import Database
from gateway.kernel.noun import Noun
from gateway.kernel.typical import Typical

T = TypeVar("T")

_THREADS = ThreadPoolExecutor(16, thread_name_prefix="domain")
_WRITERS = ThreadPoolExecutor(2, thread_name_prefix="writer")
"""Where SQLite is written from. It has one writer at a time: more threads would do nothing but pass the interpreter to
and fro between cores while they wait for each other, which took a third of a server's CPU.
"""
_FEW = 16
"""So many rows at most are read where they are asked for (:meth:`Context.glance`)."""


@dataclass(frozen=True, slots=True)
class Services:
    """What the composition root gives to every operation: the database, the event feed, and by name whatever a
    resolver needs beyond (``live`` readings from hypervisors, URL signing, settings).
    """

    db: Database
    feed: Any
    settings: Any
    extras: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Context:
    """``limits`` is what the transport found out about this operation (cost, rate). ``together`` says that a stream may
    hand its subscriber over to an audience (:class:`resolvers.transport.audience.Tail`).
    """

    subject: Subject
    services: Services
    limits: Any = None
    refresh: Callable[[], Awaitable[Subject]] | None = None
    loaders: dict[Any, DataLoader[Any, Any]] = field(default_factory=dict)
    together: bool = False

    @property
    def viewer(self) -> Hashable:
        """All of the subject that what it sees may depend on: equal viewers are shown the same."""
        who = self.subject
        return (who.user_id, who.session_id, who.api_key_id, who.admin, frozenset(who.roles.items()))

    @property
    def standing(self) -> Hashable:
        """The subject's."""
        return self.subject.standing

    @property
    def sight(self) -> Hashable:
        """Whom else may be shown what this context's subject was: those of its standing when it is a typical one (but
        not what is ``personal``), else equal viewers.
        """
        return ("standing", self.standing) if isinstance(self.subject, Typical) else ("viewer", self.viewer)

    def typical(self) -> Context:
        """A context of anybody with this standing: what it shows is for all of them, unless it is ``personal``."""
        return Context(subject=Typical.of(self.subject), services=self.services)

    @property
    def personal(self) -> bool:
        """Whether a typical subject was asked who it is."""
        return isinstance(self.subject, Typical) and self.subject.asked

    async def now(self) -> Subject:
        """The subject with the roles of this moment: for streams that outlive them."""
        return self.subject if self.refresh is None else await self.refresh()

    async def read(self, work: Callable[[Session], T]) -> T:
        """Run ``work``, which only reads, with a read session on a thread."""
        return await on_thread(lambda: self.services.db.look(work))

    async def glance(self, work: Callable[[Session], T]) -> T:
        """As :meth:`read`, for a look at few rows by their keys: on SQLite it is done here, since handing it to a
        thread would take longer than the look, and readers wait for nobody there.
        """
        return self.services.db.look(work) if self.services.db.sqlite else await self.read(work)

    async def write(self, work: Callable[[Session], T]) -> T:
        """Run ``work`` as one unit of work on a thread."""
        return await self.writing(lambda: self.services.db.run(work))

    async def writing(self, work: Callable[[], T]) -> T:
        """Run ``work``, which is little else than a unit of work, on a thread for such."""
        return await on_thread(work, _WRITERS if self.services.db.sqlite else _THREADS)

    async def one(self, noun: Noun[Any], key: int | None) -> Any:
        """The row with that internal key, if the subject may see it; batched."""
        if key is None:
            return None
        found = await self._loader(noun, "id").load(key)
        return found[0] if found else None

    async def many(self, noun: Noun[Any], column: str, key: Any) -> list[Any]:
        """The visible rows whose ``column`` is the key; batched."""
        rows: list[Any] = await self._loader(noun, column).load(key)
        return rows

    def batch(
        self, name: Any, load: Callable[[Session, Sequence[Any]], dict[Any, Any]], *, single: bool = False
    ) -> DataLoader[Any, Any]:
        """A loader of this operation, made when first asked for: ``load`` answers many keys in one read session;
        ``single`` says that it finds at most one row for each.
        """
        loader = self.loaders.get(name)
        if loader is None:

            async def fetch(keys: list[Any]) -> list[Any]:
                read = self.glance if single and len(keys) <= _FEW else self.read
                found = await read(lambda session: load(session, keys))
                return [found.get(key) for key in keys]

            loader = self.loaders[name] = _Shared(fetch)
        return loader

    def _loader(self, noun: Noun[Any], column: str) -> DataLoader[Any, Any]:
        def load(session: Session, keys: Sequence[Any]) -> dict[Any, Any]:
            found: dict[Any, list[Any]] = defaultdict(list)
            for row in noun.by_key(session, self.subject, column, keys):
                found[getattr(row, column)].append(row)
            return {key: found[key] for key in keys}

        return self.batch((noun.prefix, column), load, single=column == "id")


class _Shared(DataLoader[Any, Any]):
    """A loader whose answers several fields may await: the executor cancels the siblings of a field that failed, and
    that must not take the answer from the others (they would be cancelled too, and with them the request).
    """

    def load(self, key: Any) -> Awaitable[Any]:
        """The answer, which outlives who awaits it."""
        return asyncio.shield(super().load(key))


async def on_thread(work: Callable[[], T], threads: ThreadPoolExecutor = _THREADS) -> T:
    """Run blocking work on the domain's threads, with the caller's logging context."""
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(threads, lambda: context.run(work))
