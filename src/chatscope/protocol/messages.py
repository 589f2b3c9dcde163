"""The messages of a conversation and their parts in the endpoint's format: only types for plain dicts.

A message is a dict literal or any other mapping, because servers add their own roles, parts and fields. To make a type
checker refuse what the endpoint would refuse, annotate with a specific type, such as `UserMessage`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired, TypedDict

from chatscope.protocol.response import CompletionMessage


class TextPart(TypedDict):
    """Text."""

    type: Literal["text"]
    text: str


class ImageURL(TypedDict):
    """The URL of an image: an address that the server can reach, or a data URL."""

    url: str
    detail: NotRequired[Literal["auto", "low", "high", "original"] | str]  # noqa: PYI051 - the literals are for editors


class ImagePart(TypedDict):
    """An image."""

    type: Literal["image_url"]
    image_url: ImageURL


class AudioData(TypedDict):
    """Sound in base64."""

    data: str
    format: Literal["wav", "mp3"] | str  # noqa: PYI051 - as above


class AudioPart(TypedDict):
    """Sound."""

    type: Literal["input_audio"]
    input_audio: AudioData


class FileData(TypedDict, total=False):
    """A document: a data URL with its name, or the id of one that was uploaded."""

    file_data: str
    file_id: str
    filename: str


class FilePart(TypedDict):
    """A document."""

    type: Literal["file"]
    file: FileData


class RefusalPart(TypedDict):
    """A refusal by the assistant. Only an assistant message may hold one."""

    type: Literal["refusal"]
    refusal: str


ContentPart = TextPart | ImagePart | AudioPart | FilePart | RefusalPart | Mapping[str, Any]
"""One part of a message. The endpoint decides which parts a role may have."""

Content = str | Sequence[ContentPart]


class FunctionCallData(TypedDict):
    """A function that the assistant called; the arguments are JSON text."""

    name: str
    arguments: str


class CustomCallData(TypedDict):
    """A custom tool that the assistant called."""

    name: str
    input: str


class FunctionToolCall(TypedDict):
    """A call of a function, in an assistant message."""

    id: str
    type: Literal["function"]
    function: FunctionCallData


class CustomToolCall(TypedDict):
    """A call of a custom tool, in an assistant message."""

    id: str
    type: Literal["custom"]
    custom: CustomCallData


class DeveloperMessage(TypedDict):
    """Instructions: the name of the system message for newer models."""

    role: Literal["developer"]
    content: Content
    name: NotRequired[str]


class SystemMessage(TypedDict):
    """Instructions."""

    role: Literal["system"]
    content: Content
    name: NotRequired[str]


class UserMessage(TypedDict):
    """A message of the user."""

    role: Literal["user"]
    content: Content
    name: NotRequired[str]


class AudioReference(TypedDict):
    """An earlier spoken response, by its id."""

    id: str


class AssistantMessage(TypedDict):
    """A message of the model. `completion.message.to_dict()` returns one."""

    role: Literal["assistant"]
    content: NotRequired[Content | None]
    refusal: NotRequired[str | None]
    audio: NotRequired[AudioReference | None]
    tool_calls: NotRequired[Sequence[FunctionToolCall | CustomToolCall | Mapping[str, Any]]]
    function_call: NotRequired[FunctionCallData | None]
    name: NotRequired[str]


class ToolMessage(TypedDict):
    """The result of a tool. The id is that of the call."""

    role: Literal["tool"]
    content: Content
    tool_call_id: str


class FunctionMessage(TypedDict):
    """The result of a function. Deprecated, as `functions` is."""

    role: Literal["function"]
    content: str | None
    name: str


SentMessage = (
    DeveloperMessage
    | SystemMessage
    | UserMessage
    | AssistantMessage
    | ToolMessage
    | FunctionMessage
    | Mapping[str, Any]
)
"""One message of a conversation, as it is sent."""

Message = SentMessage | CompletionMessage
"""One message of a conversation. A model's message (`completion.message`) can be appended unchanged."""
