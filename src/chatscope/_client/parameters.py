"""A request's parameters: the endpoint's, and settings of this request alone. Their names are checked here.

Not here: checks of their values (`chatscope._validation`, `chatscope.protocol.request`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from types import UnionType
from typing import Any, Final, TypedDict

from chatscope._conversation.tools import OnToolError
from chatscope._limits.retry import RetryPolicy
from chatscope._limits.timeouts import Timeout
from chatscope.protocol.parameters import CommonParameters, ResponseFormat, TaskParameters, ToolParameter


class OwnParameters(CommonParameters, total=False):
    """Parameters of every request: the endpoint's, and settings of this request alone."""

    extra_body: Mapping[str, Any]
    """Fields of the body that the endpoint does not list, such as vLLM's `top_k`."""
    extra_headers: Mapping[str, str]
    """Headers for this request alone."""
    extra_query: Mapping[str, Any]
    """Query parameters for this request alone."""
    timeout: Timeout
    """How long the server may be silent, in seconds, or `Timeouts` for more; `None` waits forever."""
    retry: RetryPolicy | int | None
    """How many attempts to make: a policy, or a number."""
    strict: bool
    """Whether the endpoint enforces the schema of a type or of a function. `strict=False` allows more types
    (`dict[str, int]`, tuples, `Any`), and the model may omit values with defaults. The response is still checked
    against the type."""


class RunParameters(OwnParameters, total=False):
    """Parameters of `run_tools` and `stream_tools`, besides the arguments that they name."""

    max_turns: int
    """How many model calls to make at most; the default is 10."""
    tool_timeout: float | None
    """How long each call of a function may take, in seconds."""
    on_tool_error: OnToolError
    """`"report"`, the default, sends the model the error that a function raised; `"raise"` raises it."""
    reask: int
    """How often to ask again, with the problem described to the model, if the last response does not fit the type."""


class CopyOptions(TypedDict, total=False):
    """The options that a copy of a client can override."""

    timeout: Timeout
    """How long the server may be silent, in seconds, or `Timeouts` for more; `None` waits forever."""
    retry: RetryPolicy | int | None
    """How often to try; a number is the number of attempts."""


class TypedParameters(OwnParameters, total=False):
    """Parameters of `complete` and `stream`, besides a `response_format` that is a type."""

    tools: Sequence[ToolParameter]
    """The tools that the model may call, as the endpoint's own definitions; see also `run_tools`."""


class RequestParameters(TypedParameters, total=False):
    """Parameters of a request: the endpoint's, and settings of its own."""

    response_format: ResponseFormat | UnionType
    """The form of the response: a type, or one of the endpoint's formats."""


REQUEST_NAMES: Final = frozenset(RequestParameters.__annotations__)
"""The parameters of `complete` and `stream` in addition to their own arguments."""

RUN_NAMES: Final = frozenset(RunParameters.__annotations__) | {"response_format"}
"""The parameters of `run_tools` and `stream_tools` in addition to their own arguments."""

TASK_NAMES: Final = frozenset({*TaskParameters.__annotations__, "retry", "timeout"})
"""The names that `Task.parameters` may contain."""

_HABITS: Final = {
    "max_retries": "use retry=, the number of attempts: one more than the retries",
    "stream": "use client.stream(...) for a streamed response, client.stream_tools(...) for one with tools",
}
"""Parameters of other libraries, and their equivalents here."""


def pop_type(parameters: dict[str, Any]) -> Any:
    """Remove and return a `response_format` that is a type; return `None` for one of the endpoint's own."""
    wanted = parameters.get("response_format")
    return None if wanted is None or isinstance(wanted, Mapping) else parameters.pop("response_format")


def check_names(parameters: Mapping[str, Any], names: frozenset[str] = REQUEST_NAMES) -> None:
    """Check the names of a request's parameters.

    Raises:
        TypeError: a name is unknown; the error names it.
    """
    if not parameters.keys() <= names:
        raise TypeError(unknown_parameter(parameters, names))


def unknown_parameter(names: Iterable[str], known: frozenset[str]) -> str | None:
    """Describe the first unknown name, with a hint; return `None` if all names are known."""
    for name in names:
        if name not in known:
            hint = hint_for(name, known, _HABITS) if isinstance(name, str) else ""
            if name not in _HABITS:
                elsewhere = "pass parameters that the endpoint does not list in extra_body"
                hint = f"{hint}; {elsewhere}" if hint else elsewhere
            return f"unknown parameter {name!r}: {hint}"
    return None


def hint_for(name: str, known: Iterable[str], habits: Mapping[str, str]) -> str:
    """Return a hint for an unknown name, or `""`."""
    if name in habits:
        return habits[name]
    near = get_close_matches(name, known, n=1, cutoff=0.75)
    return f"did you mean {near[0]!r}?" if near else ""
