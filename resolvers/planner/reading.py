"""From a selection to the tree that one statement reads: the schema's declarations, followed field by field.

What a field reads is what its one declaration says (:mod:`resolvers.kernel.graph`): a column, a function of columns, an
edge, children, a list beside. A field without such a declaration raises Unplanned with its name, and the operation
takes the ordinary path.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from graphql import GraphQLNonNull, GraphQLObjectType, get_named_type, is_list_type
from graphql.execution.values import VariableValues
from strawberry import Schema
from strawberry.types.arguments import convert_arguments

from gateway.kernel import ids, paging
from gateway.kernel import noun as nouns
from gateway.kernel.access import NOBODY, Subject
from gateway.kernel.noun import Noun
from gateway.reads import filters, tree
from gateway.reads.columns import Shown, kind_of
from gateway.reads.tree import Const, Given, Hole, Id, Object, One, Page, Part, PartOf, Root, Rows, Value
from resolvers.kernel import graph, inputs, nodes
from resolvers.kernel.connections import Beside, Listing, want
from resolvers.planner.inputs import FILTER, Inputs, holds_variables
from resolvers.planner.render import filling, printed, rendering, shower
from resolvers.planner.selection import Selection, Unplanned, strawberry_field

_TYPENAME = "__typename"


@dataclass(frozen=True, slots=True)
class Table:
    """A GraphQL type that is a table's: its declarations by Python name, and its noun if it has one."""

    table: type[Any]
    declared: Mapping[str, Any]
    prefix: str | None


class Tables:
    """The tables behind a schema's types."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.core = schema._schema  # noqa: SLF001 - strawberry offers no public way to its graphql-core schema
        self._of: dict[str, Table] = {}
        prefixes = {made: prefix for prefix, made in graph.TYPES.items()}
        for made, declared in graph.DECLARED.items():
            name = made.__strawberry_definition__.name  # type: ignore[attr-defined]  # every node type has one
            self._of[name] = Table(graph.TABLES[made], declared, prefixes.get(made))

    @property
    def names(self) -> list[str]:
        """The GraphQL names of all types that are tables."""
        return sorted(self._of)

    def type_of(self, noun: Noun[Any]) -> GraphQLObjectType:
        """The GraphQL type of a noun."""
        return self._object(noun.table.__name__)

    def _object(self, name: str) -> GraphQLObjectType:
        found = self.core.type_map[name]
        if not isinstance(found, GraphQLObjectType):
            raise Unplanned(name)
        return found

    def of(self, core: GraphQLObjectType) -> Table:
        """The table behind a type."""
        found = self._of.get(core.name)
        if found is None:
            raise Unplanned(core.name)
        return found

    def converted(
        self, core: GraphQLObjectType, selection: Selection, variables: VariableValues | None = None
    ) -> dict[str, Any]:
        """A field's arguments as its resolver would get them."""
        return convert_arguments(
            selection.arguments(core, variables),
            strawberry_field(core, selection.name).arguments,
            scalar_registry=self.schema.schema_converter.scalar_registry,
            config=self.schema.config,
        )


