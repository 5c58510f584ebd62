"""Rules of security groups: added and removed, never changed; no group has the same rule twice.

A rule names its other end as a range or as a group, whose members on the same network are then meant. A change is
applied to the ports it concerns by the job ``security_group.apply``. The table stands beside its group's
(gateway/network/security_group.py).
"""

from ipaddress import ip_network
from typing import Any, Self

from pydantic import model_validator
from sqlmodel import Field, Session

from gateway.kernel.access import Role, Subject, require
from gateway.kernel.command import AnyId, Retryable, Text
from gateway.kernel.db import unique
from gateway.kernel.errors import Invalid, QuotaExceeded
from gateway.network import membership
from gateway.network import security_group as groups
from gateway.network.security_group import EtherType, RuleDirection, RuleProtocol, SecurityGroup
from gateway.network.subnet import CidrText


class SecurityGroupRuleAdd(Retryable):
    """A rule to add to a group."""

    security_group_id: AnyId = Field(description="The group.")
    direction: RuleDirection = Field(description="Which traffic.")
    ether_type: EtherType = Field(default=EtherType.IPV4, description="Of which family.")
    protocol: RuleProtocol = Field(default=RuleProtocol.ANY, description="Of which kind.")
    port_min: int | None = Field(
        default=None, ge=0, le=65535, description="First port of the destination (ICMP: the type); any when absent."
    )
    port_max: int | None = Field(
        default=None, ge=0, le=65535, description="Last port (ICMP: the code); the first one when absent."
    )
    remote_cidr: CidrText | None = Field(default=None, description="The other end's range; anywhere when absent.")
    remote_group_id: AnyId | None = Field(
        default=None, description="Instead of a range: the members of this group on the same network."
    )
    description: Text = Field(default="", max_length=255, description="What it is for.")

    @model_validator(mode="after")
    def _sense(self) -> Self:
        if self.remote_cidr is not None and self.remote_group_id is not None:
            raise ValueError("give remoteCidr or remoteGroupId, not both")
        if self.remote_cidr is not None and ip_network(self.remote_cidr).version != self.ether_type.version:
            raise ValueError("the remote range is of the other family")
        if self.port_min is None:
            if self.port_max is not None:
                raise ValueError("portMax needs portMin")
            return self
        if self.protocol is RuleProtocol.ANY:
            raise ValueError("a rule for any protocol has no ports")
        if self.protocol is RuleProtocol.ICMP:
            if max(self.port_min, self.port_max or 0) > 255:  # noqa: PLR2004 - ICMP's types and codes are bytes
                raise ValueError("an ICMP type or code is at most 255")
        elif self.port_min == 0 or (self.port_max is not None and self.port_max < self.port_min):
            raise ValueError("ports go from 1 to 65535, the smaller one first")
        return self


class SecurityGroupRuleRemove(Retryable):
    """The rule to remove."""

    id: AnyId = Field(description="The rule.")


def add(session: Session, subject: Subject, command: SecurityGroupRuleAdd) -> dict[str, Any]:
    """Add a rule and have it applied. Raises NotFound, Forbidden, Conflict (there already), QuotaExceeded."""
    group = groups.owned(session, subject, command.security_group_id, "securityGroupId", lock=True)
    remote = None
    if command.remote_group_id is not None:
        remote = groups.owned(session, subject, command.remote_group_id, "remoteGroupId")
        if remote.tenant_id != group.tenant_id:
            raise Invalid("The group belongs to another tenant.", path=("remoteGroupId",))
    present = len(groups.rules_of(session, [group.id]))
    if present >= groups.MOST_RULES:
        raise QuotaExceeded(
            f"A security group has at most {groups.MOST_RULES} rules.", path=("securityGroupId",),
            resource="SECURITY_GROUP_RULES", limit=groups.MOST_RULES, used=present, requested=1,
        )  # fmt: skip
    values = command.model_dump(exclude={"idempotency_key", "security_group_id", "remote_group_id", "port_max"})
    upper = command.port_max
    if upper is None and command.protocol is not RuleProtocol.ICMP:
        upper = command.port_min
    made = groups.new_rule(group, **values, port_max=upper, remote_group_id=remote.id if remote else None)
    with unique(session, "The group has this rule already.", "securityGroupId"):
        session.add(made)
    return {"security_group": group, "rule": made, "job": membership.reapply(session, subject, group)}


def remove(session: Session, subject: Subject, command: SecurityGroupRuleRemove) -> dict[str, Any]:
    """Remove a rule and have that applied. Raises NotFound, Forbidden."""
    found = groups.RULE.get(session, subject, command.id, "id")
    require(subject, Role.MEMBER, found.tenant_id, what="changing a security group")
    group = session.get_one(SecurityGroup, found.security_group_id)
    public = groups.RULE.public(found)
    session.delete(found)
    session.flush()
    return {"id": public, "security_group": group, "job": membership.reapply(session, subject, group)}
