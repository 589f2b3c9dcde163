"""The messages of a conversation and their parts, as the endpoint takes them: types for plain dicts, and nothing else.

A message is a dict literal or any other mapping: servers add roles, parts and fields of their own. Whoever wants a
checker to refuse what the endpoint would refuse annotates with the type that is meant, such as `UserMessage`.
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
    """Where an image is: an address that the server can reach, or a data URL."""

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
    """A refusal that the assistant gave; only an assistant message may hold one."""

    type: Literal["refusal"]
    refusal: str


ContentPart = TextPart | ImagePart | AudioPart | FilePart | RefusalPart | Mapping[str, Any]
"""One part of a message; which of them a role may have, the endpoint decides."""

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
    """Instructions; what newer models call the system message."""

    role: Literal["developer"]
    content: Content
    name: NotRequired[str]


class SystemMessage(TypedDict):
    """Instructions."""

    role: Literal["system"]
    content: Content
    name: NotRequired[str]


class UserMessage(TypedDict):
    """What the user says and shows."""

    role: Literal["user"]
    content: Content
    name: NotRequired[str]


class AudioReference(TypedDict):
    """An earlier reply in sound, by its id."""

    id: str


class AssistantMessage(TypedDict):
    """What the model said. `completion.message.to_dict()` makes one of a reply."""

    role: Literal["assistant"]
    content: NotRequired[Content | None]
    refusal: NotRequired[str | None]
    audio: NotRequired[AudioReference | None]
    tool_calls: NotRequired[Sequence[FunctionToolCall | CustomToolCall | Mapping[str, Any]]]
    function_call: NotRequired[FunctionCallData | None]
    name: NotRequired[str]


class ToolMessage(TypedDict):
    """What a tool answered; the id is that of the call."""

    role: Literal["tool"]
    content: Content
    tool_call_id: str


class FunctionMessage(TypedDict):
    """What a function answered; deprecated, as `functions` is."""

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
"""One message of a conversation. What a model answered (`completion.message`) can be appended as it is."""
