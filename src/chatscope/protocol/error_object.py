"""Whether a decoded response reports an error, and what the error says, in all the shapes that servers use.

`find_error` is the only place that decides whether there is an error, for streamed and plain responses alike. Not here:
what codes and messages mean (`error_meaning.py`, `error_words.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from chatscope.protocol.coerce import as_list, choices_of
from chatscope.protocol.error_codes import STATUS_OF_BASE_RESP
from chatscope.protocol.error_fields import (
    CODE_NAMES,
    ERROR_NAMES,
    ERROR_ONLY_NAMES,
    FAILED_WORDS,
    MESSAGE_NAMES,
    OTHER_NAMES,
    TYPE_NAMES,
    first_of,
    has_meaning,
    is_notice,
    is_stated,
    means_success,
    number_of,
    plain,
    plain_name,
    status_in,
    text_of,
)
from chatscope.protocol.error_meaning import failed_status, has_quota_code, status_meant
from chatscope.protocol.error_words import says_long_period, says_too_large, says_unpaid, status_named, words_of
from chatscope.protocol.loading import load
from chatscope.protocol.waits import wait_in

_WORDS_LIMIT: Final = 8192
"""How much of an error's text is searched, in characters."""


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """A server's report of a failure. Nothing in it is redacted yet.

    Attributes:
        message: the server's message, or `""`.
        status: the HTTP status that the error states or implies.
        code, type, param: as the server sent them.
        retry_after: how long the body asks to wait, in seconds. A header takes precedence.
        is_quota: whether an account is unpaid, suspended or exhausted.
        is_used_up: whether a limit of a day or longer is exhausted. A header with a wait takes precedence.
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


def find_error(loaded: object, *, event: str = "message") -> ErrorReport | None:
    """Return the error that a decoded response or chunk reports, or `None` if it reports none.

    An error object counts wherever it is: at the top level, in a choice, a message or a delta, even next to output. An
    object without choices counts if it only describes an error. An empty error object next to output does not count.

    Args:
        loaded: the response or chunk.
        event: the name of the event that it arrived in. A mere message in a notice is no error.
    """
    for item in loaded if isinstance(loaded, list) else (loaded,):
        if isinstance(item, dict) and (report := _find(item, event)) is not None:
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


def _find(loaded: dict[str, Any], event: str) -> ErrorReport | None:
    choices = choices_of(loaded)
    for place in _places(loaded, choices):
        if (report := _reported_at(place, is_top=place is loaded)) is not None:
            return report
    base = loaded.get("base_resp")
    if isinstance(base, dict) and not means_success(base.get("status_code", 0)):
        return _base_resp_report(base)
    for choice in choices:
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and (status := failed_status(reason)) is not None:
            return ErrorReport(f"the response ended with finish_reason {reason!r}", status)
        kind = reason.get("type") if isinstance(reason, dict) else None
        if isinstance(kind, str) and (status := failed_status(kind)) is not None:  # SGLang
            report = _report(reason, {})
            return replace(report, status=report.status or status)
    fields = plain(loaded)
    if _names_error_beside_choices(fields) if choices else _names_error(fields, event):
        return _report(loaded, loaded)
    return None if choices else next((_report(error, {}) for error in _nested_errors(loaded)), None)


def _places(loaded: dict[str, Any], choices: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    yield loaded
    for choice in choices:
        yield choice
        for name in ("delta", "message"):
            if isinstance(spoken := choice.get(name), dict):
                yield spoken
    if isinstance(groq := loaded.get("x_groq"), dict):
        yield groq


def _reported_at(place: dict[str, Any], *, is_top: bool) -> ErrorReport | None:
    """Return the report of a part of a response that has a field which only errors have."""
    fields = plain(place)
    for name in ERROR_NAMES:
        if has_meaning(fields.get(name)):
            return _report(fields[name], place if is_top else {})
    is_error = any(not means_success(fields.get(name, "")) for name in ERROR_ONLY_NAMES)
    return _report(place, place) if is_error else None


def _nested_errors(loaded: dict[str, Any]) -> Iterator[Any]:
    """Yield the errors of an object without choices that a cloud names or nests in its own way.

    Tencent's `Response.Error`, Volcengine's `ResponseMetadata.Error`, Amazon's `throttlingException` and `__type`,
    Nvidia's `requestStatus`, Spark's `header`, and Gemini's `promptFeedback` of a prompt that it blocked.
    """
    for name, value in loaded.items():
        if not isinstance(value, dict):
            continue
        if name.lower().endswith("exception") and has_meaning(value):
            yield _with_type(value, name)
        fields = plain(value)
        yield from (fields[error] for error in ERROR_NAMES if has_meaning(fields.get(error)))
        if plain_name(name) == "promptfeedback" and has_meaning(reason := fields.get("blockreason")):
            why = fields.get("blockreasonmessage") or reason
            yield {"message": f"the prompt was blocked: {why}", "code": reason, "status": 400}
        has_words = isinstance(first_of(fields, MESSAGE_NAMES), str)
        if "__type" in value or (has_words and not means_success(first_of(fields, CODE_NAMES))):
            yield value


def _names_error_beside_choices(fields: Mapping[str, Any]) -> bool:
    if fields.get("object") == "error":
        return True
    message, number = first_of(fields, MESSAGE_NAMES), number_of(first_of(fields, CODE_NAMES))
    return number is not None and number >= 400 and isinstance(message, str) and has_meaning(message)


def _names_error(fields: Mapping[str, Any], event: str) -> bool:
    """Return whether an object without choices and without an `error` is an error in another shape."""
    kind = fields.get("type")
    if "error" in (fields.get("object"), kind) or fields.get("status") in FAILED_WORDS:
        return True
    if fields.get("success") is False or fields.get("ok") is False or fields.get("iserror") is True:
        return True
    if not means_success(fields.get("detail", "")):
        return True
    message = first_of(fields, MESSAGE_NAMES)
    code = first_of(fields, CODE_NAMES)
    if not isinstance(message, str) or not has_meaning(message):
        number = number_of(code)
        return number is not None and 400 <= number <= 599
    if is_stated(code):
        return not means_success(code)
    is_nothing_else = OTHER_NAMES.isdisjoint(fields) and not is_notice(kind) and not is_notice(event)
    return is_nothing_else or status_in(fields) is not None


def _report(error: Any, around: Mapping[str, Any]) -> ErrorReport:
    """Return the report for an error object; `around` is the object that contains it."""
    value = _innermost(error)
    if number_of(value) is not None:
        value = {"code": value}
    fields = plain(value) if isinstance(value, dict) else {}
    beside = plain(around)
    message = text_of(first_of(fields, MESSAGE_NAMES)) or text_of(first_of(beside, MESSAGE_NAMES))
    if isinstance(value, str):
        # `"error": "Internal Server Error", "message": ...` (NestJS, Spring): the title alone says too little.
        message = value if message in {None, value} else f"{value}: {message}"
        is_code = " " not in value and (status_meant(value) or has_quota_code(value))
        fields = {"type": value} if is_code else {}
    code = text_of(first_of(fields, CODE_NAMES) if fields else None) or text_of(first_of(beside, CODE_NAMES))
    kind = text_of(first_of(fields, TYPE_NAMES)) if fields else None
    if kind is None and beside.get("type") != "error":
        kind = text_of(first_of(beside, TYPE_NAMES))
    rpc_status = fields.get("status")
    if kind is None and isinstance(rpc_status, str) and not rpc_status.isdecimal():
        kind = rpc_status  # Google's canonical code, such as RESOURCE_EXHAUSTED
    sent = ErrorReport(
        message=message or "",
        status=status_in(fields) or status_in(beside),
        code=code,
        type=kind,
        param=text_of(fields.get("param")),
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
        message=text_of(base.get("status_msg")) or "",
        status=STATUS_OF_BASE_RESP.get(number_of(base["status_code"]) or 0),
        code=text_of(base["status_code"]),
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
    status = sent.status or status_meant(sent.type) or status_meant(sent.code) or status_named(words)
    if is_unpaid and sent.status is None and (status is None or status >= 500):
        status = 402  # DeepSeek calls an empty balance an unknown_error
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
            error = next((item for item in error if has_meaning(item)), None)
        elif not isinstance(error, dict):
            return error
        else:
            fields = plain(error)
            words = first_of(fields, MESSAGE_NAMES)
            if isinstance(words, dict) and any(name in plain(words) for name in (*ERROR_NAMES, *MESSAGE_NAMES)):
                error = words  # FastAPI puts an error object into `detail`
                continue
            if words is not None:
                return error
            inner = next((fields[name] for name in ERROR_NAMES if has_meaning(fields.get(name))), None)
            if inner is None:
                return error
            error = inner
    return error


def _with_type(value: dict[str, Any], name: str) -> dict[str, Any]:
    return {"type": name} | value
