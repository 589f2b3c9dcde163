"""A conversation of several turns: the model calls tools, or is asked again for a response of the right type.

This is the only code that drives turns, for clients and tasks alike. Not here: sending a turn, its retries and its
slot, which are the caller's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, Generic

import msgspec

from chatscope._conversation.structured_output import Output
from chatscope._conversation.tools import OnToolError, Toolbox
from chatscope._limits.timeouts import Deadline, fail_at
from chatscope._validation import check_count, check_instance
from chatscope.errors import OutputError, OutputInvalidError, ToolLoopError
from chatscope.protocol.messages import SentMessage
from chatscope.protocol.response import NOT_PARSED, Completion, CompletionMessage, OutputT, ToolCall
from chatscope.protocol.usage import Usage, add_usage

MAX_TURNS: Final = 10
"""The default limit of model calls in a conversation with tools: more than a normal task needs, and few enough to stop
one that runs in circles before it is expensive."""


@dataclass(frozen=True, slots=True)
class RunResult(Generic[OutputT]):
    """The outcome of a conversation in which the model could call tools.

    Attributes:
        completions: the responses, one for each turn.
        messages: the conversation that the last response answers, including tool calls and their results. To continue
            it, append `message.to_dict()` and the next user message.
        parsed: the last response as a value of the requested type, if there is one.
    """

    completions: tuple[Completion, ...]
    messages: Sequence[Mapping[str, Any]]
    parsed: OutputT = NOT_PARSED

    @property
    def completion(self) -> Completion:
        """The last response."""
        return self.completions[-1]

    @property
    def message(self) -> CompletionMessage:
        """The last assistant message."""
        return self.completion.message

    @property
    def text(self) -> str:
        """The last response's text."""
        return self.completion.text

    @property
    def usage(self) -> Usage | None:
        """The tokens of all turns; `None` if the server did not report those of every turn."""
        return add_usage(*(completion.usage for completion in self.completions))


@dataclass(frozen=True, slots=True)
class ToolResult:
    """A function that the model called has returned, or failed.

    Attributes:
        tool_call: the model's call.
        content: the text that the model sees: the function's result, or the error that it raised.
    """

    tool_call: ToolCall
    content: str


@dataclass(frozen=True, slots=True)
class StepDone:
    """A turn is complete; the functions that it calls have not been called yet."""

    completion: Completion


@dataclass(frozen=True, slots=True)
class ToolOptions:
    """The tools of a conversation.

    Attributes:
        functions: functions that the model may call.
        max_turns: how many model calls to make at most. Asking again does not count.
        timeout: how long each call of a function may take, in seconds.
        on_error: as for `Toolbox`.
    """

    functions: Sequence[Callable[..., Any]] = ()
    max_turns: int = MAX_TURNS
    timeout: float | None = None
    on_error: OnToolError = "report"


_NO_TOOLS: Final = ToolOptions()


