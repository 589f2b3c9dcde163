"""The exception tree: its shape, its attributes, and its way through pickle and copy."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any

from tests.support.tables import each_row

from chatscope import errors
from chatscope.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    ChatError,
    InternalServerError,
    OutputInvalidError,
    QuotaExceededError,
    RateLimitError,
    StreamServerError,
    ToolLoopError,
)
from chatscope.protocol.error_codes import QUOTA_CODES
from chatscope.protocol.error_meaning import status_error_class
from chatscope.protocol.response import Choice, Completion, CompletionMessage

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, ChatError)]


def tree(kind: type[ChatError], depth: int = 0) -> list[str]:
    lines = [f"{'  ' * depth}{kind.__name__}"]
    for child in sorted(kind.__subclasses__(), key=CLASSES_BY_LINE.index):
        lines += tree(child, depth + 1)
    return lines


CLASSES_BY_LINE = sorted(CLASSES, key=lambda kind: inspect.getsourcelines(kind)[1])


def test_the_tree_is_the_one_that_is_drawn() -> None:
    drawn = [line for line in inspect.getdoc(errors).splitlines() if "Error" in line and not line.startswith("What")]  # type: ignore[union-attr]  # there is one
    indented = [
        line.replace("\u2502", " ").replace("\u251c\u2500\u2500", "   ").replace("\u2514\u2500\u2500", "   ")
        for line in drawn
    ]
    shape = [(len(line) - len(line.lstrip()), line.split()[0]) for line in indented]
    smallest = shape[0][0]
    assert [f"{'  ' * ((depth - smallest) // 4)}{name}" for depth, name in shape] == tree(ChatError)


KNOWN: dict[str, Any] = {
    "status": 429,
    "code": "c",
    "type": "t",
    "param": "p",
    "request_id": "r",
    "body": {"error": {"message": "m"}},
    "phase": "idle",
    "partial_text": "text",
    "retry_after": 1.5,
    "should_retry": True,
    "where": "POST http://a/v1",
    "hint": "a hint",
}


def full(kind: type[ChatError]) -> ChatError:
    """Return an error with a value in every attribute, those of its own class included."""
    error = kind("what happened")
    for name in vars(error):
        if name not in {"message", "not_retried"}:
            setattr(error, name, KNOWN.get(name, [{"own": 1}]))
    error.not_retried = "a reason"
    return error


def test_what_an_error_carries() -> None:
    error = ChatError("what happened", **{name: KNOWN[name] for name in KNOWN.keys() - {"where", "hint"}})
    assert error.args == ("what happened",)
    assert error.message == "what happened"
    assert error.status == error.status_code == 429
    assert (error.code, error.type, error.param, error.request_id) == ("c", "t", "p", "r")
    assert error.body == {"error": {"message": "m"}}
    assert (error.phase, error.partial_text, error.retry_after, error.should_retry) == ("idle", "text", 1.5, True)


def test_what_an_output_error_carries() -> None:
    completion = Completion(choices=[Choice(message=CompletionMessage(content="text"))], request_id="r")
    error = OutputInvalidError("no", completion=completion)
    assert error.completion is completion
    assert (error.partial_text, error.request_id) == ("text", "r")
    assert OutputInvalidError("no").completion is None
    assert OutputInvalidError("no").partial_text == ""


def test_what_a_tool_loop_error_carries() -> None:
    messages = [{"role": "user", "content": "hi"}]
    assert ToolLoopError("no", messages=messages).messages is messages
    assert ToolLoopError("no").messages == ()


def test_what_it_carries_if_nothing_is_known() -> None:
    known = vars(ChatError("m"))
    assert {name: value for name, value in known.items() if value is not None} == {
        "message": "m",
        "attempts": 0,
        "partial_text": "",
    }
    assert ChatError().message == ""
    assert ChatError("m").status_code is None


def test_why_it_was_not_retried_stands_in_the_text() -> None:
    error = RateLimitError("HTTP 429: slow down")
    assert str(error) == "HTTP 429: slow down"
    error.not_retried = "the server asks to wait 300 s"
    assert str(error) == "HTTP 429: slow down (not retried: the server asks to wait 300 s)"
    assert error.message == "HTTP 429: slow down"
    assert repr(error) == "RateLimitError('HTTP 429: slow down')"


THROUGH: list[Callable[[ChatError], ChatError]] = [
    copy.copy,
    copy.deepcopy,
    *(
        lambda error, protocol=protocol: pickle.loads(pickle.dumps(error, protocol))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    ),
]


@each_row("kind", CLASSES)
def test_an_error_survives_pickle_and_copy(kind: type[ChatError]) -> None:
    error = full(kind)
    error.add_note("a note")
    for through in THROUGH:
        other = through(error)
        assert type(other) is kind
        assert other is not error
        assert vars(other) == vars(error)
        assert other.args == error.args
        assert str(other) == str(error) == "what happened (POST http://a/v1; a hint; not retried: a reason)"
        assert other.__notes__ == ["a note"]


def test_the_class_for_a_status() -> None:
    known = {
        400: "BadRequestError",
        401: "AuthenticationError",
        402: "QuotaExceededError",
        403: "PermissionDeniedError",
        404: "NotFoundError",
        409: "ConflictError",
        422: "UnprocessableEntityError",
        429: "RateLimitError",
    }
    for status in range(400, 600):
        kind = status_error_class(status)
        assert kind.__name__ == ("InternalServerError" if status >= 500 else known.get(status, "APIStatusError"))
        assert issubclass(kind, APIStatusError)


def test_a_quota_code_goes_before_the_status() -> None:
    for code in QUOTA_CODES:
        for status in (400, 403, 429, 500):
            assert status_error_class(status, code) is QuotaExceededError
            assert status_error_class(status, None, code) is QuotaExceededError
    assert status_error_class(429, "rate_limit_exceeded", "requests") is RateLimitError


def test_who_catches_what() -> None:
    assert issubclass(APITimeoutError, APIConnectionError)
    assert issubclass(QuotaExceededError, RateLimitError)
    assert not issubclass(APIConnectionError, APIStatusError)
    assert not issubclass(StreamServerError, APIStatusError)
    assert not issubclass(InternalServerError, APIConnectionError)
    assert not issubclass(ChatError, (OSError, TimeoutError))
