"""What :class:`drivers.api.Networks` promises, as tests."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

from drivers import api
from drivers.api import Capability, NetworkSpec, PowerAction, SubnetSpec
from drivers.contracts.rig import Rig, refused, unchanged, unsupported


class NetworkContract:
    """Networks, their subnets and ports."""

    def test_a_network_comes_once_and_goes_for_good(self, rig: Rig) -> None:
        rig.need(Capability.NETWORKS)
        networks, spec = rig.driver.networks, rig.network_spec()
        assert networks.inspect(spec.id, rig.deadline) is None
        with unchanged(rig):
            for _ in range(2):
                made = networks.ensure(spec, rig.deadline)
                assert (made.id, made.subnet_ids) == (spec.id, frozenset({spec.subnets[0].id}))
            assert networks.inspect(spec.id, rig.deadline) == made
            assert [each.id for each in networks.list(rig.deadline)].count(spec.id) == 1
            for _ in range(2):
                networks.remove(spec.id, rig.deadline)
                assert networks.inspect(spec.id, rig.deadline) is None
        rig.works(Capability.NETWORKS)

    def test_a_network_has_exactly_its_subnets(self, rig: Rig) -> None:
        rig.need(Capability.NETWORKS)
        with rig.network() as spec:
            second = SubnetSpec(uuid4(), rig.free_cidr(), None, dhcp=False)
            for subnets in ((*spec.subnets, second), (second,), (), spec.subnets):
                answer = rig.driver.networks.ensure(replace(spec, subnets=subnets), rig.deadline)
                assert answer.subnet_ids == frozenset(each.id for each in subnets)
                assert rig.driver.networks.inspect(spec.id, rig.deadline) == answer

    def test_a_network_may_speak_both_protocols(self, rig: Rig) -> None:
        rig.need(Capability.NETWORKS)
        plain = rig.network_spec()
        six = SubnetSpec(uuid4(), "fd5a:57a7:6f00::/64", "fd5a:57a7:6f00::1", dhcp=False, dns_servers=("192.0.2.53",))
        spec = replace(plain, name="""<both> & "all" 'ü'""", subnets=(*plain.subnets, six), mtu=1400)
        port = rig.port_spec(spec)
        port = replace(port, addresses=(*port.addresses, "fd5a:57a7:6f00::a"))
        with unchanged(rig):
            made = rig.driver.networks.ensure(spec, rig.deadline)
            assert made.subnet_ids == {each.id for each in spec.subnets}
            for _ in range(2):
                rig.driver.networks.ensure_port(port, rig.deadline)
            rig.driver.networks.remove_port(spec.id, port.id, rig.deadline)
            rig.driver.networks.remove(spec.id, rig.deadline)

    def test_two_networks_with_the_same_range(self, rig: Rig) -> None:
        rig.need(Capability.NETWORKS)
        with rig.network() as one:
            twin = NetworkSpec(uuid4(), "twin", (replace(one.subnets[0], id=uuid4()),))
            if not rig.has(Capability.OVERLAPPING_SUBNETS):
                with refused(rig):
                    rig.driver.networks.ensure(twin, rig.deadline)
                rig.found.lacks.add(Capability.OVERLAPPING_SUBNETS)
                return
            try:
                assert len(rig.driver.networks.ensure(twin, rig.deadline).subnet_ids) == 1
            finally:
                rig.driver.networks.remove(twin.id, rig.deadline)
        rig.works(Capability.OVERLAPPING_SUBNETS)

    def test_a_network_with_a_machine_is_not_removed(self, rig: Rig) -> None:
        rig.need(Capability.NETWORKS, Capability.MACHINES, Capability.VOLUMES)
        with (
            rig.network() as network,
            rig.port(network) as port,
            rig.volume() as volume,
            rig.machine(volume, port=port) as machine,
        ):
            with refused(rig):
                rig.driver.networks.remove(network.id, rig.deadline)
            rig.power(machine.id, PowerAction.ON)
            with refused(rig):
                rig.driver.networks.remove(network.id, rig.deadline)

    def test_dhcp(self, rig: Rig) -> None:
        rig.need(Capability.NETWORKS)
        if rig.has(Capability.DHCP):
            with rig.network() as leased:  # as every other test has it
                assert leased.subnets[0].dhcp
            rig.works(Capability.DHCP)
            return
        spec = rig.network_spec()
        with unsupported(rig, Capability.DHCP):
            wish = replace(spec, subnets=(replace(spec.subnets[0], dhcp=True),))
            rig.driver.networks.ensure(wish, rig.deadline)

    # --------------------------------------------------------------------------------- ports

    def test_a_port_comes_once_and_goes_for_good(self, rig: Rig) -> None:
        rig.need(Capability.NETWORKS)
        networks = rig.driver.networks
        with rig.network() as network, unchanged(rig):
            spec = rig.port_spec(network)
            for _ in range(2):
                networks.ensure_port(spec, rig.deadline)
                assert list(networks.list_ports(rig.deadline)).count(spec.id) == 1
            for _ in range(2):
                networks.remove_port(network.id, spec.id, rig.deadline)
                assert spec.id not in networks.list_ports(rig.deadline)

    def test_a_port_needs_its_network(self, rig: Rig) -> None:
        rig.need(Capability.NETWORKS)
        with refused(rig):
            rig.driver.networks.ensure_port(rig.port_spec(rig.network_spec()), rig.deadline)

    def test_removing_a_port_of_an_unknown_network_is_success(self, rig: Rig) -> None:
        rig.need(Capability.NETWORKS)
        with unchanged(rig):
            rig.driver.networks.remove_port(uuid4(), uuid4(), rig.deadline)

    def test_a_port_is_made_exactly_as_said_again(self, rig: Rig) -> None:
        rig.need(Capability.NETWORKS)
        with rig.network() as network, rig.port(network) as port:
            prefix = port.addresses[0].rsplit(".", 1)[0]
            moved = replace(port, addresses=(f"{prefix}.77",), hostname="moved")
            rig.driver.networks.ensure_port(moved, rig.deadline)
            assert list(rig.driver.networks.list_ports(rig.deadline)).count(port.id) == 1
            with rig.port(network, last_byte=10) as heir:  # the first address is free again
                assert heir.id in rig.driver.networks.list_ports(rig.deadline)

    def test_an_address_in_use_is_refused(self, rig: Rig) -> None:
        rig.need(Capability.NETWORKS)
        with rig.network() as network, rig.port(network, last_byte=20), refused(rig):
            rig.driver.networks.ensure_port(rig.port_spec(network, last_byte=20), rig.deadline)

    def test_rules_and_their_absence(self, rig: Rig) -> None:
        rig.need(Capability.NETWORKS)
        with rig.network() as network:
            spec = rig.port_spec(network)
            rules = (
                api.RuleSpec(api.Direction.INGRESS, 4, "tcp", 22, 22, "198.51.100.0/24"),
                api.RuleSpec(api.Direction.INGRESS, 4, "icmp", 8, 0),
                api.RuleSpec(api.Direction.INGRESS, 6, "udp", 5000, 6000),
                api.RuleSpec(api.Direction.EGRESS, 4),
            )
            if not rig.has(Capability.SECURITY_GROUPS):
                with unsupported(rig, Capability.SECURITY_GROUPS):
                    rig.driver.networks.ensure_port(replace(spec, rules=rules), rig.deadline)
                return
            try:
                for wish in (rules, (), None, rules):
                    rig.driver.networks.ensure_port(replace(spec, rules=wish), rig.deadline)
            finally:
                rig.driver.networks.remove_port(network.id, spec.id, rig.deadline)
        rig.works(Capability.SECURITY_GROUPS)

    def test_rules_change_under_a_running_machine(self, rig: Rig) -> None:
        rig.need(Capability.NETWORKS, Capability.MACHINES, Capability.VOLUMES, Capability.SECURITY_GROUPS)
        with (
            rig.network() as network,
            rig.port(network) as port,
            rig.volume() as volume,
            rig.machine(volume, port=port) as machine,
        ):
            rig.power(machine.id, PowerAction.ON)
            rig.driver.networks.ensure_port(replace(port, rules=()), rig.deadline)
            rig.driver.networks.ensure_port(replace(port, rules=port.rules), rig.deadline)
            seen = rig.driver.machines.inspect(machine.id, rig.deadline)
            assert seen is not None
            assert seen.power is api.Power.RUNNING