class Conversation:
    """The turns of one conversation: what is sent next, and when it is over.

    Args:
        messages: the first messages.
        parameters: sent with every turn, together with the definitions of the tools and the format of the output.
        tools: the functions that the model may call, and how.
        output_type: the type of the last response; `None` for plain text.
        reask: how often to ask again, with the problem described to the model, if the response does not fit the type.
        argument: what errors call `output_type`.
        strict: whether the schemas of tools and output are strict, so that the endpoint holds the model to them.

    Raises:
        ValueError: an argument is invalid. The error names it.

    Attributes:
        messages, parameters: what the next turn sends.
        completions: the responses so far, one for each turn.
        calls: the tool calls of the last one, until they are made.
        is_over: whether the last one is the answer.
        parsed: the last one as a value of the type.
    """

    __slots__ = (
        "_asks_left",
        "_max_turns",
        "_output",
        "_toolbox",
        "_turns_left",
        "calls",
        "completions",
        "is_over",
        "messages",
        "parameters",
        "parsed",
    )

    def __init__(
        self,
        messages: Sequence[SentMessage],
        parameters: Mapping[str, Any],
        *,
        tools: ToolOptions = _NO_TOOLS,
        output_type: Any = None,
        reask: int = 0,
        argument: str = "response_format",
        strict: bool = True,
    ) -> None:
        check_count(tools.max_turns, "max_turns")
        if isinstance(reask, bool) or not isinstance(reask, int) or reask < 0:
            raise ValueError(f"reask must be a whole number of at least 0, not {reask!r}")
        if reask and output_type is None:
            raise ValueError(f"reask needs a type as {argument}: without one no response is invalid")
        check_strict(output_type, tools.functions, strict=strict, argument=argument)
        self.parameters = dict(parameters)
        toolbox = Toolbox(tools.functions, timeout=tools.timeout, on_error=tools.on_error, strict=strict)
        self._toolbox = toolbox if toolbox.definitions else None
        self._output = Output.of(output_type, argument, strict=strict) if output_type is not None else None
        if self._toolbox is not None:
            self._add("tools", self._toolbox.definitions)
        if self._output is not None:
            self._add("response_format", self._output.response_format)
        self.messages = messages
        self._max_turns = self._turns_left = tools.max_turns
        self._asks_left = reask
        self.completions: list[Completion] = []
        self.calls: list[ToolCall] = []
        self.is_over = False
        self.parsed: Any = None

    def _add(self, name: str, value: object) -> None:
        if name in self.parameters:
            raise ValueError(f"parameters has {name} already; it is made from what is given beside them")
        self.parameters[name] = value

    async def run(
        self,
        ask: Callable[[], Awaitable[Completion]],
        deadline: Deadline | None = None,
        *,
        around_tools: Callable[[], AbstractAsyncContextManager[object]] = nullcontext,
    ) -> None:
        """Run turns until the model has answered. If cancelled, the current turn and its tool calls are cancelled.

        Args:
            ask: sends `messages` with `parameters` and returns the response.
            deadline: bounds the tool calls. The caller bounds `ask`.
            around_tools: entered around the tool calls of each turn. A caller that holds a slot releases it there, so
                that tools can use the same client or adapter.

        Raises:
            ToolLoopError, OutputError: as `add`.
            APITimeoutError: the deadline passed during a tool call.
            Exception: what `ask` raised; with `on_tool_error="raise"`, what a tool raised.
        """
        while not self.is_over:
            self.add(await ask())
            if self.calls:
                await self.call_tools(deadline, around_tools)

    def add(self, completion: Completion) -> None:
        """Add the response of a turn. Afterwards `is_over` is true, or `calls` must be made, or `messages` ask again.

        Raises:
            ToolLoopError: the model still calls tools after `max_turns` turns.
            OutputError: the response does not fit the type, and is not asked for again.
        """
        self.completions.append(completion)
        message = completion.message
        if self._toolbox is not None and message.tool_calls:
            self._turns_left -= 1
            calls = self._with_ids(message.tool_calls)
            self.messages = [*self.messages, message.to_dict()]
            if not self._turns_left:
                problem = f"the model still calls tools after {self._max_turns} turns, as many as max_turns allows"
                raise ToolLoopError(problem, messages=self.messages)
            self.calls = calls
            return
        try:
            self.parsed = self._output.read(completion) if self._output is not None else None
        except OutputError as error:
            if not self._asks_left or not isinstance(error, OutputInvalidError):
                error.completion = msgspec.structs.replace(completion, usage=self.usage)
                raise
            self._asks_left -= 1
            correction = {"role": "user", "content": f"{error}\n\nAnswer again, with valid JSON and nothing else."}
            self.messages = [*self.messages, message.to_dict(), correction]
        else:
            self.is_over = True

    async def call_tools(
        self,
        deadline: Deadline | None,
        around_tools: Callable[[], AbstractAsyncContextManager[object]] = nullcontext,
    ) -> list[ToolResult]:
        """Make the `calls`, add their results to the messages, and return them in the calls' order.

        If cancelled, all calls are cancelled and there are no results.

        Raises:
            APITimeoutError, Exception: as `run`.
        """
        assert self._toolbox is not None  # noqa: S101 - without tools there are no calls
        calls, self.calls = self.calls, []
        with fail_at(deadline):
            async with around_tools():
                results = await self._toolbox.call_all(calls)
        self.messages = [*self.messages, *results]
        if _demands_a_call(self.parameters.get("tool_choice")):
            del self.parameters["tool_choice"]  # sent again, it would never let the model answer
        return [ToolResult(call, result["content"]) for call, result in zip(calls, results, strict=True)]

    @property
    def usage(self) -> Usage | None:
        """The tokens of all turns, or `None` if the server did not report those of every turn."""
        return add_usage(*(completion.usage for completion in self.completions))

    def result(self) -> RunResult[Any]:
        """Return the outcome."""
        return RunResult(tuple(self.completions), self.messages, self.parsed)

    def parsed_completion(self) -> Completion[Any]:
        """Return the last response, with its value and the usage of all turns."""
        return msgspec.structs.replace(self.completions[-1], usage=self.usage, parsed=self.parsed)

    def _with_ids(self, calls: list[ToolCall]) -> list[ToolCall]:
        """Give an id to each call that the server sent without one, so that their results can be distinguished."""
        for number, call in enumerate(calls):
            call.id = call.id or f"call_{len(self.completions)}_{number}"
        return calls


def check_strict(
    output_type: Any, functions: Sequence[Any] = (), *, strict: bool, argument: str = "response_format"
) -> None:
    """Check the argument `strict=`.

    Raises:
        ValueError: it is not a bool, or it is false although there is neither a type nor a function to apply it to.
    """
    check_instance(strict, bool, "strict")
    if not strict and output_type is None and not functions:
        raise ValueError(f"strict=False needs a type as {argument}, or tools: it is about their schemas")


def _demands_a_call(tool_choice: Any) -> bool:
    """Return whether a `tool_choice` forces a tool call: `required`, a named tool, or one of several tools."""
    if not isinstance(tool_choice, Mapping):
        return bool(tool_choice == "required")
    allowed = tool_choice.get("allowed_tools")
    return not isinstance(allowed, Mapping) or allowed.get("mode") == "required"
