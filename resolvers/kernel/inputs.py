"""GraphQL inputs from domain commands: every field, default, bound and description stands once, in the command.

Absent fields stay absent (``UNSET`` never reaches the command), so an update tells "unchanged" from "null = cleared".
"""

import decimal
import types
import typing
from datetime import datetime
from enum import Enum
from functools import cache
from typing import Annotated, Any, Optional, Union

import strawberry
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from strawberry.types.unset import UNSET

from gateway.kernel.command import Command, IdOf, Wide, parse
from resolvers.kernel import scalars


@cache
def input_type(kind: type[Command], name: str | None = None) -> Any:
    """The strawberry input of a command, called like it (plus ``Input``) unless a name is given."""
    called = name or f"{kind.__name__}Input"
    body: dict[str, Any] = {"__annotations__": {}, "__doc__": kind.__doc__}
    for field_name, info in kind.model_fields.items():
        if not info.description:
            raise TypeError(f"{kind.__qualname__}.{field_name} needs a description")
        shown = _shown(_with_metadata(info))
        body["__annotations__"][field_name] = shown
        body[field_name] = strawberry.field(description=info.description, **_default(info))
    made = type(called, (), body)
    one_of = bool(kind.model_config.get("json_schema_extra"))
    return strawberry.input(made, name=called, description=scalars.flat(kind.__doc__ or ""), one_of=one_of)


def command_of(kind: type[Command], given: Any) -> Command:
    """The command that a client's input says. Raises Refusals with paths."""
    return parse(kind, _plain(given))


def _plain(given: Any) -> Any:
    if isinstance(given, Enum):
        return given
    if hasattr(type(given), "__strawberry_definition__"):
        values = vars(given)
        return {name: _plain(value) for name, value in values.items() if value is not UNSET}
    if isinstance(given, list):
        return [_plain(each) for each in given]
    return given


def _with_metadata(info: FieldInfo) -> Any:
    """Pydantic moves ``Annotated`` metadata of a field into the info; put it back for :func:`_shown`."""
    for each in info.metadata:
        if isinstance(each, IdOf | Wide):
            return Annotated[info.annotation, each]
    return info.annotation


def _default(info: FieldInfo) -> dict[str, Any]:
    if info.is_required():
        return {}
    if info.default is None:
        return {"default": UNSET}
    if info.default is not PydanticUndefined:
        return {"default": info.default}
    value = info.get_default(call_default_factory=True)
    return {"default_factory": lambda: value}


def _shown(kind: Any) -> Any:  # noqa: PLR0911 - one kind of type a line
    origin = typing.get_origin(kind)
    if origin is Annotated:
        inner, *metadata = typing.get_args(kind)
        if any(isinstance(each, Wide) for each in metadata):
            return scalars.BigInt
        return strawberry.ID if any(isinstance(each, IdOf) for each in metadata) else _shown(inner)
    if origin in (Union, types.UnionType):
        (inner,) = [each for each in typing.get_args(kind) if each is not type(None)]
        return Optional[_shown(inner)]
    if origin is list:
        return list[_shown(typing.get_args(kind)[0])]  # type: ignore[misc]  # made at run time
    if isinstance(kind, type) and issubclass(kind, Enum):
        return scalars.enum(kind)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return input_type(kind)
    if kind is decimal.Decimal:
        return scalars.Decimal
    if kind in (str, int, bool, float, datetime):
        return kind
    raise TypeError(f"no GraphQL input type for {kind!r}")
