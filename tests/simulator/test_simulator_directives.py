"""Faults that a request chooses for itself, by header or in its prompt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from tests.support.tables import row

from chatscope.simulator import ChatRequest, Close, Plan, Reply, Response, Stall, UsageIn, Wait, error, respond_to
from chatscope.simulator.config import Config, answer_at
from chatscope.simulator.directives import DIRECTIVES, directed
from chatscope.simulator.request import Headers, RefusedError

Body = Callable[..., dict[str, Any]]

ARGUMENTS = {
    "content-type": "text/plain",
    "tokens": "3",
    "first-token": "0.5",
    "between-tokens": "0.1",
    "usage": "every",
    "status": "503",
    "drip": "0.1",
}


@pytest.fixture
def ask(body: Body) -> Callable[..., ChatRequest]:
    """Make a streamed request with directives."""

    def make(header: str = "", prompt: str = "hi") -> ChatRequest:
        content = msgspec.json.encode(body(prompt, stream=True))
        return ChatRequest.parse(content, Headers({"x-simulator": header}))

    return make


def test_every_directive_changes_the_response(ask: Callable[..., ChatRequest]) -> None:
    rows = DIRECTIVES
    for name in rows:
        with row(name):
            request = ask(f"{name}={ARGUMENTS[name]}" if name in ARGUMENTS else name)
            answer = directed(request, Reply("wide wörld"))
            changed = respond_to(request, answer)
            assert isinstance(changed, Response)
            if name == "tools":
                assert answer == Reply("wide wörld", use_tools=True)
            else:
                assert changed != respond_to(request, Reply("wide wörld"))


def test_header_and_prompt_add_up(ask: Callable[..., ChatRequest]) -> None:
    request = ask("tokens=3, first-token=0.5", "Hello [simulate: stall=2,close=done]! [simulate:usage=every]")
    answer = directed(request, Reply("a"))
    assert isinstance(answer, Reply)
    assert (answer.tokens, answer.first_token, answer.usage_in) == (3, 0.5, UsageIn.EVERY)
    response = respond_to(request, answer)
    assert isinstance(response, Response)
    assert [item for item in response.body if isinstance(item, Wait | Stall | Close)] == [Wait(0.5), Stall(), Close()]


def test_a_status_ends_the_matter(ask: Callable[..., ChatRequest]) -> None:
    assert directed(ask("status=429/1.5, stall"), Reply()) == error(429, retry_after=1.5)


def test_errors_in_the_stream(ask: Callable[..., ChatRequest]) -> None:
    request = ask("stream-error=flat@role")
    response = respond_to(request, directed(request, Reply()))
    assert isinstance(response, Response)
    assert response.content.startswith(b'data: {"object":"error"')


def test_no_directives(ask: Callable[..., ChatRequest]) -> None:
    reply = Reply()
    assert directed(ask(), reply) is reply


def test_nonsense_is_refused_with_the_list(ask: Callable[..., ChatRequest]) -> None:
    rows: list[tuple[str, str]] = [
        ("explode", "are: close[=POINT], reset[=POINT], stall"),
        ("stall=never", "is: stall[=POINT]."),
        ("status=many", "is: status=STATUS[/RETRY_AFTER]."),
        ("usage=sideways", "is: usage=PLACE."),
        ("tokens", "is: tokens=COUNT."),
    ]
    for header, forms in rows:
        with row(header):
            with pytest.raises(RefusedError) as caught:
                directed(ask(header), Reply())
            message = msgspec.json.decode(caught.value.response.content)["error"]["message"]
            assert message.startswith(f"Cannot simulate '{header}'; there {forms}")


def test_scripts(ask: Callable[..., ChatRequest]) -> None:
    request = ask()
    one, two, steps = Reply("1"), error(500), Plan(())
    assert answer_at(one, 5, request) is one
    assert answer_at(steps, 5, request) is steps
    assert [answer_at([one, two], played, request) for played in range(4)] == [one, two, two, two]
    assert answer_at([], 0, request) == Reply()
    assert answer_at(lambda asked: Reply(asked.prompt), 0, request) == Reply("hi")


def test_limits_below_one() -> None:
    rows: list[str] = ["requests_per_minute", "tokens_per_minute", "max_running", "keep_requests"]
    for name in rows:
        with row(name), pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
            Config(**{name: 0})  # type: ignore[arg-type]  # the names are checked at run time
