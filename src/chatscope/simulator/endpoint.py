"""Decides the response to a request: the endpoint's checks, the script's answer, and the plan made from it.

Not here: how requests are received (`server.py`), and how plans run (`connection.py`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import msgspec

from chatscope.simulator.config import Config, Script, answer_at
from chatscope.simulator.connection import Incoming, Outcome
from chatscope.simulator.directives import directed
from chatscope.simulator.errors import error, respond
from chatscope.simulator.faults import Fault
from chatscope.simulator.limits import RateLimits
from chatscope.simulator.plan import Framing, Plan, Response
from chatscope.simulator.rendering import respond_to
from chatscope.simulator.replies import Reply, cost
from chatscope.simulator.request import ChatRequest, Headers, RefusedError
from chatscope.simulator.tokenizer import PATH, tokenized

_logger = logging.getLogger(__name__)

DEFAULT_MODELS = ("gpt-4o-mini", "gpt-4o")
"""The models that `/models` lists if the configuration allows all."""


@dataclass(slots=True, eq=False)
class Received:
    """A request that the simulator received, and how its response ended.

    A client may have read the whole response a moment before `outcome` changes. Tests wait with
    `Simulator.wait_until`.
    """

    number: int
    """1 for the first."""
    method: str
    path: str
    headers: Headers
    content: bytes = field(repr=False)
    time: float
    """When the whole request had been received, in seconds of the event loop's clock."""
    outcome: Outcome = Outcome.RUNNING
    status: int | None = None
    """The response's HTTP status; `None` if the script's answer is a `Plan`."""
    seconds: float | None = None
    """How long the response took, once it has ended."""

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return msgspec.json.decode(self.content)


class ScriptedEndpoint:
    """Decides the response to each request.

    Args:
        script: the answers.
        config: what requests must have.
        clock: returns the time in seconds, for the rate limits.
    """

    def __init__(self, script: Script, config: Config, clock: Callable[[], float] = anyio.current_time) -> None:
        self.config = config
        self._clock = clock
        self._script = script
        self._played = 0  # how many requests the script has answered

    @property
    def script(self) -> Script:
        """The answers. A new script begins with the next request."""
        return self._script

    @script.setter
    def script(self, script: Script) -> None:
        self._script = script
        self._played = 0

    def start(self) -> None:
        """Start the clock of the rate limits."""
        now = self._clock()
        self._limits = RateLimits(self.config.requests_per_minute, self.config.tokens_per_minute, now=now)

    def plan(self, received: Received, incoming: Incoming) -> Plan:
        """Return the plan of the response to a request. If the script raises, the response is a 500."""
        try:
            response = self._response(received)
        except RefusedError as refusal:
            response = refusal.response
        except Exception as problem:
            _logger.exception("The script of the simulator failed.")
            # Not retried: a retry would only delay the report of the script's bug.
            response = error(
                500, f"The script of the simulator failed: {problem!r}", headers=(("x-should-retry", "false"),)
            )
        if isinstance(response, Plan):
            return response
        response = response.with_default_header("x-request-id", f"req_{received.number:08d}")
        received.status = response.status
        if not incoming.chunked and response.framing is Framing.CHUNKED:
            response = replace(response, framing=Framing.CLOSE)
        return response.plan()

    def _response(self, received: Received) -> Response | Plan:
        path = received.path.partition("?")[0]
        if not self._is_known(path):
            raise RefusedError(error(404, f"Invalid URL ({received.method} {path})"))
        if received.method != ("GET" if path.endswith("/models") else "POST"):
            raise RefusedError(error(405, f"Not allowed to {received.method} on {path}", code="method_not_supported"))
        self._check_key(received.headers)
        if path.endswith("/models"):
            return self._models()
        if path.endswith(PATH) and self.config.tokenizer is not None:
            return tokenized(received.content, self.config.tokenizer)
        request = ChatRequest.parse(
            received.content, received.headers, number=received.number, created=int(time.time())
        )
        model = request.parameters.model
        if self.config.models and model not in self.config.models:
            message = f"The model `{model}` does not exist or you do not have access to it."
            raise RefusedError(error(404, message, code="model_not_found"))
        return self._completion(request)

    def _is_known(self, path: str) -> bool:
        base = self.config.base_path
        known = ("/chat/completions", "/models")
        if self.config.tokenizer is not None and path.endswith(PATH):
            return base is None or path == f"{base.removesuffix('/v1')}{PATH}"
        return path.endswith(known) if base is None else path in {f"{base}{name}" for name in known}

    def _completion(self, request: ChatRequest) -> Response | Plan:
        answer = answer_at(self._script, self._played, request)
        if self.config.directives and isinstance(answer, Reply | Fault):
            answer = directed(request, answer if isinstance(answer, Reply) else Reply(faults=(answer,)))
        now = self._clock()
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
