"""Which library reads a type, msgspec or pydantic, and the fields of a class, whatever library it comes from.

Neither library knows the other's classes. msgspec reads its Structs and attrs classes; pydantic reads its models and
any type with pydantic's metadata. Both read everything else (dataclasses, enums, unions, lists, ...), except that
msgspec refuses unions of several classes without tags, and enums of mixed values. pydantic is not imported here: if a
type needs it, it has already been imported. Not here: the parts of a type that neither reads (`type_parts`).
"""

from __future__ import annotations

import dataclasses
import enum
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import InitVar
from typing import Annotated, Any, Final, NamedTuple, get_args, get_origin, get_type_hints

import msgspec

_PYDANTIC_MODULES: Final = frozenset({"pydantic", "pydantic_core", "annotated_types"})

_APART: Final = "apart"
"""Marks a union, an enum or a dataclass that msgspec refuses."""

UNIONS: Final = frozenset({typing.Union, types.UnionType})


class Field(NamedTuple):
    """A field of a class, or a parameter of a function.

    Attributes:
        name: its name as a keyword argument of the class.
        key: its name in JSON.
        kind: its type.
        is_required: whether it has no default.
    """

    name: str
    key: str
    kind: Any
    is_required: bool


def fields_of(kind: Any) -> Sequence[Field] | None:
    """Return the fields of a class that JSON objects are decoded to; `None` for every other type."""
    cls = get_origin(kind) or kind
    if not isinstance(cls, type):
        return None
    if is_pydantic_class(cls):
        own: Mapping[str, Any] = getattr(cls, "__pydantic_fields__", None) or {}
        return [_pydantic_field(name, info) for name, info in own.items()]
    if issubclass(cls, msgspec.Struct):
        return [Field(one.name, one.encode_name, one.type, one.required) for one in msgspec.structs.fields(kind)]
    if hasattr(cls, "__attrs_attrs__"):
        hints = _hints(kind)
        nothing = sys.modules["attr"].NOTHING
        return [
            Field(one.alias or one.name, one.name, hints.get(one.name, Any), one.default is nothing)
            for one in cls.__attrs_attrs__
            if one.init
        ]
    if dataclasses.is_dataclass(cls):
        return _dataclass_fields(kind, cls)
    if is_typed_dict(cls):
        return [Field(name, name, hint, name in cls.__required_keys__) for name, hint in _hints(kind).items()]  # type: ignore[attr-defined]
    return None


def _dataclass_fields(kind: Any, cls: Any) -> list[Field]:
    """Return the parameters of a dataclass, `InitVar`s among them."""
    hints = {name: hint.type if isinstance(hint, InitVar) else hint for name, hint in _hints(kind).items()}
    accepted = {one.name for one in dataclasses.fields(cls) if one.init}.union(_init_vars(cls))
    return [
        Field(name, name, hints[name], one.default is one.default_factory is dataclasses.MISSING)
        for name, one in cls.__dataclass_fields__.items()
        if name in accepted
    ]


def _init_vars(cls: type) -> list[str]:
    """Return the names of a dataclass's `InitVar`s, which msgspec does not read."""
    fields: Mapping[str, Any] = getattr(cls, "__dataclass_fields__", {})
    stored = {one.name for one in dataclasses.fields(cls)} if fields else ()
    return [name for name in fields.keys() - stored if isinstance(_hints(cls)[name], InitVar)]


def is_typed_dict(cls: Any) -> bool:
    """Return whether a class is a TypedDict: of typing, or of typing_extensions, as pydantic asks for before 3.12."""
    return typing.is_typeddict(cls) or type(cls).__name__ == "_TypedDictMeta"


def classes_in(kind: Any) -> Sequence[Any]:
    """Return the members of a union, or else the type alone; without metadata."""
    bare, _ = without_metadata(kind)
    return [without_metadata(one)[0] for one in get_args(bare)] if get_origin(bare) in UNIONS else [bare]


def reader_of(kind: Any) -> str | None:
    """Return the library that reads a type as a whole; `None` if none does."""
    needs = _libraries(kind, [])
    if "pydantic" in needs:
        return None if "msgspec" in needs else "pydantic"
    return None if _APART in needs else "msgspec"


