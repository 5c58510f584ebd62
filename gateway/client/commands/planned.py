"""What ``server create --plan`` says: whether the cloud would make the server, and what stands in the way.

The answer is the cloud's own (`serverCreatePlan`), which runs the mutation and the scheduler and takes all back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from gateway.client.commands import documents, output, talk


def show(cloud: talk.Talk, wanted: Mapping[str, Any]) -> None:
    """Print the plan. Raises Problem for what the mutation would refuse; exits with 1 when no host would take it."""
    plan = cloud.client.run(documents.PLAN, input=talk.given_of(wanted))["serverCreatePlan"]
    if cloud.machine:
        output.as_json({name: plan[name] for name in ("possible", "addresses", "quota", "decision")})
    else:
        _tell(plan)
    if not plan["possible"]:
        raise typer.Exit(output.REFUSED)


def _tell(plan: Mapping[str, Any]) -> None:
    decision = plan["decision"] or {"considered": 0, "counts": [], "smallestChange": None}
    rejected = [f"{each['constraint']}: {each['hosts']}" for each in decision["counts"]]
    change = (decision["smallestChange"] or {}).get("message")
    output.sheet(
        {
            "possible": "yes" if plan["possible"] else "no",
            "hosts considered": str(decision["considered"]),
            "hosts that fail": rejected,
            "what would help": change,
            "addresses": plan["addresses"],
        }
    )
    if plan["quota"]:
        rows = [[each["resource"], each["used"], each["limit"]] for each in plan["quota"]]
        output.table(["quota", "used afterwards", "limit"], rows)
