"""Hosts in the graph, for operators."""

import strawberry

from gateway.compute import host
from gateway.jobs import job
from gateway.kernel.access import Need
from resolvers.kernel.connections import Listing, connection_query
from resolvers.kernel.graph import Node, column, computed, node
from resolvers.kernel.roots import mutation, node_query


@node(host.NOUN)
class Host(Node):
    """A hypervisor host. Only operators see hosts."""

    name = column("Its name, unique in the cloud.")
    hypervisor = column("What runs there.")
    endpoint = column("The platform's own address.")
    availability_zone = column("The zone it is in.")
    enabled = column("Whether new machines may be placed there.")
    status = column("Whether it answers.")
    status_reason = column("Why it does not answer; null when it does.")
    seen_at = column("When it was last found to have changed.")
    version = column("Raised with every change.")
    hypervisor_version = computed(
        str | None, lambda row: row.facts.get("version"), "The hypervisor's version.", "facts"
    )
    accelerator = computed(
        str | None,
        lambda row: row.facts.get("accelerator"),
        "What makes guests fast, such as `KVM`; `TCG` is emulation.",
        "facts",
    )
    cpu_model = computed(str | None, lambda row: row.facts.get("cpu_model"), "The processor's model.", "facts")
    capabilities = column("What its driver can do.")
    pool = column("What it has in common with the hosts that its servers can be relocated to; null: there are none.")
    vcpu_ratio = column("vCPUs that may be promised for each real one.")
    ram_ratio = column("Memory that may be promised for each real MiB.")
    disk_ratio = column("Disk that may be promised for each real GiB.")
    vcpus = column("Real processors.")
    ram_mib = column("Real memory in MiB.")
    disk_gib = column("Real disk in GiB.")
    used_vcpus = column("vCPUs promised.")
    used_ram_mib = column("Memory promised, in MiB.")
    used_disk_gib = column("Disk promised, in GiB.")
    created_at = column("When it was registered.")
    updated_at = column("When it last changed.")


node_query(host.NOUN, "A host by its id.", Need.ADMIN)
connection_query("hosts", Listing(host.NOUN, host.find, host.Filter, host.ORDERS), "The hosts.", Need.ADMIN)
mutation(
    "hostRegister", host.enlist, host.HostRegister, Need.ADMIN, "Use a host; a job probes it.",
    payload={"host": (host.NOUN, "The new host."), "job": (job.NOUN, "The job that probes it.")},
)  # fmt: skip
mutation(
    "hostUpdate", host.update, host.HostUpdate, Need.ADMIN, "Change a host.",
    payload={"host": (host.NOUN, "The host as it is now.")},
)  # fmt: skip
mutation(
    "hostRemove", host.remove, host.HostRemove, Need.ADMIN, "Forget a host that nothing is on.",
    payload={"id": (strawberry.ID, "The id that is gone.")},
)  # fmt: skip
