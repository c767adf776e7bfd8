"""Why a request got no answer, in the words of both protocols: gRPC's status codes, which REST turns into HTTP's."""

from __future__ import annotations

from typing import Literal

from mlserving.errors import ServingError

Code = Literal["INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "UNIMPLEMENTED", "UNAVAILABLE", "INTERNAL"]

HTTP_STATUS: dict[Code, int] = {
    "INVALID_ARGUMENT": 400,
    "NOT_FOUND": 404,
    "FAILED_PRECONDITION": 412,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
}


class RequestError(ServingError):
    """One request cannot be answered; the server is well."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code: Code = code


def invalid(message: str) -> RequestError:
    """The request is wrong."""
    return RequestError("INVALID_ARGUMENT", message)
