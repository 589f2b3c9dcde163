"""The endpoint's parameters as types: the keywords of `complete` and `stream`, and the items of `Task.parameters`.

Values that the endpoint lists are literals, which editors offer. If servers have more values, any text is allowed. If
servers extend an object, it may be any mapping.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired, TypedDict

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | str  # noqa: PYI051 - the literals are for editors
ServiceTier = Literal["auto", "default", "flex", "scale", "priority", "fast"] | str  # noqa: PYI051 - as above
Verbosity = Literal["low", "medium", "high"] | str  # noqa: PYI051 - as above
Modality = Literal["text", "audio"] | str  # noqa: PYI051 - as above
CacheRetention = Literal["in_memory", "24h"] | str  # noqa: PYI051 - as above


class AudioOptions(TypedDict):
    """The voice and the format of a spoken response."""

    voice: str | Mapping[str, Any]
    format: Literal["wav", "aac", "mp3", "flac", "opus", "pcm16"] | str  # noqa: PYI051 - as above


class StreamOptions(TypedDict, total=False):
    """What a stream contains in addition to the response."""

    include_usage: bool
    include_obfuscation: bool


class Prediction(TypedDict):
    """Text that most of the response will repeat."""

    type: Literal["content"]
    content: str | Sequence[Mapping[str, Any]]


class TextFormat(TypedDict):
    """Plain text, the default."""

    type: Literal["text"]


class JSONObjectFormat(TypedDict):
    """Any JSON object."""

    type: Literal["json_object"]


class JSONSchema(TypedDict):
    """A schema and its name."""

    name: str
    description: NotRequired[str]
    schema: NotRequired[Mapping[str, Any]]
    strict: NotRequired[bool | None]


class JSONSchemaFormat(TypedDict):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    json_schema: JSONSchema


ResponseFormat = TextFormat | JSONObjectFormat | JSONSchemaFormat | Mapping[str, Any]


class FunctionDefinition(TypedDict):
    """A function that the model may call."""

    name: str
    description: NotRequired[str]
    parameters: NotRequired[Mapping[str, Any]]
    strict: NotRequired[bool | None]


class FunctionTool(TypedDict):
    """A tool that is a function."""

    type: Literal["function"]
    function: FunctionDefinition


class CustomDefinition(TypedDict):
    """The definition of a tool whose input is free text in some format."""

    name: str
    description: NotRequired[str]
    format: NotRequired[Mapping[str, Any]]


class CustomTool(TypedDict):
    """A tool whose input is free text."""

    type: Literal["custom"]
    custom: CustomDefinition


ToolParameter = FunctionTool | CustomTool | Mapping[str, Any]


class Named(TypedDict):
    """A name."""

    name: str


class FunctionChoice(TypedDict):
    """The function that must be called."""

    type: Literal["function"]
    function: Named


class CustomChoice(TypedDict):
    """The custom tool that must be called."""

    type: Literal["custom"]
    custom: Named


class AllowedTools(TypedDict):
    """Some of the tools, and whether one must be called."""

    mode: Literal["auto", "required"]
    tools: Sequence[Mapping[str, Any]]


class AllowedToolsChoice(TypedDict):
    """The tools that may be called."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


ToolMode = Literal["none", "auto", "required"] | str  # noqa: PYI051 - as above
ToolChoice = ToolMode | FunctionChoice | CustomChoice | AllowedToolsChoice | Mapping[str, Any]


