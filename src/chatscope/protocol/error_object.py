"""Whether a decoded response reports an error, and what the error says, in all the shapes that servers use.

`find_error` is the only place that decides whether there is an error, for streamed and plain responses alike. Not here:
what codes and messages mean (`error_codes.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from chatscope.protocol.coerce import as_list, choices_of
from chatscope.protocol.error_codes import (
    STATUS_OF_BASE_RESP,
    failed_status,
    has_quota_code,
    status_meant,
)
from chatscope.protocol.error_words import says_long_period, says_too_large, says_unpaid, words_of
from chatscope.protocol.loading import dump, load
from chatscope.protocol.waits import wait_in

_MESSAGE_NAMES: Final = (
    *("message", "msg", "errormsg", "errormessage", "errmsg", "err", "statusmsg"),
    *("detail", "faultstring", "errordescription", "title"),
)
_CODE_NAMES: Final = ("code", "errorcode", "errcode", "statuscode", "reason")
_TYPE_NAMES: Final = ("type", "errortype", "__type")
_STATUS_NAMES: Final = ("statuscode", "status", "httpstatus", "httpcode", *_CODE_NAMES)
_ERROR_NAMES: Final = ("error", "errors", "fault", "exception")
_ERROR_ONLY_NAMES: Final = ("detail", "errormsg", "errormessage", "errmsg", "err", "errorcode", "errcode")
"""Names of fields that only errors have. All names here are in the form that `_plain` returns: servers write the same
name as `error_msg`, `errorMsg` and `ErrorMsg`."""

_NOTHING_WORDS: Final = frozenset({"", "null", "none", "false", "n/a"})
_NO_ERROR_WORDS: Final = _NOTHING_WORDS | {"ok", "success", "succeeded", "no error"}
_JUDGED_NAMES: Final = frozenset({"error", "baseresp", "object", "message", "delta", *_CODE_NAMES})
_FAILED_WORDS: Final = ("error", "failed", "failure")
_KEEP_ALIVE_TYPES: Final = ("ping", "heartbeat", "keepalive", "keep-alive", "keep_alive")
_WORDS_LIMIT: Final = 8192
"""How much of an error's text is searched, in characters."""

_CHUNK_NAMES: Final = frozenset({"id", "object", "model", "created", "usage", "choices"})


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """A server's report of a failure. Nothing in it is redacted yet.

    Attributes:
        message: the server's message, or `""`.
        status: the HTTP status that the error states or implies.
        code, type, param: as the server sent them.
        retry_after: how long the body asks to wait, in seconds. A header takes precedence.
        is_quota: whether an account is unpaid, suspended or used up.
        is_used_up: whether a limit of a day or longer is used up. A header with a wait takes precedence.
        is_too_large: whether the request alone exceeds the whole rate limit.
    """

    message: str = ""
    status: int | None = None
    code: str | None = None
    type: str | None = None
    param: str | None = None
    retry_after: float | None = None
    is_quota: bool = False
    is_used_up: bool = False
    is_too_large: bool = False


def find_error(loaded: object) -> ErrorReport | None:
    """Return the error that a decoded response or chunk reports, or `None` if it reports none.

    An error object counts wherever it is: at the top level, in a choice, a message or a delta, even next to output. An
    object without choices counts if it only describes an error. An empty error object next to output does not count.
    """
    for item in loaded if isinstance(loaded, list) else (loaded,):
        if isinstance(item, dict) and (report := _find(item)) is not None:
            return report
    return None


def read_error(loaded: object) -> ErrorReport:
    """Return the error in a decoded body that is known to report one, such as the body of an error status."""
    report = find_error(loaded)
    if report is not None:
        return report
    if isinstance(loaded, list):
        loaded = next((item for item in loaded if isinstance(item, dict)), loaded)
    return _report(loaded, {})


def is_judged(name: str) -> bool:
    """Return whether `find_error` looks at a field of a response with choices, by its name."""
    return _plain_name(name) in _JUDGED_NAMES


def _find(loaded: dict[str, Any]) -> ErrorReport | None:
    choices = choices_of(loaded)
    for place in _places(loaded, choices):
        if _has_meaning(error := place.get("error")):
            return _report(error, place if place is loaded else {})
    base = loaded.get("base_resp")
    if isinstance(base, dict) and not _means_success(base.get("status_code", 0)):
        return _base_resp_report(base)
    for choice in choices:
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and (status := failed_status(reason)) is not None:
            return ErrorReport(f"the response ended with finish_reason {reason!r}", status)
        kind = reason.get("type") if isinstance(reason, dict) else None
        if isinstance(kind, str) and (status := failed_status(kind)) is not None:  # SGLang
            report = _report(reason, {})
            return replace(report, status=report.status or status)
    fields = _plain(loaded)
    if choices:
        return _report(loaded, {}) if _names_error_beside_choices(fields) else None
    if _names_error(fields):
        return _report(loaded, {})
    return next((_report(error, {}) for error in _nested_errors(loaded)), None)


