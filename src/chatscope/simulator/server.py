"""The server: listens, and records each request and how its response ended.

Not here: the choice of a response (`endpoint.py`), and HTTP (`connection.py`).
"""

from __future__ import annotations

import logging
import signal
import ssl
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from os import PathLike
from typing import TYPE_CHECKING, Any

import anyio
import h11
from anyio.abc import ByteStream, Listener, SocketAttribute
from anyio.streams.tls import TLSListener

from chatscope.simulator.config import DEFAULT_CONFIG, Config, Script
from chatscope.simulator.connection import BodyTooLargeError, Connection, Incoming, Outcome
from chatscope.simulator.endpoint import Received, ScriptedEndpoint
from chatscope.simulator.errors import error
from chatscope.simulator.plan import Framing, Plan, Response
from chatscope.simulator.replies import Reply

if TYPE_CHECKING:
    from types import TracebackType

    from anyio.abc import TaskGroup

logger = logging.getLogger(__name__)

DEFAULT_SCRIPT = Reply()


@dataclass(frozen=True, slots=True)
class Address:
    """The address that a simulator listens on. The fields are arguments of `simulator`."""

    host: str
    port: int
    uds: str | PathLike[str] | None
    ssl_context: ssl.SSLContext | None

    async def listen(self) -> tuple[Listener[Any], str]:
        """Open the listener and return it with its base URL."""
        listener: Listener[Any]
        if self.uds is None:
            listener = await anyio.create_tcp_listener(local_host=self.host, local_port=self.port)
            host = f"[{self.host}]" if ":" in self.host else self.host
            port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - anyio's method, not Django's
            authority = f"{host}:{port}"
        else:
            listener, authority = await anyio.create_unix_listener(self.uds), "localhost"
        if self.ssl_context is None:
            return listener, f"http://{authority}/v1"
        return TLSListener(listener, self.ssl_context), f"https://{authority}/v1"


