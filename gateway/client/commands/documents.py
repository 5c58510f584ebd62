"""Every document that the commands send: each is written here or made here of what :mod:`nouns` says, and nowhere else.

So :func:`every` can tell them all, and a cloud that runs nothing but trusted documents can trust them: its operator's
and users' own command goes on working. ``gql`` sends what it is given; what that is, a manifest has to say.
"""

from __future__ import annotations

from typing import Final

from gateway.client.commands.nouns import FLAVOR, IMAGE, JOB, KEYPAIR, NETWORK, SERVER, TENANT, VOLUME, Noun
from gateway.client.problem import FOLLOW, USER_ERROR, mutation

_A_JOB: Final = f"job {{ {JOB.fields} }}"
SELECTIONS: Final = {
    "sessionCreate": "token expiresAt user { name }",
    "sessionRevoke": "sessions { id }",
    "serverCreate": f"servers {{ {SERVER.fields} }} jobs {{ {JOB.fields} }}",
    "serverStart": _A_JOB,
    "serverStop": _A_JOB,
    "serverReboot": _A_JOB,
    "serverDelete": _A_JOB,
    "volumeCreate": f"volume {{ {VOLUME.fields} }} job {{ {JOB.fields} }}",
    "volumeAttach": _A_JOB,
    "volumeDetach": _A_JOB,
    "volumeDelete": _A_JOB,
    "imageCreate": "image { id upload { url } }",
    "imageDelete": _A_JOB,
    "networkCreate": "network { id }",
    "networkDelete": _A_JOB,
    "subnetCreate": _A_JOB,
    "jobCancel": _A_JOB,
    "serverConsoleCreate": "url websocketUrl protocol expiresAt",
}
"""What each mutation is asked for in return."""

CONSOLE_LOG: Final = "query($id: ID!, $lines: Int) { server(id: $id) { consoleLog(lastLines: $lines) } }"
CHECKS: Final = f"query($id: ID!) {{ image(id: $id) {{ jobs {{ nodes {{ {JOB.fields} }} }} }} }}"
PLAN: Final = f"""query($input: ServerCreateInput!) {{ serverCreatePlan(input: $input) {{
 possible addresses quota {{ resource used limit }}
 decision {{ considered counts {{ constraint hosts }} smallestChange {{ message }} }}
 userErrors {{ {USER_ERROR} }} }} }}"""
_FOUND: Final = (SERVER, VOLUME, IMAGE, NETWORK, FLAVOR, TENANT, KEYPAIR)
_SHOWN: Final = (SERVER, VOLUME, IMAGE, NETWORK, FLAVOR, JOB)


def by_name(noun: Noun) -> str:
    """The document that looks a thing up by its name."""
    owner = " tenant { name }" if noun.owned else ""
    return f"""query($filter: {noun.filter_type}, $first: Int) {{
        {noun.plural}(filter: $filter, first: $first) {{ nodes {{ id name{owner} }} }} }}"""


def by_id(noun: Noun) -> str:
    """The document that asks for one thing."""
    return f"query($id: ID!) {{ {noun.name}(id: $id) {{ {noun.fields} }} }}"


def page(noun: Noun) -> str:
    """The document that asks for a page of things."""
    return f"""query($filter: {noun.filter_type}, $first: Int, $after: String) {{
        {noun.plural}(filter: $filter, first: $first, after: $after) {{
        nodes {{ {noun.fields} }} pageInfo {{ hasNextPage endCursor }} }} }}"""


def every() -> frozenset[str]:
    """All of them."""
    return frozenset(
        [
            *(mutation(name, selection) for name, selection in SELECTIONS.items()),
            *(by_name(each) for each in _FOUND),
            *(by_id(each) for each in _SHOWN),
            *(page(each) for each in _SHOWN),
            mutation("sessionCreate", "token"),  # Client.sign_in
            CHECKS,
            CONSOLE_LOG,
            FOLLOW,
            PLAN,
        ]
    )
