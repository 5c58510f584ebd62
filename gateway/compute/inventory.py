"""The inventory: what this process knows of all hosts, so that placement need not read them all.

Invariant: a host that was not changed since ``_horizon`` is here as the database has it. Every change of a host's row
stamps it with a revision (:class:`gateway.compute.host.Revision`), and :meth:`Inventory.refresh` reads only what was
stamped since, by one indexed statement. So what is known is what was committed when that statement ran; what was
claimed since then the claim itself finds out (gateway.compute.placing).

Hosts are kept in buckets of one kind and about one size, each in the order of the smallest share that is free: the best
of a bucket lie at its front, and a search ends as soon as no later host can be better. When very many hosts are nearly
alike the search weighs :data:`LOOK` that fit, the first of each bucket, and is content with the best of those.
"""

from __future__ import annotations

import heapq
import threading
from bisect import bisect_left, insort
from collections import namedtuple
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlmodel import Session, col

from gateway.compute import host as hosts
from gateway.compute.host import PLACED_BY, Host
from gateway.compute.placement import FILTERS, OF_KINDS, Candidate, GroupPolicy, Kind, Request, weigh
from gateway.compute.revision import Horizon, since
from gateway.kernel.prepared import Prepared

LOOK = 256
"""How many hosts are weighed, shared out among the buckets; from each at least a few."""
_LEAST = 2
MOST = 16
"""How many of the best are answered with: others may take the first ones meanwhile."""

_ROUNDING = 1e-6
"""Weights are rounded to so much."""

_Size = tuple[int, int, int]
_Place = tuple[float, str, int]
_COLUMNS: list[Any] = [getattr(Host, name) for name in PLACED_BY]


@dataclass(slots=True)
class _Bucket:
    """Hosts of one kind whose capacities are at most ``ceiling``, and more than half of it. ``order`` has (minus the
    smallest free share, name, key).
    """

    ceiling: _Size
    order: list[_Place] = field(default_factory=list)

    def least(self, request: Request) -> float:
        """By how much the request lowers any host's smallest free share, at least."""
        wanted = (request.vcpus, request.ram_mib, request.disk_gib)
        return min(each / most if most else 0.0 for each, most in zip(wanted, self.ceiling, strict=True))

    def could(self, request: Request) -> bool:
        """Whether hosts of this size are big enough at all."""
        vcpus, ram_mib, disk_gib = self.ceiling
        return request.vcpus <= vcpus and request.ram_mib <= ram_mib and request.disk_gib <= disk_gib


