"""A chat request as the simulator sees it: parsed, validated, and refused as the OpenAI API would refuse it.

Only what the endpoint itself would refuse is checked. Unlisted parameters pass, because servers have their own. A
refusal is a `RefusedError`, which carries the finished response.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from chatscope.simulator.errors import error
from chatscope.simulator.plan import Response
from chatscope.simulator.schemas import strict_violation
from chatscope.simulator.tokens import tokenize

SECRET_HEADERS = frozenset({"authorization", "api-key", "x-api-key", "proxy-authorization", "cookie"})

MESSAGE_TOKENS = 3
"""Prompt tokens that each message, and the reply, cost beyond their text, as in OpenAI's own counting recipe."""

ATTACHMENT_TOKENS = 85
"""Prompt tokens of a content part other than text: OpenAI's charge for an image in low detail."""

REASONING_MODEL = re.compile(r"o\d|gpt-(?:[5-9]|\d\d)")
"""Models that reject `max_tokens`: the o-series, gpt-5 and later."""


class RefusedError(Exception):
    """The request is refused; `response` is the error response."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"refused with status {response.status}")
        self.response = response


class Headers(dict[str, str]):
    """Header fields by lower-case name. Secrets do not show in the repr."""

    def __repr__(self) -> str:
        return repr({name: "..." if name in SECRET_HEADERS else value for name, value in self.items()})


class Message(msgspec.Struct, frozen=True):
    """One message of the conversation."""

    role: Literal["developer", "system", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """The text of the message, without its other parts."""
        if isinstance(self.content, list):
            return "".join(str(part.get("text", "")) for part in self.content)
        return self.content or ""

    @property
    def attachments(self) -> int:
        """The number of parts other than text."""
        return sum("text" not in part for part in self.content) if isinstance(self.content, list) else 0


class ToolDefinition(msgspec.Struct, frozen=True):
    """The function, or custom tool, inside a tool definition."""

    name: str
    parameters: dict[str, Any] | None = None


class DefinedTool(msgspec.Struct, frozen=True):
    """A tool the model may call."""

    type: Literal["function", "custom"]
    function: ToolDefinition | None = None
    custom: ToolDefinition | None = None

    @property
    def definition(self) -> ToolDefinition:
        """The function or custom tool."""
        found = self.function if self.type == "function" else self.custom
        return found or ToolDefinition("")


class StreamSettings(msgspec.Struct, frozen=True):
    """`stream_options`."""

    include_usage: bool | None = None


class NamedSchema(msgspec.Struct, frozen=True):
    """`response_format.json_schema`."""

    name: str
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class ResponseFormat(msgspec.Struct, frozen=True):
    """`response_format`."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None


