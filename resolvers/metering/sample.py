"""Samples in the graph: a server's newest reading, and its hours."""

import strawberry

from gateway.metering import sample
from resolvers.kernel.graph import column, computed, record
from resolvers.kernel.scalars import BigInt


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


def _mean(row: sample.SampleHour) -> float | None:
    count = row.ram_used_samples
    return round(row.ram_used_mib_sum / count, 2) if count else None


@record(sample.SampleHour)
class ServerHour:
    """One hour of a server."""

    row: strawberry.Private[sample.SampleHour]
    hour = column("The hour's begin.")
    samples = column("How many readings it has.")
    cpu_time_ns = column("Processor time used in it, in nanoseconds.", shown_as=BigInt)
    cpu_percent_max = column("The highest processor use between two readings.")
    ram_used_mib_max = column("The most memory used, in MiB.")
    disk_read_bytes = column("Bytes read in it.", shown_as=BigInt)
    disk_written_bytes = column("Bytes written in it.", shown_as=BigInt)
    net_received_bytes = column("Bytes that came in.", shown_as=BigInt)
    net_sent_bytes = column("Bytes that went out.", shown_as=BigInt)
    ram_used_mib_mean = computed(
        float | None, _mean, "The mean of memory used, in MiB; null when no reading told it.",
        "ram_used_mib_sum", "ram_used_samples",
    )  # fmt: skip
