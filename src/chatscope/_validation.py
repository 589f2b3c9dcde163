"""Argument checks: each refuses what can never be right, and its message names the argument.

Here: checks of plain values, before anything is sent. Not here: what only the server can judge.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Final

_FORBIDDEN: Final = re.compile(r"[\r\n\0]")
# These decide where a request ends or what protocol comes next (RFC 9112, section 6; RFC 9110, section 7.8). Others
# that concern the connection work: "Connection: close", another Host, "Expect: 100-continue".
_FRAMING: Final = frozenset({"content-length", "transfer-encoding", "upgrade"})
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def check_seconds(value: object, name: str, *, zero: bool = False) -> None:
    """Refuse what is no length of time.

    Raises:
        ValueError: the value is not `None` and not a positive number (or zero, where that is allowed).
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not (value > 0 or (zero and value == 0)):
        raise ValueError(f"{name} must be a positive number of seconds, not {value!r}")


def check_count(value: object, name: str) -> None:
    """Refuse what is no whole number of at least 1.

    Raises:
        ValueError: as said.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")


def check_wait(value: object, name: str) -> None:
    """Refuse what is no time to wait.

    Raises:
        ValueError: the value is not a finite number of at least 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"{name} must be a number of seconds, not {value!r}")


def check_rate(value: object, name: str) -> None:
    """Refuse what is no rate.

    Raises:
        ValueError: the value is not `None` and not a positive, finite number.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a positive number, not {value!r}")


def check_messages(model: object, messages: object) -> None:
    """Refuse what is no model or no conversation.

    Raises:
        ValueError: naming `model` or `messages`.
    """
    check_model(model)
    # Built-in types first: to ask the abstract classes alone costs several times as much
    # (python -m timeit -s "from collections.abc import Mapping; m = {}" "isinstance(m, Mapping)").
    if isinstance(messages, str | bytes) or not isinstance(messages, list | Sequence) or not messages:
        raise ValueError("messages must be a list with at least one message")
    for message in messages:
        if type(message) is not dict and not isinstance(message, Mapping):
            raise ValueError(f"messages must hold mappings with a role and content, not {type(message).__name__}")


def check_model(model: object) -> None:
    """Refuse what is no model's name.

    Raises:
        ValueError: as said.
    """
    if not isinstance(model, str) or not model:
        raise ValueError(f"model must be a name, not {model!r}")


def check_number(value: object, name: str) -> None:
    """Refuse what is no finite number.

    Raises:
        ValueError: naming the parameter.
    """
    if isinstance(value, bool) or not (isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))):
        raise ValueError(f"{name} must be a number, not {value!r}")


def check_headers(headers: Mapping[str, str], name: str) -> None:
    """Refuse headers that cannot be sent: a line break in one would begin another (RFC 9110, section 5.5).

    Nor can headers that delimit the request or change the protocol: the transport delimits requests, and servers could
    not read one that says otherwise.

    Raises:
        ValueError: naming the argument and the header, not the value.
    """
    if not isinstance(headers, Mapping):
        raise ValueError(f"{name} must be a mapping, not {type(headers).__name__}")  # noqa: TRY004 - bad input is a ValueError throughout
    for header, value in headers.items():
        if not isinstance(header, str) or not _TOKEN.fullmatch(header):
            raise ValueError(f"{name} has a header whose name is not allowed: {header!r}")
        if header.lower() in _FRAMING:
            raise ValueError(f"{name} must not contain {header!r}: how a request is sent is the transport's to say")
        check_header_value(value, f"{name}[{header!r}]")


def check_header_value(value: object, name: str) -> None:
    """Refuse what cannot be the value of a header.

    Raises:
        ValueError: naming the argument.
    """
    if not isinstance(value, str) or _FORBIDDEN.search(value) or not value.isascii():
        raise ValueError(f"{name} must be text without line breaks, in ASCII, to go into a header")


def check_key(value: object) -> None:
    """Refuse what is no API key. The message never quotes it.

    Raises:
        ValueError: naming `api_key`.
    """
    if not isinstance(value, str):
        raise ValueError(f"api_key must be a text, not {type(value).__name__}")  # noqa: TRY004 - bad input is a ValueError throughout
    if "://" in value:
        raise ValueError("api_key looks like an address: pass addresses as base_url=")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("api_key (or OPENAI_API_KEY) must be ASCII text without blanks and line ends")


def check_on_tool_error(value: object) -> None:
    """Refuse what does not say what becomes of a tool's exception.

    Raises:
        ValueError: naming `on_tool_error`.
    """
    if not isinstance(value, str) or value not in {"report", "raise"}:
        raise ValueError(f"on_tool_error must be 'report' or 'raise', not {value!r}")


def check_instance(value: object, kind: type, name: str) -> None:
    """Refuse a value of another type.

    Raises:
        ValueError: naming the argument and both types.
    """
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIOUaeiou" else "a"
        raise ValueError(f"{name} must be {article} {kind.__name__}, not {type(value).__name__}")  # noqa: TRY004 - bad input is a ValueError throughout
