"""The requests of a client's conversation: one for each turn, under one deadline and with one log of attempts.

Not here: what a turn sends and when the conversation is over (`chatscope._conversation.loop`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from inspect import isawaitable
from typing import Any

from chatscope._client.call import run_call
from chatscope._client.completion import fetch
from chatscope._client.core import ClientCore
from chatscope._client.parameters import RUN_NAMES, check_names, pop_type
from chatscope._client.request import ClientRequest
from chatscope._conversation.loop import MAX_TURNS, Conversation, ToolOptions
from chatscope._limits.timeouts import fail_at
from chatscope.errors import ChatError
from chatscope.protocol.messages import Message
from chatscope.protocol.response import Completion, plain_messages
from chatscope.telemetry.observer import observed


def conversation_with(
    tools: Sequence[Callable[..., Any]], messages: Sequence[Message], parameters: dict[str, Any]
) -> Conversation:
    """Return the conversation for the arguments of `run_tools`.

    Raises:
        TypeError: a parameter is unknown.
        ValueError: an argument is invalid; the error names it.
    """
    check_names(parameters, RUN_NAMES)
    pop = parameters.pop
    options = ToolOptions(tools, pop("max_turns", MAX_TURNS), pop("tool_timeout", None), pop("on_tool_error", "report"))
    reask, strict = pop("reask", 0), pop("strict", True)
    if parameters.get("response_format") is None:
        pop("response_format", None)
    output_type = pop_type(parameters)
    sent = plain_messages(messages)
    return Conversation(sent, parameters, tools=options, output_type=output_type, reask=reask, strict=strict)


class Turns:
    """The turns of one conversation.

    Args:
        core: sends the requests.
        model: the model's name.
        conversation: decides what each turn sends.
        stream: whether the responses are streamed.

    Raises:
        ValueError: an argument is invalid; the error names it.
        RuntimeError: the client is not open.

    Attributes:
        conversation: as given.
        request: the request of the latest turn.
    """

    __slots__ = ("_core", "_model", "_stream", "conversation", "request")

    def __init__(self, core: ClientCore, model: str, conversation: Conversation, *, stream: bool) -> None:
        self._core = core
        self._model = model
        self._stream = stream
        self.conversation = conversation
        self.request = core.request(model, conversation.messages, conversation.parameters, stream=stream)

    def next_request(self) -> ClientRequest:
        """Return the request of the next turn."""
        conversation, earlier = self.conversation, self.request
        if conversation.completions:
            self.request = self._core.request(
                self._model,
                conversation.messages,
                conversation.parameters,
                stream=self._stream,
                deadlines=earlier.deadlines,
                retrier=earlier.retrier.successor(),
                observed=earlier.observed,
            )
        return self.request


async def converse(turns: Turns, on_step: Callable[[Completion], object] | None = None) -> None:
    """Run turns until the conversation is over. If cancelled, the request and running tool calls are cancelled.

    Args:
        turns: the turns; their responses are not streamed.
        on_step: called with each response, before its tool calls are made. An awaitable that it returns is awaited.

    Raises:
        Exception: as `Conversation.run`, and what `on_step` raised.
    """
    conversation = turns.conversation

    async def ask() -> Completion:
        request = turns.next_request()
        completion = await run_call(request, partial(fetch, request))
        if on_step is not None:
            called = on_step(completion)
            if isawaitable(called):
                with fail_at(turns.request.deadlines.total):
                    await called
        return completion

    with observed(turns.request.observed) as seen:
        try:
            await conversation.run(ask, turns.request.deadlines.total)
        except ChatError as error:
            turns.request.annotate(error)
            raise
        finally:
            if conversation.completions:
                seen.completion = conversation.parsed_completion()
