"""What goes wrong, in the form that OpenAI's clients know: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gar_edge.runtime.errors import GarBusyError, GarError, GarImageError, GarMaskError, GarPromptError
from gar_edge.runtime.files.addresses import shown

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_PARAMS: Mapping[type[GarError], str] = {GarImageError: "image", GarMaskError: "regions", GarPromptError: "question"}
RETRY = {"Retry-After": "1"}


class ApiError(Exception):
    """A request that is answered with an error. param: what of it is wrong; headers: that go with it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def to_json(self) -> dict[str, Any]:
        """The body."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def api_error_of(error: BaseException) -> ApiError:
    """The answer to what the runtime raised; what nobody expected says nothing of the inside."""
    if isinstance(error, ApiError):
        return error
    message = shown(" ".join(str(error).split()))
    if isinstance(error, GarBusyError):
        return ApiError(429, message, code="queue_full", headers=RETRY)
    for kind, param in _PARAMS.items():
        if isinstance(error, kind):
            return ApiError(400, message, param=param)
    if isinstance(error, GarError):
        return ApiError(500, message, code="engine")
    return ApiError(500, "an error that was not expected; the server's log has it under this request's id")
