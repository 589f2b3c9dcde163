"""Run the application with uvicorn; `--simulate` brings a model along that needs no key."""

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
    "A page asks, and a server asks a model on its behalf. While the model writes, its words pass through one task, "
    "which belongs to one request, which belongs to one browser. Close the page now, and watch what remains: no task, "
    "no connection, and no bill for words that nobody reads.",
    first_token=0.5,
    between_tokens=0.08,
)

GRACE: Final = 5
"""Seconds that answers in progress get when the server is told to stop; then uvicorn cancels them."""


async def main(port: int, *, simulate: bool) -> None:
    """Serve until SIGINT or SIGTERM."""
    model: AbstractAsyncContextManager[str | None] = simulator(STORY) if simulate else nullcontext()
    async with model as base_url:
        app = create_app(base_url, "simulated" if simulate else None)
        await uvicorn.Server(uvicorn.Config(app, port=port, timeout_graceful_shutdown=GRACE)).serve()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m examples.streaming_server", description=__doc__)
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--simulate", action="store_true", help="ask a simulated model, not the one of OPENAI_BASE_URL")
    arguments = parser.parse_args()
    with suppress(KeyboardInterrupt):  # uvicorn raises it once more after it has stopped in good order
        anyio.run(partial(main, arguments.port, simulate=arguments.simulate))
