"""``node`` and ``nodes``: any object by its id alone."""

from collections import defaultdict
from typing import Annotated, Any
from uuid import UUID

import strawberry
from sqlmodel import Session
from strawberry.types import Info

from gateway.kernel import ids
from gateway.kernel import noun as nouns
from gateway.kernel.access import Need
from gateway.kernel.errors import Invalid
from resolvers.kernel.context import Context
from resolvers.kernel.graph import TYPES, Node, wrap
from resolvers.kernel.roots import query

MOST = 100
ANY = "node"
"""What a read plan reads for :func:`node`: the object of the id's noun."""


SEVERAL = "nodes"
"""What a read plan reads for :func:`nodes`."""


@query(
    Need.SIGNED_IN,
    "Any object by its id; null when there is none or you may not see it.",
    shown_as=Node | None,
    reads=ANY,
)
async def node(
    info: Info,
    id: Annotated[strawberry.ID, strawberry.argument(description="Its id.")],  # noqa: A002 - the argument's public name
) -> Any:
    """One object."""
    return (await _find(info.context, [id]))[0]


@query(
    Need.SIGNED_IN,
    f"Several objects by their ids (at most {MOST}), in their order; null for each that there is none of.",
    shown_as=list[Node | None],
    reads=SEVERAL,
)
async def nodes(
    info: Info,
    ids: Annotated[list[strawberry.ID], strawberry.argument(description="Their ids.")],
) -> Any:
    """Several objects."""
    return await _find(info.context, list(ids))


def parsed(ids: list[str]) -> list[tuple[str, UUID] | None]:
    """Prefixes and uids; None for what is no id of an object. Raises Invalid for too many."""
    if len(ids) > MOST:
        raise Invalid(f"At most {MOST} ids at once.", path=("ids",))
    return [_parse(text) for text in ids]


async def _find(context: Context, wanted: list[str]) -> list[Any]:
    named = parsed(wanted)
    by_prefix: dict[str, list[UUID]] = defaultdict(list)
    for each in named:
        if each is not None:
            by_prefix[each[0]].append(each[1])

    def work(session: Session) -> dict[tuple[str, UUID], Any]:
        return {
            (prefix, uid): row
            for prefix, uids in by_prefix.items()
            for uid, row in nouns.BY_PREFIX[prefix].find(session, context.subject, uids).items()
        }

    found = await context.read(work)
    return [wrap(found.get(each)) if each is not None else None for each in named]


def _parse(text: str) -> tuple[str, UUID] | None:
    try:
        prefix, uid = ids.decode(text)
    except Invalid:
        return None
    return (prefix, uid) if prefix in TYPES else None
