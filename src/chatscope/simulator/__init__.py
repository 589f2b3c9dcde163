"""An OpenAI-compatible chat server with faults on demand, for demonstrations, tests and benchmarks.

::

    async with simulator(Reply("Hello", first_token=0.2, between_tokens=0.05)) as base_url:
        ...

    server = simulator([error(429, retry_after=1), faults.reset(3), Reply("At last.")])
    async with server as base_url:
        ...
        await server.wait_until(lambda s: s.connections_open == 0)
        print(server.requests[0].json, server.requests[0].outcome)

From the lowest layer up: `plan` (steps and HTTP), `errors` and `faults` (changes to responses), `request`, `schemas`
and `tokens` (the request), `replies` and `rendering` (the model's reply and its spelling), `limits`, `config` and
`directives` (the policy), `connection` (HTTP), `endpoint` (what a request gets) and `server`.
"""

from __future__ import annotations

try:
    import h11 as h11
except ModuleNotFoundError as missing:
    raise ImportError("chatscope.simulator needs h11; install it with: pip install 'chatscope[simulator]'") from missing

from chatscope.simulator import faults
from chatscope.simulator.config import Config, Script
from chatscope.simulator.connection import Outcome
from chatscope.simulator.endpoint import Received
from chatscope.simulator.errors import ErrorShape, error, html, respond
from chatscope.simulator.faults import Carrier, Fault
from chatscope.simulator.plan import (
    Close,
    Framing,
    Part,
    Plan,
    Repeat,
    Reset,
    Response,
    Send,
    Stage,
    Stall,
    Until,
    Wait,
)
from chatscope.simulator.rendering import plan, respond_to
from chatscope.simulator.replies import Answer, Reply, ToolCall, UsageIn
from chatscope.simulator.request import ChatRequest
from chatscope.simulator.server import Simulator, serve, simulator

__all__ = [
    "Answer",
    "Carrier",
    "ChatRequest",
    "Close",
    "Config",
    "ErrorShape",
    "Fault",
    "Framing",
    "Outcome",
    "Part",
    "Plan",
    "Received",
    "Repeat",
    "Reply",
    "Reset",
    "Response",
    "Script",
    "Send",
    "Simulator",
    "Stage",
    "Stall",
    "ToolCall",
    "Until",
    "UsageIn",
    "Wait",
    "error",
    "faults",
    "html",
    "plan",
    "respond",
    "respond_to",
    "serve",
    "simulator",
]
