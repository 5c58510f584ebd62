"""Inputs: what a client may say, with its bounds. Each command is a frozen pydantic model beside the function that
carries it out; the GraphQL input type is generated from it, so a field, its bounds and its description stand once.

Absent and null differ: an update changes only the fields in ``model_fields_set``.
"""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel

from gateway.kernel.errors import Invalid, Refusal, Refusals


@dataclass(frozen=True, slots=True)
class IdOf:
    """Marks a string as the TypeID of a noun; GraphQL shows it as ID."""

    prefix: str


@dataclass(frozen=True, slots=True)
class Wide:
    """Marks an integer of up to 64 bits; GraphQL shows it as BigInt."""


def _no_control(text: str) -> str:
    if any(ord(character) < 32 or ord(character) == 127 for character in text):  # noqa: PLR2004 - the C0 range and DEL
        raise ValueError("control characters are not allowed")
    return text


Name = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=255), AfterValidator(_no_control)
]
Text = Annotated[str, StringConstraints(max_length=1024), AfterValidator(_no_control)]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=60, pattern=r"^[^,/\x00-\x1f]+$")]
Big = Annotated[int, Wide()]
AnyId = Annotated[str, StringConstraints(max_length=90), IdOf("")]


class Command(BaseModel):
    """The root of all inputs."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        defer_build=True,  # an input's validator is built when it is first said: a start needs none of a hundred
    )


class KeyValue(Command):
    """One entry of a map of short texts."""

    key: Annotated[str, StringConstraints(min_length=1, max_length=255)] = Field(description="The entry's name.")
    value: Annotated[str, StringConstraints(max_length=1024)] = Field(description="The entry's text.")


class Retryable(Command):
    """An input that may be sent again: the same key gives the same answer and does nothing twice."""

    idempotency_key: Annotated[str, StringConstraints(min_length=1, max_length=255)] | None = Field(
        default=None,
        description=(
            "A text of your choice, remembered for 24 hours: sending the same input with the same key again gives the "
            "same answer and does nothing twice; with other arguments it is refused."
        ),
    )


class Versioned(Retryable):
    """An input that changes something which somebody else may have changed meanwhile."""

    expected_version: int | None = Field(
        default=None, ge=1, description="Refuse with STALE_VERSION unless the object still has this version."
    )


def unique_keys(entries: list[KeyValue]) -> dict[str, str]:
    """Entries as a map. Raises ValueError for a key given twice (to be used in validators)."""
    kept: dict[str, str] = {}
    for entry in entries:
        if entry.key in kept:
            raise ValueError(f"the key {entry.key!r} is given twice")
        kept[entry.key] = entry.value
    return kept


def parse(kind: type[Command], values: dict[str, Any]) -> Command:
    """Make a command from plain values. Raises Refusals: one Invalid for each broken rule, each with its path."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        found: list[Refusal] = []
        for each in error.errors(include_url=False, include_context=False, include_input=False):
            path = [to_camel(part) if isinstance(part, str) else str(part) for part in each["loc"]]
            message = each["msg"].removeprefix("Value error, ")
            found.append(Invalid(message[:1].upper() + message[1:].rstrip(".") + ".", path=path))
        raise Refusals(found) from error
