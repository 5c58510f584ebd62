"""How good the counters of a sample are. Part of the contract in drivers.api, from where everyone imports it."""

from __future__ import annotations

from enum import StrEnum


class Quality(StrEnum):
    """EXACT: the platform's own totals since power-on. SUMMED: the platform tells rates over intervals, and the driver
    adds them up since it first saw the machine run, so totals may start over. PARTIAL: this time something was missing
    of what the platform else tells, so what is there is too low.
    """

    EXACT = "EXACT"
    SUMMED = "SUMMED"
    PARTIAL = "PARTIAL"
