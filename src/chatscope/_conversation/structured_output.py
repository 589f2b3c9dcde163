"""Structured output: a type, the `response_format` that asks for it, and a response's text as a value of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, Generic, TypeVar, get_origin

from chatscope._conversation.decoding import arguments_decoder, text_decoder
from chatscope._conversation.json_schema import class_schema, closed_object
from chatscope._conversation.type_readers import Field
from chatscope.errors import OutputInvalidError, OutputRefusedError, OutputTruncatedError
from chatscope.protocol.response import Completion

if TYPE_CHECKING:
    # PEP 747: of a class and of a union alike.
    from typing_extensions import TypeForm as TypeForm  # noqa: PLC0414 - used elsewhere
else:
    TypeForm = type

T = TypeVar("T")

_CACHED: Final = 256
"""How many types are cached with their schemas: more than a program declares, yet a bound if it creates types."""

_CUT_OFF: Final = frozenset({"length", "max_tokens", "max_length", "model_length"})
"""Finish reasons of responses that were cut off: the endpoint's, Anthropic's, Gemini's and Mistral's."""

_FILTERED: Final = re.compile("filter|safety|sensitive|prohibited|blocklist|recitation|spii")
"""Finish reasons of responses that were filtered: the endpoint's, Gemini's and Zhipu's."""

_NOT_IN_NAMES: Final = re.compile(r"[^a-zA-Z0-9_-]")
"""Characters that the endpoint refuses in a schema's name, which may have 64 characters."""


@dataclass(frozen=True, slots=True)
class Output(Generic[T]):
    """The type of a response. Made by `Output.of`.

    Attributes:
        name: the type's name.
        response_format: the parameter that requests it from the endpoint.
        decode: decodes JSON text to a value; raises `ValueError` for text that does not fit.
    """

    name: str
    response_format: dict[str, Any]
    decode: Callable[[str], T]

    @classmethod
    def of(cls, kind: type[T] | Any, argument: str = "response_format", *, strict: bool = True) -> Output[T]:
        """Return the output for a msgspec Struct, dataclass, TypedDict, attrs class, pydantic model or other type.

        The endpoint requires an object at the root. Any other type (a list, a union, a number) is wrapped as the
        property `value` of an object, and unwrapped from the response.

        Args:
            kind: the type. Its name and docstring are sent with its schema. The model must write all its fields, even
                those with defaults; declare a field that may be missing as one that may be `None`.
            argument: what errors call it.
            strict: whether its schema is strict, so that the endpoint enforces it. Otherwise the model sees the schema,
                but may write something else; more types have such a schema.

        Raises:
            ValueError: no such schema can be derived from the type. The error names the argument, the place and the
                type.
        """
        cached: Any = _derived
        try:
            output: Output[T] = cached(kind, strict)
        except TypeError as error:  # it has no hash
            raise ValueError(f"{argument}: no schema can be derived from {kind!r}: {error}") from error
        except ValueError as error:
            raise ValueError(f"{argument}: {error}") from error
        return output

    def read(self, completion: Completion) -> T | None:
        """Return the value of a completion, or `None` if it calls tools, even if it also has text.

        Raises:
            OutputRefusedError: the model refused, or the server filtered the response.
            OutputTruncatedError: the response was cut off at the token limit.
            OutputInvalidError: the text does not fit the type.
        """
        message = completion.message
        if message.refusal:
            raise OutputRefusedError(f"the model refused: {message.refusal}", completion=completion)
        if message.tool_calls or message.function_call:
            return None
        try:
            return self.decode(completion.text)
        except (ValueError, RecursionError) as error:
            reason = (completion.finish_reason or "").lower()
            if reason in _CUT_OFF:
                problem = f"the response was cut off at the token limit, before the end of its {self.name}"
                raise OutputTruncatedError(problem, completion=completion) from error
            if _FILTERED.search(reason) is not None:
                raise OutputRefusedError("the server filtered the response", completion=completion) from error
            raise OutputInvalidError(
                f"the response is not of type {self.name}: {error}", completion=completion
            ) from error


@lru_cache(_CACHED)
def _derived(kind: Any, strict: bool) -> Output[Any]:
    origin = get_origin(kind) or kind
    name = origin.__name__ if isinstance(origin, type) and origin not in {UnionType, Annotated} else "output"
    schema = class_schema(kind, name, strict=strict)
    decode: Callable[[str], Any]
    if schema.get("type") == "object":
        decode = text_decoder(kind)
    else:
        definitions = {"$defs": schema.pop("$defs")} if "$defs" in schema else {}
        schema = closed_object({"value": schema}) | definitions
        decode = _value_decoder(kind)
    description = schema.pop("description", None)
    json_schema = {"name": _NOT_IN_NAMES.sub("_", name)[:64], "schema": schema, "strict": strict}
    if description:
        json_schema["description"] = description
    return Output(name, {"type": "json_schema", "json_schema": json_schema}, decode)


def _value_decoder(kind: Any) -> Callable[[str], Any]:
    decode = arguments_decoder("Value", [Field("value", "value", kind, is_required=True)])
    return lambda text: decode(text)["value"]
