"""Structured output: a type, the request's `response_format` for it, and a reply's text as a value of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from types import UnionType
from typing import Annotated, Any, Final, Generic, TypeVar, cast, get_origin

import msgspec

from chatscope._conversation.json_schema import class_schema, closed_object, is_model
from chatscope.errors import OutputInvalidError, OutputRefusedError, OutputTruncatedError
from chatscope.protocol.response import Completion

T = TypeVar("T")

_CACHED: Final = 256
"""How many types are kept with their schemas: more than a program declares, few enough for one that makes types."""

_NO_NAME: Final = re.compile(r"[^a-zA-Z0-9_-]")
"""What the endpoint does not take in the name of a schema; 64 characters is the most it takes."""


class ParsedCompletion(Completion, Generic[T], kw_only=True):
    """A whole reply whose text is a value of the type that was asked for.

    `parsed` is the first choice's; it is `None` if the model called tools instead of answering.
    """

    parsed: T = msgspec.field(default=cast(Any, None), name="<parsed>")

    @classmethod
    def of(cls, completion: Completion, parsed: T | None) -> ParsedCompletion[T]:
        """Return a completion together with its value, `None` where there is none."""
        given: dict[str, Any] = {name: getattr(completion, name) for name in Completion.__struct_fields__}
        given["parsed"] = parsed
        return cls(**given)


@dataclass(frozen=True, slots=True)
class Output(Generic[T]):
    """What a reply must be. Made by `Output.of`.

    Attributes:
        name: the type's.
        response_format: asks the endpoint for it.
        decode: makes the value from JSON text; raises `ValueError` for what does not fit.
    """

    name: str
    response_format: dict[str, Any]
    decode: Callable[[str], T]

    @classmethod
    def of(cls, kind: type[T] | Any, argument: str = "response_format") -> Output[T]:
        """Return what is asked for with a type: a msgspec Struct, dataclass, TypedDict, attrs class or pydantic model.

        The endpoint wants an object at the root. Any other type (a list, a union, a number) goes out as the property
        `value` of one, and is taken out of it again.

        Args:
            kind: the type. Its name and docstring go out with its schema; all its fields are required of the model,
                those with defaults too. A field that may be missing is one that may be `None`.
            argument: what an error calls it.

        Raises:
            ValueError: no strict schema can be derived from it; the error names the argument and the type.
        """
        cached: Any = _derived
        try:
            output: Output[T] = cached(kind)
        except TypeError as error:  # it has no hash
            raise ValueError(f"{argument}: no schema can be derived from {kind!r}: {error}") from error
        except ValueError as error:
            raise ValueError(f"{argument}: {error}") from error
        return output

    def read(self, completion: Completion) -> T | None:
        """Return the value that a reply is, or `None` if it calls tools instead of answering.

        Raises:
            OutputRefusedError: the model refused, or the server filtered its reply.
            OutputTruncatedError: the reply was cut at the token limit.
            OutputInvalidError: it is something else.
        """
        message = completion.message
        if message.refusal:
            raise OutputRefusedError(f"the model refused: {message.refusal}", completion=completion)
        if message.tool_calls and not completion.text:
            return None
        try:
            return self.decode(completion.text)
        except (ValueError, RecursionError) as error:
            if completion.finish_reason == "length":
                says = f"the reply was cut at the token limit, before the end of its {self.name}"
                raise OutputTruncatedError(says, completion=completion) from error
            if completion.finish_reason == "content_filter":
                raise OutputRefusedError("the server filtered the reply", completion=completion) from error
            raise OutputInvalidError(f"the reply is no {self.name}: {error}", completion=completion) from error


class _Wrapped(msgspec.Struct):
    """What a root that is no object goes out in."""

    value: msgspec.Raw


_wrapped: Final = msgspec.json.Decoder(_Wrapped)


def _decode_wrapped(decode: Callable[[bytes], T], text: str) -> T:
    return decode(bytes(_wrapped.decode(text).value))


@lru_cache(_CACHED)
def _derived(kind: Any) -> Output[Any]:
    origin = get_origin(kind) or kind
    name = origin.__name__ if isinstance(origin, type) and origin not in {UnionType, Annotated} else "output"
    schema = class_schema(kind, name)
    decode = kind.model_validate_json if is_model(kind) else msgspec.json.Decoder(kind).decode
    if schema.get("type") != "object":
        definitions = {"$defs": schema.pop("$defs")} if "$defs" in schema else {}
        schema, decode = closed_object({"value": schema}) | definitions, partial(_decode_wrapped, decode)
    description = schema.pop("description", None)
    json_schema = {"name": _NO_NAME.sub("_", name)[:64], "schema": schema, "strict": True}
    if description:
        json_schema["description"] = description
    return Output(name, {"type": "json_schema", "json_schema": json_schema}, decode)
