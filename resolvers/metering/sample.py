"""Samples in the graph: a server's newest reading, and its hours."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import strawberry

from gateway.metering import sample
from resolvers.kernel.graph import column, record
from resolvers.kernel.scalars import BigInt


def _value(name: str, shown_as: Any, description: str) -> Any:
    def resolve(root: Any) -> Any:
        return getattr(root.row, name)

    return strawberry.field(resolver=resolve, graphql_type=shown_as, description=description)


@record(sample.Sample)
class ServerMetrics:
    """What a server's counters said. Totals grow from power-on; null: the platform does not say."""

    row: strawberry.Private[sample.Sample]
    at = column("When they were read.")
    cpu_time_ns = column("Processor time used, in nanoseconds.", shown_as=BigInt | None)
    cpu_percent = column("Processor use since the reading before; 100 is one processor.")
    vcpus = column("Virtual processors.")
    ram_mib = column("Memory, in MiB.")
    ram_used_mib = column("Memory used, in MiB.")
    disk_read_bytes = column("Bytes read from all disks.", shown_as=BigInt | None)
    disk_written_bytes = column("Bytes written to all disks.", shown_as=BigInt | None)
    disk_reads = column("Read requests.", shown_as=BigInt | None)
    disk_writes = column("Write requests.", shown_as=BigInt | None)
    net_received_bytes = column("Bytes that came in by all interfaces.", shown_as=BigInt | None)
    net_sent_bytes = column("Bytes that went out by all interfaces.", shown_as=BigInt | None)
    quality = column("How good these counters are; null: nobody noted it.")


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
