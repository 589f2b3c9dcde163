"""The key stays a secret: in no repr, error, traceback, log record or statistics."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from traceback import TracebackException

import anyio
import pytest
import sniffio
import trio
from tests.faults.rows import events, instead, wire
from tests.support.certificates import Certificates
from tests.support.defaults import BRIEF, MODEL, RETRY
from tests.support.loopback import Listener, Nobody, Server, close, reset
from tests.support.reachable import is_ours, reachable
from tests.support.secrets import KEY, adapter_for

from chatscope import ChatClient, ChatError, Chunk, Result, Task
from chatscope.simulator import Carrier, Close, ErrorShape, Reply, Response, Stage, error, faults, respond, simulator
from chatscope.simulator.config import Script
from chatscope.transport import HTTPTransport

MESSAGES = [{"role": "user", "content": "hi"}]


def shown(error: BaseException, *, with_locals: bool = True) -> str:
    """Return everything that a log, a debugger or a tool for tracebacks would show of an error and its causes.

    Args:
        error: the error.
        with_locals: the local variables of every frame too. What a server has sent may be among them as it came.
    """
    told = TracebackException.from_exception(error, capture_locals=with_locals)
    return "\n".join([str(error), repr(error), repr(vars(error)), *told.format()])


def all_of(result: Result) -> str:
    """Return everything that a result shows, field by field."""
    return "\n".join(
        [repr(result), str(result), *(f"{field.name}={getattr(result, field.name)!r}" for field in fields(result))]
    )


def formatted(records: list[logging.LogRecord]) -> str:
    """Return log records with everything that a handler may show of them."""
    return "\n".join(f"{logging.Formatter().format(record)} {vars(record)!r}" for record in records)


# -- what the package's objects show of themselves ---------------------------------------------------------------------


def check_reprs(*roots: object) -> set[type]:
    """Show that the key can be reached and no object of the package shows it; return the classes of the objects."""
    holders = 0
    classes = set()
    for thing in reachable(*roots):
        if isinstance(thing, str):
            holders += KEY in thing
        elif isinstance(thing, bytes):
            holders += KEY.encode() in thing
        elif is_ours(thing):
            classes.add(type(thing))
            assert KEY not in repr(thing), f"the repr of {type(thing)}"
            assert KEY not in str(thing), f"the str of {type(thing)}"
            assert KEY not in f"{thing}", f"the format of {type(thing)}"
            if is_dataclass(thing):
                assert KEY not in "".join(repr(getattr(thing, field.name)) for field in fields(thing) if field.repr)
    assert holders > 0, "the walk did not come to the key"
    return classes


async def test_no_object_shows_it() -> None:
    server = simulator([Reply(faults=(faults.stall(1),))])
    async with server as base_url, adapter_for(base_url, timeout=30) as adapter:
        handle = adapter.start_task(Task("hi"))
        first = await anext(handle.stream())
        classes = check_reprs(adapter, handle, *tasks_of_the_loop())
        names, modules = {each.__name__ for each in classes}, {each.__module__ for each in classes}
        assert names >= {"AsyncChatGPTAdapter", "ChatTask", "ClientCore", "Endpoint", "HTTPTransport"}
        rooms = {"_client", "_http", "_limits", "_tasks", "protocol", "transport"}
        assert {module.split(".")[1] for module in modules} >= rooms, "the walk did not come to every room"
        assert await handle.cancel()
    assert handle.text == first
    check_reprs(adapter, handle)


def tasks_of_the_loop() -> list[object]:
    """Return what holds the local variables of everything that is going on."""
    if sniffio.current_async_library() == "asyncio":
        return list(asyncio.all_tasks())
    found: list[object] = []
    waiting = [trio.lowlevel.current_root_task()]
    while waiting:
        if (task := waiting.pop()) is not None:
            found.append(task.coro)
            waiting += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return found


async def test_no_object_of_a_client_shows_it() -> None:
    async with simulator(Reply(between_tokens=0.001)) as base_url:
        client = ChatClient(KEY, base_url=base_url, transport=HTTPTransport(trust_env=False))
        check_reprs(client)
        async with client, client.stream(model=MODEL, messages=MESSAGES) as stream:
            check_reprs(client, stream)
            check_reprs(client, stream, [chunk async for chunk in stream], stream.completion, stream.timings)
        check_reprs(client, stream)


async def test_no_count_shows_it() -> None:
    transport = HTTPTransport(trust_env=False)
    async with simulator() as base_url, adapter_for(base_url, transport=transport) as adapter:
        result = await adapter.execute(Task("hi"))
        assert KEY not in all_of(result.raise_for_error())
        assert KEY not in f"{adapter.statistics()} {transport.statistics()} {adapter.get_adapter_status()}"


# -- servers that repeat it --------------------------------------------------------------------------------------------

SAYS = f"Incorrect API key provided: {KEY}. See https://example.invalid/keys?of={KEY}"


def in_a_stream(shape: ErrorShape, carrier: Carrier, at: int) -> Reply:
    return Reply(faults=(faults.stream_error(at, shape, carrier=carrier, message=SAYS, code=KEY, kind=KEY),))


def with_header(name: str, value: str, status: int = 401) -> Response:
    return respond(status, b'{"error": {"message": "no"}}', headers=((name, value),))


ECHOES: dict[str, Script] = {
    **{
        f"{status} {shape.value}": error(status, SAYS, shape=shape, code=KEY, kind=KEY, param=KEY)
        for shape in ErrorShape
        for status in (401, 500)
    },
    **{
        f"in a stream, {shape.value}, {carrier.name} {at}": in_a_stream(shape, carrier, at)
        for shape in ErrorShape
        for carrier in Carrier
        for at in (0, 1)
    },
    "escaped as JSON may be": respond(
        401, json.dumps({"error": {"message": SAYS, "param": KEY}}).replace("/", "\\/").encode()
    ),
    "escaped byte by byte": respond(
        401, b'{"error": "%b"}' % "".join(f"\\u{ord(letter):04x}" for letter in KEY).encode()
    ),
    "escaped in a stream": events(json.dumps({"error": {"message": SAYS}}).replace("/", "\\/")),
    "in a page": respond(403, f"<html><body>{SAYS}</body></html>".encode(), "text/html"),
    "in a page, with success": respond(200, f"<html><body>{SAYS}</body></html>".encode(), "text/html"),
    "in plain text": respond(400, SAYS.encode(), "text/plain"),
    "in a name": respond(401, json.dumps({"error": {"message": "no", KEY: KEY}}).encode()),
    "in a list": respond(422, json.dumps({"detail": [{"input": {"authorization": f"Bearer {KEY}"}}]}).encode()),
    "in what is no completion": respond(200, json.dumps({"you_sent": KEY}).encode()),
    "in an event that is no JSON": events(SAYS),
    "in an event cut off": events('{"choices": [{"delta": {"content": "Hi"}}]}', '{"x": "' + KEY),
    "in a request id": with_header("x-request-id", KEY),
    "in retry-after": with_header("retry-after", KEY, 429),
    "in www-authenticate": with_header("www-authenticate", f'Bearer error="{KEY}"'),
    "in the place to go to": with_header("location", f"http://127.0.0.1:9/{KEY}", 302),
    "in a content type": with_header("content-type", f"text/{KEY}", 200),
    "in a content encoding": with_header("content-encoding", KEY, 200),
    "in the reason": Response(401, reason=f"No {KEY}"),
    "in a line that is no header": wire(f"HTTP/1.1 200 OK\r\n{KEY}\r\n\r\n".encode(), Close()),
    "in a status line": wire(f"HTTP/1.1 {KEY}\r\n\r\n".encode(), Close()),
    "in a transfer coding": wire(f"HTTP/1.1 200 OK\r\ntransfer-encoding: {KEY}\r\n\r\n".encode(), Close()),
    "in the size of a chunk": wire(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", f"{KEY}\r\n".encode(), Close()
    ),
}


@pytest.mark.one_loop
@pytest.mark.parametrize("name", ECHOES)
async def test_a_server_that_repeats_it(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with simulator(ECHOES[name]) as base_url, adapter_for(base_url) as adapter:
        streamed = await adapter.execute(Task("hi"))
        whole = await adapter.execute(Task("hi", parameters={"stream": False}))
        status = f"{adapter.get_adapter_status()} {adapter.statistics()}"
    for result in (streamed, whole):
        assert KEY not in all_of(result)
        if result.exception is not None:
            assert KEY not in shown(result.exception, with_locals=False)
            for thing in reachable(result.exception):
                if is_ours(thing) and not isinstance(thing, Chunk):  # a chunk is what the server sent
                    assert KEY not in repr(thing), f"the repr of {type(thing)}"
    assert streamed.exception is not None
    assert KEY not in status
    assert KEY not in formatted(
        [record for record in caplog.records if not record.name.startswith("chatscope.simulator")]
    )


# -- errors of every kind, their tracebacks and logs -------------------------------------------------------------------


def on_sockets(script: Script) -> Callable[[Certificates], Server]:
    return lambda _: simulator(script)


TROUBLES: dict[str, Callable[[Certificates], Server]] = {  # of the connection
    "refused": lambda _: Nobody(),
    "unreachable": lambda _: Nobody(full=True),
    "closed when accepted": lambda _: Listener(close),
    "reset when accepted": lambda _: Listener(reset),
    "TLS": lambda made: simulator(ssl_context=made.self_signed),
    "silent": on_sockets(faults.stall(Stage.STATUS)),
    "closed within the head": on_sockets(faults.close(Stage.HEADERS)),
    "silent after a token": on_sockets(faults.stall(1)),
    "closed after a token": on_sockets(faults.close(1)),
    "reset within a chunk": on_sockets(instead(faults.cut_chunk(1), Close())),
}

WORDS: dict[str, Callable[[Certificates], Server]] = {  # of the response, which no loop sees
    "no JSON": on_sockets(faults.malformed(1)),
    "no gzip": on_sockets(faults.header("content-encoding", "gzip")),
    "401": on_sockets(error(401)),
    "429, then 500": on_sockets([error(429), error(500)]),
    "a wait too long": on_sockets(error(429, retry_after=1000)),
    "nothing": on_sockets(Reply()),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TROUBLES, *(pytest.param(name, marks=pytest.mark.one_loop) for name in WORDS)])
async def test_no_error_and_no_log_shows_it(
    name: str, certificates: Certificates, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    caplog.set_level(logging.DEBUG)
    caught: list[ChatError] = []
    async with (TROUBLES | WORDS)[name](certificates) as base_url:
        async with adapter_for(base_url) as adapter:
            result = await adapter.execute(Task("hi"))
        async with ChatClient(
            KEY, base_url=base_url, timeout=BRIEF, retry=RETRY, transport=HTTPTransport(trust_env=False)
        ) as client:
            try:
                async with client.stream(model=MODEL, messages=MESSAGES) as stream:
                    async for _ in stream:
                        pass
            except ChatError as error:
                caught.append(error)
            try:
                await client.complete(model=MODEL, messages=MESSAGES)
            except ChatError as error:
                caught.append(error)
    assert KEY not in all_of(result)
    for failure in [*caught, *([result.exception] if result.exception else [])]:
        assert KEY not in shown(failure)
    assert KEY not in formatted(caplog.records)
    assert KEY not in "".join(str(vars(warning)) for warning in recwarn)


async def test_a_cancelled_call_does_not_show_it() -> None:
    caught: BaseException | None = None
    async with simulator(faults.stall(1)) as base_url, adapter_for(base_url, timeout=30) as adapter:
        handle = adapter.start_task(Task("hi"))
        await anext(handle.stream())
        with anyio.CancelScope() as scope:
            scope.cancel()
            try:
                await adapter.execute(Task("hi"))
            except BaseException as error:
                caught = error
                raise
        assert await handle.cancel()
    assert caught is not None
    assert KEY not in shown(caught)
    result = await handle.wait()
    assert result.exception is not None
    assert KEY not in all_of(result) + shown(result.exception)
