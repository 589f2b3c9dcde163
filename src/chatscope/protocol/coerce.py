"""Converts decoded objects to structs, for responses that the typed decoder rejects.

There are two steps. `normalized` converts the known variants of a response's shape to the endpoint's own. `fit_struct`
then converts each field that needs no guessing, and leaves the others at their defaults. So one odd field never makes
the whole response invalid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from types import NoneType
from typing import Annotated, Any, Final, Literal, TypeVar, get_args, get_origin

import msgspec

from chatscope.protocol.content_parts import text_in
from chatscope.protocol.loading import dump, load

_S = TypeVar("_S", bound=msgspec.Struct)
_UNFIT: Final = object()

CONTENT_PARTS: Final = "<content_parts>"
"""The name under which a message's content is kept as a list of parts. A server must not set it."""

IS_WHOLE: Final = "<whole>"
"""The name under which a delta says that it arrived as a message. A server must not set it."""


def choices_of(loaded: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the choices of a decoded response, and nothing that is not a choice, such as an empty object."""
    return [choice for choice in as_list(loaded.get("choices")) if isinstance(choice, dict) and choice]


def as_list(value: Any) -> list[Any]:
    """Return a list. An object in place of a list becomes a list of one, or of its values by their places."""
    if isinstance(value, dict):
        by_place = bool(value) and all(name.isdecimal() for name in value)
        return list(value.values()) if by_place else [value] if value else []
    return value if isinstance(value, list) else []


def normalized(loaded: Mapping[str, Any], message: Literal["delta", "message"]) -> dict[str, Any]:
    """Return a copy of a response in the endpoint's shape.

    Args:
        loaded: a decoded completion or chunk.
        message: the name of the messages in the result. A whole completion may arrive as one event of a stream.
    """
    normal = dict(loaded)
    normal["choices"] = choices = []
    other = "message" if message == "delta" else "delta"
    for choice in map(dict, choices_of(loaded)):
        is_other = isinstance(choice.get(other), dict) and not _says_anything(choice.get(message))
        spoken = choice.pop(other) if is_other else choice.get(message)
        if isinstance(spoken, dict):
            choice[message] = _normalized_message(spoken) | ({IS_WHOLE: True} if is_other else {})
        if isinstance(logprobs := choice.get("logprobs"), dict):
            choice["logprobs"] = logprobs | {
                name: [logprobs[name]] for name in ("content", "refusal") if isinstance(logprobs.get(name), dict)
            }
        choices.append(choice)
    return normal


@cache
def fields_of(cls: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    """Return the fields of a struct. Cached, because determining them takes longer than decoding a response."""
    return msgspec.structs.fields(cls)


def fit_struct(loaded: Mapping[str, Any], cls: type[_S]) -> _S:
    """Build a struct field by field, skipping values that do not fit."""
    given = {
        field.name: _fit(loaded[field.encode_name], field.type)
        for field in fields_of(cls)
        if loaded.get(field.encode_name) is not None
    }
    return cls(**{name: value for name, value in given.items() if value is not _UNFIT})


def _says_anything(spoken: object) -> bool:
    """Return whether a message or a delta holds more than a role."""
    return isinstance(spoken, dict) and any(value for name, value in spoken.items() if name != "role")


def _normalized_message(spoken: dict[str, Any]) -> dict[str, Any]:
    normal = dict(spoken)
    normal.pop(IS_WHOLE, None)  # a server must not set it
    if isinstance(content := spoken.get("content"), list | dict):
        # Mistral's reasoning models send a list of parts.
        parts = as_list(content)
        normal["content"] = "".join(map(text_in, parts))
        normal[CONTENT_PARTS] = parts
    else:
        normal.pop(CONTENT_PARTS, None)  # a server must not set it
    if isinstance(calls := spoken.get("tool_calls"), str) and (whole := _json_in(calls)) is not None:
        normal["tool_calls"] = whole
    for name in ("annotations", "reasoning_details", "tool_calls"):
        if isinstance(normal.get(name), dict):
            normal[name] = as_list(normal[name])  # Spark sends its only tool call like that
    if isinstance(normal.get("tool_calls"), list):
        normal["tool_calls"] = [_normalized_call(call) for call in normal["tool_calls"] if isinstance(call, dict)]
    if isinstance(call := spoken.get("function_call"), dict):
        normal["function_call"] = _with_json_text(call, "arguments")
    return normal


def _normalized_call(call: dict[str, Any]) -> dict[str, Any]:
    normal = dict(call)
    if isinstance(name := call.get("function"), str):
        normal |= {"function": None, "name": name}
    elif isinstance(name, list):
        normal["function"] = next((item for item in name if isinstance(item, dict)), None)
    if not (isinstance(normal.get("function"), dict) or isinstance(normal.get("custom"), dict)) and (
        flat := {name: normal.pop(name) for name in ("name", "arguments") if name in normal}
    ):
        normal["function"] = flat  # some gateways send its fields without an object around them, beside the index
    for kind, argument in (("function", "arguments"), ("custom", "input")):
        if isinstance(inner := normal.get(kind), dict):
            normal[kind] = _with_json_text(inner, argument)
    return normal


def _json_in(text: str) -> Any:
    """Return the object or the list that text holds, or `None`."""
    try:
        loaded = load(text.encode())
    except ValueError:
        return None
    return loaded if isinstance(loaded, dict | list) else None


def _with_json_text(call: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a call whose arguments are JSON text, even if the server sent an object instead."""
    arguments = call.get(name)
    if arguments is None and isinstance(parameters := call.get("parameters"), dict):
        arguments = parameters  # as some models write them
    return call if arguments is None or isinstance(arguments, str) else call | {name: dump(arguments)}


def _fit(value: Any, wanted: Any) -> Any:
    """Return the value as the wanted type, or `_UNFIT`."""
    try:
        fitting = msgspec.convert(value, wanted, strict=isinstance(value, dict | list))
    except msgspec.ValidationError:
        pass
    else:
        # "NaN" and "Infinity" are not measurements. Minus infinity is the log probability of an impossible token.
        is_number = not isinstance(fitting, float) or math.isfinite(fitting) or fitting == -math.inf
        return fitting if is_number else _UNFIT
    if get_origin(wanted) is Annotated:
        return _fit_integer(value, get_args(wanted)[1])
    arms = [arm for arm in get_args(wanted) if arm is not NoneType]
    if get_origin(wanted) is list:
        items = [_fit(item, arms[0]) for item in as_list(value)]
        return [item for item in items if item is not _UNFIT] if isinstance(value, list | dict) else _UNFIT
    if arms:
        return _fit(value, arms[0])
    if isinstance(wanted, type) and issubclass(wanted, msgspec.Struct):
        return fit_struct(value, wanted) if isinstance(value, dict) else _UNFIT
    if wanted is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)  # not a bool: `"finish_reason": false` means that there is none
    return _UNFIT


def _fit_integer(value: Any, limits: msgspec.Meta) -> Any:
    """Round a fraction down: some servers send `created` with fractions of a second."""
    if not isinstance(value, float) or not math.isfinite(value):
        return _UNFIT
    least, most = limits.ge, limits.le
    return int(value) if least is not None and most is not None and least <= value <= most else _UNFIT
