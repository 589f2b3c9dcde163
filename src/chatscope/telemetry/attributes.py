"""The attributes of spans and metrics for requests, responses, usage and errors, by the GenAI conventions.

Here: pure functions that return attributes. Not here: spans and metrics (`otel`), and the content of messages
(`content`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from chatscope.errors import TaskCancelledError
from chatscope.protocol.response import Completion
from chatscope.protocol.usage import Usage

_REQUEST: Final = {
    "gen_ai.request.max_tokens": ("max_completion_tokens", "max_tokens"),
    "gen_ai.request.temperature": ("temperature",),
    "gen_ai.request.top_p": ("top_p",),
    "gen_ai.request.stop_sequences": ("stop",),
    "gen_ai.request.seed": ("seed",),
    "gen_ai.request.choice.count": ("n",),
    "gen_ai.request.frequency_penalty": ("frequency_penalty",),
    "gen_ai.request.presence_penalty": ("presence_penalty",),
    "openai.request.service_tier": ("service_tier",),
}
_LEFT_OUT: Final = {"gen_ai.request.choice.count": 1, "openai.request.service_tier": "auto"}
"""Default values, which the conventions leave out."""


def request_attributes(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a request's parameters."""
    found = {
        attribute: parameters[name]
        for attribute, names in _REQUEST.items()
        for name in names
        if parameters.get(name) is not None and parameters[name] != _LEFT_OUT.get(attribute)
    }
    if isinstance(stop := found.get("gen_ai.request.stop_sequences"), str):
        found["gen_ai.request.stop_sequences"] = [stop]
    return found


def response_attributes(completion: Completion) -> dict[str, Any]:
    """Return the attributes of a response, as far as the server reported them."""
    reasons = [choice.finish_reason for choice in completion.choices if choice.finish_reason]
    reported = {
        "gen_ai.response.id": completion.id,
        "gen_ai.response.model": completion.model,
        "gen_ai.response.finish_reasons": reasons,
        "openai.response.service_tier": completion.service_tier,
        "openai.response.system_fingerprint": completion.system_fingerprint,
    }
    return {name: value for name, value in reported.items() if value}


def usage_attributes(usage: Usage) -> dict[str, int]:
    """Return the attributes of a usage, without the details that the server did not report."""
    reported = {
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
    }
    if usage.prompt_tokens_details is not None:
        reported["gen_ai.usage.cache_read.input_tokens"] = usage.cached_tokens
    if usage.completion_tokens_details is not None:
        reported["gen_ai.usage.reasoning.output_tokens"] = usage.reasoning_tokens
    return reported


def error_type(error: BaseException) -> str:
    """Return the `error.type` of an error: the name of its class, or `cancelled` for any kind of cancellation."""
    if isinstance(error, TaskCancelledError) or not isinstance(error, Exception):
        return "cancelled"
    return type(error).__name__