class CommonParameters(TypedDict, total=False):
    """The endpoint's parameters that mean the same wherever they are given.

    Editors show the sentence below a field at the parameter. Values that only the server can judge are sent unchanged.
    """

    audio: AudioOptions | Mapping[str, Any] | None
    """The voice and the format of spoken output; needed if `modalities` has `audio`."""
    frequency_penalty: float | None
    """From -2 to 2: above 0, tokens become less likely with each occurrence."""
    function_call: Literal["none", "auto"] | Named | Mapping[str, Any]
    """Deprecated: use `tool_choice`."""
    functions: Sequence[FunctionDefinition | Mapping[str, Any]]
    """Deprecated: use `tools`."""
    logit_bias: Mapping[str, float] | None
    """For token ids, as texts: from -100 (never) to 100 (always), added before sampling."""
    logprobs: bool | None
    """Whether to return the log probabilities of the output's tokens, in `choice.logprobs`."""
    max_completion_tokens: int | None
    """The most tokens to generate, including reasoning. OpenAI's reasoning models accept only this one."""
    max_tokens: int | None
    """The most tokens to generate. Most other servers accept this one; OpenAI deprecates it."""
    metadata: Mapping[str, str] | None
    """Up to 16 pairs of text, kept with a stored completion."""
    modalities: Sequence[Modality] | None
    """The kinds of output: `text`, or `text` and `audio`."""
    moderation: Mapping[str, Any] | None
    """How to moderate input and output."""
    n: int | None
    """How many choices to generate; all of them are charged."""
    parallel_tool_calls: bool
    """Whether the model may call several tools in one turn."""
    prediction: Prediction | Mapping[str, Any] | None
    """Text that the output will mostly repeat, so that it arrives sooner."""
    presence_penalty: float | None
    """From -2 to 2: above 0, tokens that have occurred at all become less likely."""
    prompt_cache_key: str | None
    """Requests with the same key are more likely to find their prompts' beginnings in the cache."""
    prompt_cache_options: Mapping[str, Any]
    """How to cache the prompt."""
    prompt_cache_retention: CacheRetention | None
    """How long the prompt's beginning stays in the cache."""
    reasoning_effort: ReasoningEffort | None
    """How much a reasoning model thinks before it answers."""
    safety_identifier: str | None
    """A stable id of the end user, hashed, for the detection of misuse."""
    seed: int | None
    """The same seed and parameters give mostly the same output, where the server supports it."""
    service_tier: ServiceTier | None
    """Which processing tier serves the request, with its price and speed."""
    stop: str | Sequence[str] | None
    """Up to four texts; the output ends before the first one that occurs."""
    store: bool | None
    """Whether to store the completion at OpenAI."""
    stream_options: StreamOptions | Mapping[str, Any] | None
    """What a stream reports besides; `include_usage` is on unless this is given."""
    temperature: float | None
    """The sampling temperature, from 0 (nearly deterministic) to 2."""
    tool_choice: ToolChoice
    """Whether the model calls tools: `none`, `auto`, `required`, or the tool that it must call."""
    top_logprobs: int | None
    """How many likely tokens to return for each position, from 0 to 20; needs `logprobs`."""
    top_p: float | None
    """Sample from the likeliest tokens that have this probability together, from 0 to 1."""
    user: str
    """An id of the end user. OpenAI replaces it by `safety_identifier` and `prompt_cache_key`."""
    verbosity: Verbosity | None
    """How long and detailed the response is."""
    web_search_options: Mapping[str, Any]
    """Let the model search the web, and where."""


class ChatParameters(CommonParameters, total=False):
    """The endpoint's parameters besides `model`, `messages` and `stream`."""

    response_format: ResponseFormat
    """The form of the response: text, any JSON object, or JSON that follows a schema."""
    tools: Sequence[ToolParameter]
    """The tools that the model may call, as the endpoint's own definitions."""


class TaskParameters(ChatParameters, total=False):
    """The parameters of a task: the endpoint's, and others. `stream=False` requests a response without streaming."""

    model: str
    """The model's name."""
    stream: bool
    """`False` requests a response that arrives all at once."""
    extra_body: Mapping[str, Any]
    """Fields of the body that the endpoint does not list, such as vLLM's `top_k`."""
    extra_headers: Mapping[str, str]
    """Headers for this request alone."""
    extra_query: Mapping[str, Any]
    """Query parameters for this request alone."""