class Reader:
    """Builds the tree of one operation for the shape of a subject; gathers its inputs."""

    def __init__(self, tables: Tables, subject: Subject = NOBODY) -> None:
        self._tables = tables
        self._subject = subject
        self.inputs = Inputs()
        self.light = True
        """Whether every page follows an index and counts nothing: then its cost says how long it takes."""
        self.files = False
        """Whether something is made of what files say."""

    def mark(self) -> tuple[Inputs, bool, bool]:
        """Where it stands."""
        return self.inputs.copy(), self.light, self.files

    def back(self, mark: tuple[Inputs, bool, bool]) -> None:
        """Stand there again: what was read since is not planned."""
        self.inputs, self.light, self.files = mark

    def found(self, noun: Noun[Any], core: GraphQLObjectType, selection: Selection) -> Root:
        """``noun(id)``. Raises NotFound for an id of something else."""
        value = selection.arguments(core)["id"]
        uid = self.inputs.argument(selection, "id", value, noun.uid)
        return One(noun.table, uid, self.object(self._tables.type_of(noun), selection), noun.scope)

    def any(self, core: GraphQLObjectType, selection: Selection) -> Root:
        """``node(id)``: the object of whatever noun the id is of."""
        prefix = str(selection.arguments(core)["id"]).rpartition("_")[0]
        if prefix not in graph.TYPES:
            raise Unplanned("an id of nothing")
        return self.found(nouns.BY_PREFIX[prefix], core, selection)

    def several(self, core: GraphQLObjectType, selection: Selection) -> Root:
        """``nodes(ids)``: objects of any nouns. Raises Invalid for too many."""
        given = self.inputs.argument(selection, "ids", selection.arguments(core)["ids"], _named)
        return tree.Several(given, self._kinds(get_named_type(core.fields[selection.name].type), selection))

    def known(self, reads: graph.Own, core: GraphQLObjectType, selection: Selection, subject: Subject) -> Root:
        """An object that is no row: what a subject's own keys lead to, and constants."""
        if not subject.signed_in:
            return Const("null")
        shown = get_named_type(core.fields[selection.name].type)
        if not isinstance(shown, GraphQLObjectType):
            raise Unplanned(selection.name)
        fields: list[tuple[str, Value]] = []
        for name, each in selection.below(shown).items():
            if each.name == _TYPENAME:
                fields.append((name, Const(json.dumps(shown.name))))
                continue
            found = reads.fields.get(each.name)
            if found is None:
                raise Unplanned(f"{shown.name}.{each.name}")
            fields.append((name, self._own(found(subject), shown, each)))
        return Object(tuple(fields))

    def _own(self, found: Any, shown: GraphQLObjectType, selection: Selection) -> Value:
        if not isinstance(found, graph.OwnRows):
            return Const(json.dumps(found))
        named = f"{shown.name}.{selection.name}"
        table, scope = found.noun.table, found.noun.scope
        item: Any
        if found.column is not None:
            item = _column(Table(table, {}, None), found.column, shown.fields[selection.name].type, named)
        else:
            item = self.object(self._tables.type_of(found.noun), selection)
        return Rows(
            table, found.key, item, subject=found.subject, scope=scope, where=found.where,
            bounds=self._ahead(found.ahead), one=found.key == "id",
        )  # fmt: skip

    def listed(self, listing: Listing, core: GraphQLObjectType, selection: Selection) -> Page:
        """A page of a list."""
        return self._page(listing, core, selection, None, None)

    # ------------------------------------------------------------------------------------ objects

    def object(self, core: GraphQLObjectType, selection: Selection) -> Object:
        """What is selected of a row."""
        table = self._tables.of(core)
        return Object(tuple((name, self._field(core, table, each)) for name, each in selection.below(core).items()))

    def _field(self, core: GraphQLObjectType, table: Table, selection: Selection) -> Value:  # noqa: PLR0911 - one kind of field a line
        if selection.name == _TYPENAME:
            return Const(json.dumps(core.name))
        if selection.name == "id" and table.prefix is not None:
            return Id(table.prefix)
        declared = table.declared.get(strawberry_field(core, selection.name).python_name)
        shown = core.fields[selection.name].type
        named = f"{core.name}.{selection.name}"
        match declared:
            case graph.Column():
                return _column(table, declared.of or strawberry_field(core, selection.name).python_name, shown, named)
            case graph.Computed():
                return _computed(table, declared, shown, selection)
            case graph.Rendered():
                self.files |= declared.files
                return _rendered(table, declared, shown, selection)
            case graph.Edge():
                item = self.object(self._tables.type_of(declared.noun), selection)
                noun = declared.noun
                return Rows(noun.table, "id", item, own=declared.key, scope=noun.scope, one=True)
            case graph.Children():
                item = self.object(self._tables.type_of(declared.noun), selection)
                return Rows(declared.noun.table, declared.column, item, scope=declared.noun.scope)
            case graph.Spelt():
                return self._spelt(core, table, selection, declared.reads)
            case _:
                raise Unplanned(named)

    def _spelt(self, core: GraphQLObjectType, table: Table, selection: Selection, reads: Any) -> Value:
        named = f"{core.name}.{selection.name}"
        if isinstance(reads, Beside):
            prefix = table.prefix if reads.column == "target" else None
            return self._page(reads.listing, core, selection, reads.column, prefix)
        if isinstance(reads, graph.OperatorsOnly):
            return self._rows(core, table, selection, reads.reads) if self._subject.admin else Const("null")
        if isinstance(reads, graph.Rows):
            return self._rows(core, table, selection, reads)
        if isinstance(reads, graph.Made):
            return _made(reads, core.fields[selection.name].type, selection)
        if isinstance(reads, graph.Named):
            return tree.Named(reads.column, self._kinds(get_named_type(core.fields[selection.name].type), selection))
        raise Unplanned(named)

    def _rows(self, core: GraphQLObjectType, table: Table, selection: Selection, reads: graph.Rows) -> Rows:
        named = f"{core.name}.{selection.name}"
        shown = get_named_type(core.fields[selection.name].type)
        item: Any
        if reads.public is not None:
            item = Id(reads.public)
        elif reads.column is not None:
            inner = core.fields[selection.name].type
            while isinstance(inner, GraphQLNonNull) or is_list_type(inner):
                inner = inner.of_type
            item = _column(Table(reads.table, {}, None), reads.column, GraphQLNonNull(inner), named)
        elif isinstance(shown, GraphQLObjectType):
            item = self.object(shown, selection)
        else:
            raise Unplanned(named)
        return Rows(
            reads.table, reads.key, item, own=reads.own, own_prefix=table.prefix if reads.by_public else None,
            own_digest=reads.by_digest, scope=reads.scope, link=tree.Link(*reads.link) if reads.link else None,
            where=reads.where, order=reads.order, one=reads.one,
            bounds=self._ahead(reads.ahead) + self._between(core, selection, reads.period),
        )  # fmt: skip

    def _ahead(self, column: str | None) -> tuple[tree.Bound, ...]:
        return () if column is None else (tree.Bound(column, operator.gt, self.inputs.moment()),)

    def _between(
        self, core: GraphQLObjectType, selection: Selection, period: graph.Between | None
    ) -> tuple[tree.Bound, ...]:
        if period is None:
            return ()
        self.light = False  # a long period is many rows of one object
        said = selection.arguments(core)
        given = self.inputs.pair(selection, {name: said[name] for name in (period.start, period.end)}, period.checked)
        compares = (operator.ge, operator.lt)
        return tuple(tree.Bound(period.column, each, Given(given.number, part)) for part, each in enumerate(compares))

    def _kinds(self, shown: Any, selection: Selection) -> tuple[tree.Kindred, ...]:
        """What is selected of an object of each noun that it may be of."""
        kinds: list[tree.Kindred] = []
        for each in selection.possible(shown):
            prefix = self._tables.of(each).prefix
            if prefix is None:
                raise Unplanned(each.name)
            noun = nouns.BY_PREFIX[prefix]
            kinds.append(tree.Kindred(prefix, noun.table, self.object(each, selection), noun.scope))
        return tuple(kinds)

    # ------------------------------------------------------------------------------------ pages

    def _page(
        self, listing: Listing, core: GraphQLObjectType, selection: Selection, key: str | None, prefix: str | None
    ) -> Page:
        given = self._tables.converted(core, selection)
        wanted = want(given)
        _, backwards = paging.extent(wanted)
        self.light &= not given.get(FILTER) and wanted.order == paging.CREATED_AT
        order = None if wanted.order == paging.CREATED_AT else listing.orders[wanted.order].key
        connection = get_named_type(core.fields[selection.name].type)
        if not isinstance(connection, GraphQLObjectType):
            raise Unplanned(selection.name)
        place = _Place(listing, paging.order_name(wanted), order)
        fields = tuple(
            (name, self._part(connection, place, wanted, each)) for name, each in selection.below(connection).items()
        )
        return Page(
            listing.noun.table, self._found(listing, core, selection), fields,
            size=self.inputs.size(selection, wanted), order=order, descending=wanted.descending, backwards=backwards,
            after=self.inputs.cursor(selection, wanted, "after"),
            before=self.inputs.cursor(selection, wanted, "before"), key=key, own_prefix=prefix,
        )  # fmt: skip

    def _found(self, listing: Listing, core: GraphQLObjectType, selection: Selection) -> Callable[[Subject], Any]:
        """The list's select, with the values of a filter that holds variables as an input."""

        def find(variables: VariableValues | None) -> Any:
            said = self._tables.converted(core, selection, variables).get(FILTER)
            kept = inputs.command_of(listing.filter, said) if said else listing.filter()
            return listing.find(self._subject, kept)

        select = find(None)
        if not holds_variables(selection, FILTER):
            return lambda _subject: select
        self.light = False
        number = self.inputs.filter(find)
        return lambda _subject: filters.opened(select, number)

    def _part(
        self, connection: GraphQLObjectType, place: _Place, wanted: paging.Want, selection: Selection
    ) -> PartOf | Const:
        core = self._tables.type_of(place.listing.noun)
        match selection.name:
            case "__typename":
                return Const(json.dumps(connection.name))
            case "nodes":
                return PartOf(Part.NODES, self.object(core, selection))
            case "totalCount":
                self.light = False
                return PartOf(Part.TOTAL)
            case "edges":
                edge = get_named_type(connection.fields["edges"].type)
                if not isinstance(edge, GraphQLObjectType):
                    raise Unplanned("edges")
                fields = [(name, self._edge(edge, core, place, each)) for name, each in selection.below(edge).items()]
                return PartOf(Part.EDGES, Object(tuple(fields)))
            case _:
                return PartOf(Part.INFO, fill=self._info(connection, place, wanted, selection))

    def _edge(self, edge: GraphQLObjectType, core: GraphQLObjectType, place: _Place, selection: Selection) -> Value:
        match selection.name:
            case "__typename":
                return Const(json.dumps(edge.name))
            case "cursor":
                return tree.Cursor(lambda keys: printed(place.cursor(keys)))
            case _:
                return tree.Node(self.object(core, selection))

    def _info(
        self, connection: GraphQLObjectType, place: _Place, wanted: paging.Want, selection: Selection
    ) -> Callable[[list[Any]], bytes]:
        core = get_named_type(connection.fields["pageInfo"].type)
        if not isinstance(core, GraphQLObjectType):
            raise Unplanned("pageInfo")
        asked = [(name, each.name) for name, each in selection.below(core).items()]
        backwards, after, before = wanted.last is not None, wanted.after, wanted.before

        def fill(values: list[Any]) -> bytes:
            keys, size = values[0], values[1]
            more = len(keys) > size
            shown = (keys[1:] if backwards else keys[:-1]) if more else keys
            told = {
                "hasNextPage": before is not None if backwards else more,
                "hasPreviousPage": more if backwards else after is not None,
                "startCursor": place.cursor(shown[0]) if shown else None,
                "endCursor": place.cursor(shown[-1]) if shown else None,
                _TYPENAME: core.name,
            }
            return printed({name: told[field] for name, field in asked})

        return fill


