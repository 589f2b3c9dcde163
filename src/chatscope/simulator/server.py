"""The server: listens, decides what each request gets, records what came and how it ended.

It decides who is let in and hands the rest to the script; HTTP is `connection`'s, what replies look like `replies`'.
"""

from __future__ import annotations

import logging
import signal
import ssl
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import TYPE_CHECKING, Any

import anyio
import h11
import msgspec
from anyio.abc import ByteStream, Listener, SocketAttribute
from anyio.streams.tls import TLSListener

from chatscope.simulator.config import DEFAULT_CONFIG, Config, Script, answer_at
from chatscope.simulator.connection import BodyTooLargeError, Connection, Incoming, Outcome
from chatscope.simulator.directives import directed
from chatscope.simulator.errors import error, respond
from chatscope.simulator.faults import Fault
from chatscope.simulator.limits import RateLimits
from chatscope.simulator.plan import Framing, Plan, Response
from chatscope.simulator.rendering import respond_to
from chatscope.simulator.replies import Reply, cost
from chatscope.simulator.request import ChatRequest, Headers, RefusedError

if TYPE_CHECKING:
    from types import TracebackType

    from anyio.abc import TaskGroup

logger = logging.getLogger(__name__)

DEFAULT_SCRIPT = Reply()

DEFAULT_MODELS = ("gpt-4o-mini", "gpt-4o")
"""What `/models` lists where every model is let in."""


