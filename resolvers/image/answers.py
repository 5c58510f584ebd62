"""What the data routes answer beside files: JSON for people and programs, and the headers that tus wants everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import JSONResponse, Response

from gateway.kernel.errors import Refusal, UserErrorCode

TUS_VERSION: Final = "1.0.0"
COMMON: Final = {"Tus-Resumable": TUS_VERSION, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

_STATUS: Final = {
    UserErrorCode.INVALID: 400,
    UserErrorCode.NOT_FOUND: 404,
    UserErrorCode.UNAUTHENTICATED: 401,
    UserErrorCode.FORBIDDEN: 403,
    UserErrorCode.CONFLICT: 409,
    UserErrorCode.BUSY: 423,
    UserErrorCode.INVALID_STATE: 409,
    UserErrorCode.QUOTA_EXCEEDED: 413,
    UserErrorCode.IMAGE_REFUSED: 422,
}


class Problem(Exception):  # noqa: N818 - an answer, not an error of the program
    """An answer other than success: ``code`` for programs, ``message`` for people, ``data`` beside them."""

    def __init__(
        self, status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None, **data: Any
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})
        self.data = data

    def response(self) -> Response:
        """The answer."""
        content = {"code": self.code, "message": self.message, **self.data}
        return JSONResponse(content, status_code=self.status, headers={**COMMON, **self.headers})


def of_refusal(refused: Refusal) -> Problem:
    """A refusal of the domain as an answer."""
    return Problem(_STATUS.get(refused.code, 400), refused.code.value, refused.message, **refused.data)


def empty(status: int, headers: Mapping[str, str] | None = None) -> Response:
    """An answer without a body."""
    return Response(status_code=status, headers={**COMMON, **(headers or {})})
