"""What keeps a plan from answering. None of it reaches a client: the executor answers instead, in its own words."""

from __future__ import annotations


class Unspelt(Exception):  # noqa: N818 - an event, not an error
    """There is no statement for this tree."""


class NotRead(Exception):  # noqa: N818 - an event, not an error
    """The statement could not be run."""


class NotAsPromised(Exception):  # noqa: N818 - an event, not an error
    """The rows hold what the schema says they never do."""
