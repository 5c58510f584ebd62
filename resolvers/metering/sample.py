"""Samples in the graph: a server's newest reading, and its hours."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import strawberry

from gateway.metering import sample
from resolvers.kernel.scalars import BigInt


def _value(name: str, shown_as: Any, description: str) -> Any:
    def resolve(root: Any) -> Any:
        return getattr(root.row, name)

    return strawberry.field(resolver=resolve, graphql_type=shown_as, description=description)


@strawberry.type(
    description="What a server's counters said. Totals grow from power-on; null: the platform does not say."
)
class ServerMetrics:
    """A sample."""

    row: strawberry.Private[sample.Sample]
    at = _value("at", datetime, "When they were read.")
    cpu_time_ns = _value("cpu_time_ns", BigInt | None, "Processor time used, in nanoseconds.")
    cpu_percent = _value("cpu_percent", float | None, "Processor use since the reading before; 100 is one processor.")
    vcpus = _value("vcpus", int, "Virtual processors.")
    ram_mib = _value("ram_mib", int, "Memory, in MiB.")
    ram_used_mib = _value("ram_used_mib", int | None, "Memory used, in MiB.")
    disk_read_bytes = _value("disk_read_bytes", BigInt | None, "Bytes read from all disks.")
    disk_written_bytes = _value("disk_written_bytes", BigInt | None, "Bytes written to all disks.")
    disk_reads = _value("disk_reads", BigInt | None, "Read requests.")
    disk_writes = _value("disk_writes", BigInt | None, "Write requests.")
    net_received_bytes = _value("net_received_bytes", BigInt | None, "Bytes that came in by all interfaces.")
    net_sent_bytes = _value("net_sent_bytes", BigInt | None, "Bytes that went out by all interfaces.")


@strawberry.type(description="One hour of a server.")
class ServerHour:
    """A rollup."""

    row: strawberry.Private[sample.SampleHour]
    hour = _value("hour", datetime, "The hour's begin.")
    samples = _value("samples", int, "How many readings it has.")
    cpu_time_ns = _value("cpu_time_ns", BigInt, "Processor time used in it, in nanoseconds.")
    cpu_percent_max = _value("cpu_percent_max", float, "The highest processor use between two readings.")
    ram_used_mib_max = _value("ram_used_mib_max", int, "The most memory used, in MiB.")
    disk_read_bytes = _value("disk_read_bytes", BigInt, "Bytes read in it.")
    disk_written_bytes = _value("disk_written_bytes", BigInt, "Bytes written in it.")
    net_received_bytes = _value("net_received_bytes", BigInt, "Bytes that came in.")
    net_sent_bytes = _value("net_sent_bytes", BigInt, "Bytes that went out.")

    @strawberry.field(description="The mean of memory used, in MiB; null when no reading told it.")
    def ram_used_mib_mean(self) -> float | None:
        """The mean."""
        count = self.row.ram_used_samples
        return round(self.row.ram_used_mib_sum / count, 2) if count else None
