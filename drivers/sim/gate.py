"""The one way from a driver's verb to the state of a simulated host.

Every verb passes here: a closed connection, a passed deadline, the weather ahead, one transaction, the weather behind.
So no verb can forget its deadline, and a verb that raised has changed nothing (except where a fault *after* was
ordered, which is the point of it).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from drivers.api import Capability, Deadline, Transient, Unsupported
from drivers.sim import faults
from drivers.sim.data_centre import DataCentre
from drivers.sim.options import Options
from drivers.sim.store import Store, Transaction

FACETS = {
    "machines": Capability.MACHINES,
    "volumes": Capability.VOLUMES,
    "networks": Capability.NETWORKS,
}


class Gate:
    """One connection's way in. ``capabilities`` is what its type declares; the rest is refused by name."""

    def __init__(self, centre: DataCentre, options: Options, capabilities: frozenset[Capability]) -> None:
        self.centre = centre
        self.options = options
        self._capabilities = capabilities
        self._open = True

    @property
    def store(self) -> Store:
        """The host's memory."""
        return self.centre.store

    @contextmanager
    def verb(
        self, name: str, deadline: Deadline, *, write: bool = True, ahead: Callable[[], None] = lambda: None
    ) -> Iterator[Transaction]:
        """One verb's transaction; ``ahead`` is work of the verb that needs none, done just before it begins.

        Raises the weather's errors, Unsupported for an absent facet, Transient when late.
        """
        self.centre.count(name)
        stormy = self.weather(name, deadline)
        if facet := FACETS.get(name.partition(".")[0]):
            self.need(facet)
        ahead()
        with self.store.write(deadline) if write else self.store.read(deadline) as transaction:
            yield transaction
        if stormy:
            faults.after(self.store, name, deadline)

    def weather(self, name: str, deadline: Deadline) -> bool:
        """What stands ahead of a verb, for those without a transaction. Answers whether a fault may stand behind."""
        if not self._open:
            raise Transient("this connection to the simulated host is closed")
        return faults.before(self.store, self.options, name, deadline)

    def need(self, capability: Capability) -> None:
        """Refuse what this type of host cannot do."""
        if capability not in self._capabilities:
            raise Unsupported(capability, f"this simulated host was made without {capability}")

    def has(self, capability: Capability) -> bool:
        """Whether this type of host can do that."""
        return capability in self._capabilities

    def now_ns(self, transaction: Transaction) -> int:
        """The host's clock."""
        return self.centre.now_ns(transaction)

    def close(self) -> None:
        """Let nothing through from now on."""
        self._open = False