@dataclass(slots=True, eq=False)
class Received:
    """A request that the simulator received, and how its answer ended.

    A client may have read the whole answer a moment before `outcome` says so: tests wait with `Simulator.wait_until`.
    """

    number: int
    """1 for the first."""
    method: str
    path: str
    headers: Headers
    content: bytes = field(repr=False)
    time: float
    """When all of it had arrived, in seconds of the event loop's clock."""
    outcome: Outcome = Outcome.RUNNING

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return msgspec.json.decode(self.content)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a simulator listens; the fields are `simulator`'s arguments."""

    host: str
    port: int
    uds: str | PathLike[str] | None
    ssl_context: ssl.SSLContext | None

    async def listen(self) -> tuple[Listener[Any], str]:
        """Open the listener; return it with its base URL."""
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
    """An OpenAI-compatible chat server that lives as long as its `async with` block.

    Entering gives the base URL; the object itself tells what was received. Leaving the block, also by cancellation,
    closes every connection at once; the block's own exception passes through as it is, not in a group.
    """

    def __init__(self, script: Script, config: Config, address: Address) -> None:
        self.config = config
        self.requests: deque[Received] = deque(maxlen=config.keep_requests)
        """The latest requests, oldest first."""
        self.requests_received = 0
        self.connections_accepted = 0
        self.connections_open = 0
        self._address = address
        self._script = script
        self._played = 0  # how many requests of the script were answered
        self._changed: anyio.Event | None = None

    @property
    def script(self) -> Script:
        """What is answered; may be replaced at any time, and then begins with the next request."""
        return self._script

    @script.setter
    def script(self, script: Script) -> None:
        self._script = script
        self._played = 0

    async def __aenter__(self) -> str:
        """Start listening; return the base URL.

        Raises:
            OSError: The address cannot be listened on.
        """
        self._listener, base_url = await self._address.listen()
        self._limits = RateLimits(
            self.config.requests_per_minute, self.config.tokens_per_minute, now=anyio.current_time()
        )
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
            await self._group.__aexit__(None, None, None)  # shown the block's exception, it would wrap it
        finally:
            with anyio.CancelScope(shield=True):  # closing a listener only yields once
                await self._listener.aclose()

    async def wait_until(self, condition: Callable[[Simulator], bool]) -> None:
        """Wait until a condition on this simulator's requests and connections holds.

        `await server.wait_until(lambda s: s.requests[0].outcome is Outcome.DISCONNECTED)`
        """
        while not condition(self):
            changed = self._changed = self._changed or anyio.Event()
            await changed.wait()

    def _notify(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    # -- one connection ------------------------------------------------------------------------------------------------

    async def _serve(self, stream: ByteStream) -> None:
        """Answer the requests of one connection; whatever goes wrong here ends here."""
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
            await connection.play(self._plan(received, incoming))
        finally:
            received.outcome = connection.outcome
            self._notify()

    # -- what it answers -----------------------------------------------------------------------------------------------

    def _plan(self, received: Received, incoming: Incoming) -> Plan:
        try:
            response = self._response(received)
        except RefusedError as refusal:
            response = refusal.response
        except Exception as problem:
            logger.exception("The script of the simulator failed.")
            # To ask again would change nothing, and hold up whoever wants to know.
            response = error(
                500, f"The script of the simulator failed: {problem!r}", headers=(("x-should-retry", "false"),)
            )
        if isinstance(response, Plan):
            return response
        response = response.with_default_header("x-request-id", f"req_{received.number:08d}")
        if not incoming.chunked and response.framing is Framing.CHUNKED:
            response = replace(response, framing=Framing.CLOSE)
        return response.plan()

    def _response(self, received: Received) -> Response | Plan:
        path = received.path.partition("?")[0]
        if not path.endswith(("/chat/completions", "/models")):
            raise RefusedError(error(404, f"Invalid URL ({received.method} {path})"))
        if received.method != ("GET" if path.endswith("/models") else "POST"):
            raise RefusedError(error(405, f"Not allowed to {received.method} on {path}", code="method_not_supported"))
        self._check_key(received.headers)
        if path.endswith("/models"):
            return self._models()
        request = ChatRequest.parse(
            received.content, received.headers, number=received.number, created=int(time.time())
        )
        model = request.parameters.model
        if self.config.models and model not in self.config.models:
            message = f"The model `{model}` does not exist or you do not have access to it."
            raise RefusedError(error(404, message, code="model_not_found"))
        return self._completion(request)

    def _completion(self, request: ChatRequest) -> Response | Plan:
        answer = answer_at(self._script, self._played, request)
        if self.config.directives and isinstance(answer, Reply | Fault):
            answer = directed(request, answer if isinstance(answer, Reply) else Reply(faults=(answer,)))
        now = anyio.current_time()
        refusal = self._limits.admit(cost(request, answer), request.parameters.model, now)
        if refusal is not None:
            raise RefusedError(refusal.with_headers(*self._limits.headers(now)))
        self._played += 1  # a request that the limits refuse does not use up an answer of the script
        response = respond_to(request, answer)
        return response if isinstance(response, Plan) else response.with_headers(*self._limits.headers(now))

    def _check_key(self, headers: Headers) -> None:
        if not self.config.api_keys:
            return
        key = headers.get("api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        if not key:
            raise RefusedError(error(401, "You didn't provide an API key."))
        if key not in self.config.api_keys:
            raise RefusedError(error(401, "Incorrect API key provided.", code="invalid_api_key"))

    def _models(self) -> Response:
        models = [
            {"id": model, "object": "model", "created": 0, "owned_by": "simulator"}
            for model in self.config.models or DEFAULT_MODELS
        ]
        return respond(200, msgspec.json.encode({"object": "list", "data": models}))


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
) -> Simulator:
    """Return a simulator, whose `async with` block gives the base URL.

    Args:
        script: What it answers: one answer, a sequence of which the last is repeated, or a function of the request.
        config: What it demands: keys, models, limits.
        host: The address to listen on.
        port: The port; 0: a free one.
        uds: Path of a Unix socket to listen on instead.
        ssl_context: Serve TLS with this.
    """
    return Simulator(script, config, Address(host, port, uds, ssl_context))


async def serve(
    host: str = "127.0.0.1",
    port: int = 0,
    config: Config = DEFAULT_CONFIG,
    *,
    script: Script = DEFAULT_SCRIPT,
    on_ready: Callable[[str], object] = print,
) -> None:
    """Run a simulator until SIGINT or SIGTERM, or until cancelled; all its connections are closed by then.

    To be called in the main thread, since it handles signals (on Windows it leaves them alone).

    Args:
        host: The address to listen on.
        port: The port; 0: a free one.
        config: What it demands of clients.
        script: What it answers.
        on_ready: Called with the base URL once it listens.

    Raises:
        OSError: The address cannot be listened on.
    """
    async with simulator(script, config, host=host, port=port) as base_url:
        if sys.platform == "win32":  # pragma: no cover - asyncio has no signal handlers there
            on_ready(base_url)
            await anyio.sleep_forever()
        else:
            with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                on_ready(base_url)
                await anext(signals)
