"""The paced server: the simulator's responses, each write stamped. Over sockets, in real time."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from threading import Event, Thread
from typing import Any

import httpx
import pytest

from chatscope.simulator import Config, Reply, Script, error, faults
from chatscope.simulator.paced import PacedServer
from chatscope.simulator.written import WrittenResponses

BODY: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": "Hi"}],
    "stream": True,
    "stream_options": {"include_usage": True},
}


class Running:
    """A paced server in a thread, and a client of it."""

    def __init__(self, server: PacedServer, client: httpx.Client) -> None:
        self.server = server
        self.client = client
        self.written: WrittenResponses | None = None
        self._thread = Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self.written = self.server.run()

    def ask(self, **more: Any) -> httpx.Response:
        return self.client.post(f"{self.server.base_url}/chat/completions", json=BODY | more)

    def end(self) -> WrittenResponses:
        self.server.stop()
        self._thread.join(10)
        assert self.written is not None
        return self.written


@pytest.fixture
def serve() -> Iterator[Callable[..., Running]]:
    @contextmanager
    def running(script: Script, config: Config) -> Iterator[Running]:
        with httpx.Client(trust_env=False) as client:
            found = Running(PacedServer(script, config), client)
            yield found
            found.end()

    with ExitStack() as stack:
        yield lambda script, config=Config(): stack.enter_context(running(script, config))  # noqa: B008 - frozen


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's stamps are Linux's")
def test_a_request_has_arrived_although_the_server_is_busy(serve: Callable[..., Running]) -> None:
    is_busy = Event()

    def reply(_request: Any) -> Reply:
        if not is_busy.is_set():
            is_busy.set()
            time.sleep(0.3)
        return Reply(tokens=1)

    running = serve(reply)
    first = Thread(target=running.ask)
    first.start()
    is_busy.wait(10)
    sent = time.perf_counter_ns()
    running.ask()
    first.join(10)
    arrived = max(each.arrived_ns for each in running.end().responses.values())
    assert 0 < arrived - sent < 200_000_000


def test_each_token_is_stamped_when_it_is_written(serve: Callable[..., Running]) -> None:
    running = serve(Reply(tokens=5, first_token=0.1, between_tokens=0.05))
    began = time.perf_counter_ns()
    response = running.ask()
    ended = time.perf_counter_ns()
    chunks = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
    assert sum(bool(chunk["choices"] and chunk["choices"][0]["delta"].get("content")) for chunk in chunks) == 5
    assert chunks[-1]["usage"]["completion_tokens"] == 5
    running.ask()
    written = running.end()
    assert list(written.responses) == [response.headers["x-request-id"], "req_00000002"]
    assert (written.tokens, written.held) == (10, written.late_p99 <= 0.002)
    first = written.responses["req_00000001"]
    assert began < first.arrived_ns < first.token_ns[0] < first.token_ns[-1] < ended
    assert first.token_ns[0] - first.arrived_ns >= 100_000_000
    assert first.token_ns[-1] - first.arrived_ns == pytest.approx(300_000_000, abs=50_000_000), "no delay adds up"
    assert all(after > before for before, after in pairwise(first.token_ns))


def test_responses_are_those_of_the_simulator(serve: Callable[..., Running]) -> None:
    answers = [error(503, "overloaded"), Reply("Hello"), Reply(tokens=5, faults=(faults.reset(2),)), Reply("Again")]
    running = serve(answers)
    assert running.ask().status_code == 503
    completion = running.ask(stream=False, stream_options=None)
    assert completion.json()["choices"][0]["message"]["content"] == "Hello"
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        running.ask()
    assert "Again" in running.ask().text
    assert running.client.get(f"{running.server.base_url}/nowhere").status_code == 404
    assert [len(each.token_ns) for each in running.end().responses.values()] == [1, 1, 2, 1, 1]


def test_requests_that_a_client_sends_ahead_get_their_responses(serve: Callable[..., Running]) -> None:
    url = httpx.URL(serve(Reply("Hi")).server.base_url)
    body = json.dumps({**BODY, "stream": False, "stream_options": None}).encode()
    request = b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    received = b""
    with socket.create_connection((url.host, url.port or 80), timeout=10) as sock:
        sock.sendall(2 * request)
        while received.count(b"HTTP/1.1 200") < 2:
            data = sock.recv(65536)
            assert data
            received += data


def test_a_client_that_leaves_gets_nothing_more(serve: Callable[..., Running]) -> None:
    running = serve(Reply(tokens=100, between_tokens=0.01))
    with running.client.stream("POST", f"{running.server.base_url}/chat/completions", json=BODY) as response:
        next(response.iter_bytes())
    with pytest.raises(httpx.ReadTimeout):
        running.client.post(
            f"{running.server.base_url}/chat/completions", json=BODY, headers={"x-simulator": "stall=0"}, timeout=0.2
        )
    time.sleep(0.1)
    written = running.end()
    assert len(written.responses["req_00000001"].token_ns) < 90
    assert written.responses["req_00000002"].token_ns == []


def test_a_slow_reader_gets_all_of_it(serve: Callable[..., Running]) -> None:
    running = serve(Reply(text="x" * 20_000_000))
    assert len(running.ask(stream=False, stream_options=None).json()["choices"][0]["message"]["content"]) == 20_000_000


def test_what_needs_an_event_loop_is_refused() -> None:
    with pytest.raises(ValueError, match="max_running must be None"):
        PacedServer(Reply(), Config(max_running=1))


def test_a_process_serves_until_its_input_ends() -> None:
    command = [sys.executable, "-m", "chatscope.simulator.paced", '{"tokens": 3}']
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        base_url = process.stdout.readline().strip()
        assert httpx.post(f"{base_url}/chat/completions", json=BODY, trust_env=False).status_code == 200
        rest, _ = process.communicate(timeout=20)
    assert len(json.loads(rest)["responses"]["req_00000001"]["token_ns"]) == 3
