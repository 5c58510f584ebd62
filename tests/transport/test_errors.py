"""What a failing field shows, what it hides, and what the log keeps."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest
import structlog
from graphql import GraphQLError

from gateway.kernel.errors import UserErrorCode
from resolvers.transport.errors import MASKED_MESSAGE, STATUS, ErrorCode, RequestRefused, code_of, present, refusal
from tests.transport.calls import code, post, query
from tests.transport.conftest import Server


def test_a_bug_is_masked_and_its_chain_is_logged(server: Server) -> None:
    with structlog.testing.capture_logs() as logs:
        answer = query(server, "{ broken hello }", x_request_id="trace-masked-1")
    assert answer["data"] == {"broken": None, "hello": "hello world"}
    assert answer["errors"] == [
        {
            "message": MASKED_MESSAGE,
            "locations": [{"line": 1, "column": 3}],
            "path": ["broken"],
            "extensions": {"code": "INTERNAL", "requestId": "trace-masked-1"},
        }
    ]
    (entry,) = [each for each in logs if each["event"] == "resolver_failed"]
    assert (entry["request_id"], entry["path"]) == ("trace-masked-1", ["broken"])
    assert str(entry["exc_info"]) == "secret: hunter2"
    assert isinstance(entry["exc_info"].__cause__, KeyError)


def test_an_exception_with_a_code_of_the_set_is_shown_with_its_data(server: Server) -> None:
    answer = query(server, "{ refused }", x_request_id="trace-shown-1")
    assert answer["errors"] == [
        {
            "message": "there is no such server",
            "locations": [{"line": 1, "column": 3}],
            "path": ["refused"],
            "extensions": {"code": "NOT_FOUND", "noun": "server", "requestId": "trace-shown-1"},
        }
    ]


@pytest.mark.parametrize("field", ["foreign", "tooBig"])
def test_foreign_codes_and_values_that_do_not_serialise_are_masked(server: Server, field: str) -> None:
    answer = query(server, f"{{ {field} }}")
    assert code(answer) == "INTERNAL"
    assert answer["errors"][0]["message"] == MASKED_MESSAGE


def test_a_refused_required_field_nulls_its_parent_only(server: Server) -> None:
    answer = query(server, "{ hello requiredButRefused }")
    assert (answer["data"], code(answer)) == (None, "NOT_FOUND")


def test_every_code_is_its_own_name_and_every_status_is_an_error() -> None:
    assert all(member.name == member.value and member.description.endswith(".") for member in ErrorCode)
    assert all(400 <= status <= 599 for status in STATUS.values())


def test_every_refusal_of_the_domain_can_be_shown() -> None:
    assert {each.value for each in UserErrorCode} - {each.value for each in ErrorCode} == set()


@pytest.mark.parametrize("value", [None, "", "e3q8", "not_found", 404, ["NOT_FOUND"], b"NOT_FOUND"])
def test_what_is_not_a_word_of_the_set_is_no_code(value: Any) -> None:
    error = ValueError()
    error.code = value  # type: ignore[attr-defined]  # as foreign libraries do
    assert code_of(error) is None


def test_an_error_may_carry_a_code_in_its_extensions() -> None:
    shown = present(GraphQLError("busy", extensions={"code": "BUSY", "jobId": "job_1"}), "r")
    assert shown == {"message": "busy", "extensions": {"code": "BUSY", "jobId": "job_1", "requestId": "r"}}
    hidden = present(GraphQLError("secret", extensions={"code": "MINE"}), "r")
    assert hidden == {"message": MASKED_MESSAGE, "extensions": {"code": "INTERNAL", "requestId": "r"}}


def test_nested_originals_are_looked_through() -> None:
    class Busy(Exception):  # noqa: N818 - as the domain names its refusals
        code = UserErrorCode.BUSY
        data: ClassVar = {"job_id": "job_1"}

    inner = GraphQLError("busy", original_error=Busy("busy"))
    shown = present(GraphQLError("busy", original_error=inner), "r")
    assert shown["extensions"] == {"code": "BUSY", "job_id": "job_1", "requestId": "r"}


def test_a_refusal_passes_and_a_bug_does_not() -> None:
    refused = RequestRefused(ErrorCode.TOO_DEEP, "deep")
    assert refusal(refused, "r") is refused
    masked = refusal(ValueError("secret"), "r")
    assert (masked.code, masked.status, str(masked)) == (ErrorCode.INTERNAL, 500, MASKED_MESSAGE)
    assert "secret" not in json.dumps(present(masked.errors[0], "r"))


def test_a_wrong_argument_at_run_time_is_the_callers_fault(server: Server) -> None:
    text = "query ($n: Int) { servers { nodes { pagedPorts(first: $n) { nodes { number } } } } }"
    answer = post(server, {"query": text, "variables": {"n": None}})
    assert {each["extensions"]["code"] for each in answer.json()["errors"]} == {"BAD_USER_INPUT"}


def test_a_long_message_is_cut(server: Server) -> None:
    answer = query(server, '{ servers(first: "' + "x" * 50_000 + '") { totalCount } }')
    assert code(answer) == "GRAPHQL_VALIDATION_FAILED"
    assert len(answer["errors"][0]["message"]) == 1_000