@dataclass(frozen=True, slots=True)
class _Place:
    """A list in one of its orders: what its cursors say."""

    listing: Listing
    name: str
    order: str | None

    def cursor(self, keys: list[Any]) -> str:
        """The cursor of a row by its keys, the uid first."""
        uid, *values = keys
        if self.order is not None and values[0] is not None:
            kind = kind_of(self.listing.noun.table, self.order)
            if kind.moment:
                values = [datetime.fromisoformat(values[0])]
        return paging.encoded(self.name, ids.of_printed(uid).hex, *values)


def _column(table: Table, name: str, shown: Any, named: str) -> tree.Column | Hole:
    promised = isinstance(shown, GraphQLNonNull)
    inner = shown.of_type if promised else shown
    listed = is_list_type(inner)
    kind = kind_of(table.table, name).printed(Shown(get_named_type(inner).name, listed=listed))
    if kind is None:
        raise Unplanned(named)
    return tree.Column(name, kind, null=not promised)


def _named(given: list[str]) -> str:
    """What ids name, as :class:`tree.Several` has it."""
    found = nodes.parsed(given)
    return json.dumps([(None,) * 3 if each is None else (each[0], each[1].hex, ids.digits(each[1])) for each in found])


def _made(reads: graph.Made, shown: Any, selection: Selection) -> Hole:
    show, sums = shower(shown, selection), tuple(tree.Sums(*each) for each in reads.sums)
    return Hole(sums, lambda values: printed(show(reads.compute(*values))))


def _computed(table: Table, declared: graph.Computed, shown: Any, selection: Selection) -> Hole:
    columns = tuple(tree.Column(name, kind_of(table.table, name).plain) for name in declared.uses)
    return Hole(columns, filling(table.table, declared.uses, declared.compute, shower(shown, selection)))


def _rendered(table: Table, declared: graph.Rendered, shown: Any, selection: Selection) -> tree.Rendering:
    columns = tuple(tree.Column(name, kind_of(table.table, name).plain) for name in declared.uses)
    show = shower(shown, selection)
    return tree.Rendering(columns, rendering(table.table, declared.uses, declared.render, show))


__all__ = ["Reader", "Table", "Tables"]