def _places(loaded: dict[str, Any], choices: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    yield loaded
    for choice in choices:
        yield choice
        for name in ("delta", "message"):
            if isinstance(spoken := choice.get(name), dict):
                yield spoken
    if isinstance(groq := loaded.get("x_groq"), dict):
        yield groq


def _nested_errors(loaded: dict[str, Any]) -> Iterator[Any]:
    """Yield the errors of an object without choices that a cloud names or nests in its own way.

    Tencent's `Response.Error`, Volcengine's `ResponseMetadata.Error`, Amazon's `throttlingException`, and Gemini's
    `promptFeedback` of a prompt that it blocked.
    """
    for name, value in loaded.items():
        if not isinstance(value, dict):
            continue
        if name.lower().endswith("exception") and _has_meaning(value):
            yield _with_type(value, name)
        fields = _plain(value)
        yield from (fields[error] for error in _ERROR_NAMES if _has_meaning(fields.get(error)))
        if _plain_name(name) == "promptfeedback" and _has_meaning(reason := fields.get("blockreason")):
            why = fields.get("blockreasonmessage") or reason
            yield {"message": f"the prompt was blocked: {why}", "code": reason, "status": 400}
        if name == "header" and not _means_success(fields.get("code", 0)):  # Spark's own
            yield value


def _names_error_beside_choices(fields: Mapping[str, Any]) -> bool:
    if fields.get("object") == "error":
        return True
    message, number = _first(fields, _MESSAGE_NAMES), _number(_first(fields, _CODE_NAMES))
    return number is not None and number >= 400 and isinstance(message, str) and _has_meaning(message)


def _names_error(fields: Mapping[str, Any]) -> bool:
    """Return whether an object without choices and without an `error` is an error in another shape."""
    kind = fields.get("type")
    if fields.get("object") == "error" or fields.get("success") is False or kind == "error":
        return True
    if any(not _means_success(fields.get(name, "")) for name in (*_ERROR_NAMES, *_ERROR_ONLY_NAMES)):
        return True
    if fields.get("status") in _FAILED_WORDS:
        return True
    message = _first(fields, _MESSAGE_NAMES)
    code = _first(fields, _CODE_NAMES)
    if not isinstance(message, str) or not _has_meaning(message):
        number = _number(code)
        return number is not None and 400 <= number <= 599
    if _is_stated(code):
        return not _means_success(code)
    is_nothing_else = not (fields.keys() & _CHUNK_NAMES) and kind not in _KEEP_ALIVE_TYPES
    return is_nothing_else or _status(fields) is not None


def _report(error: Any, around: Mapping[str, Any]) -> ErrorReport:
    """Return the report for an error object; `around` is the object that contains it."""
    value = _innermost(error)
    if _number(value) is not None:
        value = {"code": value}
    fields = _plain(value) if isinstance(value, dict) else {}
    beside = _plain(around)
    message = _text(_first(fields, _MESSAGE_NAMES)) or _text(_first(beside, _MESSAGE_NAMES))
    if isinstance(value, str):
        # `"error": "Internal Server Error", "message": ...` (NestJS, Spring): the title alone says too little.
        message = value if message in {None, value} else f"{value}: {message}"
        is_code = " " not in value and (status_meant(value) or has_quota_code(value))
        fields = {"type": value} if is_code else {}
    code = _text(_first(fields, _CODE_NAMES) if fields else None) or _text(_first(beside, _CODE_NAMES))
    kind = _text(_first(fields, _TYPE_NAMES)) if fields else None
    if kind is None and beside.get("type") != "error":
        kind = _text(_first(beside, _TYPE_NAMES))
    rpc_status = fields.get("status")
    if kind is None and isinstance(rpc_status, str) and not rpc_status.isdecimal():
        kind = rpc_status  # Google's canonical code, such as RESOURCE_EXHAUSTED
    sent = ErrorReport(
        message=message or "",
        status=_status(fields) or _status(beside),
        code=code,
        type=kind,
        param=_text(fields.get("param")),
    )
    places = (value, around) if isinstance(value, dict) else (around,)
    return _judged(sent, places, _reasons(fields))


def _reasons(fields: Mapping[str, Any]) -> list[str]:
    """Return the texts of an error other than its message: a provider's original error, Google's details."""
    found: list[str] = []
    for name in ("metadata", "details"):
        for item in as_list(fields.get(name)):
            if isinstance(item, dict):
                found += [item[key] for key in ("raw", "reason") if isinstance(item.get(key), str)]
    if isinstance(reason := fields.get("reason"), str):
        found.append(reason)
    return found


def _base_resp_report(base: dict[str, Any]) -> ErrorReport:
    sent = ErrorReport(
        message=_text(base.get("status_msg")) or "",
        status=STATUS_OF_BASE_RESP.get(_number(base["status_code"]) or 0),
        code=_text(base["status_code"]),
    )
    return _judged(sent, (base,), [])


def _judged(sent: ErrorReport, places: Sequence[Mapping[str, Any]], reasons: list[str]) -> ErrorReport:
    """Complete a report with what its codes and texts mean.

    Args:
        sent: the report as sent; its status is the number that the server sent, if any.
        places: the objects that may state how long to wait.
        reasons: further texts and codes of the error.
    """
    words = "\n".join([sent.message, *reasons])[:_WORDS_LIMIT]
    wait = wait_in(words, *places)
    # A server that says when to come back means a rate limit, even if its message mentions a quota (Gemini).
    may_be_unpaid = wait is None and (sent.status is None or sent.status < 500)
    names = "\n".join(map(words_of, (sent.code, sent.type)))
    is_unpaid = has_quota_code(sent.code, sent.type, *reasons) or (may_be_unpaid and says_unpaid(f"{words}\n{names}"))
    status = sent.status or status_meant(sent.type) or status_meant(sent.code)
    return replace(
        sent,
        status=status,
        retry_after=wait,
        is_quota=status == 402 or is_unpaid,
        is_used_up=may_be_unpaid and status in {None, 403, 429} and says_long_period(words),
        is_too_large=says_too_large(words) or 413 in {status_meant(sent.type), status_meant(sent.code)},
    )


def _innermost(error: Any) -> Any:
    """Return the object or string with the message: the first of a list, the error inside an error."""
    for _ in range(8):
        if isinstance(error, str) and error[:1] in {"{", "["}:  # JSON within JSON
            try:
                error = load(error.encode())
            except ValueError:
                return error
        elif isinstance(error, list):
            error = next((item for item in error if _has_meaning(item)), None)
        elif not isinstance(error, dict):
            return error
        else:
            fields = _plain(error)
            words = _first(fields, _MESSAGE_NAMES)
            if isinstance(words, dict) and any(name in _plain(words) for name in (*_ERROR_NAMES, *_MESSAGE_NAMES)):
                error = words  # FastAPI puts an error object into `detail`
                continue
            if words is not None:
                return error
            inner = next((fields[name] for name in _ERROR_NAMES if _has_meaning(fields.get(name))), None)
            if inner is None:
                return error
            error = inner
    return error


def _plain_name(name: str) -> str:
    return name.lower().replace("_", "")


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object with its names in lower case and without underscores; the endpoint's own spelling wins."""
    plain = {_plain_name(name): value for name, value in fields.items()}
    return plain | {name: value for name, value in fields.items() if name in plain or name.startswith("__")}


def _with_type(value: dict[str, Any], name: str) -> dict[str, Any]:
    return {"type": name} | value


def _has_meaning(value: object) -> bool:
    """Return whether the value of an error field reports an error: the presence of the field alone does not."""
    if isinstance(value, str):
        return value.strip().lower() not in _NO_ERROR_WORDS
    if isinstance(value, dict):
        fields = _plain(value)
        codes = [fields[name] for name in _STATUS_NAMES if _is_stated(fields.get(name))]
        if codes:
            return not all(map(_means_success, codes))  # `{"code": 0, "message": "Request processed"}` is not an error
        return any(_has_meaning(item) for name, item in fields.items() if name not in _STATUS_NAMES)
    if isinstance(value, list):
        return any(map(_has_meaning, value))
    return bool(value)


def _is_stated(code: object) -> bool:
    """Return whether a code says anything, be it that all is well. An empty one beside a message does not."""
    if isinstance(code, str):
        return code.strip().lower() not in _NOTHING_WORDS
    return _number(code) is not None or bool(code)


def _means_success(code: object) -> bool:
    number = _number(code)
    return not _has_meaning(code) if number is None else number == 0 or 200 <= number <= 299


def _first(fields: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((fields[name] for name in names if fields.get(name) not in (None, "", [], {})), None)


def _status(fields: Mapping[str, Any]) -> int | None:
    numbers = (_number(fields.get(name)) for name in _STATUS_NAMES)
    return next((number for number in numbers if number is not None and 400 <= number <= 599), None)


def _number(value: object) -> int | None:
    """Return a code as an integer, if it is a short number."""
    if isinstance(value, str) and 0 < len(value) <= 18 and value.isascii() and value.isdecimal():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else dump(value)
