"""Whether a decoded response reports an error, and what the error says, in all the shapes that servers give it.

`find_error` decides the first for streamed and plain responses alike, and for every path that reads them. What codes
and words mean is in `error_codes.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from chatscope.protocol.coerce import choices_of
from chatscope.protocol.error_codes import (
    FAILED_FINISH_REASONS,
    STATUS_OF,
    STATUS_OF_BASE_RESP,
    has_quota_code,
    says_too_large,
    says_unpaid,
)
from chatscope.protocol.loading import dump
from chatscope.protocol.waits import wait_in

_MESSAGE_NAMES: Final = (
    *("message", "msg", "error_msg", "error_message", "errorMessage", "errmsg", "err_msg"),
    *("status_msg", "detail", "faultstring", "error_description"),
)
_CODE_NAMES: Final = ("code", "error_code", "errorCode", "errcode", "err_code", "status_code")
_TYPE_NAMES: Final = ("type", "error_type", "errorType")
_STATUS_NAMES: Final = ("status_code", "status", "statusCode", "http_status", "http_code", *_CODE_NAMES)
_ERROR_ONLY_NAMES: Final = frozenset({"detail", "error_msg", "error_message", "errorMessage", "errmsg", "err_msg"})
"""Names that nothing but an error has."""

_NO_ERROR_WORDS: Final = frozenset({"", "null", "none", "false", "ok", "success", "succeeded", "no error"})
_FAILED_WORDS: Final = ("error", "failed", "failure")
_CHUNK_NAMES: Final = frozenset({"id", "object", "model", "created", "usage", "choices"})


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """What a server says about a failure. Nothing in it is redacted yet.

    Attributes:
        message: the server's words, or `""`.
        status: the HTTP status that the error names or means.
        code, type, param: as the server names them.
        retry_after: how long the body asks to wait, in seconds; a hint for when no header does.
        is_quota: an account is unpaid, suspended or used up.
        is_too_large: the request alone is larger than the whole rate limit.
    """

    message: str = ""
    status: int | None = None
    code: str | None = None
    type: str | None = None
    param: str | None = None
    retry_after: float | None = None
    is_quota: bool = False
    is_too_large: bool = False


def find_error(loaded: object) -> ErrorReport | None:
    """Return the error that a decoded response or chunk reports, or `None` if it reports none.

    An error object counts wherever it is: at the top level, in a choice, a message or a delta, beside an answer or
    not. An object without choices counts if it only names an error. An empty error beside an answer is none.
    """
    for item in loaded if isinstance(loaded, list) else (loaded,):
        if isinstance(item, dict) and (report := _find(item)) is not None:
            return report
    return None


def read_error(loaded: object) -> ErrorReport:
    """Return what a decoded body says that is known to report an error, such as the body of an error status."""
    report = find_error(loaded)
    if report is not None:
        return report
    if isinstance(loaded, list):
        loaded = next((item for item in loaded if isinstance(item, dict)), loaded)
    return _report(loaded, {})


def _find(loaded: dict[str, Any]) -> ErrorReport | None:
    choices = choices_of(loaded)
    for place in _places(loaded, choices):
        if _has_meaning(error := place.get("error")):
            return _report(error, place if place is loaded else {})
    base = loaded.get("base_resp")
    if isinstance(base, dict) and _number(base.get("status_code")):
        return _base_resp_report(base)
    for choice in choices:
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason in FAILED_FINISH_REASONS:
            return ErrorReport(f"the response ended with finish_reason {reason!r}", FAILED_FINISH_REASONS[reason])
        if isinstance(reason, dict) and reason.get("type") in FAILED_FINISH_REASONS:  # SGLang
            return _report(reason, {})
    return _report(loaded, {}) if _names_error(loaded, has_choices=bool(choices)) else None


def _places(loaded: dict[str, Any], choices: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    yield loaded
    for choice in choices:
        yield choice
        for name in ("delta", "message"):
            if isinstance(spoken := choice.get(name), dict):
                yield spoken


def _names_error(loaded: dict[str, Any], *, has_choices: bool) -> bool:
    """Return whether an object without an `error` says in another way that it is one."""
    if loaded.get("object") == "error":
        return True
    message = _first(loaded, _MESSAGE_NAMES)
    code = _first(loaded, _CODE_NAMES)
    number = _number(code)
    if has_choices:
        return number is not None and number >= 400 and isinstance(message, str) and _has_meaning(message)
    if loaded.get("success") is False or _has_meaning(loaded.get("errors")) or loaded.get("type") == "error":
        return True
    if _has_meaning(loaded.get("fault")) or any(_has_meaning(loaded.get(name)) for name in _ERROR_ONLY_NAMES):
        return True
    if not isinstance(message, str) or not _has_meaning(message):
        return number is not None and 400 <= number <= 599
    if code is not None:
        return not _means_success(code)
    is_nothing_else = not (loaded.keys() & _CHUNK_NAMES) and loaded.get("type") != "ping"
    return is_nothing_else or _status(loaded) is not None or loaded.get("status") in _FAILED_WORDS


def _report(error: Any, around: Mapping[str, Any]) -> ErrorReport:
    """Return what an error object says; `around` is the object that it stands in."""
    value = _innermost(error)
    fields: Mapping[str, Any] = value if isinstance(value, dict) else {}
    message = _text(_first(fields, _MESSAGE_NAMES))
    if not fields:
        message = value if isinstance(value, str) else _text(_first(around, _MESSAGE_NAMES))
    code = _text(_first(fields, _CODE_NAMES) if fields else None) or _text(_first(around, _CODE_NAMES))
    kind = _text(_first(fields, _TYPE_NAMES)) if fields else None
    if kind is None and around.get("type") != "error":
        kind = _text(_first(around, _TYPE_NAMES))
    rpc_status = fields.get("status")
    if kind is None and isinstance(rpc_status, str) and not rpc_status.isdecimal():
        kind = rpc_status  # Google's canonical code, such as RESOURCE_EXHAUSTED
    status = _status(fields) or _status(around) or _meant(kind) or _meant(code)
    wait = wait_in(message or "", fields, around)
    return _judged(message or "", status, code, kind, _text(fields.get("param")), wait)


def _base_resp_report(base: dict[str, Any]) -> ErrorReport:
    message = _text(base.get("status_msg")) or ""
    status = STATUS_OF_BASE_RESP.get(_number(base["status_code"]) or 0)
    return _judged(message, status, _text(base["status_code"]), None, None, wait_in(message, base))


def _judged(
    message: str, status: int | None, code: str | None, kind: str | None, param: str | None, wait: float | None
) -> ErrorReport:
    # A server that says when to come back speaks of a rate limit, even if in the words of a quota (Gemini).
    may_be_unpaid = wait is None and (status is None or status < 500)
    return ErrorReport(
        message=message,
        status=status,
        code=code,
        type=kind,
        param=param,
        retry_after=wait,
        is_quota=status == 402 or has_quota_code(code, kind) or (may_be_unpaid and says_unpaid(message)),
        is_too_large=says_too_large(message),
    )


def _innermost(error: Any) -> Any:
    """Return the object or text that has the words: the first of a list, the error inside an error."""
    for _ in range(8):
        if isinstance(error, list):
            error = next((item for item in error if _has_meaning(item)), None)
        elif isinstance(error, dict) and _first(error, _MESSAGE_NAMES) is None:
            inner = next((error[name] for name in ("error", "errors", "fault") if _has_meaning(error.get(name))), None)
            if inner is None:
                return error
            error = inner
        else:
            return error
    return error


def _has_meaning(value: object) -> bool:
    """Return whether the value of an error field says anything: presence alone does not."""
    if isinstance(value, str):
        return value.strip().lower() not in _NO_ERROR_WORDS
    if isinstance(value, dict):
        codes = [item for name, item in value.items() if name in _STATUS_NAMES]
        rest = [item for name, item in value.items() if name not in _STATUS_NAMES]
        return not all(map(_means_success, codes)) or any(map(_has_meaning, rest))
    if isinstance(value, list):
        return any(map(_has_meaning, value))
    return bool(value)


def _means_success(code: object) -> bool:
    number = _number(code)
    return not _has_meaning(code) if number is None else number == 0 or 200 <= number <= 299


def _first(fields: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((fields[name] for name in names if fields.get(name) not in (None, "")), None)


def _meant(name: str | None) -> int | None:
    return STATUS_OF.get(name.lower()) if name else None


def _status(fields: Mapping[str, Any]) -> int | None:
    numbers = (_number(fields.get(name)) for name in _STATUS_NAMES)
    return next((number for number in numbers if number is not None and 400 <= number <= 599), None)


def _number(value: object) -> int | None:
    """Return a code as an integer, if it is one that fits into a few digits."""
    if isinstance(value, str) and 0 < len(value) <= 18 and value.isascii() and value.isdecimal():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else dump(value)
