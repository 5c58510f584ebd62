"""What arguments are drawn from, found in the odd cloud itself: ids, words, and the cursors of every list in every
order, as an operator sees them.
"""

from __future__ import annotations

from graphql import get_named_type

from gateway.kernel import ids, noun
from resolvers.schema import schema
from tests.planner.operations import Terrain
from tests.planner.two_ways import TwoWays

ASK = "{alias}: {list}({end}: 3, orderBy: {{field: {field}, direction: {way}}}) {{ edges {{ cursor }} }}"


def terrain_of(ways: TwoWays) -> Terrain:
    """The terrain of a cloud."""
    core = schema()._schema
    known = {
        each.prefix: [ids.encode(each.prefix, row["uid"]) for row in ways.rows.get(each.table, [])]
        for each in noun.BY_PREFIX.values()
    }
    words = {
        value[:200]
        for some in ways.rows.values()
        for row in some
        for value in (*row.values(), *(each for many in row.values() if isinstance(many, list) for each in many))
        if isinstance(value, str)
    }
    cursors: dict[str, list[str]] = {}
    assert core.query_type is not None
    for name, root in core.query_type.fields.items():
        if "orderBy" not in root.args:
            continue
        orders = get_named_type(get_named_type(root.args["orderBy"].type).fields["field"].type)
        asked = [
            ASK.format(alias=f"{end}_{field}_{way}", list=name, end=end, field=field, way=way)
            for field in orders.values
            for way in ("ASC", "DESC")
            for end in ("first", "last")
        ]
        answer = ways.same("admin", f"{{ {' '.join(asked)} }}")
        found = answer.data
        assert found, answer.text
        cursors[name] = [edge["cursor"] for each in found.values() for edge in each["edges"]]
    return Terrain(core, known, sorted(words), cursors)
