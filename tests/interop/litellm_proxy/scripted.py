"""What the LiteLLM proxy loads beside its config: a provider that pauses or fails midway, and a recorder.

Runs in the proxy's own environment, never in chatscope's. Each line it prints is ``interop: <event> <prompt>``, so
that a test which sent a prompt of its own can tell its own request from everyone else's in the proxy's log.
"""

# litellm is not installed where the checkers run, so its classes are unknown to them.
# mypy: disable-error-code="import-not-found,misc"
# pyright: reportMissingImports=false

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from litellm import CustomLLM
from litellm.integrations.custom_logger import CustomLogger
from litellm.llms.custom_llm import CustomLLMError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def record(event: str, messages: list[dict[str, Any]]) -> None:
    """Tell the test about ``event``; the last message says whose request it was."""
    print(f"interop: {event} {messages[-1]['content']}", flush=True)  # noqa: T201  # stdout is the proxy's log


class ScriptedProvider(CustomLLM):
    """Streams three words, then waits for ever (``never-ends``) or raises (``fails-midway``)."""

    async def astreaming(
        self, model: str, messages: list[dict[str, Any]], *_args: object, **_kwargs: object
    ) -> AsyncIterator[dict[str, Any]]:
        """Called by LiteLLM for a streamed completion; it closes the iterator when its client is gone."""
        try:
            for word in ("one ", "two ", "three "):
                yield {
                    "text": word,
                    "index": 0,
                    "is_finished": False,
                    "finish_reason": "",
                    "tool_use": None,
                    "usage": None,
                }
            if model == "fails-midway":
                raise CustomLLMError(status_code=503, message="the provider broke off")
            await asyncio.Event().wait()
        finally:
            record("provider-closed", messages)


class Recorder(CustomLogger):
    """Reports LiteLLM's own verdict on a request whose client went away."""

    async def async_log_success_event(self, kwargs: dict[str, Any], **_rest: object) -> None:
        """Called by LiteLLM when it bills a request, also one cut short by its client."""
        error = kwargs["litellm_params"]["metadata"].get("error_information") or {}
        if error.get("error_class") == "ClientDisconnected":
            record("client-disconnected", kwargs["messages"])


provider = ScriptedProvider()
recorder = Recorder()
