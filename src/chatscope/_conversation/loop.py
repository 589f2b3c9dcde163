"""A conversation of several turns: the model calls tools, or is asked again for a reply that is valid.

What one turn sends, and with which retries, is the caller's business; so are its deadlines.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from chatscope._conversation.structured_output import Output, ParsedCompletion
from chatscope._conversation.tools import OnToolError, Toolbox
from chatscope._limits.timeouts import Deadline, fail_at
from chatscope._validation import check_count
from chatscope.errors import OutputError, OutputInvalidError, ToolLoopError
from chatscope.protocol.messages import Message
from chatscope.protocol.response import Completion, CompletionMessage, ToolCall
from chatscope.protocol.usage import Usage, add_usage

MAX_TURNS: Final = 10
"""How many model calls a loop of tools makes at most, unless told otherwise: more than a task takes that goes well, few
enough for one that runs in circles to be noticed before it is expensive."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """What came of a conversation in which the model could call tools.

    Attributes:
        completions: the replies, one a turn.
        messages: the conversation that the last reply answers: calls of tools and their results included. To go on,
            append `message.to_dict()` and what the user says next.
        parsed: the last reply as the type that was asked for, if one was.
    """

    completions: tuple[Completion, ...]
    messages: Sequence[Mapping[str, Any]]
    parsed: Any = None

    @property
    def completion(self) -> Completion:
        """The last reply."""
        return self.completions[-1]

    @property
    def message(self) -> CompletionMessage:
        """The last assistant message."""
        return self.completion.message

    @property
    def text(self) -> str:
        """The last reply's text."""
        return self.completion.text

    @property
    def usage(self) -> Usage | None:
        """The tokens of all turns, as far as the server told them."""
        return add_usage(*(completion.usage for completion in self.completions))


class Conversation:
    """The turns of one conversation: what is sent next, and when it is over.

    Args:
        messages: how it begins.
        parameters: what goes with every turn; the definitions of the tools and the type of the reply are added.
        tools: functions that the model may call.
        output_type: the type that the last reply must be; `None` leaves it as it is.
        reask: how often the model is asked again when its reply is invalid, and told why.
        max_turns: how many model calls are made at most for the sake of tools; asking again is not counted.
        tool_timeout: how long each call of a tool may take, in seconds.
        on_tool_error: as for `Toolbox`.
        argument: what an error calls `output_type`.

    Raises:
        ValueError: an argument can never be right; the error names it.

    Attributes:
        messages, parameters: what the next turn sends.
        completions: the replies so far, one a turn.
        parsed: the last one as a value of the type.
    """

    __slots__ = ("_max_turns", "_output", "_reask", "_toolbox", "completions", "messages", "parameters", "parsed")

    def __init__(
        self,
        messages: Sequence[Message],
        parameters: Mapping[str, Any],
        *,
        tools: Sequence[Callable[..., Any]] = (),
        output_type: Any = None,
        reask: int = 0,
        max_turns: int = MAX_TURNS,
        tool_timeout: float | None = None,
        on_tool_error: OnToolError = "report",
        argument: str = "response_format",
    ) -> None:
        check_count(max_turns, "max_turns")
        if isinstance(reask, bool) or not isinstance(reask, int) or reask < 0:
            raise ValueError(f"reask must be a whole number of at least 0, not {reask!r}")
        if reask and output_type is None:
            raise ValueError(f"reask needs a type as {argument}: without one no reply is invalid")
        self.parameters = dict(parameters)
        toolbox = Toolbox(tools, timeout=tool_timeout, on_error=on_tool_error)
        self._toolbox = toolbox if toolbox.definitions else None
        self._output = Output.of(output_type, argument) if output_type is not None else None
        if self._toolbox is not None:
            self._add("tools", self._toolbox.definitions)
        if self._output is not None:
            self._add("response_format", self._output.response_format)
        self.messages = messages
        self._max_turns = max_turns
        self._reask = reask
        self.completions: list[Completion] = []
        self.parsed: Any = None

    def _add(self, name: str, value: object) -> None:
        if name in self.parameters:
            raise ValueError(f"parameters has {name} already; it is made from what is given beside them")
        self.parameters[name] = value

    async def run(self, ask: Callable[[], Awaitable[Completion]], limit: Deadline | None = None) -> None:
        """Take turns until the model has answered. Cancelled, the turn in progress is, with all its calls of tools.

        Args:
            ask: sends `messages` with `parameters` and returns the reply.
            limit: bounds the calls of tools.

        Raises:
            ToolLoopError: no turn is left.
            OutputError: the last reply is not of the type.
            APITimeoutError: the limit passed during a call of a tool.
            Exception: what `ask` raised, and a tool where that was chosen.
        """
        turns_left, asks_left = self._max_turns, self._reask
        while True:
            completion = await ask()
            self.completions.append(completion)
            message = completion.message
            if self._toolbox is not None and message.tool_calls:
                calls = self._identified(message.tool_calls)
                self.messages = [*self.messages, message.to_dict()]
                turns_left -= 1
                if not turns_left:
                    says = f"the model still calls tools after {self._max_turns} turns, as many as max_turns allows"
                    raise ToolLoopError(says, messages=self.messages)
                with fail_at(limit):
                    answers = await self._toolbox.answer(calls)
                self.messages = [*self.messages, *answers]
                if _demands_a_call(self.parameters.get("tool_choice")):
                    del self.parameters["tool_choice"]  # sent again, it would never let the model answer
                continue
            try:
                self.parsed = self._output.read(completion) if self._output is not None else None
            except OutputError as error:
                if not asks_left or not isinstance(error, OutputInvalidError):
                    error.completion = msgspec.structs.replace(completion, usage=self.usage)
                    raise
                asks_left -= 1
                correction = {"role": "user", "content": f"{error}\n\nAnswer again, with valid JSON and nothing else."}
                self.messages = [*self.messages, message.to_dict(), correction]
            else:
                return

    @property
    def usage(self) -> Usage | None:
        """The tokens of all turns, as far as the server told them."""
        return add_usage(*(completion.usage for completion in self.completions))

    def parsed_completion(self) -> ParsedCompletion[Any]:
        """Return the last reply with its value and the usage of all turns."""
        last = msgspec.structs.replace(self.completions[-1], usage=self.usage)
        return ParsedCompletion.of(last, self.parsed)

    def _identified(self, calls: list[ToolCall]) -> list[ToolCall]:
        """Give the calls of servers that send no ids one each, so that the results can be told apart."""
        for number, call in enumerate(calls):
            call.id = call.id or f"call_{len(self.completions)}_{number}"
        return calls


def _demands_a_call(tool_choice: Any) -> bool:
    """Tell whether a `tool_choice` leaves the model no choice: `required`, a named tool, or one of some tools."""
    if not isinstance(tool_choice, Mapping):
        return bool(tool_choice == "required")
    allowed = tool_choice.get("allowed_tools")
    return not isinstance(allowed, Mapping) or allowed.get("mode") == "required"
