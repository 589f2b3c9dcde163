"""A request's parameters: the endpoint's, and settings of this request alone. Their names are checked here.

Not here: checks of their values (`chatscope._validation`, `chatscope.protocol.request`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from types import UnionType
from typing import Any, Final, TypedDict

from chatscope._limits.retry import RetryPolicy
from chatscope._limits.timeouts import Timeout
from chatscope.protocol.parameters import CommonParameters, ResponseFormat, TaskParameters, ToolParameter


class RunParameters(CommonParameters, total=False):
    """Parameters of `run_tools`, besides the arguments that it names."""

    extra_body: Mapping[str, Any]
    extra_headers: Mapping[str, str]
    extra_query: Mapping[str, Any]
    timeout: Timeout
    retry: RetryPolicy | int | None


class CopyOptions(TypedDict, total=False):
    """The options that a copy of a client can override."""

    timeout: Timeout
    retry: RetryPolicy | int | None


class TypedParameters(RunParameters, total=False):
    """Parameters of `complete` and `stream`, besides a `response_format` that is a type."""

    tools: Sequence[ToolParameter]


class RequestParameters(TypedParameters, total=False):
    """Parameters of a request: the endpoint's, and settings of its own."""

    response_format: ResponseFormat | UnionType


REQUEST_NAMES: Final = frozenset(RequestParameters.__annotations__)
"""The parameters that `complete`, `stream` and `run_tools` take besides their own arguments."""

TASK_NAMES: Final = frozenset({*TaskParameters.__annotations__, "retry", "timeout"})
"""What `Task.parameters` may hold."""

_HABITS: Final = {
    "max_retries": "use retry=, the number of attempts: one more than the retries",
    "stream": "use client.stream(...) for a streamed response",
}
"""Parameters of other libraries, and their equivalents here."""


def pop_type(parameters: dict[str, Any]) -> Any:
    """Remove and return a `response_format` that is a type; return `None` for one of the endpoint's own."""
    wanted = parameters.get("response_format")
    return None if wanted is None or isinstance(wanted, Mapping) else parameters.pop("response_format")


def check_names(parameters: Mapping[str, Any]) -> None:
    """Check the names of a request's parameters.

    Raises:
        TypeError: a name is unknown; the error names it.
    """
    if not parameters.keys() <= REQUEST_NAMES:
        raise TypeError(unknown_parameter(parameters, REQUEST_NAMES))


def unknown_parameter(names: Iterable[str], known: frozenset[str]) -> str | None:
    """Describe the first unknown name, with a hint; return `None` if all names are known."""
    for name in names:
        if name not in known:
            hint = hint_for(name, known, _HABITS) if isinstance(name, str) else ""
            elsewhere = "pass parameters that the endpoint does not list in extra_body"
            return f"unknown parameter {name!r}: {hint and f'{hint}; '}{elsewhere}"
    return None


def hint_for(name: str, known: Iterable[str], habits: Mapping[str, str]) -> str:
    """Return a hint for an unknown name, or `""`."""
    if name in habits:
        return habits[name]
    near = get_close_matches(name, known, n=1, cutoff=0.75)
    return f"did you mean {near[0]!r}?" if near else ""
