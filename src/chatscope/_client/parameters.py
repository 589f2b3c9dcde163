"""What a request can be given besides model and messages: the endpoint's parameters, and what concerns it alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Any

from chatscope._limits.retry import RetryPolicy
from chatscope._limits.timeouts import Timeouts
from chatscope.protocol.parameters import CommonParameters, ResponseFormat, ToolParameter


class RunParameters(CommonParameters, total=False):
    """What `run_tools` takes besides the arguments that it names."""

    extra_body: Mapping[str, Any]
    extra_headers: Mapping[str, str]
    extra_query: Mapping[str, Any]
    timeout: float | Timeouts | None
    retry: RetryPolicy | None


class TypedParameters(RunParameters, total=False):
    """What `complete` and `stream` take besides a `response_format` that is a class."""

    tools: Sequence[ToolParameter]


class RequestParameters(TypedParameters, total=False):
    """The endpoint's parameters, and what concerns one request alone."""

    response_format: ResponseFormat | UnionType
