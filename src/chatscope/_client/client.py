"""ChatClient: sends requests and returns completions or streams, with retries, deadlines and limits, but no tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from types import TracebackType, UnionType
from typing import TYPE_CHECKING, Any, Final, Self, Unpack, overload

from chatscope._client.call import run_call
from chatscope._client.completion import fetch
from chatscope._client.config import ClientArguments, ClientOptions, in_order
from chatscope._client.core import ClientCore
from chatscope._client.parameters import (
    CopyOptions,
    RequestParameters,
    RunParameters,
    TypedParameters,
    check_names,
    pop_type,
)
from chatscope._client.stream import ChatStream, ParsedStream
from chatscope._client.tool_stream import ToolStream
from chatscope._client.turns import Turns, conversation_with, converse
from chatscope._conversation.loop import Conversation, RunResult, check_strict
from chatscope._conversation.structured_output import Output, TypeForm
from chatscope._limits.limiter import Statistics
from chatscope._limits.retry import REFUSED_ATTEMPTS, RetryPolicy
from chatscope._limits.timeouts import Timeout, Timeouts
from chatscope._validation import unknown_attribute
from chatscope.protocol.endpoint import Secret
from chatscope.protocol.messages import Message
from chatscope.protocol.parameters import ResponseFormat
from chatscope.protocol.response import Completion, OutputT, plain_messages
from chatscope.telemetry.observer import observed

_INSTEAD: Final = {
    "chat": "complete(...), or stream(...) for a streamed response",
    "close": "aclose(), or 'async with'",
}
"""Names that users of the openai package look for, and their equivalents here."""

_RETRY: Final = RetryPolicy(refused_attempts=REFUSED_ATTEMPTS)


class ChatClient:
    """A client for one endpoint. It is open while its block is.

    ::

        async with ChatClient() as client:
            completion = await client.complete(model="gpt-4o-mini", messages=[{"role": "user", "content": "hi"}])

    Args:
        api_key: by default `OPENAI_API_KEY`; `""` sends no key, for servers that do not need one.
        base_url: the endpoint's address; by default `OPENAI_BASE_URL`, or else OpenAI's own.
        timeout: how long the server may be silent, in seconds, or `Timeouts` for more; `None` waits forever. An
            `httpx.Timeout` also works.
        arguments: the keyword arguments of `ClientArguments`: `retry`, `transport`, `http_client`, `max_concurrency`,
            `telemetry` and so on.

    Raises:
        ValueError: an argument is invalid; the error names it and shows no key.
        TypeError: an argument is unknown.
        ImportError: `telemetry=True`, and the extra `otel` is not installed.
    """

    __slots__ = ("__weakref__", "_core")

    def __init__(
        self,
        api_key: str | None = None,
        *others: str | None,
        base_url: str | None = None,
        timeout: Timeout = 60.0,
        **arguments: Unpack[ClientArguments],
    ) -> None:
        api_key = Secret(api_key) if isinstance(api_key, str) else api_key
        if others:
            api_key, base_url = in_order(api_key, others, base_url)
        self._core = ClientCore(ClientOptions.of(type(self), api_key, base_url, timeout, arguments, _RETRY))

    if not TYPE_CHECKING:  # a checker would take any name

        def __getattr__(self, name: str) -> Any:
            """Refuse a name that does not exist. For names of other libraries, the error says what to use instead."""
            raise unknown_attribute(self, name, _INSTEAD)

    def __repr__(self) -> str:
        return repr(getattr(self, "_core", "<ChatClient>"))  # __init__ may not have finished

    async def __aenter__(self) -> Self:
        """Open the client.

        Raises:
            ValueError: no key was given and `OPENAI_API_KEY` is not set.
            RuntimeError: the client is open already.
        """
        self._core.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the client's connections. Takes at most `CLOSE_GRACE` seconds, even if cancelled."""
        await self._core.aclose()

    def with_options(self, **options: Unpack[CopyOptions]) -> Self:
        """Return a copy with another `timeout` or `retry` for its requests.

        The copy shares this client's connections and limits. It needs no block: it is open while this client is.

        Raises:
            ValueError: an argument is invalid.
            TypeError: an argument is unknown.
        """
        if unknown := options.keys() - CopyOptions.__annotations__:
            raise TypeError(f"with_options() takes timeout and retry, not {min(unknown)!r}")
        given = self._core.options
        copied = copy(self)
        copied._core = self._core.with_options(
            replace(
                given,
                timeouts=Timeouts.of(options["timeout"]) if "timeout" in options else given.timeouts,
                retry=RetryPolicy.of(options.get("retry"), given.retry),
            )
        )
        return copied

    def statistics(self) -> Statistics:
        """Return the current counts of slots, queues, pauses and retries."""
        return self._core.limiter.statistics()

    @property
    def base_url(self) -> str:
        """The endpoint's address."""
        return self._core.base_url

    @overload
    async def complete(
        self,
        *,
        model: str,
        messages: Sequence[Message],
        response_format: TypeForm[OutputT],
        reask: int = 0,
        **parameters: Unpack[TypedParameters],
    ) -> Completion[OutputT]: ...
    @overload
    async def complete(
        self, *, model: str, messages: Sequence[Message], reask: int = 0, **parameters: Unpack[RequestParameters]
    ) -> Completion: ...
    async def complete(
        self, *, model: str, messages: Sequence[Message], reask: int = 0, **parameters: Any
    ) -> Completion:
        """Request one completion without streaming and return it. If cancelled, the request's connection is closed.

        If `response_format` is a type (a msgspec Struct, dataclass, TypedDict, attrs class, pydantic model, a union of
        them, or any other type that strict JSON schema can describe), `completion.parsed` is the response as a value of
        that type.

        Args:
            model: the model's name.
            messages: the conversation.
            reask: how often to ask again, with the problem described to the model, if the response does not fit the
                type. The usage is then that of all turns.
            parameters: the endpoint's parameters, `extra_body`, `extra_headers`, `extra_query`, and a `timeout`,
                `retry` and `strict` for this request.

        Raises:
            ValueError: an argument is invalid; nothing was sent.
            ChatError: the error of the last attempt.
            OutputError: the response does not fit the type.
            RuntimeError: the client is not open.
        """
        check_names(parameters)
        sent = plain_messages(messages)
        output_type = pop_type(parameters)
        strict = parameters.pop("strict", True)
        if output_type is None and not reask and strict is True:
            request = self._core.request(model, sent, parameters, stream=False)
            if request.observed is None:
                return await run_call(request, partial(fetch, request))
            with observed(request.observed) as seen:
                seen.completion = await run_call(request, partial(fetch, request))
                return seen.completion
        conversation = Conversation(sent, parameters, output_type=output_type, reask=reask, strict=strict)
        await converse(Turns(self._core, model, conversation, stream=False))
        return conversation.parsed_completion()

    @overload
    async def run_tools(
        self,
        *,
        model: str,
        messages: Sequence[Message],
        tools: Sequence[Callable[..., Any]],
        response_format: TypeForm[OutputT],
        on_step: Callable[[Completion], object] | None = None,
        **parameters: Unpack[RunParameters],
    ) -> RunResult[OutputT]: ...
    @overload
    async def run_tools(
        self,
        *,
        model: str,
        messages: Sequence[Message],
        tools: Sequence[Callable[..., Any]],
        response_format: ResponseFormat | UnionType | None = None,
        on_step: Callable[[Completion], object] | None = None,
        **parameters: Unpack[RunParameters],
    ) -> RunResult: ...
    async def run_tools(
        self,
        *,
        model: str,
        messages: Sequence[Message],
        tools: Sequence[Callable[..., Any]],
        on_step: Callable[[Completion], object] | None = None,
        **parameters: Any,
    ) -> RunResult:
        """Let the model call functions until it responds. If cancelled, the request and running calls are cancelled.

        Async functions are awaited. Sync functions run in worker threads, which a cancellation or a deadline cannot
        stop: they run to completion, and their results are dropped. The calls of one turn run concurrently. A
        `tool_choice` that demands a call is dropped once a call has been made.

        Args:
            model: the model's name.
            messages: the conversation.
            tools: the functions. The model sees their signatures and docstrings.
            response_format: as for `complete`, for the last response.
            on_step: called with the completion of each turn as soon as it has arrived, before its calls are made; it
                may be async. What it raises ends the conversation.
            parameters: as for `complete`, and `max_turns`, `tool_timeout`, `on_tool_error` and `reask`
                (`RunParameters`). `Timeouts.total` bounds all turns, including the functions; `retry` applies to each
                model call.

        Raises:
            ValueError: an argument is invalid, or a function has parameters that no schema can describe; nothing was
                sent.
            ToolLoopError: the model still called functions after `max_turns` calls.
            ChatError, OutputError, RuntimeError: as `complete`.
            Exception: with `on_tool_error="raise"`, what a function raised.
        """
        conversation = conversation_with(tools, messages, parameters)
        await converse(Turns(self._core, model, conversation, stream=False), on_step)
        return conversation.result()

    @overload
    def stream_tools(
        self,
        *,
        model: str,
        messages: Sequence[Message],
        tools: Sequence[Callable[..., Any]],
        response_format: TypeForm[OutputT],
        **parameters: Unpack[RunParameters],
    ) -> ToolStream[OutputT]: ...
    @overload
    def stream_tools(
        self,
        *,
        model: str,
        messages: Sequence[Message],
        tools: Sequence[Callable[..., Any]],
        response_format: ResponseFormat | UnionType | None = None,
        **parameters: Unpack[RunParameters],
    ) -> ToolStream: ...
    def stream_tools(
        self, *, model: str, messages: Sequence[Message], tools: Sequence[Callable[..., Any]], **parameters: Any
    ) -> ToolStream:
        """Do the same as `run_tools` with streamed responses, and return a stream of events.

        Entering it sends the first request: `async with client.stream_tools(...) as run`.

        Args:
            model: the model's name.
            messages: the conversation.
            tools: the functions.
            parameters: as for `run_tools`.

        Raises:
            ValueError: as `run_tools`.
            RuntimeError: the client is not open.
        """
        conversation = conversation_with(tools, messages, parameters)
        return ToolStream(Turns(self._core, model, conversation, stream=True))

    @overload
    def stream(
        self,
        *,
        model: str,
        messages: Sequence[Message],
        response_format: TypeForm[OutputT],
        **parameters: Unpack[TypedParameters],
    ) -> ParsedStream[OutputT]: ...
    @overload
    def stream(
        self, *, model: str, messages: Sequence[Message], **parameters: Unpack[RequestParameters]
    ) -> ChatStream: ...
    def stream(self, *, model: str, messages: Sequence[Message], **parameters: Any) -> ChatStream:
        """Return a streamed completion. Entering it sends the request: `async with client.stream(...) as stream`.

        Args:
            model: the model's name.
            messages: the conversation.
            parameters: as for `complete`.

        Raises:
            ValueError: an argument is invalid.
            RuntimeError: the client is not open.
        """
        check_names(parameters)
        sent = plain_messages(messages)
        output_type = pop_type(parameters)
        strict = parameters.pop("strict", True)
        if output_type is None and strict is True:
            return ChatStream(self._core.request(model, sent, parameters, stream=True))
        check_strict(output_type, strict=strict)
        output = Output.of(output_type, strict=strict)
        parameters["response_format"] = output.response_format
        return ParsedStream(self._core.request(model, sent, parameters, stream=True), output)
