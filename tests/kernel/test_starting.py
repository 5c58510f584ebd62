"""A start loads and compiles nothing in vain."""

import __future__

import subprocess
import sys

import pytest
from sqlmodel import SQLModel
from strawberry.types.base import StrawberryObjectDefinition

from gateway.kernel import noun
from gateway.kernel.command import Command
from resolvers.schema import schema

LOADED = {
    "serve": ("import gateway.app, gateway.banner", ["typer"]),
    "worker": (
        "import gateway.database, workers.main; gateway.database.noun.load_all(); workers.main.load_all()",
        ["typer", "uvicorn", "starlette", "strawberry", "graphql", "resolvers"],
    ),
}


@pytest.mark.parametrize("process", LOADED)
def test_a_process_loads_what_it_needs(process: str) -> None:
    load, needless = LOADED[process]
    program = f"import sys, gateway.cli, gateway.processes; {load}; print([n for n in {needless} if n in sys.modules])"
    done = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_annotations_that_are_read_at_every_start_are_no_texts() -> None:
    """Each text would be parsed, compiled and evaluated again, by pydantic, by SQLAlchemy and by strawberry."""
    noun.load_all()
    definitions = [each.definition for each in schema().schema_converter.type_map.values()]
    shown = {each.origin for each in definitions if isinstance(each, StrawberryObjectDefinition)}
    ours = {each.__module__ for each in (*_below(SQLModel), *_below(Command), *shown)}
    ours = {each for each in ours if each.startswith(("gateway.", "resolvers."))}
    assert len(ours) > 60, "these were found"
    assert [each for each in sorted(ours) if vars(sys.modules[each]).get("annotations") is __future__.annotations] == []


def _below(kind: type) -> set[type]:
    found: set[type] = set(kind.__subclasses__())
    return found.union(*(_below(each) for each in found))
