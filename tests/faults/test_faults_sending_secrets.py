"""The key goes to one host and no other, and no header can be made to say more than its value."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from tests.support.checks import until
from tests.support.secrets import KEY, adapter_for
from tests.support.tables import each_row

from chatscope import AsyncChatGPTAdapter, ChatClient, ChatError, Task
from chatscope.simulator import Config, respond, simulator


@pytest.mark.one_loop
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("own_client", [False, True], ids=["transport", "http_client"])
async def test_no_other_host_gets_it(status: int, own_client: bool) -> None:
    elsewhere = simulator()
    async with elsewhere as other_url:
        here = simulator(
            respond(status, headers=(("location", f"{other_url}/chat/completions"),)), Config(api_keys=frozenset({KEY}))
        )
        async with here as base_url, httpx.AsyncClient(follow_redirects=True, trust_env=False) as http_client:
            options: dict[str, Any] = {"http_client": http_client, "transport": None} if own_client else {}
            async with adapter_for(base_url, timeout=30, **options) as adapter:
                for parameters in ({}, {"stream": False}):
                    result = await adapter.execute(Task("hi", parameters=parameters))
                    assert isinstance(result.exception, ChatError)
                    assert result.exception.status == status
        assert [request.headers["authorization"] for request in here.requests] == [f"Bearer {KEY}"] * 2
        assert elsewhere.connections_accepted == 0
        await until(lambda: here.connections_open == 0)


BREAKS = ["\r\n", "\n", "\r", "\0"]


@each_row("line_break", BREAKS, ids=["crlf", "lf", "cr", "nul"])
@each_row(
    ("argument", "options"),
    [
        ("api_key", {"api_key": "{}"}),
        ("organization", {"organization": "{}"}),
        ("project", {"project": "{}"}),
        ("default_headers", {"default_headers": {"x-mine": "{}"}}),
    ],
)
def test_header_values_with_line_breaks(argument: str, options: dict[str, Any], line_break: str) -> None:
    def broken(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: broken(inner) for name, inner in value.items()}
        return value.format(f"{KEY}{line_break}x-more: 1")

    given: dict[str, Any] = {"api_key": KEY, **broken(options)}
    for make in (AsyncChatGPTAdapter, ChatClient):
        with pytest.raises(ValueError, match=argument) as caught:
            make(**given)
        assert KEY not in str(caught.value) + repr(caught.value)


@pytest.mark.one_loop
@pytest.mark.parametrize("line_break", BREAKS, ids=["crlf", "lf", "cr", "nul"])
async def test_a_requests_own_header_with_a_line_break(line_break: str) -> None:
    server = simulator()
    headers = {"x-mine": f"{KEY}{line_break}x-more: 1"}
    async with server as base_url, adapter_for(base_url) as adapter:
        with pytest.raises(ValueError, match="extra_headers") as caught:
            adapter.start_task(Task("hi", parameters={"extra_headers": headers}))
        assert KEY not in str(caught.value)
        with pytest.raises(ValueError, match="extra_headers"):
            adapter.start_task(Task("hi", parameters={"extra_headers": {f"x{line_break}y": "1"}}))
    assert server.connections_accepted == 0


@each_row(
    "wrong",
    [
        {"timeout": -1},
        {"base_url": "ftp://x"},
        {"max_concurrency": 0},
        {"model": ""},
        {"transport": 1, "http_client": 1},
    ],
)
def test_other_wrong_arguments_do_not_show_it(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))) as caught:
        AsyncChatGPTAdapter(KEY, **wrong)
    assert KEY not in str(caught.value) + repr(caught.value)
