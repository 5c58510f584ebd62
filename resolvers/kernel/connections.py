"""Lists as Relay connections over keyset pages: edges, nodes, pageInfo, and a totalCount that is only counted when
asked for. One declaration gives the connection, edge, order and filter types and the root field.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, StrEnum
from functools import cache
from typing import Annotated, Any, Optional

import strawberry
from strawberry.types import Info
from strawberry.types.private import StrawberryPrivate

from gateway.kernel import noun as nouns
from gateway.kernel import paging
from gateway.kernel.access import Need, Subject
from gateway.kernel.command import Command
from gateway.kernel.noun import Noun
from resolvers.kernel import graph, inputs, scalars
from resolvers.kernel.context import Context
from resolvers.kernel.roots import query

_PRIVATE: Any = Annotated[Any, StrawberryPrivate()]


class OrderDirection(StrEnum):
    """Which way a list is ordered."""

    ASC = "ASC"
    """Smallest or oldest first."""
    DESC = "DESC"
    """Largest or newest first."""


scalars.enum(OrderDirection)


@strawberry.type(description="Where a page stands in its list.")
class PageInfo:
    """Relay's PageInfo."""

    has_next_page: bool = strawberry.field(description="Whether more follow.")
    has_previous_page: bool = strawberry.field(description="Whether more precede.")
    start_cursor: str | None = strawberry.field(description="The first item's cursor.")
    end_cursor: str | None = strawberry.field(description="The last item's cursor; give it as `after` to go on.")


@dataclass(frozen=True, slots=True)
class Listing:
    """A kind of list: its noun, the domain's ``find(subject, filter)``, its filter command and its orders."""

    noun: Noun[Any]
    find: Callable[[Subject, Any], Any]
    filter: type[Command]
    orders: paging.Orders


@dataclass(frozen=True, slots=True)
class Beside:
    """What a read plan reads for a list field on a node: ``listing`` where ``column`` holds the node's key."""

    listing: Listing
    column: str


@cache
def connection_type(noun: Noun[Any]) -> Any:
    """``XConnection`` with ``XEdge`` of a noun."""
    name = noun.table.__name__
    item = graph.lazy(noun)

    def edge_of(page: paging.Page[Any], row: Any) -> Any:
        return edge(cursor=page.cursor(row), node=graph.wrap(row))

    edge = strawberry.type(
        type(f"{name}Edge", (), {
            "__annotations__": {"cursor": str, "node": item},
            "cursor": strawberry.field(description="The item's place in the list."),
            "node": strawberry.field(description="The item."),
        }),
        name=f"{name}Edge", description=f"One item of a {name}Connection.",
    )  # fmt: skip

    def edges(root: Any) -> Any:
        return [edge_of(root.page, row) for row in root.page.rows]

    def nodes(root: Any) -> Any:
        return [graph.wrap(row) for row in root.page.rows]

    def page_info(root: Any) -> PageInfo:
        rows, page = root.page.rows, root.page
        return PageInfo(
            has_next_page=page.has_next,
            has_previous_page=page.has_previous,
            start_cursor=page.cursor(rows[0]) if rows else None,
            end_cursor=page.cursor(rows[-1]) if rows else None,
        )

    async def total_count(root: Any) -> int:
        found: int = await root.count()
        return found

    described = {
        "edges": (edges, list[edge], "The items with their cursors."),
        "nodes": (nodes, list[item], "The items."),
        "page_info": (page_info, PageInfo, "Where this page stands."),
        "total_count": (total_count, int, "How many items the whole list has; counted only when asked for."),
    }
    body = {
        key: strawberry.field(resolver=graph.signed(resolve), graphql_type=shown, description=text)
        for key, (resolve, shown, text) in described.items()
    }
    made = type(
        f"{name}Connection",
        (),
        {**body, "__annotations__": {"page": _PRIVATE, "count": _PRIVATE}},
    )
    return strawberry.type(made, name=f"{name}Connection", description=f"A page of a list of {name} objects.")


