"""The endpoint's parameters, as types: what `complete`, `stream` and `Task.parameters` may be given.

Values that the endpoint lists are literals for editors to offer; where servers have more, any text is allowed. An
object that they extend may also be any mapping.
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
    """The voice of a spoken reply and its format."""

    voice: str | Mapping[str, Any]
    format: Literal["wav", "aac", "mp3", "flac", "opus", "pcm16"] | str  # noqa: PYI051 - as above


class StreamOptions(TypedDict, total=False):
    """What a stream holds besides the reply."""

    include_usage: bool
    include_obfuscation: bool


class Prediction(TypedDict):
    """What the reply will mostly be."""

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
    """A tool that takes free text, of some format."""

    name: str
    description: NotRequired[str]
    format: NotRequired[Mapping[str, Any]]


class CustomTool(TypedDict):
    """A tool that takes free text."""

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
    """The endpoint's parameters that mean the same wherever they are given."""

    audio: AudioOptions | Mapping[str, Any] | None
    frequency_penalty: float | None
    function_call: Literal["none", "auto"] | Named | Mapping[str, Any]
    functions: Sequence[FunctionDefinition | Mapping[str, Any]]
    logit_bias: Mapping[str, float] | None
    logprobs: bool | None
    max_completion_tokens: int | None
    max_tokens: int | None
    metadata: Mapping[str, str] | None
    modalities: Sequence[Modality] | None
    moderation: Mapping[str, Any] | None
    n: int | None
    parallel_tool_calls: bool
    prediction: Prediction | Mapping[str, Any] | None
    presence_penalty: float | None
    prompt_cache_key: str | None
    prompt_cache_options: Mapping[str, Any]
    prompt_cache_retention: CacheRetention | None
    reasoning_effort: ReasoningEffort | None
    safety_identifier: str | None
    seed: int | None
    service_tier: ServiceTier | None
    stop: str | Sequence[str] | None
    store: bool | None
    stream_options: StreamOptions | Mapping[str, Any] | None
    temperature: float | None
    tool_choice: ToolChoice
    top_logprobs: int | None
    top_p: float | None
    user: str
    verbosity: Verbosity | None
    web_search_options: Mapping[str, Any]


class ChatParameters(CommonParameters, total=False):
    """The endpoint's parameters besides `model`, `messages` and `stream`."""

    response_format: ResponseFormat
    tools: Sequence[ToolParameter]


class TaskParameters(ChatParameters, total=False):
    """The parameters of a task: the endpoint's, and what it does not list. `stream=False` asks for a plain reply."""

    model: str
    stream: bool
    extra_body: Mapping[str, Any]
    extra_headers: Mapping[str, str]
    extra_query: Mapping[str, Any]