class Simulator:
    """An OpenAI-compatible chat server that runs as long as its `async with` block.

    Entering the block returns the base URL. The object itself records what was received. Leaving the block, even by
    cancellation, closes every connection at once. The block's own exception passes through as it is, not in a group.
    """

    def __init__(
        self,
        script: Script,
        config: Config,
        address: Address,
        on_end: Callable[[Received], object] | None = None,
    ) -> None:
        self.requests: deque[Received] = deque(maxlen=config.keep_requests)
        """The latest requests, oldest first."""
        self.requests_received = 0
        self.connections_accepted = 0
        self.connections_open = 0
        self._address = address
        self._on_end = on_end
        self._endpoint = ScriptedEndpoint(script, config)
        self._slots = None if config.max_running is None else anyio.Semaphore(config.max_running)
        self._changed: anyio.Event | None = None

    @property
    def script(self) -> Script:
        """The answers. May be replaced at any time; a new script begins with the next request."""
        return self._endpoint.script

    @script.setter
    def script(self, script: Script) -> None:
        self._endpoint.script = script

    @property
    def config(self) -> Config:
        """What clients must have. May be replaced at any time, but a new limit or `keep_requests` has no effect."""
        return self._endpoint.config

    @config.setter
    def config(self, config: Config) -> None:
        self._endpoint.config = config

    async def __aenter__(self) -> str:
        """Start listening and return the base URL.

        Raises:
            OSError: The address is not available.
        """
        self._listener, base_url = await self._address.listen()
        self._endpoint.start()
        self._group: TaskGroup = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._listener.serve, self._serve, self._group)
        return base_url

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop listening and close every connection."""
        self._group.cancel_scope.cancel()
        try:
            await self._group.__aexit__(None, None, None)  # given the block's exception, it would wrap it
        finally:
            with anyio.CancelScope(shield=True):  # closing a listener only yields once
                await self._listener.aclose()

    async def wait_until(self, condition: Callable[[Simulator], bool]) -> None:
        """Wait until a condition on this simulator's requests and connections is true.

        Cancelling the wait has no other effect.

        `await server.wait_until(lambda s: s.requests[0].outcome is Outcome.DISCONNECTED)`
        """
        while not condition(self):
            changed = self._changed = self._changed or anyio.Event()
            await changed.wait()

    def _notify(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def _serve(self, stream: ByteStream) -> None:
        """Respond to the requests of one connection. Failures are logged, never raised."""
        connection = Connection(stream)
        self.connections_accepted += 1
        self.connections_open += 1
        self._notify()
        try:
            await self._answer_requests(connection)
        except Exception:
            logger.exception("A connection of the simulator failed.")
        finally:
            await connection.close()
            self.connections_open -= 1
            self._notify()

    async def _answer_requests(self, connection: Connection) -> None:
        try:
            while (incoming := await connection.receive()) is not None:
                await self._answer_one(connection, incoming)
                if connection.outcome is not Outcome.COMPLETED or not incoming.keep_alive:
                    return
        except h11.RemoteProtocolError as problem:
            await connection.play(_last(error(problem.error_status_hint, f"This is not HTTP/1.1: {problem}.")))
        except BodyTooLargeError:
            await connection.play(_last(error(413, "The request body is too large.")))

    async def _answer_one(self, connection: Connection, incoming: Incoming) -> None:
        self.requests_received += 1
        received = Received(
            self.requests_received,
            incoming.method,
            incoming.path,
            incoming.headers,
            incoming.content,
            anyio.current_time(),
        )
        self.requests.append(received)
        self._notify()
        try:
            plan = self._endpoint.plan(received, incoming)
            queues = received.method == "POST" and received.status in {None, 200}  # a refusal needs no slot
            await connection.play(plan, self._slots if queues else None)
        finally:
            received.outcome = connection.outcome
            received.seconds = anyio.current_time() - received.time
            self._notify()
            if self._on_end is not None:
                self._on_end(received)


def _last(response: Response) -> Plan:
    return replace(response, framing=Framing.CLOSE).plan()


def simulator(
    script: Script = DEFAULT_SCRIPT,
    config: Config = DEFAULT_CONFIG,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    uds: str | PathLike[str] | None = None,
    ssl_context: ssl.SSLContext | None = None,
    on_end: Callable[[Received], object] | None = None,
) -> Simulator:
    """Return a simulator. Its `async with` block returns the base URL.

    Args:
        script: The answers: one answer, a sequence whose last answer is repeated, or a function of the request.
        config: What clients must have: keys, models, limits.
        host: The address to listen on.
        port: The port. 0 chooses a free one.
        uds: The path of a Unix socket to listen on instead.
        ssl_context: Serve TLS with this.
        on_end: Called with each request when its response has ended, however it ended.
    """
    return Simulator(script, config, Address(host, port, uds, ssl_context), on_end)


async def serve(
    host: str = "127.0.0.1",
    port: int = 0,
    config: Config = DEFAULT_CONFIG,
    *,
    script: Script = DEFAULT_SCRIPT,
    on_ready: Callable[[str], object] = print,
    on_end: Callable[[Received], object] | None = None,
) -> None:
    """Run a simulator until SIGINT or SIGTERM, or until cancelled, then close all its connections.

    Call it in the main thread: it handles signals (except on Windows).

    Args:
        host: The address to listen on.
        port: The port. 0 chooses a free one.
        config: What clients must have.
        script: The answers.
        on_ready: Called with the base URL once the simulator listens.
        on_end: Called with each request when its response has ended, however it ended.

    Raises:
        OSError: The address is not available.
    """
    async with simulator(script, config, host=host, port=port, on_end=on_end) as base_url:
        if sys.platform == "win32":  # pragma: no cover - asyncio has no signal handlers there
            on_ready(base_url)
            await anyio.sleep_forever()
        else:
            with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                on_ready(base_url)
                await anext(signals)