@cache
def _order_type(name: str, orders: tuple[str, ...]) -> Any:
    told: Any = {key: strawberry.enum_value(key, description=f"By {key.lower().replace('_', ' ')}.") for key in orders}
    make: Any = Enum
    kind: Any = make(f"{name}OrderField", told)
    fields = strawberry.enum(
        kind,
        name=f"{name}OrderField", description=f"What a list of {name} objects can be ordered by. {scalars.OPEN}",
    )  # fmt: skip
    made = type(f"{name}Order", (), {
        "__annotations__": {"field": fields, "direction": OrderDirection},
        "field": strawberry.field(description="By what."),
        "direction": strawberry.field(description="Which way.", default=OrderDirection.ASC),
    })  # fmt: skip
    return strawberry.input(made, name=f"{name}Order", description=f"An order of a list of {name} objects.")


def arguments(listing: Listing) -> dict[str, Any]:
    """The annotated arguments of a list field."""
    name = listing.noun.table.__name__

    def said(kind: Any, text: str) -> Any:
        return Annotated[kind, strawberry.argument(description=text)]

    order = _order_type(name, (paging.CREATED_AT, *listing.orders))
    return {
        "first": said(
            Optional[int], f"The first so many (at most {paging.MAX_SIZE}; {paging.DEFAULT_SIZE} by default)."
        ),
        "after": said(Optional[str], "Behind this cursor."),
        "last": said(Optional[int], f"The last so many (at most {paging.MAX_SIZE})."),
        "before": said(Optional[str], "Before this cursor."),
        "filter": said(Optional[inputs.input_type(listing.filter, f"{name}Filter")], "Only these."),
        "order_by": said(Optional[order], "In this order; oldest first by default."),
    }


def want(given: dict[str, Any]) -> paging.Want:
    """The page a client asks for."""
    given = {name: value for name, value in given.items() if value is not strawberry.UNSET}
    order = given.get("order_by")
    return paging.Want(
        first=given.get("first"),
        after=given.get("after"),
        last=given.get("last"),
        before=given.get("before"),
        order=str(order.field.value if isinstance(order.field, Enum) else order.field) if order else paging.CREATED_AT,
        descending=order is not None and order.direction is OrderDirection.DESC,
    )


def connection_query(name: str, listing: Listing, description: str, need: Need = Need.SIGNED_IN) -> None:
    """Declare a root list."""
    shown = connection_type(listing.noun)

    async def resolve(info: Info, **given: Any) -> Any:
        context: Context = info.context
        wanted = inputs.command_of(listing.filter, given["filter"]) if given.get("filter") else listing.filter()
        rows = listing.find(context.subject, wanted)
        page = await context.read(
            lambda session: paging.fetch(session, rows, listing.noun.table, listing.orders, want(given))
        )
        return shown(page=page, count=lambda: context.read(lambda session: paging.count(session, rows)))

    _sign(resolve, arguments(listing))
    query(need, description, name=name, shown_as=shown, reads=listing)(resolve)


def children_connection(listing: Listing, column: str, description: str) -> Any:
    """A list field on a node: those of ``listing`` whose ``column`` holds this row's value of ``column``'s target
    (its key, or its TypeID when the column is text). One statement for each parent; meant for single objects.
    """
    shown = connection_type(listing.noun)

    async def resolve(root: Any, info: Info, **given: Any) -> Any:
        context: Context = info.context
        wanted = inputs.command_of(listing.filter, given["filter"]) if given.get("filter") else listing.filter()
        attribute = getattr(listing.noun.table, column)
        key = nouns.public(root.row) if column == "target" else root.row.id
        rows = listing.find(context.subject, wanted).where(attribute == key)
        page = await context.read(
            lambda session: paging.fetch(session, rows, listing.noun.table, listing.orders, want(given))
        )
        return shown(page=page, count=lambda: context.read(lambda session: paging.count(session, rows)))

    _sign(resolve, arguments(listing), root=True)
    field = strawberry.field(resolver=resolve, graphql_type=shown, description=description)
    return graph.Spelt(field, Beside(listing, column))


def _sign(resolve: Any, given: dict[str, Any], *, root: bool = False) -> None:
    """Give a resolver of ``**given`` the explicit signature that strawberry reads."""
    import inspect

    kinds = inspect.Parameter
    first = [kinds("root", kinds.POSITIONAL_OR_KEYWORD)] if root else []
    parameters = [
        *first,
        kinds("info", kinds.POSITIONAL_OR_KEYWORD, annotation=Info),
        *(kinds(name, kinds.KEYWORD_ONLY, annotation=shown, default=strawberry.UNSET) for name, shown in given.items()),
    ]
    resolve.__signature__ = inspect.Signature(parameters)
    resolve.__annotations__ = {"info": Info, **given}