def _libraries(kind: Any, seen: list[Any]) -> set[str]:
    """Return which libraries a type needs, and whether it holds a type that msgspec refuses."""
    bare, metadata = without_metadata(kind)
    found = {library for item in metadata if (library := _library_of_metadata(item))}
    if bare in seen:
        return found
    seen.append(bare)
    cls = get_origin(bare) or bare
    if isinstance(cls, type):
        if is_pydantic_class(cls):
            found.add("pydantic")
        elif issubclass(cls, msgspec.Struct | msgspec.Raw) or hasattr(cls, "__attrs_attrs__"):
            found.add("msgspec")
        elif is_typed_dict(cls) and sys.version_info < (3, 12) and type(cls).__module__ == "typing":
            found.add("msgspec")  # pydantic refuses them before Python 3.12
        elif _init_vars(cls) or (
            issubclass(cls, enum.Enum) and {type(member.value) for member in cls} not in ({str}, {int})
        ):
            found.add(_APART)
    inner = list(get_args(bare))
    if sum(map(is_untagged, classes_in(bare))) > 1:
        found.add(_APART)
    if isinstance(cls, type):
        inner += _field_kinds(bare, cls)
    for one in inner:
        found |= _libraries(one, seen)
    return found


def _field_kinds(kind: Any, cls: type) -> list[Any]:
    """Return the types of a class's fields, as far as they can be read."""
    try:
        if issubclass(cls, tuple) and hasattr(cls, "_fields"):
            return list(_hints(kind).values())
        if is_pydantic_class(cls):
            # Not `fields_of`, which asks for the libraries of each field: classes may refer to one another.
            return [info.annotation for info in (getattr(cls, "__pydantic_fields__", None) or {}).values()]
        return [field.kind for field in fields_of(kind) or ()]
    except Exception:  # noqa: BLE001 - an unresolved name: the library that reads the type reports it in its words
        return []


def is_untagged(cls: Any) -> bool:
    """Return whether msgspec reads a class whose JSON objects have no tag to identify it."""
    origin = get_origin(cls) or cls
    if not isinstance(origin, type) or is_pydantic_class(origin):
        return False
    if issubclass(origin, msgspec.Struct):
        return origin.__struct_config__.tag is None
    return dataclasses.is_dataclass(origin) or hasattr(origin, "__attrs_attrs__") or is_typed_dict(origin)


def _library_of_metadata(item: Any) -> str | None:
    if isinstance(item, msgspec.Meta):
        return "msgspec"
    is_pydantics = type(item).__module__.partition(".")[0] in _PYDANTIC_MODULES and "pydantic" in sys.modules
    return "pydantic" if is_pydantics else None


def is_pydantic_class(cls: type) -> bool:
    return hasattr(cls, "__get_pydantic_core_schema__") or hasattr(cls, "__pydantic_core_schema__")


def _pydantic_field(name: str, info: Any) -> Field:
    alias = info.validation_alias if isinstance(info.validation_alias, str) else info.alias
    kind = info.annotation
    if "msgspec" not in _libraries(kind, []):
        kind = Annotated[kind, info]  # with the constraints, which pydantic checks
    elif info.description:
        kind = Annotated[kind, msgspec.Meta(description=info.description)]
    return Field(name, alias or name, kind, info.is_required())


def without_metadata(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return what an alias stands for, and the metadata of `Annotated` around it."""
    metadata: tuple[Any, ...] = ()
    while True:
        if get_origin(kind) is Annotated:
            kind, *outer = get_args(kind)
            metadata = (*outer, *metadata)
        elif hasattr(kind, "__supertype__"):  # a NewType
            kind = kind.__supertype__
        elif type(kind).__name__ == "TypeAliasType":
            kind = kind.__value__
        else:
            return kind, metadata


def _hints(kind: Any) -> dict[str, Any]:
    """Return the types of a class's attributes, with type parameters replaced by a generic class's arguments."""
    cls = get_origin(kind) or kind
    bound = dict(zip(getattr(cls, "__parameters__", ()), get_args(kind), strict=False))
    hints = get_type_hints(cls, include_extras=True)
    return {name: _bound(hint, bound) for name, hint in hints.items()}


def _bound(hint: Any, bound: Mapping[Any, Any]) -> Any:
    if get_origin(hint) in {typing.Required, typing.NotRequired}:
        (hint,) = get_args(hint)
    if hint in bound:
        return bound[hint]
    parameters = getattr(hint, "__parameters__", ())
    return hint[tuple(bound.get(one, one) for one in parameters)] if bound and parameters else hint