PositiveInt: TypeAlias = Annotated[int, Meta(ge=1)]
Penalty: TypeAlias = Annotated[float, Meta(ge=-2, le=2)]


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters that are checked or have an effect, with the API's own ranges."""

    model: str
    messages: Annotated[list[Message], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamSettings | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    max_tokens: PositiveInt | None = None
    max_completion_tokens: PositiveInt | None = None
    stop: str | Annotated[list[str], Meta(max_length=4)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    seed: int | None = None
    tools: list[DefinedTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    service_tier: str | None = None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A valid chat request, as a script sees it."""

    parameters: Parameters
    body: Mapping[str, Any]
    """The JSON body as it was sent."""
    headers: Headers = field(default_factory=Headers)
    number: int = 1
    """Its number among the server's requests, from 1. The reply's ids are derived from it."""
    created: int = 0
    """The time of its arrival, in Unix seconds: the reply's `created`."""

    @classmethod
    def parse(cls, content: bytes, headers: Headers | None = None, *, number: int = 1, created: int = 0) -> ChatRequest:
        """Parse and check a request body.

        Raises:
            RefusedError: The endpoint would refuse the request. The error holds the 400.
        """
        try:
            body = msgspec.json.decode(content)
            parameters = msgspec.convert(body, Parameters)
        except msgspec.ValidationError as problem:
            raise RefusedError(_validation_error(str(problem))) from problem
        except (msgspec.DecodeError, UnicodeDecodeError) as problem:
            raise RefusedError(error(400, "We could not parse the JSON body of your request.")) from problem
        _check(parameters)
        return cls(parameters, body, headers or Headers(), number, created)

    @property
    def prompt(self) -> str:
        """The text of the last user message."""
        return next((message.text for message in reversed(self.parameters.messages) if message.role == "user"), "")

    @property
    def prompt_tokens(self) -> int:
        """The prompt tokens: the text by the token rule, and the fixed costs above."""
        messages = self.parameters.messages
        text = sum(len(tokenize(message.text)) for message in messages)
        attachments = sum(message.attachments for message in messages)
        return text + ATTACHMENT_TOKENS * attachments + MESSAGE_TOKENS * (len(messages) + 1)

    @property
    def answers_tools(self) -> bool:
        """Whether the conversation ends in results of tools."""
        return self.parameters.messages[-1].role == "tool"

    @property
    def token_limit(self) -> int | None:
        """The limit of tokens for each choice."""
        return self.parameters.max_completion_tokens or self.parameters.max_tokens

    @property
    def stop(self) -> list[str]:
        """The stop sequences."""
        stop = self.parameters.stop
        return [text for text in ([stop] if isinstance(stop, str) else stop or []) if text]


def _validation_error(problem: str) -> Response:
    """Translate msgspec's message (`Expected X, got Y - at $.path`) into the API's."""
    text, _, place = problem.partition(" - at `$")
    path = place.rstrip("`").lstrip(".")
    missing = re.search(r"missing required field `(\w+)`", text)
    if missing:
        param = f"{path}.{missing[1]}".lstrip(".")
        return error(400, f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")
    wrong_type = re.fullmatch(r"Expected `[^`]+`, got `[^`]+`", text)
    kind, code = ("type for", "invalid_type") if wrong_type else ("value for", "invalid_value")
    return error(400, f"Invalid {kind} '{path}': {text}.", param=path or None, code=code)


def _check(given: Parameters) -> None:
    """Refuse parameters that contradict each other."""
    tools = {tool.definition.name for tool in given.tools or ()}
    if given.stream_options is not None and not given.stream:
        _refuse("stream_options", "The 'stream_options' parameter is only allowed when 'stream' is enabled.")
    if given.max_tokens is not None and REASONING_MODEL.match(given.model):
        message = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'."
        _refuse("max_tokens", message, "unsupported_parameter")
    if given.max_tokens is not None and given.max_completion_tokens is not None:
        _refuse("max_tokens", "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.")
    if given.top_logprobs is not None and not given.logprobs:
        _refuse("top_logprobs", "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.")
    if given.tool_choice is not None and not tools:
        _refuse("tool_choice", "'tool_choice' is only allowed when 'tools' are specified.")
    if isinstance(given.tool_choice, dict) and not named_tools(given.tool_choice) <= tools:
        _refuse("tool_choice", f"Tool choice {sorted(named_tools(given.tool_choice) - tools)} not found in 'tools'.")
    if given.response_format is not None:
        spec = given.response_format.json_schema
        if (given.response_format.type == "json_schema") != (spec is not None):
            _refuse("response_format.json_schema", "'json_schema' goes with type 'json_schema'.")
        violation = strict_violation(spec.schema or {}) if spec is not None and spec.strict else None
        if violation:
            _refuse("response_format", f"Invalid schema for response_format: {violation}.")
    _check_tool_messages(given.messages)


def named_tools(choice: Mapping[str, Any]) -> set[str]:
    """Return the names in a `tool_choice` object: one tool, or the allowed ones."""
    kind = choice.get("type", "")
    inner = choice.get(kind) or {}
    if kind == "allowed_tools":
        return set().union(*(named_tools(tool) for tool in inner.get("tools", ())))
    return {inner.get("name", "")}


def _check_tool_messages(messages: list[Message]) -> None:
    """Match tool messages with the calls before them: the API refuses calls without results, and the reverse."""
    unanswered: set[str] = set()
    for index, message in enumerate(messages):
        if message.role == "tool":
            if message.tool_call_id not in unanswered:
                text = "Messages with role 'tool' must be a response to a preceding message with 'tool_calls'."
                _refuse(f"messages.[{index}].role", text)
            unanswered.discard(message.tool_call_id or "")
        elif unanswered:
            break
        unanswered |= {str(call.get("id")) for call in message.tool_calls or ()}
    if unanswered:
        text = (
            f"'tool_calls' must be followed by tool messages for each 'tool_call_id': {sorted(unanswered)} have none."
        )
        _refuse("messages", text)


def _refuse(param: str, message: str, code: str | None = None) -> None:
    raise RefusedError(error(400, message, param=param, code=code))
