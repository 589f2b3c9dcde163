"""The fields of error objects: under which names servers send them, and whether their values report an error.

Not here: the shapes of error objects (`error_object.py`), and what codes and messages mean (`error_meaning.py`,
`error_words.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from chatscope.protocol.loading import dump

MESSAGE_NAMES: Final = (
    *("message", "msg", "errormsg", "errormessage", "errmsg", "err", "statusmsg", "retmsg"),
    *("detail", "faultstring", "errordescription", "statusdescription", "title"),
)
CODE_NAMES: Final = ("code", "errorcode", "errcode", "errno", "retcode", "internalcode", "statuscode", "reason")
TYPE_NAMES: Final = ("type", "errortype", "__type")
STATUS_NAMES: Final = ("statuscode", "status", "httpstatus", "httpcode", *CODE_NAMES)
ERROR_NAMES: Final = ("error", "errors", "fault", "exception")
ERROR_ONLY_NAMES: Final = ("errormsg", "errormessage", "errmsg", "err", "errorcode", "errcode", "errno")
"""Names of fields that only errors have. All names here are in the form that `plain` returns: servers write the same
name as `error_msg`, `errorMsg` and `ErrorMsg`."""

_NOTHING_WORDS: Final = frozenset({"", "null", "none", "nil", "undefined", "false", "n a", "na"})
_NO_ERROR_WORDS: Final = _NOTHING_WORDS | {"0", "ok", "success", "succeeded", "successful", "no error", "noerror"}
"""What says that there is no error, in the form that `_words` returns."""
_JUDGED_NAMES: Final = frozenset(
    {"baseresp", "object", "message", "delta", *CODE_NAMES, *ERROR_NAMES, *ERROR_ONLY_NAMES}
)
FAILED_WORDS: Final = ("error", "fail", "failed", "failure")

OTHER_NAMES: Final = frozenset({"object", "model", "created", "usage", "choices", "progress", "position", "eta"})
"""Names of fields that errors do not have. An `id` may be that of the request."""

_NOTICE: Final = re.compile(
    r"ping|pong|heart[ _-]?beat|keep[ _-]?alive|comment|open(ed)?|connect(ed)?|start(ed)?|begin|end|closed?|done"
    r"|status|progress|info|notice|log|debug|trace|warn(ing)?|meta(data)?|queued?|retry|session|init|config|stats|metrics",
    re.IGNORECASE,
)
"""Names of events, and types of objects, that are about the connection or the work and no part of the response."""


def is_notice(name: object) -> bool:
    """Return whether an event, by its name, or an object, by its type, is no part of the response."""
    return isinstance(name, str) and _NOTICE.fullmatch(name) is not None


def is_judged(name: str) -> bool:
    """Return whether `find_error` looks at a field of a response with choices, by its name."""
    return plain_name(name) in _JUDGED_NAMES


def plain_name(name: str) -> str:
    """Return a name in lower case and without underscores."""
    return name.lower().replace("_", "")


def plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object with its names in lower case and without underscores; the endpoint's own spelling wins."""
    by_name = {plain_name(name): value for name, value in fields.items()}
    return by_name | {name: value for name, value in fields.items() if name in by_name or name.startswith("__")}


def has_meaning(value: object) -> bool:
    """Return whether the value of an error field reports an error: the presence of the field alone does not."""
    if isinstance(value, str):
        return _words(value) not in _NO_ERROR_WORDS
    if isinstance(value, dict):
        fields = plain(value)
        codes = [fields[name] for name in STATUS_NAMES if is_stated(fields.get(name))]
        if codes:
            return not all(map(means_success, codes))  # `{"code": 0, "message": "Request processed"}` is not an error
        return any(has_meaning(item) for name, item in fields.items() if _may_tell(name, item))
    if isinstance(value, list):
        return any(map(has_meaning, value))
    return bool(value)


def _may_tell(name: str, value: object) -> bool:
    """Return whether a field of an error object can report an error, unlike codes, ids and most flags."""
    if isinstance(value, bool):
        return name in {*ERROR_NAMES, "iserror", "haserror"}
    return name not in STATUS_NAMES and not name.endswith("id")


def _words(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", text.lower()))


def is_stated(code: object) -> bool:
    """Return whether a code has a meaning, even if it means success. An empty code beside a message has none."""
    if isinstance(code, str):
        return _words(code) not in _NOTHING_WORDS
    return number_of(code) is not None or bool(code)


def means_success(code: object) -> bool:
    """Return whether a code means success, or nothing."""
    number = number_of(code)
    return not has_meaning(code) if number is None else number == 0 or 200 <= number <= 299


def first_of(fields: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """Return the value of the first of these names that has one, or `None`."""
    return next((fields[name] for name in names if fields.get(name) not in (None, "", [], {})), None)


def status_in(fields: Mapping[str, Any]) -> int | None:
    """Return the HTTP status in the fields of an error, or `None`."""
    others = (name for name in fields if name.endswith(("statuscode", "httpstatus")))  # Mistral's raw_status_code
    numbers = (number_of(fields.get(name)) for name in (*STATUS_NAMES, *others))
    return next((number for number in numbers if number is not None and 400 <= number <= 599), None)


def number_of(value: object) -> int | None:
    """Return a code as an integer, if it is a short number."""
    if isinstance(value, str) and 0 < len(value) <= 18 and value.isascii() and value.isdecimal():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def text_of(value: object) -> str | None:
    """Return a value as text: as JSON if it is not a text itself."""
    return value if value is None or isinstance(value, str) else dump(value)
