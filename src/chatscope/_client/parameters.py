"""A request's keyword arguments: the endpoint's parameters, and settings that concern this request alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Any

from chatscope._limits.retry import RetryPolicy
from chatscope._limits.timeouts import Timeouts
from chatscope.protocol.parameters import CommonParameters, ResponseFormat, ToolParameter


class RunParameters(CommonParameters, total=False):
    """Parameters of `run_tools`, besides the arguments that it names."""

    extra_body: Mapping[str, Any]
    extra_headers: Mapping[str, str]
    extra_query: Mapping[str, Any]
    timeout: float | Timeouts | None
    retry: RetryPolicy | None


class TypedParameters(RunParameters, total=False):
    """Parameters of `complete` and `stream`, besides a `response_format` that is a type."""

    tools: Sequence[ToolParameter]


class RequestParameters(TypedParameters, total=False):
    """Parameters of a request: the endpoint's, and settings of its own."""

    response_format: ResponseFormat | UnionType
