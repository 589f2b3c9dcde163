"""A connection without sockets: plans in exact virtual time, and h11 kept an optional dependency."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream
from trio.testing import MockClock

from chatscope.simulator import Outcome, Plan, Repeat, Send, Wait
from chatscope.simulator.connection import Connection


class Recorder(ByteStream):
    """A stream that notes what is sent and when; sending takes `cost` seconds; the peer leaves after `stays`."""

    def __init__(self, *, stays: float = 3600.0, cost: float = 0.0) -> None:
        self.sent: list[tuple[float, bytes]] = []
        self._stays = stays
        self._cost = cost

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await anyio.sleep(self._stays)
        raise anyio.EndOfStream

    async def send(self, item: bytes) -> None:
        self.sent.append((anyio.current_time(), item))
        await anyio.sleep(self._cost)

    async def send_eof(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        raise NotImplementedError


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Run on trio's virtual clock, the only one that is exact."""
    return "trio", {"clock": MockClock(autojump_threshold=0)}


async def outcome(stream: Recorder, plan: Plan) -> Outcome:
    connection = Connection(stream)
    await connection.play(plan)
    return connection.outcome


async def test_waits_do_not_add_up_what_sending_takes() -> None:
    stream, start = Recorder(cost=0.03), anyio.current_time()
    plan = Plan((Wait(1.0), Send(b"a"), Wait(0.1), Send(b"b"), Wait(0.1), Send(b"c")))
    assert await outcome(stream, plan) is Outcome.COMPLETED
    assert [(round(at - start, 6), data) for at, data in stream.sent] == [(1.0, b"a"), (1.1, b"b"), (1.2, b"c")]


async def test_a_client_that_leaves_ends_a_wait_at_once() -> None:
    stream, start = Recorder(stays=5.0), anyio.current_time()
    assert await outcome(stream, Plan((Wait(60.0), Send(b"a")))) is Outcome.DISCONNECTED
    assert anyio.current_time() - start == pytest.approx(5.0)
    assert stream.sent == []


async def test_repetition_keeps_its_pace() -> None:
    stream, start = Recorder(stays=3.5), anyio.current_time()
    assert await outcome(stream, Plan((Repeat(b": ping\n\n", 1.0),))) is Outcome.DISCONNECTED
    assert [round(at - start, 6) for at, _ in stream.sent] == [1.0, 2.0, 3.0]


def test_without_h11_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h11", None)
    monkeypatch.delitem(sys.modules, "chatscope.simulator")
    with pytest.raises(ImportError, match=r"pip install 'chatscope\[simulator\]'"):
        importlib.import_module("chatscope.simulator")
