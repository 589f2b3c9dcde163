"""Run the application with uvicorn. `--simulate` starts a model that needs no key."""

from __future__ import annotations

import argparse
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from functools import partial
from typing import Final

import anyio
import uvicorn

from chatscope.simulator import Reply, simulator
from examples.streaming_server.app import create_app

STORY: Final = Reply(
    "A page asks a server, and the server asks a model. While the model writes, its words pass through one task, which "
    "belongs to one request, which belongs to one browser. Close the page now, and see what is left: no task, no "
    "connection, and no bill for words that nobody reads.",
    first_token=0.5,
    between_tokens=0.08,
)

GRACE: Final = 5
"""Seconds that running responses get when the server stops. Then uvicorn cancels them."""


async def main(port: int, *, simulate: bool) -> None:
    """Serve until SIGINT or SIGTERM."""
    model: AbstractAsyncContextManager[str | None] = simulator(STORY) if simulate else nullcontext()
    async with model as base_url:
        app = create_app(base_url, "simulated" if simulate else None)
        await uvicorn.Server(uvicorn.Config(app, port=port, timeout_graceful_shutdown=GRACE)).serve()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m examples.streaming_server", description=__doc__)
    parser.add_argument("--port", type=int, default=8080, help="0 means any free port (default: %(default)s)")
    parser.add_argument("--simulate", action="store_true", help="use a simulated model, not OPENAI_BASE_URL")
    arguments = parser.parse_args()
    with suppress(KeyboardInterrupt):  # uvicorn raises it again after a clean stop
        anyio.run(partial(main, arguments.port, simulate=arguments.simulate))
