"""``stratograph gql``: any operation of the public API, so that nothing the commands leave out is out of reach.

Queries and mutations print the whole answer (``data``, ``errors``, ``extensions``); a subscription prints each thing
that is pushed as one line, until it ends or is interrupted. Errors, user errors among them, give the exit code 1.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.client.commands import options, output, talk

if TYPE_CHECKING:
    from gateway.client.commands.document import Operation

_MOST_BYTES = 1 << 20


def gql(
    text: Annotated[
        str | None, typer.Argument(help="The document; - reads it from the standard input.", metavar="[DOCUMENT]")
    ] = None,
    *,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Read the document from a file.", exists=True, dir_okay=False)
    ] = None,
    variables: Annotated[
        str | None, typer.Option("--variables", help="The variables: a JSON object, or @FILE with one.")
    ] = None,
    pairs: Annotated[
        list[str] | None, typer.Option("--variable", "-v", help="key=value; may be repeated.", metavar="KEY=VALUE")
    ] = None,
    operation: Annotated[str | None, typer.Option(help="Which operation to run, if there are several.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="End a subscription after so many lines.")] = None,
    timeout: options.Timeout = None,
) -> None:
    """Run any GraphQL operation. The answer is printed as JSON, a subscription's values as a line each."""
    from gateway.client.commands import document

    source = _source(text, file)
    try:
        chosen = document.operation_of(source, operation)
        values = document.variables_of(chosen, _given(variables), pairs or ())
    except document.Misuse as misuse:
        raise typer.BadParameter(str(misuse), param_hint="gql") from None
    with talk.cloud(machine=True) as cloud:
        if chosen.kind == "subscription":
            _stream(cloud, source, values, chosen, (count, timeout))
            return
        answer = cloud.client.answer(source, values, chosen.name)
        output.as_json({name: answer[name] for name in ("data", "errors", "extensions") if name in answer})
        if answer.get("errors") or _refused(answer.get("data")):
            codes = {(each.get("extensions") or {}).get("code") for each in answer.get("errors") or ()}
            raise typer.Exit(output.NOT_SIGNED_IN if "UNAUTHENTICATED" in codes else output.REFUSED)


def _stream(
    cloud: talk.Talk,
    source: str,
    values: Mapping[str, Any],
    operation: Operation,
    ends: tuple[int | None, float | None],
) -> None:
    count, timeout_s = ends
    pushed = cloud.client.subscribe(source, values, deadline_s=timeout_s, operation=operation.name)
    with closing(pushed):  # type: ignore[type-var]  # a generator, though only promised to be an iterator
        for number, data in enumerate(pushed, 1):
            output.as_json(data, compact=True)
            if number == count:
                return


def _refused(data: Any) -> bool:
    return isinstance(data, dict) and any(
        isinstance(payload, dict) and payload.get("userErrors") for payload in data.values()
    )


def _source(text: str | None, file: Path | None) -> str:
    if (text is None) == (file is None):
        raise typer.BadParameter("give the document as an argument, as - for the standard input, or with --file")
    if file is not None:
        return _read(file)
    if text == "-":
        return _bounded(sys.stdin.read(_MOST_BYTES + 1))
    return text or ""


def _given(variables: str | None) -> str | None:
    if variables is None or not variables.startswith("@"):
        return variables
    path = Path(variables[1:])
    if not path.is_file():
        raise typer.BadParameter(f"there is no file {path}", param_hint="--variables")
    return _read(path)


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as opened:
            return _bounded(opened.read(_MOST_BYTES + 1))
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path} cannot be read: {error}") from None


def _bounded(text: str) -> str:
    if len(text) > _MOST_BYTES:
        raise typer.BadParameter("a document of more than 1 MiB is never accepted")
    return text
