"""OpenStruct: the base of the endpoint's values. It keeps unknown fields, and refuses names that do not exist.

Not here: the values themselves (`response.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from chatscope._validation import unknown_attribute

_DUMPS: Final = {
    "model_dump": "to_dict()",
    "dict": "to_dict()",
    "model_dump_json": "msgspec.json.encode(....to_dict())",
    "json": "msgspec.json.encode(....to_dict())",
}
"""Names that users of the openai package look for, and their equivalents here."""

_ELSEWHERE: Final = {
    "Completion": {"_request_id": "request_id", "content": "text, or message.content"},
    "CompletionMessage": {"parsed": "completion.parsed"},
}
"""The same, by the name of a class."""


class OpenStruct(msgspec.Struct, kw_only=True, gc=False, forbid_unknown_fields=True):
    """A struct that stores fields for which it has no name in `extra`.

    The typed decoder refuses such fields, so unknown fields are noticed at once, and `decode.py` fills them in. No such
    struct can be part of a reference cycle, so the garbage collector ignores them (`gc=False`): a busy client creates
    thousands per second.
    """

    extra: dict[str, Any] = msgspec.field(default_factory=dict, name="<extra>")

    if not TYPE_CHECKING:  # a checker would take any name

        def __getattr__(self, name: str) -> Any:
            """Refuse a name that does not exist. For names of other libraries, the error says what to use instead."""
            dumps = _DUMPS if hasattr(type(self), "to_dict") else {}
            raise unknown_attribute(self, name, dumps | _ELSEWHERE.get(type(self).__name__, {}))
