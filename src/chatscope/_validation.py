"""Argument checks: each rejects values that are certainly invalid, and its message names the argument.

Here: checks of plain values, before anything is sent. Not here: anything that only the server can judge.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Final

_FORBIDDEN: Final = re.compile(r"[\r\n\0]")
# These decide where a request ends, or switch the protocol (RFC 9112, section 6; RFC 9110, section 7.8). Other headers
# about the connection are allowed: "Connection: close", another Host, "Expect: 100-continue".
_FRAMING: Final = frozenset({"content-length", "transfer-encoding", "upgrade"})
_NUMBERS: Final = (int, float)
"""Not `int | float`, which Python would build again for each check: that takes six times as long."""

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def check_seconds(value: object, name: str, *, zero: bool = False) -> None:
    """Check a duration.

    Raises:
        ValueError: the value is neither `None` nor a positive number (or zero, if `zero` is set).
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, _NUMBERS) or not (value > 0 or (zero and value == 0)):
        raise ValueError(f"{name} must be a positive number of seconds, not {value!r}")


def check_count(value: object, name: str) -> None:
    """Check a count.

    Raises:
        ValueError: the value is not a whole number of at least 1.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")


def check_wait(value: object, name: str) -> None:
    """Check the length of a wait.

    Raises:
        ValueError: the value is not a finite number of at least 0.
    """
    if isinstance(value, bool) or not isinstance(value, _NUMBERS) or not 0 <= value < math.inf:
        raise ValueError(f"{name} must be a number of seconds, not {value!r}")


def check_rate(value: object, name: str) -> None:
    """Check a rate or a budget.

    Raises:
        ValueError: the value is neither `None` nor a positive, finite number.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, _NUMBERS) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a positive number, not {value!r}")


def check_messages(model: object, messages: object) -> None:
    """Check a model's name and a conversation.

    Raises:
        ValueError: one of them has the wrong type or is empty; the error names `model` or `messages`.
    """
    check_model(model)
    # Built-in types first: checking the abstract classes alone takes several times as long
    # (python -m timeit -s "from collections.abc import Mapping; m = {}" "isinstance(m, Mapping)").
    if (
        not isinstance(messages, list) and (isinstance(messages, str | bytes) or not isinstance(messages, Sequence))
    ) or not messages:
        raise ValueError("messages must be a list with at least one message")
    for message in messages:
        if type(message) is not dict and not isinstance(message, Mapping):
            raise ValueError(f"messages must hold mappings with a role and content, not {type(message).__name__}")


def check_model(model: object) -> None:
    """Check a model's name.

    Raises:
        ValueError: the value is not a string, or is empty.
    """
    if not isinstance(model, str) or not model:
        raise ValueError(f"model must be a name, not {model!r}")


def check_number(value: object, name: str) -> None:
    """Check a number.

    Raises:
        ValueError: the value is not a finite number.
    """
    if isinstance(value, float):
        is_number = math.isfinite(value)
    else:
        is_number = isinstance(value, int) and not isinstance(value, bool)
    if not is_number:
        raise ValueError(f"{name} must be a number, not {value!r}")


def check_headers(headers: Mapping[str, str], name: str) -> None:
    """Check that headers can be sent. A line break in one would start another header (RFC 9110, section 5.5).

    Headers that delimit the request or switch the protocol are rejected too. The transport delimits requests, and the
    server could not parse a request with a header that contradicts it.

    Raises:
        ValueError: a header cannot be sent; the error names the argument and the header, but not its value.
    """
    if not isinstance(headers, Mapping):
        raise ValueError(f"{name} must be a mapping, not {type(headers).__name__}")  # noqa: TRY004 - bad input is a ValueError throughout
    for header, value in headers.items():
        if not isinstance(header, str) or not _TOKEN.fullmatch(header):
            raise ValueError(f"{name} has a header whose name is not allowed: {header!r}")
        if header.lower() in _FRAMING:
            raise ValueError(f"{name} must not contain {header!r}: the transport decides how a request is delimited")
        check_header_value(value, f"{name}[{header!r}]")


def check_header_value(value: object, name: str) -> None:
    """Check that a value can be sent as a header.

    Raises:
        ValueError: it cannot; the error names the argument.
    """
    if not isinstance(value, str) or _FORBIDDEN.search(value) or not value.isascii():
        raise ValueError(f"{name} must be text without line breaks, in ASCII, to go into a header")


def check_key(value: object) -> None:
    """Check an API key.

    Raises:
        ValueError: the value cannot be a key. The message names `api_key` and never quotes the value.
    """
    if not isinstance(value, str):
        raise ValueError(f"api_key must be a text, not {type(value).__name__}")  # noqa: TRY004 - bad input is a ValueError throughout
    if "://" in value:
        raise ValueError("api_key looks like an address: pass addresses as base_url=")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("api_key (or OPENAI_API_KEY) must be ASCII text without whitespace")


def check_on_tool_error(value: object) -> None:
    """Check the argument `on_tool_error`.

    Raises:
        ValueError: the value is neither `"report"` nor `"raise"`.
    """
    if not isinstance(value, str) or value not in {"report", "raise"}:
        raise ValueError(f"on_tool_error must be 'report' or 'raise', not {value!r}")


def check_instance(value: object, kind: type, name: str) -> None:
    """Check the type of a value.

    Raises:
        ValueError: the value has another type; the error names the argument and both types.
    """
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIOUaeiou" else "a"
        raise ValueError(f"{name} must be {article} {kind.__name__}, not {type(value).__name__}")  # noqa: TRY004 - bad input is a ValueError throughout


def unknown_attribute(owner: object, name: str, instead: Mapping[str, str]) -> AttributeError:
    """Return the error for an attribute that does not exist.

    Args:
        owner: the object.
        name: the attribute.
        instead: what to use for names that other libraries have.
    """
    hint = f": use {instead[name]}" if name in instead else ""
    return AttributeError(f"{type(owner).__name__!r} object has no attribute {name!r}{hint}")