class Inventory:
    """All hosts, in memory. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hosts: dict[int, Candidate] = {}
        self._places: dict[int, tuple[tuple[Kind, _Size], _Place]] = {}
        self._buckets: dict[tuple[Kind, _Size], _Bucket] = {}
        self._horizon: int | None = None
        self._doubted: set[int] = set()

    def refresh(self, session: Session) -> None:
        """Learn what was committed since the last time. A session that has claimed room itself must not be asked: its
        claims may still be rolled back.
        """
        if hosts.has_claimed(session):
            return
        doubted, self._doubted = self._doubted, set()
        if doubted:
            self.reread(session, doubted)
        known = self._horizon
        horizon, rows = _changed_since(session, known)
        if known is not None and horizon < known:  # the newest were removed: their numbers may come again
            known = None
            horizon, rows = _changed_since(session, None)
        with self._lock:
            if known is None:
                self._clear()
            self._horizon = horizon
            for each in rows:
                self._put(each)

    def learn(self, found: Iterable[Candidate]) -> None:
        """Take these hosts for what they are now."""
        with self._lock:
            for each in found:
                self._put(each)

    def reread(self, session: Session, keys: Iterable[int]) -> None:
        """Look at these hosts again, and forget those that are gone."""
        wanted = list(keys)
        rows = session.execute(sa.select(*_COLUMNS).where(col(Host.id).in_(wanted)))
        found = {row.id: hosts.candidate(row) for row in rows}
        with self._lock:
            for key in wanted:
                if key in found:
                    self._put(found[key])
                else:
                    self._drop(key)

    def doubt(self, key: int) -> None:
        """Look at this host again the next time: it could not be claimed, and may be gone."""
        self._doubted.add(key)

    def everyone(self, session: Session) -> list[Candidate]:
        """All hosts, none that is gone."""
        there = set(session.execute(sa.select(col(Host.id))).scalars())
        with self._lock:
            for key in self._hosts.keys() - there:
                self._drop(key)
            return list(self._hosts.values())

    def rank(self, request: Request, most: int = MOST) -> list[Candidate]:
        """The best hosts that fit, best first: highest weight, then by name."""
        with self._lock:
            best = _Best(request, most)
            apart = request.singled_out
            if request.only is not None:
                apart = request.only
            elif not _needs_member(request):
                self._search(request, best, apart)
            for key in apart:
                host = self._hosts.get(key)
                if host is not None and _passes(request, host):
                    best.offer(host)
            return best.ranked()

    # ------------------------------------------------------------------------------------------ inside

    def _search(self, request: Request, best: _Best, apart: frozenset[int]) -> None:
        kinds: dict[Kind, bool] = {}
        fitting = []
        for (kind, _size), bucket in self._buckets.items():
            if kind not in kinds:
                example = self._hosts[bucket.order[0][2]]
                kinds[kind] = all(check(request, example) is None for check in OF_KINDS)
            if kinds[kind] and bucket.could(request):
                fitting.append(bucket)
        share = max(_LEAST, LOOK // max(len(fitting), 1))
        for bucket in sorted(fitting, key=lambda each: each.order[0]):
            self._search_bucket(request, bucket, best, _Look(apart, share))

    def _search_bucket(self, request: Request, bucket: _Bucket, best: _Best, look: _Look) -> None:
        least, left, apart = bucket.least(request), look.most, look.apart
        vcpus, ram_mib, disk_gib = request.vcpus, request.ram_mib, request.disk_gib
        for share, _name, key in bucket.order:
            if -share - least < best.floor - _ROUNDING or not left:
                return
            host = self._hosts[key]
            if (
                (vcpus <= host.free_vcpus or not vcpus)
                and (ram_mib <= host.free_ram_mib or not ram_mib)
                and (disk_gib <= host.free_disk_gib or not disk_gib)
                and key not in apart
            ):
                left -= 1
                best.offer(host)

    def _put(self, host: Candidate) -> None:
        if self._hosts.get(host.id) == host:
            return
        self._drop(host.id)
        size = (_ceiling(host.vcpus), _ceiling(host.ram_mib), _ceiling(host.disk_gib))
        where = (host.kind, size)
        place = (-_share(host), host.name, host.id)
        insort(self._buckets.setdefault(where, _Bucket(size)).order, place)
        self._hosts[host.id], self._places[host.id] = host, (where, place)

    def _drop(self, key: int) -> None:
        if self._hosts.pop(key, None) is None:
            return
        where, place = self._places.pop(key)
        order = self._buckets[where].order
        del order[bisect_left(order, place)]
        if not order:
            del self._buckets[where]

    def _clear(self) -> None:
        self._hosts.clear()
        self._places.clear()
        self._buckets.clear()


@dataclass(frozen=True, slots=True)
class _Look:
    """How a bucket is searched: without those apart, for at most so many that fit."""

    apart: frozenset[int]
    most: int


class _Best:
    """The best hosts of a search so far. ``floor`` is the weight below which none is wanted."""

    def __init__(self, request: Request, most: int) -> None:
        self.floor = float("-inf")
        self._request = request
        self._most = most
        self._heap: list[tuple[float, _Backwards, Candidate]] = []

    def offer(self, host: Candidate) -> None:
        """One that fits."""
        entry = (weigh(self._request, host), _Backwards(host.name), host)
        if len(self._heap) < self._most:
            heapq.heappush(self._heap, entry)
        elif entry[:2] > self._heap[0][:2]:
            heapq.heapreplace(self._heap, entry)
        if len(self._heap) == self._most:
            self.floor = self._heap[0][0]

    def ranked(self) -> list[Candidate]:
        """Best first."""
        return [each[2] for each in sorted(self._heap, key=lambda each: each[:2], reverse=True)]


class _Backwards(str):
    """A name that counts for more the earlier it is."""

    __slots__ = ()

    def __lt__(self, other: str) -> bool:
        return str.__gt__(self, other)

    def __gt__(self, other: str) -> bool:
        return str.__lt__(self, other)


def of(session: Session) -> Inventory:
    """This process's inventory of the session's database, as committed by now."""
    found: Inventory = session.info.get("inventory") or _of_pool(session.get_bind())
    found.refresh(session)
    return found


_OF_POOLS: WeakKeyDictionary[sa.Pool, Inventory] = WeakKeyDictionary()
_LOCK = threading.Lock()


def _of_pool(bind: sa.Engine | sa.Connection) -> Inventory:
    """One for each database that is open, for as long as it is."""
    with _LOCK:
        return _OF_POOLS.setdefault(bind.engine.pool, Inventory())


def _changed_since(session: Session, horizon: int | None) -> tuple[int, list[Candidate]]:
    """The hosts that were changed behind a horizon (None: all), and the next horizon, of one snapshot."""
    found = _changed(session.get_bind().dialect.name, horizon is None).all(session, behind=horizon)
    return found[0][0] or 0, [hosts.candidate(_Seen(*row[1:])) for row in found if row[1] is not None]


_Seen: Any = namedtuple("_Seen", PLACED_BY)  # type: ignore[misc]  # noqa: PYI024 - its fields are listed where they are read


@cache
def _changed(dialect: str, everything: bool) -> Prepared:  # noqa: FBT001 - functools.cache tells calls apart by position
    behind: Any = sa.bindparam("behind", type_=sa.BigInteger)
    changed = sa.true() if everything else since(dialect, col(Host.revision), behind)
    one = sa.select(Horizon("host").label("horizon")).subquery("now")
    return Prepared(sa.select(one.c.horizon, *_COLUMNS).select_from(one.outerjoin(Host, changed)))


def _needs_member(request: Request) -> bool:
    group = request.together
    return group is not None and group.policy is GroupPolicy.AFFINITY and bool(group.members)


def _passes(request: Request, host: Candidate) -> bool:
    return all(check(request, host) is None for check in FILTERS)


def _ceiling(amount: int) -> int:
    """The next power of two."""
    return 1 << max(amount - 1, 0).bit_length() if amount > 0 else 0


def _share(host: Candidate) -> float:
    """The smallest share that is free."""
    return min(
        free / total if total else 0.0
        for free, total in (
            (host.free_vcpus, host.vcpus), (host.free_ram_mib, host.ram_mib), (host.free_disk_gib, host.disk_gib),
        )
    )  # fmt: skip
